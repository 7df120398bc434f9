//! What a worker answers to a turn.

use prost::Message;
use smol_str::{SmolStr, format_smolstr};
use steadfast_core::turn::TurnAnswer;
use steadfast_core::{
    ActionKind, ActivityOptions, CarriedEvent, Completion, EventKind, FailureDetails, InstanceId,
    OrchestrationStatus, OrchestratorAction, SubOrchestrationCreated, failure,
};

use super::entities::{call, lock, signal, unlock};
use super::error::{WireError, need};
use super::failure::failure_from_wire;
use super::history::{Whose, event_from_wire, history_from_wire};
use super::scalars::{due_time, optional_payload, payload, tags, text, trace};
use super::state::status;
use crate::wire;
use crate::wire::orchestrator_action::OrchestratorActionType as Action;
use crate::wire::send_entity_message_action::EntityMessageType;

/// What a worker answers to a turn of `whose` execution. Children without an id get one that is derived from their
/// parent's, as the protocol wants it: `parent:001f`.
///
/// # Errors
/// When an action cannot be understood, or there are two ends of the execution.
pub fn turn_answer(response: wire::OrchestratorResponse, whose: &Whose) -> Result<TurnAnswer, WireError> {
    let custom_status = optional_payload(response.custom_status);
    let keepsake = response.orchestration_trace_context.map(|trace| trace.encode_to_vec().into());
    let mut answer = TurnAnswer { custom_status, keepsake, ..TurnAnswer::default() };
    for action in response.actions {
        let id = action.id;
        match need(action.orchestrator_action_type, "OrchestratorAction", "orchestratorActionType")? {
            Action::CompleteOrchestration(complete) => {
                if answer.completion.is_some() {
                    return Err(WireError::Impossible { what: "a second completion of the orchestration" });
                }
                let (completion, carried) = completion(complete, whose)?;
                answer.completion = Some(completion);
                answer.completion_id = (id >= 0).then_some(id);
                answer.carried_events = carried;
            }
            Action::TerminateOrchestration(terminate) => {
                let instance = InstanceId::parse(terminate.instance_id)?;
                answer.terminations.push((instance, text(terminate.reason), terminate.recurse));
            }
            Action::RewindOrchestration(rewind) => {
                answer.rewound = Some(history_from_wire(rewind.new_history, whose)?);
            }
            action => {
                let kind = action_kind(action, id, whose)?;
                answer.actions.push(OrchestratorAction { id, kind });
            }
        }
    }
    Ok(answer)
}

fn action_kind(action: Action, id: i32, whose: &Whose) -> Result<ActionKind, WireError> {
    Ok(match action {
        Action::ScheduleTask(task) => {
            let (tags, trace) = (tags(task.tags), trace(task.parent_trace_context));
            let plain = tags.is_empty() && trace.is_none();
            let options = ActivityOptions { tags, trace, ..ActivityOptions::default() };
            ActionKind::ScheduleTask {
                name: name(task.name, "ScheduleTaskAction")?,
                version: text(task.version),
                input: payload(task.input),
                options: (!plain).then(|| Box::new(options)),
            }
        }
        Action::CreateTimer(timer) => {
            let fire_at = need(timer.fire_at, "CreateTimerAction", "fireAt")?;
            ActionKind::CreateTimer { fire_at: due_time(fire_at, "fireAt")? }
        }
        Action::CreateSubOrchestration(child) => {
            let instance = match child.instance_id.as_str() {
                "" => InstanceId::parse(format_smolstr!("{}:{id:04x}", whose.instance))?,
                id => InstanceId::parse(id)?,
            };
            ActionKind::CreateSubOrchestration(Box::new(SubOrchestrationCreated {
                name: name(child.name, "CreateSubOrchestrationAction")?,
                version: text(child.version),
                instance,
                execution: whose.execution.derive("child", id),
                input: payload(child.input),
                detached: false,
                tags: tags(child.tags),
                trace: trace(child.parent_trace_context).map(Box::new),
            }))
        }
        Action::SendEvent(event) => {
            let instance = need(event.instance, "SendEventAction", "instance")?;
            ActionKind::SendEvent {
                instance: InstanceId::parse(instance.instance_id)?,
                name: event.name.into(),
                input: payload(event.data),
                address: None,
            }
        }
        Action::SendEntityMessage(message) => {
            match need(message.entity_message_type, "SendEntityMessageAction", "EntityMessageType")? {
                EntityMessageType::EntityOperationSignaled(event) => ActionKind::SignalEntity(signal(event)?),
                EntityMessageType::EntityOperationCalled(event) => ActionKind::CallEntity(call(event)?),
                EntityMessageType::EntityLockRequested(event) => ActionKind::LockEntities(lock(event)?),
                EntityMessageType::EntityUnlockSent(event) => ActionKind::UnlockEntity(unlock(event)?),
            }
        }
        Action::CompleteOrchestration(_)
        | Action::TerminateOrchestration(_)
        | Action::RewindOrchestration(_) => {
            return Err(WireError::Impossible { what: "an action of this type" });
        }
    })
}

fn name(name: String, message: &'static str) -> Result<SmolStr, WireError> {
    if name.is_empty() { Err(WireError::Missing { message, field: "name" }) } else { Ok(name.into()) }
}

fn completion(
    complete: wire::CompleteOrchestrationAction,
    whose: &Whose,
) -> Result<(Completion, Vec<CarriedEvent>), WireError> {
    let wire::CompleteOrchestrationAction { result, details, new_version, failure_details, .. } = complete;
    let completion = match status(complete.orchestration_status, "orchestrationStatus")? {
        OrchestrationStatus::Completed => Completion::Completed(payload(result)),
        OrchestrationStatus::Failed => {
            let message = || details.or(result).unwrap_or_default();
            let unknown = || FailureDetails::new(failure::kinds::MESSAGE, message());
            Completion::Failed(Box::new(failure_details.map_or_else(unknown, failure_from_wire)))
        }
        OrchestrationStatus::Terminated => Completion::Terminated(text(result)),
        OrchestrationStatus::ContinuedAsNew => {
            let carried = complete.carryover_events.into_iter().map(|event| carried_event(event, whose));
            let carried = carried.collect::<Result<_, _>>()?;
            let version = new_version.filter(|version| !version.is_empty()).map(SmolStr::from);
            // Those that the worker names go along; it knows which its code has not seen.
            let next = Completion::ContinueAsNew {
                input: payload(result),
                version,
                preserve_events: false,
                new_trace: false,
            };
            return Ok((next, carried));
        }
        _ => return Err(WireError::Impossible { what: "a completion with a status that is no end" }),
    };
    Ok((completion, Vec::new()))
}

fn carried_event(event: wire::HistoryEvent, whose: &Whose) -> Result<CarriedEvent, WireError> {
    let event = event_from_wire(event, whose)?;
    match event.kind {
        EventKind::EventRaised { name, input, trace } => {
            Ok(CarriedEvent { name, input, timestamp: event.timestamp, trace, versions: None })
        }
        _ => Err(WireError::Impossible { what: "a carried event other than EventRaised" }),
    }
}
