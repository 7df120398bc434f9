//! What an orchestration sends to entities.

use crate::action::ActionKind;
use crate::entity::{EntityCaller, EntityId, EntityOwner, EntityUnlock, RequestedLocks};
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

/// The execution ends: messages that give back all the locks that it has asked for. The request may still be on its way; so
/// the unlock goes after it, from one entity to the next.
pub(crate) fn free_all(
    requested: RequestedLocks,
    instance: &InstanceId,
    execution: ExecutionId,
    now: Timestamp,
) -> impl Iterator<Item = TaskMessage> {
    let owner = EntityOwner { instance: instance.clone(), execution };
    requested.into_sections().filter_map(move |(critical_section, entities)| {
        let mut entities = entities.into_iter();
        let first = entities.next()?;
        let owner = Some(owner.clone());
        let unlock = EntityUnlock { critical_section, target: None, owner, then: entities.collect() };
        Some(message_to(&first, EventKind::EntityUnlockSent(Box::new(unlock)), now))
    })
}
