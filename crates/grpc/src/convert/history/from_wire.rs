//! Histories on their way in.

use steadfast_core::{
    ActivityOptions, EventKind, ExecutionStarted, HistoryEvent, InstanceId, ParentInstance, Predecessor,
    SubOrchestrationCreated, Timestamp,
};

use super::{PATCH, Whose};
use crate::convert::WireError;
use crate::convert::entities::{call, lock, signal, unlock};
use crate::convert::error::need;
use crate::convert::failure::failure_from_wire;
use crate::convert::scalars::{execution_id, optional_payload, payload, tags, text, timestamp, trace};
use crate::convert::state::status;
use crate::wire;
use crate::wire::history_event::EventType;

/// A whole history from outside, with the end of each turn put back. Events that came before an execution's start
/// belong to `whose` execution.
///
/// # Errors
/// When an event cannot be understood.
pub fn history_from_wire(
    events: Vec<wire::HistoryEvent>,
    whose: &Whose,
) -> Result<Vec<HistoryEvent>, WireError> {
    let mut whose = whose.clone();
    let mut history: Vec<HistoryEvent> = Vec::with_capacity(events.len());
    let mut open: Option<Timestamp> = None;
    let close = |open: Option<Timestamp>, history: &mut Vec<HistoryEvent>| {
        history.extend(open.map(|at| HistoryEvent::message(at, EventKind::OrchestratorCompleted)));
    };
    for event in events {
        let event = event_from_wire(event, &whose)?;
        match &event.kind {
            EventKind::OrchestratorStarted => close(open.replace(event.timestamp), &mut history),
            EventKind::OrchestratorCompleted => open = None,
            EventKind::ExecutionStarted(started) => whose.execution = started.execution,
            _ => {}
        }
        history.push(event);
    }
    close(open, &mut history);
    Ok(history)
}

/// One event from outside.
///
/// # Errors
/// When it cannot be understood, or is of a kind that no history has.
pub fn event_from_wire(event: wire::HistoryEvent, whose: &Whose) -> Result<HistoryEvent, WireError> {
    let at = need(event.timestamp, "HistoryEvent", "timestamp")?;
    let event_type = need(event.event_type, "HistoryEvent", "eventType")?;
    let kind = event_kind(event_type, event.event_id, whose)?;
    Ok(HistoryEvent { event_id: event.event_id, timestamp: timestamp(at, "timestamp")?, kind })
}

fn event_kind(event: EventType, id: i32, whose: &Whose) -> Result<EventKind, WireError> {
    Ok(match event {
        EventType::ExecutionStarted(event) => EventKind::ExecutionStarted(Box::new(started(event, whose)?)),
        EventType::ExecutionCompleted(event) => EventKind::ExecutionCompleted {
            status: status(event.orchestration_status, "orchestrationStatus")?,
            output: optional_payload(event.result),
            failure: event.failure_details.map(|failure| Box::new(failure_from_wire(failure))),
        },
        EventType::ExecutionTerminated(event) => {
            EventKind::ExecutionTerminated { reason: text(event.input), recurse: event.recurse }
        }
        EventType::TaskScheduled(event) => {
            let (tags, trace) = (tags(event.tags), trace(event.parent_trace_context));
            let plain = tags.is_empty() && trace.is_none();
            let options = ActivityOptions { tags, trace, ..ActivityOptions::default() };
            EventKind::TaskScheduled {
                name: event.name.into(),
                version: text(event.version),
                input: payload(event.input),
                options: (!plain).then(|| Box::new(options)),
            }
        }
        EventType::TaskCompleted(event) => EventKind::TaskCompleted {
            task_scheduled_id: event.task_scheduled_id,
            result: payload(event.result),
        },
        EventType::TaskFailed(event) => {
            let failure = need(event.failure_details, "TaskFailedEvent", "failureDetails")?;
            EventKind::TaskFailed {
                task_scheduled_id: event.task_scheduled_id,
                failure: Box::new(failure_from_wire(failure)),
            }
        }
        EventType::SubOrchestrationInstanceCreated(event) => {
            EventKind::SubOrchestrationInstanceCreated(Box::new(SubOrchestrationCreated {
                name: event.name.into(),
                version: text(event.version),
                instance: InstanceId::parse(event.instance_id)?,
                execution: whose.execution.derive("child", id),
                input: payload(event.input),
                detached: false,
                tags: tags(event.tags),
                trace: trace(event.parent_trace_context).map(Box::new),
            }))
        }
        EventType::SubOrchestrationInstanceCompleted(event) => EventKind::SubOrchestrationInstanceCompleted {
            task_scheduled_id: event.task_scheduled_id,
            result: payload(event.result),
        },
        EventType::SubOrchestrationInstanceFailed(event) => {
            const MESSAGE: &str = "SubOrchestrationInstanceFailedEvent";
            let failure = need(event.failure_details, MESSAGE, "failureDetails")?;
            EventKind::SubOrchestrationInstanceFailed {
                task_scheduled_id: event.task_scheduled_id,
                failure: Box::new(failure_from_wire(failure)),
            }
        }
        EventType::TimerCreated(event) => {
            let fire_at = need(event.fire_at, "TimerCreatedEvent", "fireAt")?;
            EventKind::TimerCreated { fire_at: timestamp(fire_at, "fireAt")? }
        }
        EventType::TimerFired(event) => {
            let fire_at = need(event.fire_at, "TimerFiredEvent", "fireAt")?;
            EventKind::TimerFired { timer_id: event.timer_id, fire_at: timestamp(fire_at, "fireAt")? }
        }
        EventType::OrchestratorStarted(_) => EventKind::OrchestratorStarted,
        EventType::OrchestratorCompleted(_) => EventKind::OrchestratorCompleted,
        EventType::EventSent(event) => EventKind::EventSent {
            instance: InstanceId::parse(event.instance_id)?,
            name: event.name.into(),
            input: payload(event.input),
        },
        EventType::EventRaised(event) => {
            EventKind::EventRaised { name: event.name.into(), input: payload(event.input), trace: None }
        }
        EventType::GenericEvent(event) => {
            let data = text(event.data);
            match data.strip_prefix(PATCH) {
                Some(id) => EventKind::PatchApplied { id: id.into() },
                None => EventKind::GenericEvent { data },
            }
        }
        EventType::ContinueAsNew(event) => EventKind::ContinueAsNew { input: payload(event.input) },
        EventType::ExecutionSuspended(event) => EventKind::ExecutionSuspended { reason: text(event.input) },
        EventType::ExecutionResumed(event) => EventKind::ExecutionResumed { reason: text(event.input) },
        EventType::HistoryState(_) => {
            return Err(WireError::Impossible { what: "an event of the type HistoryState" });
        }
        EventType::ExecutionRewound(event) => {
            EventKind::ExecutionRewound { reason: text(event.reason), child: None }
        }
        entity => entity_kind(entity)?,
    })
}

fn entity_kind(event: EventType) -> Result<EventKind, WireError> {
    Ok(match event {
        EventType::EntityOperationSignaled(event) => EventKind::EntityOperationSignaled(signal(event)?),
        EventType::EntityOperationCalled(event) => EventKind::EntityOperationCalled(call(event)?),
        EventType::EntityOperationCompleted(event) => EventKind::EntityOperationCompleted {
            request_id: event.request_id.into(),
            output: payload(event.output),
        },
        EventType::EntityOperationFailed(event) => {
            let failure = need(event.failure_details, "EntityOperationFailedEvent", "failureDetails")?;
            EventKind::EntityOperationFailed {
                request_id: event.request_id.into(),
                failure: Box::new(failure_from_wire(failure)),
            }
        }
        EventType::EntityLockRequested(event) => EventKind::EntityLockRequested(lock(event)?),
        EventType::EntityLockGranted(event) => {
            EventKind::EntityLockGranted { critical_section: event.critical_section_id.into() }
        }
        EventType::EntityUnlockSent(event) => EventKind::EntityUnlockSent(unlock(event)?),
        _ => return Err(WireError::Impossible { what: "an event of this type" }),
    })
}

fn started(event: wire::ExecutionStartedEvent, whose: &Whose) -> Result<ExecutionStarted, WireError> {
    let own = event.orchestration_instance.and_then(|own| own.execution_id);
    let execution = execution_id(own.as_deref(), "executionId")?.unwrap_or(whose.execution);
    let root = execution_id(event.root_execution_id.as_deref(), "rootExecutionId")?;
    let parent = event.parent_instance.map(|parent| {
        const MESSAGE: &str = "ParentInstanceInfo";
        let instance = need(parent.orchestration_instance, MESSAGE, "orchestrationInstance")?;
        let execution = execution_id(instance.execution_id.as_deref(), "executionId")?;
        Ok::<_, WireError>(ParentInstance {
            instance: InstanceId::parse(instance.instance_id)?,
            execution: need(execution, MESSAGE, "executionId")?,
            task_scheduled_id: parent.task_scheduled_id,
            name: text(parent.name),
        })
    });
    let scheduled_start = event.scheduled_start_timestamp.map(|at| timestamp(at, "scheduledStartTimestamp"));
    Ok(ExecutionStarted {
        parent: parent.transpose()?,
        tags: tags(event.tags),
        scheduled_start: scheduled_start.transpose()?,
        trace: trace(event.parent_trace_context).map(Box::new),
        generation: u32::try_from(event.generation).unwrap_or_default(),
        // Which of its actions are still those of the new execution only the hub has to know.
        predecessors: root.map(|execution| Predecessor { execution, kept_below: 0 }).into_iter().collect(),
        ..ExecutionStarted::new(event.name.into(), text(event.version), payload(event.input), execution)
    })
}
