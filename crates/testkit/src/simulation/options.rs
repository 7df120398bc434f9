//! How a simulated hub behaves.

use std::time::Duration;

use steadfast_core::InstanceId;
use steadfast_store::Survival;

/// Which of the things that could happen next does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Everything of one kind, then everything of the next, round and round.
    Rounds,
    /// Any of them, as the random numbers say.
    Random,
}

/// How a simulated hub behaves. The defaults disturb nothing.
#[derive(Debug, Clone)]
pub struct SimulationOptions {
    /// How many partitions the hub has.
    pub partitions: u16,
    /// Where the random numbers begin.
    pub seed: u64,
    /// What happens next.
    pub schedule: Schedule,
    /// Whether sessions stay in memory between turns.
    pub extended_sessions: bool,
    /// How many sessions of one partition may be in memory.
    pub resident_sessions_max: usize,
    /// How long an unused session stays in memory.
    pub session_idle_timeout: Duration,
    /// After how many durable records a partition is materialised; 0 for never before [`finish`].
    ///
    /// [`finish`]: super::Simulation::finish
    pub materialise_every: u64,
    /// Of 100 messages between partitions, how many arrive twice.
    pub duplicates: u8,
    /// Of 100 messages between partitions, how many do not wait for those before them.
    pub reordered: u8,
    /// Of 100 messages between partitions, how many are lost and have to be sent again.
    pub lost: u8,
    /// Of 100 results of activities, how many are reported twice, which includes running the activity twice.
    pub repeated_activities: u8,
    /// Of 100 attempts at activities with a start-to-close timeout, how many take longer than that.
    pub timeouts: u8,
    /// Of 100 turns, how many crash.
    pub crashed_turns: u8,
    /// The only instance whose turns crash; all when absent.
    pub crashes_of: Option<String>,
    /// After how many crashed turns in a row an instance is left alone.
    pub turn_crashes_max: u32,
    /// Of 100 steps, how many let time pass although there is something else to do.
    pub hasty_time: u8,
    /// Compare each partition with one that is recovered from the store whenever nothing is under way.
    pub compare_with_recovered: bool,
    /// What survives when the store crashes at a scripted step.
    pub survival: Survival,
    /// The largest payload, in bytes.
    pub max_payload_bytes: usize,
}

impl Default for SimulationOptions {
    fn default() -> Self {
        Self {
            partitions: 1,
            seed: 0,
            schedule: Schedule::Rounds,
            extended_sessions: true,
            resident_sessions_max: 1000,
            session_idle_timeout: Duration::from_secs(30),
            materialise_every: 10,
            duplicates: 0,
            reordered: 0,
            lost: 0,
            repeated_activities: 0,
            timeouts: 0,
            crashed_turns: 0,
            crashes_of: None,
            turn_crashes_max: u32::MAX,
            hasty_time: 0,
            compare_with_recovered: false,
            survival: Survival::Synced,
            max_payload_bytes: 1 << 20,
        }
    }
}

impl SimulationOptions {
    /// Whether the turn that an instance is about to take crashes.
    pub(super) fn lets_crash(&self, instance: &InstanceId, random: &mut crate::SplitMix64) -> bool {
        let concerned = self.crashes_of.as_deref().is_none_or(|id| id == instance.as_str());
        concerned && random.chance(self.crashed_turns)
    }

    /// Whatever can be disturbed without losing what was acknowledged is disturbed, differently for each seed.
    pub fn rough(seed: u64) -> Self {
        let mut random = crate::SplitMix64::new(seed);
        Self {
            partitions: 1 + random.below(4) as u16,
            seed: random.next_u64(),
            schedule: Schedule::Random,
            extended_sessions: random.chance(70),
            resident_sessions_max: [1, 2, 1000][random.below(3)],
            session_idle_timeout: Duration::from_millis([1, 30_000][random.below(2)]),
            materialise_every: [0, 1, 2, 5, 20][random.below(5)],
            duplicates: [0, 30][random.below(2)],
            reordered: [0, 30][random.below(2)],
            lost: [0, 20][random.below(2)],
            repeated_activities: [0, 30][random.below(2)],
            timeouts: [0, 50][random.below(2)],
            hasty_time: [0, 0, 5][random.below(3)],
            compare_with_recovered: random.chance(30),
            survival: [Survival::Synced, Survival::Written, Survival::FirstWrites(2)][random.below(3)],
            ..Self::default()
        }
    }
}
