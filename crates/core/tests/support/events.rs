//! Short ways to write events down, and to read them.

use serde::Serialize;
use steadfast_core::{EventKind, ExecutionStarted, FailureDetails, HistoryEvent, Payload, Timestamp};

fn encode(value: impl Serialize) -> Payload {
    Payload::encode(&value).unwrap()
}

pub(crate) fn done(id: i32, result: impl Serialize) -> EventKind {
    EventKind::TaskCompleted { task_scheduled_id: id, result: encode(result) }
}

pub(crate) fn failed(id: i32, message: &str) -> EventKind {
    failed_with(id, FailureDetails::new("Flaky", message))
}

pub(crate) fn failed_with(id: i32, failure: FailureDetails) -> EventKind {
    EventKind::TaskFailed { task_scheduled_id: id, failure: Box::new(failure) }
}

pub(crate) fn child_done(id: i32, result: impl Serialize) -> EventKind {
    EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id: id, result: encode(result) }
}

pub(crate) fn child_failed(id: i32, failure: FailureDetails) -> EventKind {
    EventKind::SubOrchestrationInstanceFailed { task_scheduled_id: id, failure: Box::new(failure) }
}

pub(crate) fn fired(id: i32) -> EventKind {
    EventKind::TimerFired { timer_id: id, fire_at: Timestamp::default() }
}

pub(crate) fn raised(name: &str, input: impl Serialize) -> EventKind {
    EventKind::EventRaised { name: name.into(), input: encode(input), trace: None }
}

pub(crate) fn suspended() -> EventKind {
    EventKind::ExecutionSuspended { reason: "pause".into() }
}

pub(crate) fn resumed() -> EventKind {
    EventKind::ExecutionResumed { reason: "go on".into() }
}

pub(crate) fn rewound(child: Option<ExecutionStarted>) -> EventKind {
    EventKind::ExecutionRewound { reason: "mended".into(), child: child.map(Box::new) }
}

pub(crate) fn terminated(reason: &str) -> EventKind {
    EventKind::ExecutionTerminated { reason: reason.into(), recurse: false }
}

pub(crate) fn terminated_with_children(reason: &str) -> EventKind {
    EventKind::ExecutionTerminated { reason: reason.into(), recurse: true }
}

/// An event as a line: what happened, `#` and the id it has or speaks of, and what it carries.
pub(crate) fn short(event: &HistoryEvent) -> String {
    let id = event.event_id;
    match &event.kind {
        EventKind::ExecutionStarted(started) => format!("started {}", started.input),
        EventKind::ExecutionCompleted { status, output: Some(output), .. } => {
            format!("{status} #{id} {output}")
        }
        EventKind::ExecutionCompleted { status, .. } => format!("{status} #{id}"),
        EventKind::ExecutionTerminated { reason, .. } => format!("terminate {reason}"),
        EventKind::TaskScheduled { name, input, .. } => format!("call #{id} {name} {input}"),
        EventKind::TaskCompleted { task_scheduled_id, result } => {
            format!("done #{task_scheduled_id} {result}")
        }
        EventKind::TaskFailed { task_scheduled_id, .. } => format!("failed #{task_scheduled_id}"),
        EventKind::SubOrchestrationInstanceCreated(child) => {
            let detached = if child.detached { "detached " } else { "" };
            format!("{detached}child #{id} {} {}", child.name, child.input)
        }
        EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, result } => {
            format!("child done #{task_scheduled_id} {result}")
        }
        EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, .. } => {
            format!("child failed #{task_scheduled_id}")
        }
        EventKind::TimerCreated { .. } => format!("timer #{id}"),
        EventKind::TimerFired { timer_id, .. } => format!("fired #{timer_id}"),
        EventKind::EventSent { instance, name, input } => format!("send #{id} {instance} {name} {input}"),
        EventKind::EventRaised { name, input, .. } => format!("raised {name} {input}"),
        EventKind::ContinueAsNew { input } => format!("next #{id} {input}"),
        other => other.type_name().to_owned(),
    }
}
