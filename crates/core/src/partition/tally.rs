//! How many instances there are, by status.
//!
//! What begins and changes an instance is in a record, so the numbers are written as they are after a record, never as
//! differences, and at recovery they are taken from the records and never counted again: a stored instance may already
//! contain what a record is about to change, and then nobody knows any more what it was before.
//!
//! Only that an accepted start shows as a pending instance is in no record, because it depends on whether the instance
//! has been looked up. So the numbers that are written take such an instance for what it was before, and those that
//! wait to begin are counted in memory, where each of them is.

use std::collections::BTreeSet;

use super::effect::{Effect, Token};
use super::machine::Partition;
use crate::ids::{InstanceId, Position};
use crate::query::InstanceCounts;
use crate::state::{InstanceState, OrchestrationStatus};

#[derive(Debug, Default)]
pub(super) struct Tally {
    /// All instances, those that wait to begin as what they were before.
    begun: InstanceCounts,
    /// The same, in the last record and in the row.
    recorded: InstanceCounts,
    stored: InstanceCounts,
    /// What those that wait to begin were before, if they were there.
    replaced: InstanceCounts,
    /// Those that wait to begin.
    waiting: InstanceCounts,
    /// Instances with a start from before a recovery that have not been looked up.
    pub(super) unseen: BTreeSet<InstanceId>,
}

/// What an instance was before a start was accepted that has not begun.
fn begun(state: &InstanceState) -> Option<OrchestrationStatus> {
    if is_waiting(state) { state.replaces } else { Some(state.status) }
}

fn is_waiting(state: &InstanceState) -> bool {
    state.status == OrchestrationStatus::Pending && state.history_events == 0
}

impl Tally {
    /// As a row has it.
    pub(super) fn stored(counts: InstanceCounts) -> Self {
        Self { begun: counts, recorded: counts, stored: counts, ..Self::default() }
    }

    /// A new execution waits to begin, or begins: what was there before goes.
    pub(super) fn replace(
        &mut self,
        instance: &InstanceId,
        before: Option<&InstanceState>,
        after: &mut InstanceState,
    ) {
        after.replaces = before.and_then(begun);
        if let Some(before) = before {
            self.forget(instance, before);
        }
        self.learn(instance, after);
    }

    /// An instance took a turn.
    pub(super) fn turn(
        &mut self,
        instance: &InstanceId,
        before: (bool, Option<OrchestrationStatus>),
        after: &mut InstanceState,
    ) {
        let (waited, was) = before;
        if waited && !is_waiting(after) {
            self.waiting.change(instance, Some(OrchestrationStatus::Pending), None);
            self.replaced.change(instance, was, None);
            after.replaces = None;
        }
        if was != begun(after) {
            self.begun.change(instance, was, begun(after));
        }
    }

    /// An entity took a turn, which may have made it or let it vanish.
    pub(super) fn entity(&mut self, instance: &InstanceId, before: bool, after: bool) {
        let status = |there: bool| there.then_some(OrchestrationStatus::Running);
        self.begun.change(instance, status(before), status(after));
    }

    /// What [`Tally::turn`] has to know of the state before.
    pub(super) fn before(state: &InstanceState) -> (bool, Option<OrchestrationStatus>) {
        (is_waiting(state), begun(state))
    }

    /// An instance is purged.
    pub(super) fn purge(&mut self, instance: &InstanceId, state: &InstanceState) {
        self.forget(instance, state);
        self.begun.change(instance, begun(state), None);
    }

    /// An instance has come into memory.
    pub(super) fn learn(&mut self, instance: &InstanceId, state: &InstanceState) {
        if is_waiting(state) {
            self.waiting.change(instance, None, Some(OrchestrationStatus::Pending));
            self.replaced.change(instance, None, state.replaces);
        }
    }

    /// An instance leaves memory.
    pub(super) fn forget(&mut self, instance: &InstanceId, state: &InstanceState) {
        if is_waiting(state) {
            self.waiting.change(instance, Some(OrchestrationStatus::Pending), None);
            self.replaced.change(instance, state.replaces, None);
        }
    }

    /// The numbers, if they are others than those in the last record; they count as recorded from now on.
    pub(super) fn changed_since_record(&mut self) -> Option<InstanceCounts> {
        let changed = self.recorded != self.begun;
        self.recorded = self.begun;
        changed.then_some(self.begun)
    }

    /// The numbers, if they are others than those in the row; they count as stored from now on.
    pub(super) fn changed_since_capture(&mut self) -> Option<InstanceCounts> {
        let changed = self.stored != self.begun;
        self.stored = self.begun;
        changed.then_some(self.begun)
    }

    /// A record that is applied again says so.
    pub(super) fn recorded(&mut self, counts: InstanceCounts) {
        self.recorded = counts;
    }

    /// A record has been applied again: what it says counts, or the one before it.
    pub(super) fn take_recorded(&mut self) {
        self.begun = self.recorded;
    }
}

impl Partition {
    /// How many instances there are. [`Effect::Release`] follows once that is durable. None as long as instances have to
    /// be looked up after a recovery: then ask again.
    pub fn read_counts(&mut self, token: Token) -> Option<InstanceCounts> {
        if !self.tally.unseen.is_empty() {
            return None;
        }
        self.when_present_is_durable(Effect::Release(token));
        let mut counts = self.tally.begun;
        counts -= self.tally.replaced;
        counts += self.tally.waiting;
        for (id, shown) in self.suspensions_ahead() {
            let state = self.entries.get(&id).and_then(|entry| entry.state());
            counts.change(&id, state.map(|state| state.status), Some(shown.status));
        }
        Some(counts)
    }

    /// Hands the effect out once everything that is in memory now is durable.
    pub(super) fn when_present_is_durable(&mut self, effect: Effect) {
        let open = self.open.position;
        let last = if self.open.must_be_written() { open } else { Position(open.0 - 1) };
        self.when_durable(last, effect);
    }
}
