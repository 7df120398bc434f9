//! How many nodes a hub needs: a decision from a few looks at its queues, and nothing else.
//!
//! Whoever runs nodes looks at regular intervals at how long the oldest message has been waiting in each partition, and
//! the oldest activity for a free slot ([`BacklogSample`]), and asks [`ScaleMonitor::decide`]. The rules are those of the
//! Durable Task Framework's performance monitor, in their order.

use std::collections::VecDeque;
use std::time::Duration;

/// So many looks are needed for a decision, and no more are remembered.
pub const SAMPLES: usize = 5;

/// Of 100 chances to give up one node of a hub that has little to do, this many are taken: so that several who decide
/// at once do not all give up one, and a short lull costs nothing.
pub const LULL_PERCENT: u8 = 10;

/// One look at the queues of a hub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BacklogSample {
    /// How long the oldest activity has been waiting for a free slot; zero when none waits.
    pub activities: Duration,
    /// For each partition, how long the oldest message has been waiting for a turn; zero when none waits.
    pub partitions: Vec<Duration>,
}

impl BacklogSample {
    fn is_idle(&self) -> bool {
        self.activities.is_zero() && self.partitions.iter().all(Duration::is_zero)
    }
}

/// Which waits are long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleOptions {
    /// From here on a wait is long.
    pub high: Duration,
    /// Up to here a wait is short.
    pub low: Duration,
    /// How rarely an idle queue is looked at. A wait that follows on an idle time can be as long without meaning
    /// anything, so it is long only from here on.
    pub max_polling: Duration,
}

impl Default for ScaleOptions {
    fn default() -> Self {
        Self {
            high: Duration::from_secs(1),
            low: Duration::from_millis(200),
            max_polling: Duration::from_secs(30),
        }
    }
}

/// What to do about the number of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleAction {
    /// Start one more.
    Add,
    /// Stop one.
    Remove,
    /// Leave it.
    Keep,
}

/// A decision, and why it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleDecision {
    /// What to do.
    pub action: ScaleAction,
    /// Whether there is anything to do in the hub, so that the last node should stay.
    pub keep_alive: bool,
    /// Why, for a log.
    pub reason: &'static str,
}

/// Remembers the last looks at a hub's queues and decides.
///
/// ```
/// use std::time::Duration;
/// use steadfast_core::scaling::{BacklogSample, ScaleAction, ScaleMonitor, ScaleOptions};
///
/// let mut monitor = ScaleMonitor::new(ScaleOptions::default());
/// for wait in [500, 600, 700, 800, 1000] {
///     let activities = Duration::from_millis(wait);
///     monitor.add(BacklogSample { activities, partitions: vec![Duration::ZERO; 4] });
/// }
/// assert_eq!(monitor.decide(1, 99).action, ScaleAction::Add);
/// ```
#[derive(Debug, Clone, Default)]
pub struct ScaleMonitor {
    options: ScaleOptions,
    samples: VecDeque<BacklogSample>,
}

impl ScaleMonitor {
    /// A monitor that has seen nothing.
    pub fn new(options: ScaleOptions) -> Self {
        Self { options, samples: VecDeque::new() }
    }

    /// Remembers a look, and forgets the oldest beyond [`SAMPLES`].
    pub fn add(&mut self, sample: BacklogSample) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Decides for a hub that has `nodes` now. `chance` is a random number below 100.
    pub fn decide(&self, nodes: usize, chance: u8) -> ScaleDecision {
        let idle = self.samples.iter().all(BacklogSample::is_idle);
        if nodes == 0 && !idle {
            return decision(ScaleAction::Add, true, "there is work and nobody to do it");
        }
        if self.samples.len() < SAMPLES {
            return decision(ScaleAction::Keep, !idle, "too few samples yet");
        }
        let activities = self.queue(|sample| sample.activities);
        let count = self.samples.iter().map(|sample| sample.partitions.len()).max().unwrap_or(0);
        let partitions: Vec<_> = (0..count)
            .map(|at| self.queue(|sample| sample.partitions.get(at).copied().unwrap_or_default()))
            .collect();
        self.decide_by(nodes, chance, &activities, &partitions)
    }

    fn decide_by(&self, nodes: usize, chance: u8, activities: &Queue, partitions: &[Queue]) -> ScaleDecision {
        let busy = partitions.iter().filter(|queue| !queue.idle()).count();
        if activities.idle() && busy == 0 {
            let action = if nodes == 0 { ScaleAction::Keep } else { ScaleAction::Remove };
            return decision(action, false, "all queues are idle");
        }
        let high = partitions.iter().filter(|queue| queue.high(&self.options)).count();
        let low = |queue: &Queue| queue.latest() <= self.options.low;
        let (action, reason) = if activities.high(&self.options) {
            (ScaleAction::Add, "activities wait for long")
        } else if nodes > partitions.len() && activities.idle() {
            (ScaleAction::Remove, "there are more nodes than partitions, and no activity waits")
        } else if nodes < high {
            (ScaleAction::Add, "messages wait for long in more partitions than there are nodes")
        } else if nodes > busy && activities.idle() {
            (ScaleAction::Remove, "there are more nodes than partitions with work, and no activity waits")
        } else if nodes > 1 && chance < LULL_PERCENT && low(activities) && partitions.iter().all(low) {
            (ScaleAction::Remove, "nothing waits for long")
        } else {
            (ScaleAction::Keep, "the number of nodes fits")
        };
        decision(action, true, reason)
    }

    fn queue(&self, wait: impl Fn(&BacklogSample) -> Duration) -> Queue {
        Queue(self.samples.iter().map(wait).collect())
    }
}

fn decision(action: ScaleAction, keep_alive: bool, reason: &'static str) -> ScaleDecision {
    ScaleDecision { action, keep_alive, reason }
}

/// The waits seen in one queue, the latest last; as many as there are samples.
struct Queue(Vec<Duration>);

impl Queue {
    fn latest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    fn idle(&self) -> bool {
        self.0.iter().all(Duration::is_zero)
    }

    fn high(&self, options: &ScaleOptions) -> bool {
        let was_idle = self.0.iter().rev().nth(1).is_none_or(Duration::is_zero);
        let from = if was_idle { options.max_polling } else { options.high.min(options.max_polling) };
        self.latest() >= from
    }
}
