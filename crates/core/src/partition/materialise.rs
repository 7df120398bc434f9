//! Captures: what changed since the last one, for the instance store.

use std::sync::{Arc, OnceLock};

use super::entry::HistoryPiece;
use super::machine::Partition;
use super::rows;
use crate::codec;
use crate::ids::{InstanceId, PartitionId, Position};
use crate::message::{ActivityId, DelayedKey, TimerKey};
use crate::state::InstanceState;
use std::collections::BTreeSet;

/// What has changed since the last capture. Things that came and went between two captures cost no write.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) instances: Vec<InstanceId>,
    pub(super) activities: Vec<ActivityId>,
    pub(super) timers: Vec<TimerKey>,
    pub(super) delayed: Vec<DelayedKey>,
    pub(super) queued: Vec<(InstanceId, u64)>,
    /// Keys of rows that exist in the instance store and are void.
    pub(super) deleted_rows: Vec<Vec<u8>>,
    /// How many captures have been taken since this partition was built.
    pub(super) captures: u64,
    /// Reused for the encoding of a turn's events.
    pub(super) event_buffer: Vec<u8>,
}

impl Changes {
    pub(super) fn delete_queued(&mut self, sequence: u64) {
        self.deleted_rows.push(rows::queued_key(sequence));
    }
}

/// Everything that the instance store needs to reflect the partition at one position.
#[derive(Debug)]
pub struct Capture {
    /// Which partition.
    pub partition: PartitionId,
    /// The position.
    pub upto: Position,
    /// Changed instances, each once, in no particular order.
    pub instances: Vec<Arc<CapturedInstance>>,
    /// Changed rows, each key once, sorted by key.
    pub rows: Vec<CapturedRow>,
    /// Where in `instances` they are in the order of their ids, once somebody has asked: never the partition's thread.
    by_id: OnceLock<Vec<u32>>,
}

impl Capture {
    /// The instances in the order of their ids.
    pub fn sorted(&self) -> impl ExactSizeIterator<Item = &Arc<CapturedInstance>> {
        self.by_id().iter().map(|at| &self.instances[*at as usize])
    }

    /// The same, without those at the beginning that are before some point.
    pub(super) fn sorted_from(
        &self,
        is_before: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = &Arc<CapturedInstance>> {
        let from = self.place_of(is_before);
        self.by_id()[from..].iter().map(|at| &self.instances[*at as usize])
    }

    /// Whether the instance is among them.
    pub(super) fn holds(&self, instance: &InstanceId) -> bool {
        let at = self.place_of(|id| id < instance.as_str());
        self.by_id().get(at).is_some_and(|at| self.instances[*at as usize].instance == *instance)
    }

    fn place_of(&self, is_before: impl Fn(&str) -> bool) -> usize {
        self.by_id().partition_point(|at| is_before(self.instances[*at as usize].instance.as_str()))
    }

    fn by_id(&self) -> &[u32] {
        self.by_id.get_or_init(|| {
            // So many that their numbers do not fit are never under way.
            let mut order: Vec<_> = (0..self.instances.len() as u32).collect();
            order.sort_unstable_by(|left, right| {
                self.instances[*left as usize].instance.cmp(&self.instances[*right as usize].instance)
            });
            order
        })
    }
}

/// A changed instance.
#[derive(Debug, PartialEq, Eq)]
pub struct CapturedInstance {
    /// The instance.
    pub instance: InstanceId,
    /// How it changed.
    pub change: CapturedChange,
}

/// How an instance changed.
#[derive(Debug, PartialEq, Eq)]
pub enum CapturedChange {
    /// It was purged.
    Deleted,
    /// It has a new state and further events.
    Put {
        /// The state.
        state: Arc<InstanceState>,
        /// Whether the history begins anew with these events.
        replace: bool,
        /// The number of the first of the events.
        at: u64,
        /// The events, encoded.
        history: Arc<[u8]>,
        /// Nothing was ever stored under this id.
        fresh: bool,
    },
}

/// A changed row: a new value, or none for a row that is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedRow {
    /// The row's key within the partition.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

impl CapturedInstance {
    pub(super) fn history_piece(&self) -> Option<HistoryPiece> {
        match &self.change {
            CapturedChange::Deleted => None,
            CapturedChange::Put { at, history, .. } => Some(HistoryPiece { at: *at, bytes: history.clone() }),
        }
    }

    pub(super) fn begins_history(&self) -> bool {
        match &self.change {
            CapturedChange::Deleted => true,
            CapturedChange::Put { at, .. } => *at == 0,
        }
    }

    fn history_bytes(&self) -> usize {
        match &self.change {
            CapturedChange::Deleted => 0,
            CapturedChange::Put { history, .. } => history.len(),
        }
    }
}

impl Partition {
    /// Takes all changes. The state in memory must be exactly that of position `upto`.
    pub(super) fn take_capture(&mut self, upto: Position) -> Arc<Capture> {
        let instances = self.capture_instances();
        let rows = self.capture_rows();
        let by_id = OnceLock::new();
        let capture = Arc::new(Capture { partition: self.options.id, upto, instances, rows, by_id });
        self.capture = Some(capture.clone());
        self.changes.captures += 1;
        capture
    }

    fn capture_instances(&mut self) -> Vec<Arc<CapturedInstance>> {
        let ids = std::mem::take(&mut self.changes.instances);
        let mut captured = Vec::with_capacity(ids.len());
        for instance in ids {
            let Some(entry) = self.entries.get_mut(&instance) else { continue };
            let Some(dirty) = entry.dirty.take() else { continue };
            let change = match entry.state() {
                Some(state) => CapturedChange::Put {
                    state: state.clone(),
                    replace: dirty.replace,
                    at: dirty.at,
                    history: Arc::from(dirty.history),
                    fresh: !entry.stored,
                },
                None => CapturedChange::Deleted,
            };
            entry.stored = true;
            let change = Arc::new(CapturedInstance { instance, change });
            entry.captured = Some(change.clone());
            captured.push(change);
        }
        captured
    }

    fn capture_rows(&mut self) -> Vec<CapturedRow> {
        let put = |key, value| CapturedRow { key, value: Some(value) };
        let mut captured: Vec<_> = std::mem::take(&mut self.changes.deleted_rows)
            .into_iter()
            .map(|key| CapturedRow { key, value: None })
            .collect();
        if let Some(counts) = self.tally.changed_since_capture() {
            captured.push(put(rows::counts_key(), codec::encode_to_vec(&counts)));
        }
        for id in std::mem::take(&mut self.changes.activities) {
            let unfinished = self.activities.get_mut(id).filter(|it| !it.stored || it.changed);
            if let Some(unfinished) = unfinished {
                unfinished.stored = true;
                unfinished.changed = false;
                captured.push(put(rows::activity_key(id), codec::encode_to_vec(&*unfinished.task)));
            }
        }
        for timer in std::mem::take(&mut self.changes.timers) {
            if let Some(stored) = self.timers.get_mut(&timer).filter(|stored| !**stored) {
                *stored = true;
                captured.push(put(rows::timer_key(&timer), rows::timer_value(&timer)));
            }
        }
        for key in std::mem::take(&mut self.changes.delayed) {
            if let Some(delayed) = self.delayed.get_mut(&key).filter(|delayed| !delayed.stored) {
                delayed.stored = true;
                captured.push(put(rows::delayed_key(key), codec::encode_to_vec(&delayed.message)));
            }
        }
        for (instance, sequence) in std::mem::take(&mut self.changes.queued) {
            let Some(entry) = self.entries.get_mut(&instance) else { continue };
            if let Some(queued) = entry.queued_mut(sequence).filter(|queued| queued.logged && !queued.stored)
            {
                queued.stored = true;
                captured.push(put(rows::queued_key(sequence), codec::encode_to_vec(&queued.message)));
            }
        }
        for (&(receiver, sequence), outgoing) in self.links.outbox_mut() {
            if !outgoing.stored {
                outgoing.stored = true;
                captured
                    .push(put(rows::outbox_key(receiver, sequence), codec::encode_to_vec(&outgoing.message)));
            }
        }
        let changed: BTreeSet<_> = std::mem::take(&mut self.links.changed_next);
        for receiver in changed {
            let next = self.links.next_of(receiver);
            captured.push(put(rows::outbox_next_key(receiver), codec::encode_to_vec(&next)));
        }
        let changed: BTreeSet<_> = std::mem::take(&mut self.links.changed_received);
        for source in changed {
            let upto = self.links.received_from(source);
            captured.push(put(rows::received_key(source), codec::encode_to_vec(&upto)));
        }
        self.poisoned.capture(&mut captured);
        captured.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        captured
    }

    /// The capture under way is in the instance store; its part of the log is no longer needed.
    pub fn on_materialised(&mut self, upto: Position) {
        let Some(capture) = self.capture.take_if(|capture| capture.upto == upto) else { return };
        self.materialised = upto;
        for captured in &capture.instances {
            self.release_overlay(captured.history_bytes());
            if let Some(entry) = self.entries.get_mut(&captured.instance)
                && entry.captured.as_ref().is_some_and(|known| Arc::ptr_eq(known, captured))
            {
                entry.captured = None;
                if matches!(captured.change, CapturedChange::Deleted) {
                    entry.stored = entry.dirty.as_ref().is_some_and(|dirty| !dirty.replace);
                }
                self.forget_if_clean(&captured.instance);
            }
        }
    }

    /// How many instances and rows wait to be captured.
    pub fn uncaptured(&self) -> usize {
        self.changes.instances.len() + self.changes.deleted_rows.len() + self.changes.queued.len()
    }
}
