//! The events of entities, printed and read. Their fields are those of the protobuf messages.

use serde_json::Value;

use super::fields::{parse_time, print_time};
use super::read::{Fields, HistoryJsonError, Reader, execution_id};
use super::write::{Object, failure_object, trace_object};
use crate::entity::{EntityCaller, EntityId, EntityLockRequest, EntityOperation, EntityOwner, EntityUnlock};
use crate::event::EventKind;
use crate::ids::InstanceId;
use crate::payload::Payload;

pub(super) const EVENT_TYPES: [&str; 7] = [
    "EntityOperationSignaled",
    "EntityOperationCalled",
    "EntityOperationCompleted",
    "EntityOperationFailed",
    "EntityLockRequested",
    "EntityLockGranted",
    "EntityUnlockSent",
];

/// Prints the fields of an event of entities; others have none here.
pub(super) fn write(object: Object, kind: &EventKind) -> Object {
    match kind {
        EventKind::EntityOperationSignaled(operation) | EventKind::EntityOperationCalled(operation) => object
            .put("RequestId", operation.request_id.as_str())
            .put("Operation", operation.operation.as_str())
            .put("Input", operation.input.as_str())
            .some("ScheduledTime", operation.scheduled_time.map(print_time))
            .some("TargetInstanceId", operation.target.as_ref().map(EntityId::to_string))
            .some("ParentInstanceId", operation.caller.as_ref().map(|caller| caller.instance.as_str()))
            .some(
                "ParentExecutionId",
                operation.caller.as_ref().and_then(|caller| Some(caller.execution?.to_string())),
            )
            .object("ParentTraceContext", operation.trace.as_deref().map(trace_object)),
        EventKind::EntityOperationCompleted { request_id, output } => {
            object.put("RequestId", request_id.as_str()).put("Output", output.as_str())
        }
        EventKind::EntityOperationFailed { request_id, failure } => object
            .put("RequestId", request_id.as_str())
            .object("FailureDetails", Some(failure_object(failure))),
        EventKind::EntityLockRequested(request) => owner(
            object
                .put("CriticalSectionId", request.critical_section.as_str())
                .put("LockSet", ids(&request.lock_set))
                .put("Position", request.position)
                .object("ParentTraceContext", request.trace.as_deref().map(trace_object)),
            request.owner.as_ref(),
        ),
        EventKind::EntityLockGranted { critical_section } => {
            object.put("CriticalSectionId", critical_section.as_str())
        }
        EventKind::EntityUnlockSent(unlock) => {
            let object = object
                .put("CriticalSectionId", unlock.critical_section.as_str())
                .some("TargetInstanceId", unlock.target.as_ref().map(EntityId::to_string));
            let object = owner(object, unlock.owner.as_ref());
            if unlock.then.is_empty() { object } else { object.put("Then", ids(&unlock.then)) }
        }
        _ => object,
    }
}

fn owner(object: Object, owner: Option<&EntityOwner>) -> Object {
    object
        .some("ParentInstanceId", owner.map(|owner| owner.instance.as_str()))
        .some("ParentExecutionId", owner.map(|owner| owner.execution.to_string()))
}

fn ids(entities: &[EntityId]) -> Vec<Value> {
    entities.iter().map(|entity| Value::from(entity.to_string())).collect()
}

/// Reads an event of entities; none when the type is another.
pub(super) fn read(reader: &mut Reader) -> Result<Option<EventKind>, HistoryJsonError> {
    Ok(Some(match reader.event_type {
        "EntityOperationSignaled" => EventKind::EntityOperationSignaled(Box::new(operation(reader)?)),
        "EntityOperationCalled" => EventKind::EntityOperationCalled(Box::new(operation(reader)?)),
        "EntityOperationCompleted" => EventKind::EntityOperationCompleted {
            request_id: reader.fields.text("requestid").unwrap_or_default(),
            output: reader.fields.payload("output").unwrap_or(Payload::null()),
        },
        "EntityOperationFailed" => EventKind::EntityOperationFailed {
            request_id: reader.fields.text("requestid").unwrap_or_default(),
            failure: Box::new(reader.fields.failure_or_reason()),
        },
        "EntityLockRequested" => {
            let lock_set = entities(&mut reader.fields, "lockset");
            EventKind::EntityLockRequested(Box::new(EntityLockRequest {
                critical_section: reader.fields.text("criticalsectionid").unwrap_or_default(),
                lock_set: reader.need("LockSet", lock_set)?,
                position: reader.fields.number("position").and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
                owner: read_owner(&mut reader.fields),
                trace: reader.fields.trace().map(Box::new),
            }))
        }
        "EntityLockGranted" => EventKind::EntityLockGranted {
            critical_section: reader.fields.text("criticalsectionid").unwrap_or_default(),
        },
        "EntityUnlockSent" => {
            let then = match reader.fields.0.contains_key("then") {
                true => entities(&mut reader.fields, "then"),
                false => Some(Vec::new()),
            };
            EventKind::EntityUnlockSent(Box::new(EntityUnlock {
                critical_section: reader.fields.text("criticalsectionid").unwrap_or_default(),
                target: target(reader)?,
                owner: read_owner(&mut reader.fields),
                then: reader.need("Then", then)?,
            }))
        }
        _ => return Ok(None),
    }))
}

fn operation(reader: &mut Reader) -> Result<EntityOperation, HistoryJsonError> {
    let operation = reader.fields.text("operation");
    let caller = reader.fields.text("parentinstanceid").map(InstanceId::from_trusted);
    let execution = reader.fields.text("parentexecutionid").map(|id| execution_id(&id));
    Ok(EntityOperation {
        request_id: reader.fields.text("requestid").unwrap_or_default(),
        operation: reader.need("Operation", operation)?,
        input: reader.fields.payload("input").unwrap_or(Payload::null()),
        scheduled_time: reader.fields.text("scheduledtime").and_then(|text| parse_time(&text)),
        target: target(reader)?,
        caller: caller.map(|instance| EntityCaller { instance, execution }),
        trace: reader.fields.trace().map(Box::new),
    })
}

fn target(reader: &mut Reader) -> Result<Option<EntityId>, HistoryJsonError> {
    let Some(text) = reader.fields.text("targetinstanceid") else { return Ok(None) };
    reader.need("TargetInstanceId", EntityId::parse(text).ok()).map(Some)
}

fn entities(fields: &mut Fields, name: &str) -> Option<Vec<EntityId>> {
    let Value::Array(entities) = fields.take(name)? else { return None };
    entities.iter().map(|entity| EntityId::parse(entity.as_str()?).ok()).collect()
}

fn read_owner(fields: &mut Fields) -> Option<EntityOwner> {
    let instance = InstanceId::from_trusted(fields.text("parentinstanceid")?);
    Some(EntityOwner { instance, execution: execution_id(&fields.text("parentexecutionid")?) })
}
