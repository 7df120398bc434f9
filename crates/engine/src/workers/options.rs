//! How a hub deals with workers.

use std::time::Duration;

/// Settings for workers in other processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkersOptions {
    /// How long a worker may take for a turn of an orchestration before it is given to another one; 5 minutes by default.
    pub orchestration_lease: Duration,
    /// How long a worker may take for a batch of an entity's operations; 30 minutes by default.
    pub entity_lease: Duration,
    /// How long a worker may take for an activity; 12 hours by default. A longer one is run a second time, so this is for
    /// results that got lost on their way; a time limit of an activity is in its call.
    pub activity_lease: Duration,
    /// How long the activities and entities of a worker that has gone away wait before they are handed out again; 2 seconds
    /// by default. A worker that stops in good order first ends its stream, and then completes what it has begun.
    pub disconnect_grace: Duration,
    /// How long an item that a worker gave back waits before the same worker gets it again, at first; 1 second by default.
    pub abandon_delay: Duration,
    /// The longest such wait, to which it doubles; 1 minute by default.
    pub abandon_delay_max: Duration,
    /// How many items of each kind a worker gets at once that does not say how many it takes; 100 by default.
    pub default_places: usize,
}

impl Default for WorkersOptions {
    fn default() -> Self {
        Self {
            orchestration_lease: Duration::from_secs(5 * 60),
            entity_lease: Duration::from_secs(30 * 60),
            activity_lease: Duration::from_secs(12 * 3600),
            disconnect_grace: Duration::from_secs(2),
            abandon_delay: Duration::from_secs(1),
            abandon_delay_max: Duration::from_secs(60),
            default_places: 100,
        }
    }
}

impl WorkersOptions {
    /// The pause after an item has been given back `times` times.
    pub(super) fn abandon_pause(&self, times: u32) -> Duration {
        let doubled = self.abandon_delay.saturating_mul(1 << times.saturating_sub(1).min(16));
        doubled.min(self.abandon_delay_max)
    }
}
