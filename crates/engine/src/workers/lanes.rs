//! What waits for workers: a lane for each name and version, so that what nobody takes holds up nothing else.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;
use steadfast_core::dispatch::FairQueue;

use super::item::{Item, Key};

/// So many withdrawn items are not worth looking for.
const WITHDRAWN_MIN: usize = 1000;

/// The lanes of one kind of work. Lanes take turns. They are not bounded by themselves: what waits here stands for messages and
/// activities that the partitions keep anyway.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<Key, FairQueue<Arc<Item>>, FixedState>,
    /// Lanes in which something waits, each once, the next one first.
    turns: VecDeque<Key>,
    len: usize,
    /// The length after which withdrawn items are looked for.
    sweep_at: usize,
}

impl Lanes {
    pub(super) fn push(&mut self, item: Arc<Item>) {
        if self.len >= self.sweep_at.max(WITHDRAWN_MIN) {
            self.sweep();
        }
        let lane = match self.lanes.get_mut(&item.key) {
            Some(lane) => lane,
            None => {
                self.turns.push_back(item.key.clone());
                self.lanes.entry(item.key.clone()).or_default()
            }
        };
        lane.push(item.priority, item.instance.clone(), item);
        self.len += 1;
    }

    /// Takes the next item out of a lane that `takes` says yes to.
    pub(super) fn pop(&mut self, takes: impl Fn(&Key) -> bool) -> Option<Arc<Item>> {
        let mut at = 0;
        while let Some(key) = self.turns.get(at) {
            if !takes(key) {
                at += 1;
                continue;
            }
            let key = self.turns.remove(at)?;
            let lane = self.lanes.get_mut(&key)?;
            let mut found = None;
            while let Some(item) = lane.pop() {
                self.len -= 1;
                if item.is_wanted() {
                    found = Some(item);
                    break;
                }
            }
            if lane.is_empty() {
                self.lanes.remove(&key);
            } else {
                self.turns.push_back(key);
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Whether something waits in the lane.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.lanes.contains_key(key)
    }

    /// The lanes in which something waits, and how much.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&Key, usize)> {
        let wanted = |lane: &FairQueue<Arc<Item>>| lane.iter().filter(|item| item.is_wanted()).count();
        self.lanes.iter().map(move |(key, lane)| (key, wanted(lane))).filter(|(_, count)| *count > 0)
    }

    fn sweep(&mut self) {
        let mut len = 0;
        self.lanes.retain(|_, lane| {
            lane.retain(|item| item.is_wanted());
            len += lane.iter().count();
            !lane.is_empty()
        });
        self.turns.retain(|key| self.lanes.contains_key(key));
        self.len = len;
        self.sweep_at = 2 * len;
    }
}
