//! What turns report to the structured log.

use steadfast_core::partition::TurnRequest;
use steadfast_core::turn::Turn;
use steadfast_core::{EventKind, InstanceId, log_event};

/// A turn begins.
pub(super) fn begins(request: &TurnRequest) {
    let instance = &request.instance;
    log_event!(OrchestrationExecuting, %instance, messages = request.batch.len());
    if tracing::enabled!(target: "steadfast", tracing::Level::DEBUG) {
        for message in &request.batch {
            let kind = message.event.kind.type_name();
            log_event!(ProcessingOrchestrationMessage, %instance, kind);
        }
    }
}

/// A turn is done.
pub(super) fn done(instance: &InstanceId, turn: &Turn) {
    if turn.discarded > 0 {
        log_event!(DiscardingMessage, %instance, messages = turn.discarded);
    }
    let Some(execution) = turn.execution else { return };
    if !tracing::enabled!(target: "steadfast", tracing::Level::INFO) {
        return;
    }
    for event in turn.new_events() {
        let id = event.event_id;
        match &event.kind {
            EventKind::TaskScheduled { name, version, .. } => {
                log_event!(SchedulingActivity, %instance, %execution, %name, %version, id);
            }
            EventKind::TimerCreated { fire_at } => {
                log_event!(CreatingTimer, %instance, %execution, %fire_at, id);
            }
            EventKind::EventSent { instance: target, name, .. } => {
                log_event!(SendingEvent, %instance, %execution, %target, %name, id);
            }
            EventKind::SubOrchestrationInstanceCreated(child) => {
                let (name, target) = (&child.name, &child.instance);
                log_event!(SchedulingOrchestration, %instance, %execution, %target, %name, id);
            }
            EventKind::ExecutionCompleted { status, failure, .. } => {
                let failure = failure.as_deref().map(tracing::field::display);
                log_event!(OrchestrationCompleted, %instance, %execution, %status, failure);
            }
            EventKind::ContinueAsNew { .. } => {
                log_event!(OrchestrationCompleted, %instance, %execution, status = "ContinuedAsNew");
            }
            _ => {}
        }
    }
    log_event!(OrchestrationExecuted, %instance, %execution, events = turn.new_events().len());
}
