//! Entities: ids, operations and locks.

use steadfast_core::entity::{EntityId, EntityLockRequest, EntityOperation, EntityUnlock};
use steadfast_core::{EventKind, HistoryEvent, InstanceId};
use steadfast_engine::EntityMetadata;

use super::error::{WireError, need};
use super::history::Whose;
use super::scalars::{
    check_length, due_time, optional_payload, payload, payload_to_wire, timestamp, timestamp_to_wire,
};
use crate::wire;
use crate::wire::history_event::EventType;

/// An entity's id, of the form `@name@key`. The name's case does not matter.
///
/// # Errors
/// [`WireError::IdTooLong`] beyond [`super::MAX_ID_CHARACTERS`], [`WireError::InvalidInstanceId`].
pub fn entity_id(text: &str) -> Result<EntityId, WireError> {
    check_length(text)?;
    match text.strip_prefix('@').and_then(|rest| rest.split_once('@')) {
        Some((name, key)) => Ok(EntityId::new(name, key)?),
        // Says what is wrong with it.
        None => Ok(EntityId::parse(text)?),
    }
}

/// The beginning of an entity's id. The case of the name in it does not matter.
///
/// # Errors
/// [`WireError::IdTooLong`] beyond [`super::MAX_ID_CHARACTERS`].
pub fn entity_prefix(text: &str) -> Result<String, WireError> {
    check_length(text)?;
    let text = text.strip_prefix('@').unwrap_or(text);
    let (name, key) = text.split_at(text.find('@').unwrap_or(text.len()));
    Ok(format!("@{}{key}", name.to_lowercase()))
}

/// An operation on its way to a worker that runs the entity: the event of the batch. None for other events.
pub fn operation_request(event: &HistoryEvent) -> Option<wire::HistoryEvent> {
    let event_type = match &event.kind {
        EventKind::EntityOperationSignaled(operation) => {
            EventType::EntityOperationSignaled(signaled(operation))
        }
        EventKind::EntityOperationCalled(operation) => {
            let caller = operation.caller.as_ref();
            EventType::EntityOperationCalled(wire::EntityOperationCalledEvent {
                parent_instance_id: caller.map(|caller| caller.instance.to_string()),
                parent_execution_id: caller.and_then(|caller| caller.execution).map(|id| id.to_string()),
                ..called(operation)
            })
        }
        _ => return None,
    };
    Some(wire::HistoryEvent {
        event_id: event.event_id,
        timestamp: Some(timestamp_to_wire(event.timestamp)),
        event_type: Some(event_type),
    })
}

fn target(id: Option<&EntityId>) -> Option<String> {
    id.map(ToString::to_string)
}

pub(super) fn signaled(operation: &EntityOperation) -> wire::EntityOperationSignaledEvent {
    wire::EntityOperationSignaledEvent {
        request_id: operation.request_id.to_string(),
        operation: operation.operation.to_string(),
        scheduled_time: operation.scheduled_time.map(timestamp_to_wire),
        input: payload_to_wire(&operation.input),
        target_instance_id: target(operation.target.as_ref()),
    }
}

fn called(operation: &EntityOperation) -> wire::EntityOperationCalledEvent {
    wire::EntityOperationCalledEvent {
        request_id: operation.request_id.to_string(),
        operation: operation.operation.to_string(),
        scheduled_time: operation.scheduled_time.map(timestamp_to_wire),
        input: payload_to_wire(&operation.input),
        parent_instance_id: None,
        parent_execution_id: None,
        target_instance_id: target(operation.target.as_ref()),
    }
}

/// In a history the caller is whose history it is.
pub(super) fn called_by(operation: &EntityOperation, whose: &Whose) -> wire::EntityOperationCalledEvent {
    wire::EntityOperationCalledEvent {
        parent_instance_id: Some(whose.instance.to_string()),
        parent_execution_id: Some(whose.execution.to_string()),
        ..called(operation)
    }
}

pub(super) fn lock_requested(request: &EntityLockRequest, whose: &Whose) -> wire::EntityLockRequestedEvent {
    wire::EntityLockRequestedEvent {
        critical_section_id: request.critical_section.to_string(),
        lock_set: request.lock_set.iter().map(ToString::to_string).collect(),
        position: i32::try_from(request.position).unwrap_or(i32::MAX),
        parent_instance_id: Some(whose.instance.to_string()),
    }
}

pub(super) fn unlock_sent(unlock: &EntityUnlock, whose: &Whose) -> wire::EntityUnlockSentEvent {
    wire::EntityUnlockSentEvent {
        critical_section_id: unlock.critical_section.to_string(),
        parent_instance_id: Some(whose.instance.to_string()),
        target_instance_id: target(unlock.target.as_ref()),
        then_instance_ids: unlock.then.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn signal(event: wire::EntityOperationSignaledEvent) -> Result<Box<EntityOperation>, WireError> {
    const MESSAGE: &str = "EntityOperationSignaledEvent";
    let target = need(event.target_instance_id, MESSAGE, "targetInstanceId")?;
    let due = event.scheduled_time.map(|time| due_time(time, "scheduledTime")).transpose()?;
    Ok(Box::new(EntityOperation {
        request_id: event.request_id.into(),
        operation: event.operation.into(),
        input: payload(event.input),
        scheduled_time: due,
        target: Some(entity_id(&target)?),
        caller: None,
        trace: None,
    }))
}

pub(super) fn call(event: wire::EntityOperationCalledEvent) -> Result<Box<EntityOperation>, WireError> {
    const MESSAGE: &str = "EntityOperationCalledEvent";
    let target = need(event.target_instance_id, MESSAGE, "targetInstanceId")?;
    if event.request_id.is_empty() {
        return Err(WireError::Missing { message: MESSAGE, field: "requestId" });
    }
    let due = event.scheduled_time.map(|time| due_time(time, "scheduledTime")).transpose()?;
    Ok(Box::new(EntityOperation {
        request_id: event.request_id.into(),
        operation: event.operation.into(),
        input: payload(event.input),
        scheduled_time: due,
        target: Some(entity_id(&target)?),
        caller: None,
        trace: None,
    }))
}

/// Locks are taken in one order everywhere, whatever the order of the message.
pub(super) fn lock(event: wire::EntityLockRequestedEvent) -> Result<Box<EntityLockRequest>, WireError> {
    const MESSAGE: &str = "EntityLockRequestedEvent";
    let mut lock_set = event.lock_set.iter().map(|id| entity_id(id)).collect::<Result<Vec<_>, _>>()?;
    lock_set.sort();
    lock_set.dedup();
    if lock_set.is_empty() {
        return Err(WireError::Missing { message: MESSAGE, field: "lockSet" });
    }
    let position = u32::try_from(event.position)
        .map_err(|_| WireError::UnknownValue { field: "position", value: event.position })?;
    Ok(Box::new(EntityLockRequest {
        critical_section: event.critical_section_id.into(),
        lock_set,
        position,
        owner: None,
        trace: None,
    }))
}

pub(super) fn unlock(event: wire::EntityUnlockSentEvent) -> Result<Box<EntityUnlock>, WireError> {
    let target = need(event.target_instance_id, "EntityUnlockSentEvent", "targetInstanceId")?;
    Ok(Box::new(EntityUnlock {
        critical_section: event.critical_section_id.into(),
        target: Some(entity_id(&target)?),
        owner: None,
        then: event.then_instance_ids.iter().map(|id| entity_id(id)).collect::<Result<_, _>>()?,
    }))
}

/// What a server says of an entity. The protocol does not tell an entity whose state was not asked for from one that has none;
/// `with_state` says whether it was.
///
/// # Errors
/// When it cannot be understood.
pub fn received_entity(entity: wire::EntityMetadata, with_state: bool) -> Result<EntityMetadata, WireError> {
    let last_modified = need(entity.last_modified_time, "EntityMetadata", "lastModifiedTime")?;
    let state = optional_payload(entity.serialized_state);
    Ok(EntityMetadata {
        id: entity_id(&entity.instance_id)?,
        exists: state.is_some() || !with_state,
        state,
        last_modified: timestamp(last_modified, "lastModifiedTime")?,
        backlog_size: usize::try_from(entity.backlog_queue_size).unwrap_or_default(),
        locked_by: entity.locked_by.filter(|id| !id.is_empty()).map(InstanceId::parse).transpose()?,
    })
}
