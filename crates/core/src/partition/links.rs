//! Links to the other partitions: what was sent to each and not acknowledged, and what was received from each.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{PartitionId, Position};
use crate::message::TaskMessage;

/// A message in the outbox.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) message: TaskMessage,
    /// It has a row in the instance store.
    pub(super) stored: bool,
    /// The record that it is part of.
    pub(super) position: Position,
}

/// Outbox and de-duplication marks (invariant I2).
#[derive(Debug, Default)]
pub(super) struct Links {
    outbox: BTreeMap<(PartitionId, u64), Outgoing>,
    next: BTreeMap<PartitionId, u64>,
    received: BTreeMap<PartitionId, u64>,
    /// Which counters changed since the last capture.
    pub(super) changed_next: BTreeSet<PartitionId>,
    pub(super) changed_received: BTreeSet<PartitionId>,
}

impl Links {
    /// The number of the next message for `receiver`.
    pub(super) fn allocate(&mut self, receiver: PartitionId) -> u64 {
        let next = self.next.entry(receiver).or_insert(1);
        *next += 1;
        *next - 1
    }

    /// Puts a numbered message into the outbox; doing so twice changes nothing.
    pub(super) fn put(&mut self, receiver: PartitionId, sequence: u64, outgoing: Outgoing) {
        self.raise_next(receiver, sequence + 1);
        self.changed_next.insert(receiver);
        self.outbox.entry((receiver, sequence)).or_insert(outgoing);
    }

    pub(super) fn raise_next(&mut self, receiver: PartitionId, next: u64) {
        let known = self.next.entry(receiver).or_insert(1);
        *known = (*known).max(next);
    }

    /// Removes what `receiver` has applied; returns the numbers that have rows.
    pub(super) fn acknowledge(&mut self, receiver: PartitionId, upto: u64) -> Vec<u64> {
        let mut stored = Vec::new();
        while let Some((&(to, sequence), _)) = self.outbox.range((receiver, 0)..=(receiver, upto)).next() {
            if self.outbox.remove(&(to, sequence)).is_some_and(|outgoing| outgoing.stored) {
                stored.push(sequence);
            }
        }
        stored
    }

    /// All that `receiver` has not acknowledged of what the records up to `durable` sent, in order.
    pub(super) fn unacknowledged(
        &self,
        receiver: PartitionId,
        durable: Position,
    ) -> impl Iterator<Item = &TaskMessage> {
        let all = self.outbox.range((receiver, 0)..=(receiver, u64::MAX));
        all.filter(move |(_, outgoing)| outgoing.position <= durable).map(|(_, outgoing)| &outgoing.message)
    }

    pub(super) fn outbox_mut(&mut self) -> impl Iterator<Item = (&(PartitionId, u64), &mut Outgoing)> {
        self.outbox.iter_mut()
    }

    pub(super) fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    pub(super) fn next_of(&self, receiver: PartitionId) -> u64 {
        self.next.get(&receiver).copied().unwrap_or(1)
    }

    pub(super) fn received_from(&self, source: PartitionId) -> u64 {
        self.received.get(&source).copied().unwrap_or(0)
    }

    pub(super) fn raise_received(&mut self, source: PartitionId, upto: u64) {
        let known = self.received.entry(source).or_insert(0);
        if *known < upto {
            *known = upto;
            self.changed_received.insert(source);
        }
    }
}
