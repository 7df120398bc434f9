//! Which sessions are in memory, by how recently they were used.

use std::collections::VecDeque;

use super::entry::SessionPhase;
use super::machine::Partition;
use super::turns::Work;
use crate::ids::InstanceId;
use crate::time::Timestamp;

/// The table of entries is not made smaller than for this many.
const ENTRIES_KEPT: usize = 4096;

/// The order has so many places for each session, and so many more, before those that were overtaken are looked for.
const PLACES_FOR_EACH: usize = 4;
const PLACES_KEPT: usize = 1024;

/// A least-recently-used order with lazy deletion: each use appends, and a place that a later use has overtaken is
/// skipped when it comes to the front.
#[derive(Debug, Default)]
pub(super) struct Residents {
    order: VecDeque<(InstanceId, u64, Timestamp)>,
    uses: u64,
    count: usize,
}

impl Residents {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn added(&mut self) {
        self.count += 1;
    }

    pub(super) fn removed(&mut self) {
        self.count -= 1;
    }

    /// How many places there are in the order, overtaken ones among them.
    pub(super) fn places(&self) -> usize {
        self.order.len()
    }

    /// Notes a use; the number goes into the entry.
    fn used(&mut self, instance: InstanceId, at: Timestamp) -> u64 {
        self.uses += 1;
        self.order.push_back((instance, self.uses, at));
        self.uses
    }
}

impl Partition {
    /// Notes that the session of an instance was used.
    pub(super) fn note_use(&mut self, instance: &InstanceId) {
        let Some(entry) = self.entries.get_mut(instance) else { return };
        entry.used = self.residents.used(instance.clone(), self.now);
        // Overtaken places would pile up until the first session has been idle for long enough, some millions on a busy hub, and
        // then all of them would be looked up at once.
        if self.residents.order.len() > PLACES_FOR_EACH * self.residents.count + PLACES_KEPT {
            let entries = &self.entries;
            // One for each session is left at most, so that this is rare.
            self.residents.order.retain(|(instance, used, _)| {
                let entry = entries.get(instance);
                entry.is_some_and(|entry| entry.used == *used && entry.session != SessionPhase::None)
            });
        }
    }

    /// Evicts sessions that have been idle for too long or are too many.
    pub(super) fn evict_sessions(&mut self) {
        while let Some((instance, used, at)) = self.residents.order.front() {
            let current = self
                .entries
                .get(instance)
                .is_some_and(|entry| entry.used == *used && entry.session == SessionPhase::Idle);
            let too_many = self.residents.count > self.options.resident_sessions_max;
            let idle = at.after(self.options.session_idle_timeout) <= self.now;
            if current && !too_many && !idle {
                break;
            }
            let Some((instance, _, _)) = self.residents.order.pop_front() else { break };
            if current {
                self.evict(&instance);
            }
        }
        if self.residents.order.len() < self.residents.order.capacity() / 8 {
            self.residents.order.shrink_to(self.residents.order.capacity() / 2);
        }
    }

    /// When the session that was used least recently becomes idle for too long.
    pub(super) fn next_eviction(&self) -> Option<Timestamp> {
        let (_, _, at) = self.residents.order.front()?;
        Some(at.after(self.options.session_idle_timeout))
    }

    pub(super) fn evict(&mut self, instance: &InstanceId) {
        if let Some(entry) = self.entries.get_mut(instance)
            && entry.session == SessionPhase::Idle
        {
            entry.session = SessionPhase::None;
            self.residents.removed();
            self.work.push_back(Work::Evict(instance.clone()));
            self.forget_if_clean(instance);
        }
    }

    /// Drops the entry of an instance about which the instance store says the same.
    pub(super) fn forget_if_clean(&mut self, instance: &InstanceId) {
        if self.entries.get(instance).is_some_and(|entry| entry.is_forgettable()) {
            if let Some(state) = self.entries.remove(instance).as_ref().and_then(|entry| entry.state()) {
                self.tally.forget(instance, state);
            }
            // A crowd that has gone must not keep its memory. Halving makes this rare.
            if self.entries.len() < self.entries.capacity() / 8 && self.entries.capacity() > ENTRIES_KEPT {
                self.entries.shrink_to(self.entries.capacity() / 2);
            }
        }
    }
}
