//! The queue of activities that wait for a place.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

use smol_str::SmolStr;

use super::fair::FairQueue;
use crate::partition::ActivityTask;

/// Activities that wait for a place, in the order in which they get one: a greater priority first; within one priority the
/// instances take turns, so that one with a hundred thousand activities does not hold up another's single one; within an
/// instance in the order in which it asked for them. Activities whose name has a limit wait in lanes of their own, so that
/// they hold up no others.
///
/// It is not bounded by itself: what waits here is an unfinished activity of the partition, which keeps it anyway, and an
/// entry here is one pointer.
#[derive(Debug)]
pub struct WaitingActivities {
    /// There was a place for these when they came.
    straight: VecDeque<Arc<ActivityTask>>,
    /// The first is for all names without a limit.
    lanes: Vec<Lane>,
    served: u64,
    len: usize,
}

#[derive(Debug, Default)]
struct Lane {
    /// The name that it is for; none for the first.
    name: Option<SmolStr>,
    queue: FairQueue<Arc<ActivityTask>>,
    /// When it was last served, as a running number.
    served_at: u64,
}

/// An activity that gets a place, with the permit that was needed for its name, if one was.
#[derive(Debug, PartialEq, Eq)]
pub struct NextActivity<P> {
    /// The activity.
    pub task: Arc<ActivityTask>,
    /// The permit.
    pub permit: Option<P>,
}

impl Lane {
    fn push(&mut self, task: Arc<ActivityTask>) {
        let priority = task.options.as_ref().map_or(0, |options| options.priority);
        self.queue.push(priority, task.instance.clone(), task);
    }
}

impl WaitingActivities {
    /// An empty queue; `limited` are the names that have a limit.
    pub fn new(limited: impl IntoIterator<Item = SmolStr>) -> Self {
        let mut lanes = vec![Lane::default()];
        lanes.extend(limited.into_iter().map(|name| Lane { name: Some(name), ..Lane::default() }));
        Self { straight: VecDeque::new(), lanes, served: 0, len: 0 }
    }

    /// Adds an activity; `free` is how many places there are now.
    pub fn push(&mut self, task: Arc<ActivityTask>, free: usize) {
        self.len += 1;
        let of_its_name = match self.lanes.len() {
            1 => None,
            _ => self.lanes.iter().position(|lane| lane.name.as_ref() == Some(&task.name)),
        };
        match of_its_name {
            Some(lane) => self.lanes[lane].push(task),
            None if self.lanes[0].queue.is_empty() && self.straight.len() < free => {
                self.straight.push_back(task)
            }
            None => self.lanes[0].push(task),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the next activity. Before one with a limited name is taken, `permit` is asked for that name.
    pub fn pop<P>(&mut self, mut permit: impl FnMut(&SmolStr) -> Option<P>) -> Option<NextActivity<P>> {
        if let Some(task) = self.straight.pop_front() {
            self.len -= 1;
            return Some(NextActivity { task, permit: None });
        }
        if self.len == 0 {
            return None;
        }
        let mut refused = Vec::new();
        loop {
            // The greatest priority, and among equal ones the lane that was not served for the longest time.
            let waiting = self.lanes.iter().enumerate().filter(|(at, _)| !refused.contains(at));
            let ranked = waiting.filter_map(|(at, lane)| {
                Some((lane.queue.priority()?, Reverse(lane.served_at), Reverse(at)))
            });
            let (_, _, Reverse(at)) = ranked.max()?;
            let lane = &mut self.lanes[at];
            let granted = match &lane.name {
                None => Some(None),
                Some(name) => permit(name).map(Some),
            };
            let Some(permit) = granted else {
                refused.push(at);
                continue;
            };
            let task = lane.queue.pop()?;
            self.served += 1;
            lane.served_at = self.served;
            self.len -= 1;
            return Some(NextActivity { task, permit });
        }
    }

    /// All that wait, in no particular order.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<ActivityTask>> {
        self.straight.iter().chain(self.lanes.iter().flat_map(|lane| lane.queue.iter()))
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.straight.clear();
        self.lanes.iter_mut().for_each(|lane| lane.queue = FairQueue::default());
        self.len = 0;
    }
}
