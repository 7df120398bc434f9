//! A queue in which the instances take turns.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use crate::ids::{InstanceId, InstanceMap};

/// What waits on behalf of instances: a greater priority first; within one priority the instances take turns; within an
/// instance in the order in which it came. It is not bounded by itself.
#[derive(Debug)]
pub struct FairQueue<T> {
    levels: BTreeMap<Reverse<i32>, Level<T>>,
}

/// What waits with one priority.
#[derive(Debug)]
struct Level<T> {
    /// Instances for which something waits, each once, the next one first.
    turns: VecDeque<InstanceId>,
    queues: InstanceMap<VecDeque<T>>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { levels: BTreeMap::new() }
    }
}

impl<T> FairQueue<T> {
    /// Adds something at the end of its instance's queue.
    pub fn push(&mut self, priority: i32, instance: InstanceId, item: T) {
        let empty = || Level { turns: VecDeque::new(), queues: InstanceMap::default() };
        let level = self.levels.entry(Reverse(priority)).or_insert_with(empty);
        let queue = level.queues.entry(instance.clone()).or_default();
        if queue.is_empty() {
            level.turns.push_back(instance);
        }
        queue.push_back(item);
    }

    /// The priority of what is next.
    pub fn priority(&self) -> Option<i32> {
        self.levels.first_key_value().map(|(priority, _)| priority.0)
    }

    /// Takes what is next.
    pub fn pop(&mut self) -> Option<T> {
        let mut level = self.levels.first_entry()?;
        let Level { turns, queues } = level.get_mut();
        let instance = turns.pop_front()?;
        let queue = queues.get_mut(&instance)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            queues.remove(&instance);
        } else {
            turns.push_back(instance);
        }
        if turns.is_empty() {
            level.remove();
        }
        item
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// All that waits, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.levels.values().flat_map(|level| level.queues.values().flatten())
    }

    /// Keeps what `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.levels.retain(|_, level| {
            level.queues.retain(|_, queue| {
                queue.retain(&mut keep);
                !queue.is_empty()
            });
            level.turns.retain(|instance| level.queues.contains_key(instance));
            !level.turns.is_empty()
        });
    }
}
