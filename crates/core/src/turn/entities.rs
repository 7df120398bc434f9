//! What an orchestration sends to entities, and the locks that its history says it has asked for.

use smol_str::SmolStr;

use crate::action::ActionKind;
use crate::entity::{EntityCaller, EntityId, EntityOwner, EntityUnlock};
use crate::event::{EventKind, HistoryEvent};
use crate::ids::{ExecutionId, InstanceId};
use crate::message::{Origin, TaskMessage};
use crate::time::Timestamp;

/// The message that an action for an entity causes; none for other actions.
pub(super) fn entity_message(
    action: ActionKind,
    instance: &InstanceId,
    execution: ExecutionId,
    now: Timestamp,
) -> Option<TaskMessage> {
    let caller = || EntityCaller { instance: instance.clone(), execution: Some(execution) };
    let owner = || EntityOwner { instance: instance.clone(), execution };
    let (target, kind) = match action {
        ActionKind::CallEntity(mut operation) => {
            operation.caller = Some(caller());
            (operation.target.take()?, EventKind::EntityOperationCalled(operation))
        }
        ActionKind::SignalEntity(mut operation) => {
            operation.caller = Some(caller());
            (operation.target.take()?, EventKind::EntityOperationSignaled(operation))
        }
        ActionKind::LockEntities(mut request) => {
            request.owner = Some(owner());
            (request.lock_set.first()?.clone(), EventKind::EntityLockRequested(request))
        }
        ActionKind::UnlockEntity(mut unlock) => {
            unlock.owner = Some(owner());
            (unlock.target.take()?, EventKind::EntityUnlockSent(unlock))
        }
        _ => return None,
    };
    Some(message_to(&target, kind, now))
}

fn message_to(target: &EntityId, kind: EventKind, now: Timestamp) -> TaskMessage {
    TaskMessage {
        instance: target.instance_id().clone(),
        execution: None,
        event: HistoryEvent::message(now, kind),
        origin: Origin::Local,
    }
}

/// Locks that an execution has asked for and not given back. They follow from the history alone, so that they are freed
/// at the end whatever its code did, or was changed to do.
#[derive(Debug, Default)]
pub(super) struct RequestedLocks(Vec<(SmolStr, Vec<EntityId>)>);

/// The messages that give back the locks which an execution that has not ended has asked for and not given back, in its
/// name. None of them when it has no locks.
pub fn unlocks(instance: &InstanceId, history: &[HistoryEvent], now: Timestamp) -> Vec<TaskMessage> {
    let (mut locks, mut execution) = (RequestedLocks::default(), None);
    for event in history {
        if let EventKind::ExecutionStarted(started) = &event.kind {
            execution = Some(started.execution);
        }
        locks.note(&event.kind);
    }
    execution.map_or_else(Vec::new, |execution| locks.free_all(instance, execution, now))
}

impl RequestedLocks {
    /// Takes note of an event that records an action.
    pub(super) fn note(&mut self, event: &EventKind) {
        match event {
            EventKind::EntityLockRequested(request) => {
                self.0.push((request.critical_section.clone(), request.lock_set.clone()));
            }
            EventKind::EntityUnlockSent(unlock) => {
                let freed = |id: &EntityId| unlock.target.as_ref() == Some(id) || unlock.then.contains(id);
                for (section, entities) in &mut self.0 {
                    if *section == unlock.critical_section {
                        entities.retain(|id| !freed(id));
                    }
                }
                self.0.retain(|(_, entities)| !entities.is_empty());
            }
            _ => {}
        }
    }

    /// The entities whose locks were asked for and not given back, for people to read; empty if there are none.
    pub(super) fn held(&self) -> String {
        let entities = self.0.iter().flat_map(|(_, entities)| entities);
        entities.map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ")
    }

    /// The execution ends: messages that give back all of them. The request may still be on its way; so the unlock goes
    /// after it, from one entity to the next.
    pub(super) fn free_all(
        &mut self,
        instance: &InstanceId,
        execution: ExecutionId,
        now: Timestamp,
    ) -> Vec<TaskMessage> {
        let requested = std::mem::take(&mut self.0);
        let unlock = |(critical_section, entities): (SmolStr, Vec<EntityId>)| {
            let mut entities = entities.into_iter();
            let first = entities.next()?;
            let unlock = EntityUnlock {
                critical_section,
                target: None,
                owner: Some(EntityOwner { instance: instance.clone(), execution }),
                then: entities.collect(),
            };
            Some(message_to(&first, EventKind::EntityUnlockSent(Box::new(unlock)), now))
        };
        requested.into_iter().filter_map(unlock).collect()
    }
}
