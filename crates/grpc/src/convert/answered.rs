//! A worker's answers on their way to the hub.

use steadfast_core::model::EntityAction;
use steadfast_core::turn::TurnAnswer;
use steadfast_core::{
    ActionKind, ActivityOptions, CarriedEvent, Completion, FailureDetails, NO_EVENT_ID, OrchestrationStatus,
    OrchestratorAction, Payload,
};
use steadfast_engine::EntityAnswer;

use super::entities::{called_by, lock_requested, signaled, unlock_sent};
use super::failure::failure_to_wire;
use super::history::{Whose, history_to_wire};
use super::scalars::{payload_to_wire, tags_to_wire, text_to_wire, timestamp_to_wire, trace_to_wire};
use super::state::status_to_wire;
use crate::wire;
use crate::wire::orchestrator_action::OrchestratorActionType as Action;
use crate::wire::send_entity_message_action::EntityMessageType;

/// The standard protocol has no words for something that code asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the code asked for {what}, which the standard protocol of workers cannot say; use a server that offers Steadfast's \
     extension of it, and do not turn that off"
)]
pub struct Inexpressible {
    /// What it asked for.
    pub what: &'static str,
}

impl From<Inexpressible> for FailureDetails {
    fn from(error: Inexpressible) -> Self {
        Self::from_std("NotInStandardProtocol", &error).non_retriable()
    }
}

/// What a worker answers to a turn of `whose` execution. Interest that the code lost in timers and activities is left out:
/// they come to their ends, and nobody takes notice.
///
/// # Errors
/// When the protocol has no words for something that is asked for.
pub fn turn_response(
    completion_token: String,
    whose: &Whose,
    answer: TurnAnswer,
) -> Result<wire::OrchestratorResponse, Inexpressible> {
    if !answer.patches.is_empty() {
        return Err(Inexpressible { what: "a patch" });
    }
    let mut actions = Vec::with_capacity(answer.actions.len() + 1);
    for OrchestratorAction { id, kind } in answer.actions {
        if let Some(action) = action_to_wire(kind, whose)? {
            actions.push(wire::OrchestratorAction { id, orchestrator_action_type: Some(action) });
        }
    }
    for (instance, reason, recurse) in answer.terminations {
        let terminate = wire::TerminateOrchestrationAction {
            instance_id: instance.to_string(),
            reason: text_to_wire(&reason),
            recurse,
        };
        let action = Some(Action::TerminateOrchestration(terminate));
        actions.push(wire::OrchestratorAction { id: NO_EVENT_ID, orchestrator_action_type: action });
    }
    if let Some(history) = answer.rewound {
        let new_history = history_to_wire(&whose.instance, &history);
        let action = Some(Action::RewindOrchestration(wire::RewindOrchestrationAction { new_history }));
        actions.push(wire::OrchestratorAction { id: NO_EVENT_ID, orchestrator_action_type: action });
    }
    if let Some(completion) = answer.completion {
        let complete = completion_to_wire(completion, answer.carried_events)?;
        actions.push(wire::OrchestratorAction {
            id: answer.completion_id.unwrap_or(NO_EVENT_ID),
            orchestrator_action_type: Some(Action::CompleteOrchestration(complete)),
        });
    }
    Ok(wire::OrchestratorResponse {
        instance_id: whose.instance.to_string(),
        actions,
        custom_status: answer.custom_status.map(|status| status.as_str().to_owned()),
        completion_token,
        ..wire::OrchestratorResponse::default()
    })
}

fn action_to_wire(kind: ActionKind, whose: &Whose) -> Result<Option<Action>, Inexpressible> {
    let for_entity = |message| {
        let entity_message_type = Some(message);
        Action::SendEntityMessage(wire::SendEntityMessageAction { entity_message_type })
    };
    Ok(Some(match kind {
        ActionKind::ScheduleTask { name, version, input, options } => {
            let options = options.map(|options| *options).unwrap_or_default();
            check_options(&options)?;
            Action::ScheduleTask(wire::ScheduleTaskAction {
                name: name.to_string(),
                version: text_to_wire(&version),
                input: payload_to_wire(&input),
                tags: tags_to_wire(&options.tags),
                parent_trace_context: options.trace.as_ref().map(trace_to_wire),
            })
        }
        ActionKind::CreateTimer { fire_at } => {
            Action::CreateTimer(wire::CreateTimerAction { fire_at: Some(timestamp_to_wire(fire_at)) })
        }
        ActionKind::CreateSubOrchestration(created) => {
            if created.detached {
                return Err(Inexpressible { what: "an orchestration that it does not await" });
            }
            Action::CreateSubOrchestration(wire::CreateSubOrchestrationAction {
                instance_id: created.instance.to_string(),
                name: created.name.to_string(),
                version: text_to_wire(&created.version),
                input: payload_to_wire(&created.input),
                parent_trace_context: created.trace.as_deref().map(trace_to_wire),
                tags: tags_to_wire(&created.tags),
            })
        }
        ActionKind::SendEvent { address: Some(_), .. } => {
            return Err(Inexpressible { what: "an event for one execution or version of an instance" });
        }
        ActionKind::SendEvent { instance, name, input, address: None } => {
            Action::SendEvent(wire::SendEventAction {
                instance: Some(wire::OrchestrationInstance {
                    instance_id: instance.to_string(),
                    execution_id: None,
                }),
                name: name.to_string(),
                data: payload_to_wire(&input),
            })
        }
        ActionKind::SignalEntity(operation) => {
            for_entity(EntityMessageType::EntityOperationSignaled(signaled(&operation)))
        }
        ActionKind::CallEntity(operation) => {
            for_entity(EntityMessageType::EntityOperationCalled(called_by(&operation, whose)))
        }
        ActionKind::LockEntities(request) => {
            for_entity(EntityMessageType::EntityLockRequested(lock_requested(&request, whose)))
        }
        ActionKind::UnlockEntity(unlock) => {
            for_entity(EntityMessageType::EntityUnlockSent(unlock_sent(&unlock, whose)))
        }
        // The end has a field of its own.
        ActionKind::Complete(_) => return Ok(None),
    }))
}

fn check_options(options: &ActivityOptions) -> Result<(), Inexpressible> {
    let ActivityOptions { tags: _, trace: _, priority, start_to_close, heartbeat, last_heartbeat } = options;
    let what = if *priority != 0 {
        "an activity with a priority"
    } else if start_to_close.is_some() || heartbeat.is_some() {
        "an activity with a time limit"
    } else if last_heartbeat.is_some() {
        "an activity that goes on where another attempt's heartbeat was"
    } else {
        return Ok(());
    };
    Err(Inexpressible { what })
}

fn completion_to_wire(
    completion: Completion,
    carried: Vec<CarriedEvent>,
) -> Result<wire::CompleteOrchestrationAction, Inexpressible> {
    let ended = |status, result: Option<String>| wire::CompleteOrchestrationAction {
        orchestration_status: status_to_wire(status).into(),
        result,
        ..wire::CompleteOrchestrationAction::default()
    };
    Ok(match completion {
        Completion::Completed(output) => ended(OrchestrationStatus::Completed, payload_to_wire(&output)),
        Completion::Failed(failure) => wire::CompleteOrchestrationAction {
            failure_details: Some(failure_to_wire(&failure)),
            ..ended(OrchestrationStatus::Failed, None)
        },
        Completion::Terminated(reason) => ended(OrchestrationStatus::Terminated, text_to_wire(&reason)),
        Completion::ContinueAsNew { new_trace: true, .. } => {
            return Err(Inexpressible { what: "a trace of its own for its next execution" });
        }
        Completion::ContinueAsNew { input, version, .. } => wire::CompleteOrchestrationAction {
            new_version: version.map(String::from),
            carryover_events: carried.into_iter().map(carried_to_wire).collect(),
            ..ended(OrchestrationStatus::ContinuedAsNew, payload_to_wire(&input))
        },
    })
}

fn carried_to_wire(carried: CarriedEvent) -> wire::HistoryEvent {
    let (name, input) = (carried.name.to_string(), payload_to_wire(&carried.input));
    wire::HistoryEvent {
        event_id: NO_EVENT_ID,
        timestamp: Some(timestamp_to_wire(carried.timestamp)),
        event_type: Some(wire::history_event::EventType::EventRaised(wire::EventRaisedEvent { name, input })),
    }
}

/// What a worker answers to a batch of an entity's operations.
///
/// # Errors
/// When the protocol has no words for something that is asked for.
pub fn entity_response(
    completion_token: String,
    answer: EntityAnswer,
) -> Result<wire::EntityBatchResult, Inexpressible> {
    Ok(wire::EntityBatchResult {
        results: answer.results.into_iter().map(result_to_wire).collect(),
        actions: answer.actions.into_iter().map(entity_action_to_wire).collect::<Result<_, _>>()?,
        entity_state: answer.state.map(|state| state.as_str().to_owned()),
        failure_details: answer.failure.as_ref().map(failure_to_wire),
        completion_token,
        ..wire::EntityBatchResult::default()
    })
}

fn result_to_wire(result: Result<Payload, FailureDetails>) -> wire::OperationResult {
    use wire::operation_result::ResultType;
    let result_type = match result {
        Ok(output) => ResultType::Success(wire::OperationResultSuccess {
            result: payload_to_wire(&output),
            ..wire::OperationResultSuccess::default()
        }),
        Err(failure) => ResultType::Failure(wire::OperationResultFailure {
            failure_details: Some(failure_to_wire(&failure)),
            ..wire::OperationResultFailure::default()
        }),
    };
    wire::OperationResult { result_type: Some(result_type) }
}

fn entity_action_to_wire(action: EntityAction) -> Result<wire::OperationAction, Inexpressible> {
    use wire::operation_action::OperationActionType;
    let action = match action {
        EntityAction::Signal { target, operation } => {
            OperationActionType::SendSignal(wire::SendSignalAction {
                instance_id: target.to_string(),
                name: operation.operation.to_string(),
                input: payload_to_wire(&operation.input),
                scheduled_time: operation.scheduled_time.map(timestamp_to_wire),
                ..wire::SendSignalAction::default()
            })
        }
        EntityAction::Start { tags, .. } if !tags.is_empty() => {
            return Err(Inexpressible { what: "an orchestration with tags, started by an entity" });
        }
        EntityAction::Start { instance, name, version, input, scheduled_start, .. } => {
            OperationActionType::StartNewOrchestration(wire::StartNewOrchestrationAction {
                instance_id: instance.to_string(),
                name: name.to_string(),
                version: text_to_wire(&version),
                input: payload_to_wire(&input),
                scheduled_time: scheduled_start.map(timestamp_to_wire),
                ..wire::StartNewOrchestrationAction::default()
            })
        }
    };
    Ok(wire::OperationAction { operation_action_type: Some(action), ..wire::OperationAction::default() })
}
