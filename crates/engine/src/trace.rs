//! Spans of the Durable Task vocabulary, as `tracing` spans that a subscriber can export.
//!
//! Names that hold other names are in the field `otel.name`, the kind in `otel.kind`, and the W3C ids, which are part of
//! histories and messages, in `trace_id`, `span_id` and `parent_span_id`. What lies between two points of an
//! orchestration's life is opened and closed at once when it is over, and says in `start` and `end` when it was; after a
//! crash it may appear again, with the same ids.

use std::collections::HashMap;

use smol_str::{SmolStr, format_smolstr};
use steadfast_core::entity::EntityOperation;
use steadfast_core::partition::ActivityTask;
use steadfast_core::turn::Turn;
use steadfast_core::{
    EntityId, EventKind, ExecutionId, ExecutionStarted, FailureDetails, HistoryEvent, InstanceId, Timestamp,
    TraceContext,
};
use tracing::{Span, field};
use uuid::Uuid;

macro_rules! span {
    ($name:literal, $kind:literal, $type:literal, $full:expr, $trace:expr, $parent:expr, $($fields:tt)*) => {
        tracing::info_span!(
            target: "steadfast",
            $name,
            otel.name = %$full,
            otel.kind = $kind,
            durabletask.r#type = $type,
            trace_id = %$trace.trace_id(),
            span_id = %$trace.span_id(),
            parent_span_id = $parent,
            $($fields)*
        )
    };
}

/// What is asked of an entity.
macro_rules! entity_span {
    ($kind:literal, $entity:expr, $operation:expr, $trace:expr, $parent:expr, $($fields:tt)*) => {
        span!(
            "entity", $kind, "entity",
            format_smolstr!("entity:{}:{}", $entity.name(), $operation.operation), $trace, $parent,
            durabletask.task.name = $entity.name(),
            durabletask.task.operation = %$operation.operation,
            durabletask.task.scheduled_time = $operation.scheduled_time.map(field::display),
            durabletask.event.target_instance_id = %$entity,
            $($fields)*
        )
    };
}

/// Whether anybody listens to spans.
fn wanted() -> bool {
    tracing::enabled!(target: "steadfast", tracing::Level::INFO)
}

/// A new span's id, on the side of a client.
fn fresh(parent: Option<TraceContext>) -> TraceContext {
    let (_, span_id) = Uuid::now_v7().as_u64_pair();
    match parent {
        Some(parent) => parent.with_span(span_id),
        None => TraceContext::new(Uuid::now_v7().as_u128(), span_id),
    }
}

fn named(what: &str, name: &str, version: &str) -> SmolStr {
    if version.is_empty() {
        format_smolstr!("{what}:{name}")
    } else {
        format_smolstr!("{what}:{name}@({version})")
    }
}

/// A client starts an instance: the span, and the context that travels with the start. Without a context and without
/// anybody who listens there is neither.
pub(crate) fn creating(
    parent: Option<TraceContext>,
    name: &str,
    version: &str,
    instance: &InstanceId,
    execution: ExecutionId,
) -> (Span, Option<TraceContext>) {
    if !wanted() {
        return (Span::none(), parent);
    }
    let above = parent.as_ref().map(|parent| SmolStr::from(parent.span_id()));
    let trace = fresh(parent);
    let span = span!(
        "create_orchestration", "producer", "orchestration", named("create_orchestration", name, version), trace,
        above.as_deref(),
        durabletask.task.name = name,
        durabletask.task.version = version,
        durabletask.task.instance_id = %instance,
        durabletask.task.execution_id = %execution
    );
    (span, Some(trace))
}

/// A client raises an event.
pub(crate) fn raising(name: &str, target: &str) -> (Span, Option<Box<TraceContext>>) {
    if !wanted() {
        return (Span::none(), None);
    }
    let trace = fresh(None);
    let span = span!(
        "orchestration_event",
        "producer",
        "event",
        format_smolstr!("orchestration_event:{name}"),
        trace,
        field::Empty,
        durabletask.event.target_instance_id = target
    );
    (span, Some(Box::new(trace)))
}

/// A client signals an entity.
pub(crate) fn signaling(entity: &EntityId, operation: &EntityOperation) -> (Span, Option<Box<TraceContext>>) {
    if !wanted() {
        return (Span::none(), None);
    }
    let trace = fresh(None);
    let span = entity_span!("producer", entity, operation, trace, field::Empty,);
    (span, Some(Box::new(trace)))
}

/// An activity runs.
pub(crate) fn running(task: &ActivityTask) -> Span {
    let Some(caller) = task.options.as_deref().and_then(|options| options.trace.as_ref()) else {
        return Span::none();
    };
    let trace = caller.child(task.execution, "activity run", task.task_id);
    span!(
        "activity", "server", "activity", named("activity", &task.name, &task.version), trace, caller.span_id(),
        durabletask.task.name = %task.name,
        durabletask.task.version = %task.version,
        durabletask.task.instance_id = %task.instance,
        durabletask.task.execution_id = %task.execution,
        durabletask.task.task_id = task.task_id
    )
}

/// What an execution has asked for and not got yet, if it is traced and somebody listens; then only it takes memory.
#[derive(Default)]
pub(crate) struct Trail(Option<Box<Traced>>);

#[derive(Default)]
struct Traced {
    execution: Option<(ExecutionStarted, Timestamp, TraceContext)>,
    open: HashMap<i32, (HistoryEvent, Timestamp)>,
    /// Calls of entities, by their request ids.
    calls: HashMap<SmolStr, (Box<EntityOperation>, Timestamp)>,
}

impl Trail {
    /// Replayed events: what was under way when the session was made.
    pub(crate) fn replayed(&mut self, history: &[HistoryEvent]) {
        if wanted() {
            let traced = self.0.get_or_insert_default();
            history.iter().for_each(|event| traced.note(event));
        }
    }

    /// A turn's events: what has begun, and what is over.
    pub(crate) fn turn(&mut self, instance: &InstanceId, turn: &Turn) {
        if !wanted() {
            return;
        }
        let traced = self.0.get_or_insert_default();
        for event in turn.new_events() {
            traced.note(event);
            traced.emit(instance, event);
        }
    }
}

impl Traced {
    fn note(&mut self, event: &HistoryEvent) {
        match &event.kind {
            EventKind::ExecutionStarted(started) => {
                self.open.clear();
                self.calls.clear();
                self.execution = started.trace.as_deref().map(|trace| {
                    let own = trace.child(started.execution, "orchestration", 0);
                    (
                        ExecutionStarted { carried_events: Vec::new(), ..(**started).clone() },
                        event.timestamp,
                        own,
                    )
                });
            }
            EventKind::TaskScheduled { .. }
            | EventKind::SubOrchestrationInstanceCreated(_)
            | EventKind::TimerCreated { .. }
                if self.execution.is_some() =>
            {
                self.open.insert(event.event_id, (event.clone(), event.timestamp));
            }
            EventKind::EntityOperationCalled(operation) if operation.trace.is_some() => {
                self.calls.insert(operation.request_id.clone(), (operation.clone(), event.timestamp));
            }
            _ => {}
        }
    }

    /// An entity has answered.
    fn answered(
        &mut self,
        instance: &InstanceId,
        request: &SmolStr,
        failure: Option<&FailureDetails>,
        now: Timestamp,
    ) {
        let Some((_, _, own)) = &self.execution else { return };
        let Some((operation, since)) = self.calls.remove(request) else { return };
        let (Some(target), Some(trace)) = (&operation.target, operation.trace.as_deref()) else { return };
        let _done = entity_span!(
            "client", target, operation, trace, own.span_id(),
            durabletask.task.instance_id = %instance,
            durabletask.task.status = if failure.is_some() { "Failed" } else { "Completed" },
            durabletask.entity.error_message = failure.map(field::display),
            start = %since,
            end = %now
        );
    }

    fn emit(&mut self, instance: &InstanceId, event: &HistoryEvent) {
        let Some((started, began, own)) = &self.execution else { return };
        let (id, status) = match &event.kind {
            EventKind::ExecutionCompleted { .. } | EventKind::ContinueAsNew { .. } => {
                let status = match &event.kind {
                    EventKind::ExecutionCompleted { status, .. } => status.to_string(),
                    _ => "ContinuedAsNew".to_owned(),
                };
                let parent = started.trace.as_deref().map(TraceContext::span_id);
                let _ended = span!(
                    "orchestration", "server", "orchestration",
                    named("orchestration", &started.name, &started.version), own, parent,
                    durabletask.task.name = %started.name,
                    durabletask.task.version = %started.version,
                    durabletask.task.instance_id = %instance,
                    durabletask.task.execution_id = %started.execution,
                    durabletask.task.status = %status,
                    start = %began,
                    end = %event.timestamp
                );
                self.execution = None;
                return;
            }
            EventKind::EventSent { instance: target, name, .. } => {
                let trace = own.child(started.execution, "event", event.event_id);
                let _sent = span!(
                    "orchestration_event", "producer", "event",
                    format_smolstr!("orchestration_event:{name}"), trace, own.span_id(),
                    durabletask.task.instance_id = %instance,
                    durabletask.event.target_instance_id = %target
                );
                return;
            }
            EventKind::EntityOperationSignaled(operation) => {
                let (Some(target), Some(trace)) = (&operation.target, operation.trace.as_deref()) else {
                    return;
                };
                let _sent = entity_span!(
                    "producer", target, operation, trace, own.span_id(),
                    durabletask.task.instance_id = %instance
                );
                return;
            }
            EventKind::EntityOperationCompleted { request_id, .. } => {
                return self.answered(instance, request_id, None, event.timestamp);
            }
            EventKind::EntityOperationFailed { request_id, failure } => {
                return self.answered(instance, request_id, Some(failure), event.timestamp);
            }
            EventKind::TaskCompleted { task_scheduled_id: id, .. }
            | EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id: id, .. }
            | EventKind::TimerFired { timer_id: id, .. } => (*id, "Completed"),
            EventKind::TaskFailed { task_scheduled_id: id, .. }
            | EventKind::SubOrchestrationInstanceFailed { task_scheduled_id: id, .. } => (*id, "Failed"),
            _ => return,
        };
        let Some((asked, since)) = self.open.remove(&id) else { return };
        match &asked.kind {
            EventKind::TaskScheduled { name, version, options, .. } => {
                let Some(trace) = options.as_deref().and_then(|options| options.trace.as_ref()) else {
                    return;
                };
                let _done = span!(
                    "activity", "client", "activity", named("activity", name, version), trace, own.span_id(),
                    durabletask.task.name = %name,
                    durabletask.task.version = %version,
                    durabletask.task.instance_id = %instance,
                    durabletask.task.task_id = id,
                    durabletask.task.status = status,
                    start = %since,
                    end = %event.timestamp
                );
            }
            EventKind::SubOrchestrationInstanceCreated(child) => {
                let Some(trace) = child.trace.as_deref() else { return };
                let _done = span!(
                    "orchestration", "client", "orchestration",
                    named("orchestration", &child.name, &child.version), trace, own.span_id(),
                    durabletask.task.name = %child.name,
                    durabletask.task.version = %child.version,
                    durabletask.task.instance_id = %child.instance,
                    durabletask.task.task_id = id,
                    durabletask.task.status = status,
                    start = %since,
                    end = %event.timestamp
                );
            }
            EventKind::TimerCreated { fire_at } => {
                let trace = own.child(started.execution, "timer", id);
                let _fired = span!(
                    "timer", "internal", "timer", format_smolstr!("orchestration:{}:timer", started.name), trace,
                    own.span_id(),
                    durabletask.task.instance_id = %instance,
                    durabletask.task.task_id = id,
                    durabletask.fire_at = %fire_at,
                    start = %since,
                    end = %event.timestamp
                );
            }
            _ => {}
        }
    }
}
