//! What only this runtime writes into histories: patches, and how executions follow one another.

use serde_json::{Value, json};

use super::fields::print_time;
use super::read::{Fields, HistoryJsonError, Reader, execution_id};
use super::write::{Object, execution_started};
use crate::event::{EventKind, ExecutionStarted, Predecessor};
use crate::ids::InstanceId;

pub(super) const EVENT_TYPES: [&str; 1] = ["PatchApplied"];

/// Prints a rewind or a patch; others have no fields here.
pub(super) fn write(object: Object, instance: &InstanceId, kind: &EventKind) -> Object {
    match kind {
        EventKind::ExecutionRewound { reason, child } => {
            let child = child.as_deref().map(|child| execution_started(Object::default(), instance, child));
            object.put("Reason", reason.as_str()).object("Child", child)
        }
        EventKind::PatchApplied { id } => object.put("PatchId", id.as_str()),
        _ => object,
    }
}

/// Reads a rewind or a patch; none for other types.
pub(super) fn read(reader: &mut Reader) -> Result<Option<EventKind>, HistoryJsonError> {
    Ok(Some(match reader.event_type {
        "ExecutionRewound" => EventKind::ExecutionRewound {
            reason: reader.fields.text("reason").unwrap_or_default(),
            child: match reader.fields.object("child") {
                Some(child) => {
                    let outer = std::mem::replace(&mut reader.fields, child);
                    let child = reader.execution_started(&mut None)?;
                    reader.fields = outer;
                    Some(Box::new(child))
                }
                None => None,
            },
        },
        "PatchApplied" => {
            let id = reader.fields.text("patchid");
            EventKind::PatchApplied { id: reader.need("PatchId", id)? }
        }
        _ => return Ok(None),
    }))
}

/// Prints how an execution came after others, if it did.
pub(super) fn write_lineage(object: Object, started: &ExecutionStarted) -> Object {
    let before =
        |it: &Predecessor| json!({ "ExecutionId": it.execution.to_string(), "KeptBelow": it.kept_below });
    let predecessors: Vec<_> = started.predecessors.iter().map(before).collect();
    object
        .some("VersionInherited", started.version_inherited.then_some(true))
        .some("Incarnation", (started.incarnation > 0).then_some(started.incarnation))
        .some("CreatedTime", started.created_at.map(print_time))
        .some("Predecessors", (!predecessors.is_empty()).then_some(Value::Array(predecessors)))
}

/// Reads how an execution came after others.
pub(super) fn read_lineage(fields: &mut Fields, started: ExecutionStarted) -> ExecutionStarted {
    let predecessor = |value: &Value| {
        let kept_below = value.get("KeptBelow")?.as_i64().and_then(|id| i32::try_from(id).ok())?;
        Some(Predecessor { execution: execution_id(value.get("ExecutionId")?.as_str()?), kept_below })
    };
    let predecessors = match fields.take("predecessors") {
        Some(Value::Array(predecessors)) => predecessors.iter().filter_map(predecessor).collect(),
        _ => Vec::new(),
    };
    ExecutionStarted {
        version_inherited: fields.flag("versioninherited"),
        incarnation: fields.number("incarnation").and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
        created_at: fields.time("createdtime"),
        predecessors,
        ..started
    }
}
