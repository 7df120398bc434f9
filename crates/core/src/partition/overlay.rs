//! Reading the overlay for a query: the instances that the instance store may not have in their present state.
//!
//! A query must not stall the partition, so it reads what changed since the last capture in parts of bounded work, and
//! gets the capture under way, which never changes, as a whole to look through elsewhere.

use std::sync::Arc;

use super::effect::{Effect, Token};
use super::machine::Partition;
use super::materialise::{Capture, CapturedChange};
use crate::ids::InstanceId;
use crate::query::{InstanceFilter, InstanceKind};
use crate::state::InstanceState;

/// How many instances one part looks at: about half a millisecond.
const PART_INSTANCES: usize = 4096;

/// Where the next part begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OverlayCursor {
    captures: u64,
    at: usize,
}

/// What the overlay says of the instances with ids that a query asks for: their states if they match, or that what is
/// stored of them does not count.
#[derive(Debug, Default)]
pub struct Overlay {
    /// In the order in which they were read, until they are complete: then by id, each once.
    changed: Vec<(InstanceId, Option<Arc<InstanceState>>)>,
    /// What is in it counts if it is not in `changed`.
    capture: Option<Arc<Capture>>,
}

impl Partition {
    /// Adds the next part of the overlay to `overlay`, as far as it concerns ids that the filter includes and that are
    /// greater than `after`. Returns where the part after it begins; after the last one [`Effect::Release`] follows
    /// once all of it is durable.
    ///
    /// Read all parts before the instance store: what moves in between is in both then, never in neither.
    pub fn read_overlay(
        &mut self,
        token: Token,
        filter: &InstanceFilter,
        after: Option<&InstanceId>,
        cursor: OverlayCursor,
        overlay: &mut Overlay,
    ) -> Option<OverlayCursor> {
        let captures = self.changes.captures;
        // What was looked at before the last capture is in that capture now; so the list begins anew.
        let from = if cursor.captures == captures { cursor.at } else { 0 };
        let ids = self.changes.instances.get(from..).unwrap_or_default();
        for id in ids.iter().take(PART_INSTANCES) {
            if after.is_none_or(|after| id > after) && filter.matches_id(id.as_str()) {
                let entry = self.entries.get(id);
                let state = entry.and_then(|entry| {
                    let state = entry.state().filter(|state| filter.matches(state))?;
                    Some(Self::with_backlog(state, entry.queue.len()))
                });
                overlay.changed.push((id.clone(), state));
            }
        }
        if ids.len() > PART_INSTANCES {
            return Some(OverlayCursor { captures, at: from + PART_INSTANCES });
        }
        if filter.kind != InstanceKind::Orchestrations {
            // How many messages wait for an entity is nowhere else.
            let waiting = self.entries.iter().filter(|(id, entry)| id.is_entity() && !entry.queue.is_empty());
            for (id, entry) in waiting {
                if let Some(state) = entry.state().filter(|state| filter.matches(state))
                    && after.is_none_or(|after| id > after)
                {
                    let state = Self::with_backlog(state, entry.queue.len());
                    overlay.changed.push((id.clone(), Some(state)));
                }
            }
        }
        for (id, state) in self.suspensions_ahead() {
            if after.is_none_or(|after| id > *after) && filter.matches_id(id.as_str()) {
                let state = filter.matches(&state).then_some(state);
                overlay.changed.push((id, state));
            }
        }
        overlay.capture.clone_from(&self.capture);
        self.when_present_is_durable(Effect::Release(token));
        None
    }
}

impl Partition {
    /// A turn has consumed messages of the instance: maybe no suspension waits any more.
    pub(super) fn forget_suspension(&mut self, instance: &InstanceId) {
        let entry = self.entries.get(instance);
        if entry.is_none_or(|entry| entry.suspension_ahead().is_none()) {
            self.suspending.remove(instance);
        }
    }

    /// The instances that are suspended or resumed and have not consumed that, as clients see them.
    pub(super) fn suspensions_ahead(&self) -> impl Iterator<Item = (InstanceId, Arc<InstanceState>)> {
        self.suspending.iter().filter_map(|id| {
            let entry = self.entries.get(id).filter(|entry| entry.suspension_ahead().is_some())?;
            Some((id.clone(), entry.shown_state()?))
        })
    }
}

impl Overlay {
    /// All parts are there: puts them in order.
    pub fn complete(&mut self) {
        // What was read of an instance later is newer; the sort is stable.
        self.changed.reverse();
        self.changed.sort_by(|(left, _), (right, _)| left.cmp(right));
        self.changed.dedup_by(|(older, _), (newer, _)| older == newer);
    }

    /// Whether what is stored of the instance does not count.
    pub fn hides(&self, instance: &InstanceId) -> bool {
        self.has_changed(instance) || self.capture.as_ref().is_some_and(|capture| capture.holds(instance))
    }

    fn has_changed(&self, instance: &InstanceId) -> bool {
        self.changed.binary_search_by(|(known, _)| known.cmp(instance)).is_ok()
    }

    /// The first `limit` of the instances that match and are greater than `after`, by id. Both are what the overlay was
    /// read for.
    pub fn first(
        &self,
        filter: &InstanceFilter,
        after: Option<&InstanceId>,
        limit: usize,
    ) -> Vec<Arc<InstanceState>> {
        let mut found: Vec<_> =
            self.changed.iter().filter_map(|(_, state)| state.clone()).take(limit).collect();
        if let Some(capture) = &self.capture {
            let prefix = filter.id_prefix.as_str();
            let after = after.map(InstanceId::as_str);
            let captured = capture
                .sorted_from(|id| id < prefix || after.is_some_and(|after| id <= after))
                .take_while(|captured| captured.instance.as_str().starts_with(prefix))
                .filter_map(|captured| match &captured.change {
                    CapturedChange::Put { state, .. } if filter.matches(state) => Some(state),
                    CapturedChange::Put { .. } | CapturedChange::Deleted => None,
                })
                .filter(|state| !self.has_changed(&state.instance));
            found.extend(captured.take(limit).cloned());
            found.sort_unstable_by(|left, right| left.instance.cmp(&right.instance));
            found.truncate(limit);
        }
        found
    }
}
