//! Spans of what entities of Rust code do. They are opened around the code, so that what it reports is within them.

use smol_str::format_smolstr;
use tracing::{Span, field};

use super::batch::{BatchOperation, EntityAction};
use crate::entity::EntityId;
use crate::failure::FailureDetails;

/// An operation runs, if it is traced.
pub(super) fn running(entity: &EntityId, operation: &BatchOperation) -> Span {
    let Some(caller) = operation.trace.as_deref() else { return Span::none() };
    let trace = caller.of_operation();
    tracing::info_span!(
        target: "steadfast",
        "entity",
        otel.name = %format_smolstr!("entity:{}:{}", entity.name(), operation.operation),
        otel.kind = if operation.is_signal { "consumer" } else { "server" },
        durabletask.r#type = "entity",
        trace_id = %trace.trace_id(),
        span_id = %trace.span_id(),
        parent_span_id = caller.span_id(),
        durabletask.task.name = entity.name(),
        durabletask.task.instance_id = %entity,
        durabletask.task.operation = %operation.operation,
        durabletask.task.scheduled_time = operation.scheduled_time.map(field::display),
        durabletask.entity.error_message = field::Empty,
    )
}

/// It failed.
pub(super) fn failed(span: &Span, failure: &FailureDetails) {
    span.record("durabletask.entity.error_message", field::display(failure));
}

/// It succeeded, and asked others for something.
pub(super) fn asking(operation: &BatchOperation, actions: &[EntityAction]) {
    let Some(caller) = operation.trace.as_deref().filter(|_| !actions.is_empty()) else { return };
    let own = caller.of_operation();
    for action in actions {
        match action {
            EntityAction::Signal { target, operation } => {
                let Some(trace) = operation.trace.as_deref() else { continue };
                let _asked = tracing::info_span!(
                    target: "steadfast",
                    "entity",
                    otel.name = %format_smolstr!("entity:{}:{}", target.name(), operation.operation),
                    otel.kind = "producer",
                    durabletask.r#type = "entity",
                    trace_id = %trace.trace_id(),
                    span_id = %trace.span_id(),
                    parent_span_id = own.span_id(),
                    durabletask.task.name = target.name(),
                    durabletask.event.target_instance_id = %target,
                    durabletask.task.operation = %operation.operation,
                    durabletask.task.scheduled_time = operation.scheduled_time.map(field::display),
                );
            }
            EntityAction::Start { instance, name, version, trace, .. } => {
                let Some(trace) = trace.as_deref() else { continue };
                let _asked = tracing::info_span!(
                    target: "steadfast",
                    "create_orchestration",
                    otel.name = %format_smolstr!("create_orchestration:{name}"),
                    otel.kind = "producer",
                    durabletask.r#type = "orchestration",
                    trace_id = %trace.trace_id(),
                    span_id = %trace.span_id(),
                    parent_span_id = own.span_id(),
                    durabletask.task.name = %name,
                    durabletask.task.version = %version,
                    durabletask.task.instance_id = %instance,
                );
            }
        }
    }
}
