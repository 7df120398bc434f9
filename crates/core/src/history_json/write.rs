//! Printing a history.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::entities;
use super::fields::{print_duration, print_time};
use super::lifecycle;
use crate::event::{
    ActivityOptions, CarriedEvent, EventKind, ExecutionStarted, HistoryEvent, ParentInstance,
    SubOrchestrationCreated, Tags, TraceContext,
};
use crate::failure::FailureDetails;
use crate::ids::{ExecutionId, InstanceId};

/// Prints the history of an execution of `instance`, one event a line.
pub fn write(instance: &InstanceId, events: &[HistoryEvent]) -> String {
    let mut text = String::from("[\n");
    for (at, event) in events.iter().enumerate() {
        let object = event_object(instance, event);
        // Text keys and values of JSON's own types: nothing in it can fail.
        let line = serde_json::to_string(&object).unwrap_or_default();
        text.push_str("  ");
        text.push_str(&line);
        text.push_str(if at + 1 == events.len() { "\n" } else { ",\n" });
    }
    text.push_str("]\n");
    text
}

/// An object whose fields keep their order.
#[derive(Default)]
pub(super) struct Object(Vec<(&'static str, Field)>);

enum Field {
    Value(Value),
    Object(Object),
    List(Vec<Object>),
}

impl Object {
    pub(super) fn put(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, Field::Value(value.into())));
        self
    }

    pub(super) fn object(mut self, name: &'static str, object: Option<Object>) -> Self {
        self.0.extend(object.map(|object| (name, Field::Object(object))));
        self
    }

    /// Leaves out what says nothing.
    fn text(self, name: &'static str, text: &str) -> Self {
        if text.is_empty() { self } else { self.put(name, text) }
    }

    pub(super) fn some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.put(name, value),
            None => self,
        }
    }

    fn flag(self, name: &'static str, flag: bool) -> Self {
        if flag { self.put(name, true) } else { self }
    }

    fn tags(self, tags: &Tags) -> Self {
        self.map("Tags", tags)
    }

    fn map(self, name: &'static str, tags: &Tags) -> Self {
        if tags.is_empty() {
            return self;
        }
        let tags: serde_json::Map<_, _> =
            tags.iter().map(|(key, value)| (key.to_string(), Value::from(value.as_str()))).collect();
        self.put(name, tags)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, field) in &self.0 {
            match field {
                Field::Value(value) => map.serialize_entry(name, value)?,
                Field::Object(object) => map.serialize_entry(name, object)?,
                Field::List(list) => map.serialize_entry(name, list)?,
            }
        }
        map.end()
    }
}

fn event_object(instance: &InstanceId, event: &HistoryEvent) -> Object {
    let object = Object::default()
        .put("EventId", event.event_id)
        .put("EventType", event.kind.type_name())
        .put("Timestamp", print_time(event.timestamp));
    match &event.kind {
        EventKind::ExecutionStarted(started) => execution_started(object, instance, started),
        EventKind::ExecutionCompleted { status, output, failure } => object
            .put("OrchestrationStatus", status.to_string())
            .some("Result", output.as_ref().map(|output| output.as_str()))
            .object("FailureDetails", failure.as_deref().map(failure_object)),
        EventKind::ExecutionTerminated { reason, recurse } => {
            object.put("Input", reason.as_str()).flag("Recurse", *recurse)
        }
        EventKind::TaskScheduled { name, version, input, options } => {
            let object =
                object.put("Name", name.as_str()).text("Version", version).put("Input", input.as_str());
            match options {
                Some(options) => activity_options(object, options),
                None => object,
            }
        }
        EventKind::TaskCompleted { task_scheduled_id, result }
        | EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, result } => {
            object.put("TaskScheduledId", *task_scheduled_id).put("Result", result.as_str())
        }
        EventKind::TaskFailed { task_scheduled_id, failure }
        | EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, failure } => object
            .put("TaskScheduledId", *task_scheduled_id)
            .put("Reason", failure.message.as_str())
            .object("FailureDetails", Some(failure_object(failure))),
        EventKind::SubOrchestrationInstanceCreated(created) => sub_orchestration(object, created),
        EventKind::TimerCreated { fire_at } => object.put("FireAt", print_time(*fire_at)),
        EventKind::TimerFired { timer_id, fire_at } => {
            object.put("TimerId", *timer_id).put("FireAt", print_time(*fire_at))
        }
        EventKind::OrchestratorStarted | EventKind::OrchestratorCompleted => object,
        EventKind::EventSent { instance, name, input } => object
            .put("InstanceId", instance.as_str())
            .put("Name", name.as_str())
            .put("Input", input.as_str()),
        EventKind::EventRaised { name, input, trace } => object
            .put("Name", name.as_str())
            .put("Input", input.as_str())
            .object("ParentTraceContext", trace.as_deref().map(trace_object)),
        EventKind::VersionedEventRaised(raised) => object
            .put("Name", raised.name.as_str())
            .put("Input", raised.input.as_str())
            .object("ParentTraceContext", raised.trace.as_deref().map(trace_object))
            .text("SenderVersion", &raised.versions.sender)
            .some("ReceiverVersion", raised.versions.receiver.as_deref()),
        EventKind::ContinueAsNew { input } => {
            object.put("OrchestrationStatus", "ContinuedAsNew").put("Result", input.as_str())
        }
        EventKind::GenericEvent { data } => object.put("Data", data.as_str()),
        EventKind::ExecutionSuspended { reason } | EventKind::ExecutionResumed { reason } => {
            object.put("Reason", reason.as_str())
        }
        EventKind::EntityOperationSignaled(_)
        | EventKind::EntityOperationCalled(_)
        | EventKind::EntityOperationCompleted { .. }
        | EventKind::EntityOperationFailed { .. }
        | EventKind::EntityLockRequested(_)
        | EventKind::EntityLockGranted { .. }
        | EventKind::EntityUnlockSent(_) => entities::write(object, &event.kind),
        EventKind::ExecutionRewound { .. } | EventKind::PatchApplied { .. } => {
            lifecycle::write(object, instance, &event.kind)
        }
    }
}

pub(super) fn execution_started(object: Object, instance: &InstanceId, started: &ExecutionStarted) -> Object {
    let mut object = object
        .object("OrchestrationInstance", Some(execution_object(instance, started.execution)))
        .object("ParentInstance", started.parent.as_ref().map(parent_object))
        .put("Name", started.name.as_str())
        .text("Version", &started.version)
        .put("Input", started.input.as_str())
        .tags(&started.tags)
        .object("ParentTraceContext", started.trace.as_deref().map(trace_object))
        .some("ScheduledStartTime", started.scheduled_start.map(print_time));
    if started.generation > 0 {
        object = object.put("Generation", started.generation);
    }
    if !started.carried_events.is_empty() {
        let carried = started.carried_events.iter().map(carried_object).collect();
        object.0.push(("CarryoverEvents", Field::List(carried)));
    }
    lifecycle::write_lineage(object, started)
}

fn sub_orchestration(object: Object, created: &SubOrchestrationCreated) -> Object {
    object
        .put("Name", created.name.as_str())
        .text("Version", &created.version)
        .put("InstanceId", created.instance.as_str())
        .put("ExecutionId", created.execution.to_string())
        .put("Input", created.input.as_str())
        .flag("FireAndForget", created.detached)
        .tags(&created.tags)
        .object("ParentTraceContext", created.trace.as_deref().map(trace_object))
}

fn activity_options(object: Object, options: &ActivityOptions) -> Object {
    let object =
        object.tags(&options.tags).object("ParentTraceContext", options.trace.as_ref().map(trace_object));
    // Their presence alone is a fact of the history, even when they say nothing.
    let own = Object::default()
        .put("Priority", options.priority)
        .some("StartToCloseSeconds", options.start_to_close.map(print_duration))
        .some("HeartbeatSeconds", options.heartbeat.map(print_duration))
        .some("LastHeartbeat", options.last_heartbeat.as_ref().map(|detail| detail.as_str()));
    object.object("Options", Some(own))
}

fn carried_object(event: &CarriedEvent) -> Object {
    Object::default()
        .put("Timestamp", print_time(event.timestamp))
        .put("Name", event.name.as_str())
        .put("Input", event.input.as_str())
        .object("ParentTraceContext", event.trace.as_deref().map(trace_object))
}

fn execution_object(instance: &InstanceId, execution: ExecutionId) -> Object {
    Object::default().put("InstanceId", instance.as_str()).put("ExecutionId", execution.to_string())
}

fn parent_object(parent: &ParentInstance) -> Object {
    Object::default()
        .object("OrchestrationInstance", Some(execution_object(&parent.instance, parent.execution)))
        .text("Name", &parent.name)
        .put("TaskScheduleId", parent.task_scheduled_id)
}

pub(super) fn trace_object(trace: &TraceContext) -> Object {
    Object::default().put("TraceParent", trace.parent.as_str()).text("TraceState", &trace.state)
}

pub(super) fn failure_object(failure: &FailureDetails) -> Object {
    let links: Vec<_> = failure.chain().collect();
    // From the innermost outwards; a chain is never longer than `failure::MAX_CHAIN`.
    let whole = links.into_iter().rev().fold(None, |inner, failure| {
        let object = Object::default()
            .put("ErrorType", failure.error_type.as_str())
            .put("ErrorMessage", failure.message.as_str())
            .some("StackTrace", failure.stack_trace.as_deref())
            .object("InnerFailure", inner)
            .put("IsNonRetriable", failure.non_retriable);
        Some(object.map("Properties", &failure.properties))
    });
    whole.unwrap_or_default()
}
