//! Histories on their way out.

use smol_str::SmolStr;
use steadfast_core::{
    EventKind, ExecutionId, ExecutionStarted, HistoryEvent, InstanceId, NO_EVENT_ID, OrchestrationStatus,
    Timestamp,
};

use super::{PATCH, Whose};
use crate::convert::entities::{called_by, lock_requested, signaled, unlock_sent};
use crate::convert::failure::failure_to_wire;
use crate::convert::scalars::{
    payload_to_wire, reason_to_wire, tags_to_wire, text_to_wire, timestamp_to_wire, trace_to_wire,
};
use crate::convert::state::status_to_wire;
use crate::wire;
use crate::wire::history_event::EventType;

/// A whole history on its way out.
pub fn history_to_wire(instance: &InstanceId, events: &[HistoryEvent]) -> Vec<wire::HistoryEvent> {
    let mut writer = HistoryWriter::new(instance.clone());
    let mut written = Vec::with_capacity(events.len());
    events.iter().for_each(|event| writer.write(event, &mut written));
    written
}

/// Converts a history event by event, from its beginning: some events repeat what others said before.
#[derive(Debug, Clone)]
pub struct HistoryWriter {
    whose: Whose,
    /// Why it was terminated, which is the result then.
    reason: Option<SmolStr>,
}

impl HistoryWriter {
    /// At the beginning of a history.
    pub fn new(instance: InstanceId) -> Self {
        let execution = ExecutionId::new(uuid::Uuid::nil());
        Self { whose: Whose { instance, execution }, reason: None }
    }

    /// Appends what becomes of one event.
    pub fn write(&mut self, event: &HistoryEvent, into: &mut Vec<wire::HistoryEvent>) {
        let Some(event_type) = self.event_type(event) else { return };
        into.push(wire_event(event.event_id, event.timestamp, event_type));
        if let EventKind::ExecutionStarted(started) = &event.kind {
            let carried = started.carried_events.iter().map(|carried| {
                let raised = wire::EventRaisedEvent {
                    name: carried.name.to_string(),
                    input: payload_to_wire(&carried.input),
                };
                wire_event(NO_EVENT_ID, carried.timestamp, EventType::EventRaised(raised))
            });
            into.extend(carried);
        }
    }

    fn event_type(&mut self, event: &HistoryEvent) -> Option<EventType> {
        Some(match &event.kind {
            EventKind::ExecutionStarted(started) => {
                self.whose.execution = started.execution;
                EventType::ExecutionStarted(started_event(&self.whose.instance, started))
            }
            EventKind::ExecutionCompleted { status, output, failure } => {
                let result = match output {
                    None if *status == OrchestrationStatus::Terminated => {
                        self.reason.as_deref().and_then(reason_to_wire)
                    }
                    output => output.as_ref().and_then(payload_to_wire),
                };
                EventType::ExecutionCompleted(wire::ExecutionCompletedEvent {
                    orchestration_status: status_to_wire(*status).into(),
                    result,
                    failure_details: failure.as_deref().map(failure_to_wire),
                })
            }
            EventKind::ExecutionTerminated { reason, recurse } => {
                self.reason = Some(reason.clone());
                let (input, recurse) = (reason_to_wire(reason), *recurse);
                EventType::ExecutionTerminated(wire::ExecutionTerminatedEvent { input, recurse })
            }
            EventKind::ExecutionSuspended { reason } => {
                EventType::ExecutionSuspended(wire::ExecutionSuspendedEvent { input: text_to_wire(reason) })
            }
            EventKind::ExecutionResumed { reason } => {
                EventType::ExecutionResumed(wire::ExecutionResumedEvent { input: text_to_wire(reason) })
            }
            EventKind::ContinueAsNew { input } => {
                EventType::ContinueAsNew(wire::ContinueAsNewEvent { input: payload_to_wire(input) })
            }
            EventKind::OrchestratorStarted => {
                EventType::OrchestratorStarted(wire::OrchestratorStartedEvent {})
            }
            EventKind::OrchestratorCompleted => return None,
            EventKind::ExecutionRewound { reason, child } => {
                let parent = child.as_ref().and_then(|child| child.parent.as_ref());
                EventType::ExecutionRewound(wire::ExecutionRewoundEvent {
                    reason: text_to_wire(reason),
                    parent_execution_id: parent.map(|parent| parent.execution.to_string()),
                    ..wire::ExecutionRewoundEvent::default()
                })
            }
            EventKind::PatchApplied { id } => {
                EventType::GenericEvent(wire::GenericEvent { data: Some(format!("{PATCH}{id}")) })
            }
            EventKind::GenericEvent { data } => {
                EventType::GenericEvent(wire::GenericEvent { data: Some(data.to_string()) })
            }
            kind => return task_event(kind).or_else(|| self.entity_event(kind)),
        })
    }

    fn entity_event(&self, kind: &EventKind) -> Option<EventType> {
        let whose = &self.whose;
        Some(match kind {
            EventKind::EntityOperationSignaled(operation) => {
                EventType::EntityOperationSignaled(signaled(operation))
            }
            EventKind::EntityOperationCalled(operation) => {
                EventType::EntityOperationCalled(called_by(operation, whose))
            }
            EventKind::EntityOperationCompleted { request_id, output } => {
                let (request_id, output) = (request_id.to_string(), payload_to_wire(output));
                EventType::EntityOperationCompleted(wire::EntityOperationCompletedEvent {
                    request_id,
                    output,
                })
            }
            EventKind::EntityOperationFailed { request_id, failure } => {
                EventType::EntityOperationFailed(wire::EntityOperationFailedEvent {
                    request_id: request_id.to_string(),
                    failure_details: Some(failure_to_wire(failure)),
                })
            }
            EventKind::EntityLockRequested(request) => {
                EventType::EntityLockRequested(lock_requested(request, whose))
            }
            EventKind::EntityLockGranted { critical_section } => {
                let critical_section_id = critical_section.to_string();
                EventType::EntityLockGranted(wire::EntityLockGrantedEvent { critical_section_id })
            }
            EventKind::EntityUnlockSent(unlock) => EventType::EntityUnlockSent(unlock_sent(unlock, whose)),
            _ => return None,
        })
    }
}

fn wire_event(event_id: i32, timestamp: Timestamp, event_type: EventType) -> wire::HistoryEvent {
    let timestamp = Some(timestamp_to_wire(timestamp));
    wire::HistoryEvent { event_id, timestamp, event_type: Some(event_type) }
}

/// Activities, sub-orchestrations, timers and external events.
fn task_event(kind: &EventKind) -> Option<EventType> {
    Some(match kind {
        EventKind::TaskScheduled { name, version, input, options } => {
            let options = options.as_deref();
            EventType::TaskScheduled(wire::TaskScheduledEvent {
                name: name.to_string(),
                version: text_to_wire(version),
                input: payload_to_wire(input),
                parent_trace_context: options.and_then(|options| options.trace.as_ref()).map(trace_to_wire),
                tags: options.map(|options| tags_to_wire(&options.tags)).unwrap_or_default(),
            })
        }
        EventKind::TaskCompleted { task_scheduled_id, result } => {
            let (task_scheduled_id, result) = (*task_scheduled_id, payload_to_wire(result));
            EventType::TaskCompleted(wire::TaskCompletedEvent { task_scheduled_id, result })
        }
        EventKind::TaskFailed { task_scheduled_id, failure } => {
            let (task_scheduled_id, failure_details) = (*task_scheduled_id, Some(failure_to_wire(failure)));
            EventType::TaskFailed(wire::TaskFailedEvent { task_scheduled_id, failure_details })
        }
        EventKind::SubOrchestrationInstanceCreated(created) => {
            EventType::SubOrchestrationInstanceCreated(wire::SubOrchestrationInstanceCreatedEvent {
                instance_id: created.instance.to_string(),
                name: created.name.to_string(),
                version: text_to_wire(&created.version),
                input: payload_to_wire(&created.input),
                parent_trace_context: created.trace.as_deref().map(trace_to_wire),
                tags: tags_to_wire(&created.tags),
            })
        }
        EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, result } => {
            EventType::SubOrchestrationInstanceCompleted(wire::SubOrchestrationInstanceCompletedEvent {
                task_scheduled_id: *task_scheduled_id,
                result: payload_to_wire(result),
            })
        }
        EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, failure } => {
            EventType::SubOrchestrationInstanceFailed(wire::SubOrchestrationInstanceFailedEvent {
                task_scheduled_id: *task_scheduled_id,
                failure_details: Some(failure_to_wire(failure)),
            })
        }
        EventKind::TimerCreated { fire_at } => {
            EventType::TimerCreated(wire::TimerCreatedEvent { fire_at: Some(timestamp_to_wire(*fire_at)) })
        }
        EventKind::TimerFired { timer_id, fire_at } => {
            let fire_at = Some(timestamp_to_wire(*fire_at));
            EventType::TimerFired(wire::TimerFiredEvent { fire_at, timer_id: *timer_id })
        }
        EventKind::EventSent { instance, name, input } => EventType::EventSent(wire::EventSentEvent {
            instance_id: instance.to_string(),
            name: name.to_string(),
            input: payload_to_wire(input),
        }),
        EventKind::VersionedEventRaised(raised) => EventType::EventRaised(wire::EventRaisedEvent {
            name: raised.name.to_string(),
            input: payload_to_wire(&raised.input),
        }),
        EventKind::EventRaised { name, input, .. } => {
            let (name, input) = (name.to_string(), payload_to_wire(input));
            EventType::EventRaised(wire::EventRaisedEvent { name, input })
        }
        _ => return None,
    })
}

fn started_event(instance: &InstanceId, started: &ExecutionStarted) -> wire::ExecutionStartedEvent {
    let named = |instance: &InstanceId, execution: ExecutionId| wire::OrchestrationInstance {
        instance_id: instance.to_string(),
        execution_id: Some(execution.to_string()),
    };
    let parent = started.parent.as_ref().map(|parent| wire::ParentInstanceInfo {
        task_scheduled_id: parent.task_scheduled_id,
        name: text_to_wire(&parent.name),
        version: None,
        orchestration_instance: Some(named(&parent.instance, parent.execution)),
    });
    wire::ExecutionStartedEvent {
        name: started.name.to_string(),
        version: text_to_wire(&started.version),
        input: payload_to_wire(&started.input),
        orchestration_instance: Some(named(instance, started.execution)),
        parent_instance: parent,
        scheduled_start_timestamp: started.scheduled_start.map(timestamp_to_wire),
        parent_trace_context: started.trace.as_deref().map(trace_to_wire),
        orchestration_span_id: None,
        tags: tags_to_wire(&started.tags),
        generation: i32::try_from(started.generation).unwrap_or(i32::MAX),
        root_execution_id: started.predecessors.first().map(|first| first.execution.to_string()),
    }
}
