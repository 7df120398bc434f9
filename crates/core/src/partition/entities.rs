//! Turns of entities: what they consume, and what they change.
//!
//! What waits for an entity stays in its queue, where it is durable like any instance's messages, and a turn takes out
//! what can run: from the front while the entity is unlocked, and what comes from its owner while it is locked.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::{Entry, Presence, Queued, RunningBatch};
use super::machine::Partition;
use super::turns::SessionSource;
use crate::entity::{EntityLock, EntityState, EntityTurn, EntityUnlock};
use crate::event::EventKind;
use crate::ids::InstanceId;
use crate::message::TaskMessage;
use crate::state::InstanceState;
use crate::time::Timestamp;

/// What an entity's turn changed: absolute, as an entity has no history.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EntityCheckpoint {
    /// What is kept from now on; none when the entity has vanished.
    pub(super) state: Option<EntityState>,
    /// Consumed messages behind ones that are not.
    pub(super) apart: Vec<u64>,
    /// When.
    pub(super) at: Timestamp,
}

/// A turn's result as a checkpoint keeps it.
pub(super) fn entity_checkpoint(turn: EntityTurn, apart: Vec<u64>) -> EntityCheckpoint {
    let EntityTurn { state, at } = turn;
    EntityCheckpoint { state: (!state.is_empty()).then_some(state), apart, at }
}

/// Whether a message is one that an entity takes.
pub(super) fn is_entity_request(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::EntityOperationSignaled(_)
            | EventKind::EntityOperationCalled(_)
            | EventKind::EntityLockRequested(_)
            | EventKind::EntityUnlockSent(_)
    )
}

/// The entity's code gets what is kept of it.
pub(super) fn entity_source(entry: &Entry) -> SessionSource {
    let known = entry.state().and_then(|state| state.entity.clone());
    SessionSource::Entity(known.unwrap_or_default())
}

/// Takes what the entity's next turn consumes out of the queue; none when everything has to wait.
pub(super) fn take_entity_batch(entry: &mut Entry, max: usize) -> Option<(Vec<TaskMessage>, RunningBatch)> {
    let lock = entry.state().and_then(|state| state.entity.as_ref()?.lock.clone());
    let taken: Vec<Queued> = match lock {
        None => {
            let count = unlocked_prefix(entry, max);
            entry.queue.drain(..count).collect()
        }
        Some(lock) => {
            let places = owners_messages(entry, &lock, max);
            let mut taken: Vec<_> =
                places.into_iter().rev().filter_map(|place| entry.queue.remove(place)).collect();
            taken.reverse();
            taken
        }
    };
    if taken.is_empty() {
        return None;
    }
    let first_left = entry.queue.front().map_or(u64::MAX, |queued| queued.sequence);
    let mut running = RunningBatch::default();
    let mut batch = Vec::with_capacity(taken.len());
    for queued in taken {
        running.note(&queued, first_left);
        batch.push(queued.message);
    }
    Some((batch, running))
}

/// Everything up to the first request for the lock, that included.
fn unlocked_prefix(entry: &Entry, max: usize) -> usize {
    let is_request = |queued: &Queued| matches!(queued.message.event.kind, EventKind::EntityLockRequested(_));
    let all = entry.queue.len().min(max);
    entry.queue.iter().take(all).position(is_request).map_or(all, |at| at + 1)
}

/// The places of the messages that a locked entity takes: its owner's calls and unlock; and unlocks of others that have
/// given up, with the requests that those take back.
fn owners_messages(entry: &mut Entry, lock: &EntityLock, max: usize) -> Vec<usize> {
    let mut places = Vec::new();
    let from = match entry.queue_place(entry.passed_over + 1) {
        Ok(place) | Err(place) => place,
    };
    for (place, queued) in entry.queue.iter().enumerate().skip(from) {
        entry.passed_over = queued.sequence;
        match &queued.message.event.kind {
            EventKind::EntityOperationCalled(operation) => {
                let owns = operation.caller.as_ref().is_some_and(|caller| {
                    caller.instance == lock.owner.instance && caller.execution == Some(lock.owner.execution)
                });
                if owns {
                    places.push(place);
                }
            }
            EventKind::EntityUnlockSent(unlock) => {
                let waiting = entry.queue.iter().take(place).position(|other| is_taken_back(other, unlock));
                places.extend(waiting);
                places.push(place);
                if lock.is_freed_by(unlock) {
                    break;
                }
            }
            _ => {}
        }
        if places.len() >= max {
            break;
        }
    }
    places.sort_unstable();
    places.dedup();
    places
}

fn is_taken_back(queued: &Queued, unlock: &EntityUnlock) -> bool {
    match &queued.message.event.kind {
        EventKind::EntityLockRequested(request) => {
            request.critical_section == unlock.critical_section && request.owner == unlock.owner
        }
        _ => false,
    }
}

impl Partition {
    /// Applies a turn of an entity.
    pub(super) fn apply_entity(&mut self, instance: &InstanceId, change: &EntityCheckpoint) {
        let position = self.open.position;
        let Some(entry) = self.entries.get_mut(instance) else { return };
        let lock_before = entry.state().and_then(|state| state.entity.as_ref()?.lock.as_ref());
        if lock_before != change.state.as_ref().and_then(|state| state.lock.as_ref()) {
            entry.passed_over = 0;
        }
        entry.changed_at = position;
        self.tally.entity(instance, entry.state().is_some(), change.state.is_some());
        match &change.state {
            Some(entity) => {
                match &mut entry.presence {
                    Presence::Present(state) => {
                        let state = Arc::make_mut(state);
                        state.entity = Some(Box::new(entity.clone()));
                        state.updated_at = state.updated_at.max(change.at);
                    }
                    absent => {
                        let state = InstanceState::entity(instance.clone(), entity.clone(), change.at);
                        *absent = Presence::Present(Arc::new(state));
                    }
                }
                self.dirty(instance, 0).deleted = false;
            }
            None => {
                entry.presence = Presence::Absent;
                // One that came and went between two captures costs no write.
                if entry.stored || entry.captured.is_some() || entry.dirty.is_some() {
                    self.dirty(instance, 0).deleted = true;
                }
            }
        }
    }

    /// How many messages wait for an entity.
    pub(super) fn with_backlog(state: &Arc<InstanceState>, waiting: usize) -> Arc<InstanceState> {
        let mut state = state.clone();
        if waiting > 0 && state.entity.is_some() {
            let state = Arc::make_mut(&mut state);
            if let Some(entity) = &mut state.entity {
                entity.backlog = waiting;
            }
        }
        state
    }
}
