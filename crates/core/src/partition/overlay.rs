//! Reading the overlay for a query: the instances that the instance store may not have in their present state.
//!
//! A query must not stall the partition, so it reads what changed since the last capture in parts of bounded work, and
//! gets the capture under way, which never changes, as a whole to look through elsewhere.

use std::sync::Arc;

use super::effect::{Effect, Token};
use super::machine::Partition;
use super::materialise::{Capture, CapturedChange};
use crate::ids::{InstanceId, InstanceMap};
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
    changed: InstanceMap<Option<Arc<InstanceState>>>,
    captures: Vec<Arc<Capture>>,
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
                // What was read before of the same instance is older.
                overlay.changed.insert(id.clone(), state);
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
                    overlay.changed.insert(id.clone(), Some(state));
                }
            }
        }
        for (id, state) in self.suspensions_ahead() {
            if after.is_none_or(|after| id > *after) && filter.matches_id(id.as_str()) {
                let state = filter.matches(&state).then_some(state);
                overlay.changed.insert(id, state);
            }
        }
        overlay.captures.extend(self.capture.clone());
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
    /// All parts are there: looks through the captures.
    pub fn complete(&mut self, filter: &InstanceFilter, after: Option<&InstanceId>) {
        for capture in std::mem::take(&mut self.captures) {
            for captured in &capture.instances {
                let id = &captured.instance;
                if after.is_none_or(|after| id > after) && filter.matches_id(id.as_str()) {
                    self.changed.entry(id.clone()).or_insert_with(|| match &captured.change {
                        CapturedChange::Put { state, .. } if filter.matches(state) => Some(state.clone()),
                        CapturedChange::Put { .. } | CapturedChange::Deleted => None,
                    });
                }
            }
        }
    }

    /// Whether what is stored of the instance does not count.
    pub fn hides(&self, instance: &InstanceId) -> bool {
        self.changed.contains_key(instance)
    }

    /// The first `limit` of the instances that match, by id.
    pub fn first(&self, limit: usize) -> Vec<Arc<InstanceState>> {
        let mut found: Vec<_> = self.changed.values().flatten().cloned().collect();
        if found.len() > limit {
            found.select_nth_unstable_by(limit, |left, right| left.instance.cmp(&right.instance));
            found.truncate(limit);
        }
        found.sort_unstable_by(|left, right| left.instance.cmp(&right.instance));
        found
    }
}
