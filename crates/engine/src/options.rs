//! What can be set when a hub is started.

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast_core::codec::COMPRESS_FROM_DEFAULT;
use steadfast_core::dispatch::ActivityLimit;

/// Settings of a hub. The defaults suit a service with a few cores.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Whether sessions stay in memory between turns, so that a turn needs no replay.
    pub extended_sessions: bool,
    /// How long an unused session stays in memory.
    pub session_idle_timeout: Duration,
    /// How many sessions may be in memory, over all partitions; the least recently used go first.
    pub resident_sessions_max: usize,
    /// How many activities may run at once, over all partitions, among which they are divided; the others wait: a greater
    /// priority goes first, and instances take turns.
    pub concurrent_activities_max: usize,
    /// Limits on activities by name, over all partitions: how many run at once, and how often they begin.
    pub activity_limits: BTreeMap<String, ActivityLimit>,
    /// How many client calls may be under way at each partition; further ones wait.
    pub pending_calls_max: usize,
    /// The largest payload (input, result, event, custom status), in bytes.
    pub payload_bytes_max: usize,
    /// From which size on payloads are compressed where they are stored, in bytes; `usize::MAX` for never, and never
    /// less than 1 KiB.
    pub compress_payloads_from: usize,
    /// How many messages may wait for one instance, because it has not begun or cannot run. Further ones from clients are
    /// turned away with [`crate::ClientError::TooManyMessages`]; terminations are always taken.
    pub instance_messages_max: usize,
    /// The greatest number of events in one execution's history. An execution that needs more fails with
    /// [`HISTORY_TOO_LONG`](steadfast_core::failure::kinds::HISTORY_TOO_LONG), unless it ends or continues as new in that
    /// turn.
    pub history_events_max: u64,
    /// The size in bytes from which on an execution's history is too long, with the same consequence.
    pub history_bytes_max: u64,
    /// At which part of these two bounds there is a warning in the log, in percent.
    pub history_warning_percent: u8,
    /// After how many crashed turns in a row an instance is left alone until [`crate::Client::release`]. A turn crashes when
    /// the runtime itself panics in it; errors and panics of user code are failures and do not count.
    pub turn_crashes_max: u32,
    /// How long an instance waits after its first crashed turn; the time doubles with each.
    pub turn_retry_delay: Duration,
    /// How often what changed is moved from the commit log to the instance store, at least.
    pub materialise_interval: Duration,
    /// The amount of changes, as bytes of memory for each partition, at which they are moved without waiting.
    pub materialise_after_bytes: usize,
    /// The amount of changes not yet moved, as bytes of memory for each partition, at which new work is held back.
    pub overlay_bytes_max: usize,
    /// How long [`crate::Hub::stop`] waits for activities that are running. Those that take longer are run again when
    /// the hub is next started.
    pub stop_timeout: Duration,
    /// How long a call waits for a partition that is being rebuilt after an error.
    pub unavailable_timeout: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            extended_sessions: true,
            session_idle_timeout: Duration::from_secs(30),
            resident_sessions_max: 20_000,
            concurrent_activities_max: 4096,
            activity_limits: BTreeMap::new(),
            pending_calls_max: 8192,
            payload_bytes_max: 16 << 20,
            compress_payloads_from: COMPRESS_FROM_DEFAULT,
            instance_messages_max: 100_000,
            history_events_max: 1_000_000,
            history_bytes_max: 1 << 30,
            history_warning_percent: 80,
            turn_crashes_max: 5,
            turn_retry_delay: Duration::from_secs(1),
            materialise_interval: Duration::from_millis(100),
            materialise_after_bytes: 32 << 20,
            overlay_bytes_max: 96 << 20,
            stop_timeout: Duration::from_secs(10),
            unavailable_timeout: Duration::from_secs(10),
        }
    }
}

impl HubOptions {
    /// Says what is wrong with the options, if anything is.
    pub(crate) fn check(&self) -> Result<(), String> {
        let nothing = [
            ("resident_sessions_max", self.resident_sessions_max),
            ("concurrent_activities_max", self.concurrent_activities_max),
            ("pending_calls_max", self.pending_calls_max),
            ("payload_bytes_max", self.payload_bytes_max),
            ("instance_messages_max", self.instance_messages_max),
        ];
        if let Some((name, _)) = nothing.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} is 0, and then nothing could ever be done; it is at least 1"));
        }
        for (name, limit) in &self.activity_limits {
            if let Some(problem) = limit.problem() {
                return Err(format!("the limit of activity '{name}' cannot be used: {problem}"));
            }
        }
        let (after, max) = (self.materialise_after_bytes, self.overlay_bytes_max);
        if after > max {
            return Err(format!(
                "materialise_after_bytes is {after} and overlay_bytes_max is {max}; changes must be moved before work is \
                 held back, so make the first the smaller one"
            ));
        }
        Ok(())
    }
}
