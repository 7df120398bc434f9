//! Where the live records are, in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use steadfast_core::{PartitionId, Position};
use steadfast_store::{LogRecord, StoreError};

use super::batch::Entry;
use crate::error::corrupt;

/// The place of one record.
pub(super) struct Found {
    pub(super) position: Position,
    pub(super) batch: u64,
    /// The slots of the whole batch.
    pub(super) slots: Arc<[u32]>,
    /// Where in the batch its bytes begin.
    pub(super) offset: usize,
    pub(super) len: usize,
}

struct Place {
    position: Position,
    batch: u64,
    offset: usize,
    len: usize,
}

struct Batch {
    slots: Arc<[u32]>,
    /// How many of its records haven't been truncated.
    live: usize,
}

/// All live records, batches and free slots.
pub(super) struct Index {
    partitions: BTreeMap<PartitionId, VecDeque<Place>>,
    marks: BTreeMap<PartitionId, Position>,
    batches: HashMap<u64, Batch>,
    next_batch: u64,
    /// The slot that was freed first is used first, so that the changes spread over the leaves.
    free: VecDeque<u32>,
    /// One more than the greatest slot.
    slots: u32,
}

impl Index {
    pub(super) fn new(marks: BTreeMap<PartitionId, Position>, next_batch: u64) -> Self {
        Self {
            partitions: BTreeMap::new(),
            marks,
            batches: HashMap::new(),
            next_batch,
            free: VecDeque::new(),
            slots: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    fn is_live(&self, entry: &Entry) -> bool {
        self.marks.get(&entry.partition).is_none_or(|mark| entry.position > *mark)
    }

    /// Whether any of the records hasn't been truncated.
    pub(super) fn any_live(&self, entries: &[Entry]) -> bool {
        entries.iter().any(|entry| self.is_live(entry))
    }

    /// Adds a batch, the greatest so far.
    pub(super) fn add_batch(&mut self, batch: u64, slots: Vec<u32>, entries: &[Entry]) {
        let mut live = 0;
        for entry in entries {
            if self.is_live(entry) {
                let Entry { position, offset, len, .. } = *entry;
                self.partitions.entry(entry.partition).or_default().push_back(Place {
                    position,
                    batch,
                    offset,
                    len,
                });
                live += 1;
            }
        }
        for slot in &slots {
            self.slots = self.slots.max(slot.saturating_add(1));
        }
        self.batches.insert(batch, Batch { slots: slots.into(), live });
        self.skip_batch(batch);
    }

    /// The number of the next batch, which is greater than that of any before.
    pub(super) const fn next_batch(&self) -> u64 {
        self.next_batch
    }

    /// Makes sure that the number isn't used again.
    pub(super) fn skip_batch(&mut self, batch: u64) {
        self.next_batch = self.next_batch.max(batch + 1);
    }

    /// Refuses records that don't follow the last one of their partition.
    pub(super) fn check_order(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        let mut lasts: BTreeMap<PartitionId, Position> = BTreeMap::new();
        for record in records {
            let stored = || self.partitions.get(&record.partition)?.back().map(|place| place.position);
            let last = lasts.get(&record.partition).copied().or_else(stored);
            if let Some(last) = last.filter(|last| last.next() != record.position) {
                let problem = format!("record {} was handed in after record {last}", record.position);
                return Err(corrupt(format!("the log of {}", record.partition), problem));
            }
            lasts.insert(record.partition, record.position);
        }
        Ok(())
    }

    /// Takes the next batch number and so many free slots. When there are too few, the error is the number that the
    /// first new slot must have.
    pub(super) fn take_slots(&mut self, count: usize) -> Result<(u64, Vec<u32>), u32> {
        if self.free.len() < count {
            return Err(self.slots);
        }
        let batch = self.next_batch;
        self.next_batch += 1;
        Ok((batch, self.free.drain(..count).collect()))
    }

    /// Adds new slots.
    pub(super) fn add_slots(&mut self, added: std::ops::Range<u32>) {
        self.slots = self.slots.max(added.end);
        self.free.extend(added);
    }

    /// A slot is empty.
    pub(super) fn free_slot(&mut self, slot: u32) {
        self.slots = self.slots.max(slot.saturating_add(1));
        self.free.push_back(slot);
    }

    /// Slots are empty.
    pub(super) fn free_slots(&mut self, slots: &[u32]) {
        self.free.extend(slots);
    }

    /// The places of the first `limit` records after a position.
    pub(super) fn places_after(&self, partition: PartitionId, after: Position, limit: usize) -> Vec<Found> {
        let Some(places) = self.partitions.get(&partition) else { return Vec::new() };
        let first = places.partition_point(|place| place.position <= after);
        let found = places.range(first..).take(limit).filter_map(|place| {
            let slots = Arc::clone(&self.batches.get(&place.batch)?.slots);
            let Place { position, batch, offset, len } = *place;
            Some(Found { position, batch, slots, offset, len })
        });
        found.collect()
    }

    /// Notes how far a partition is truncated; false when it was already.
    pub(super) fn advance_mark(&mut self, partition: PartitionId, upto: Position) -> bool {
        let mark = self.marks.entry(partition).or_default();
        let advanced = upto > *mark;
        *mark = upto.max(*mark);
        advanced
    }

    /// Removes the records of a partition up to a position; hands out the slots of batches that are dead now.
    pub(super) fn remove_upto(&mut self, partition: PartitionId, upto: Position) -> Vec<Arc<[u32]>> {
        let Some(places) = self.partitions.get_mut(&partition) else { return Vec::new() };
        let count = places.partition_point(|place| place.position <= upto);
        let mut dead = Vec::new();
        for place in places.drain(..count) {
            let Some(batch) = self.batches.get_mut(&place.batch) else { continue };
            batch.live -= 1;
            if batch.live == 0 {
                dead.extend(self.batches.remove(&place.batch).map(|batch| batch.slots));
            }
        }
        dead
    }
}
