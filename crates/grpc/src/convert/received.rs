//! Work items as a worker gets them.

use smol_str::SmolStr;
use steadfast_core::entity::EntityCaller;
use steadfast_core::model::BatchOperation;
use steadfast_core::partition::ActivityTask;
use steadfast_core::{
    ActivityId, ActivityOptions, ExecutionId, FailureDetails, HistoryEvent, InstanceId, Payload,
};
use steadfast_engine::EntityWork;
use uuid::Uuid;

use super::entities::entity_id;
use super::error::{WireError, need};
use super::failure::failure_to_wire;
use super::history::{Whose, event_from_wire, history_from_wire};
use super::scalars::{
    execution_id, optional_payload, payload, payload_to_wire, tags, text, timestamp, trace,
};
use crate::wire;
use crate::wire::history_event::EventType;

/// A turn, as a worker gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedTurn {
    /// Whose turn.
    pub whose: Whose,
    /// The history so far.
    pub past: Vec<HistoryEvent>,
    /// What the turn adds to it before the code runs.
    pub new: Vec<HistoryEvent>,
}

/// A turn for this worker.
///
/// # Errors
/// When it cannot be understood, or there is nothing new in it.
pub fn received_turn(request: wire::OrchestratorRequest) -> Result<ReceivedTurn, WireError> {
    let execution = execution_id(request.execution_id.as_deref(), "executionId")?;
    let whose = Whose {
        instance: InstanceId::parse(request.instance_id)?,
        execution: execution.unwrap_or_else(|| ExecutionId::new(Uuid::nil())),
    };
    let past = history_from_wire(request.past_events, &whose)?;
    let new = request.new_events.into_iter().map(|event| event_from_wire(event, &whose));
    let new: Vec<_> = new.collect::<Result<_, _>>()?;
    if new.is_empty() {
        return Err(WireError::Missing { message: "OrchestratorRequest", field: "newEvents" });
    }
    Ok(ReceivedTurn { whose, past, new })
}

/// An activity for this worker.
///
/// # Errors
/// When it cannot be understood.
pub fn received_activity(request: wire::ActivityRequest) -> Result<ActivityTask, WireError> {
    const MESSAGE: &str = "ActivityRequest";
    let caller = need(request.orchestration_instance, MESSAGE, "orchestrationInstance")?;
    let execution = execution_id(caller.execution_id.as_deref(), "executionId")?;
    let options = ActivityOptions {
        tags: tags(request.tags),
        trace: trace(request.parent_trace_context),
        ..ActivityOptions::default()
    };
    Ok(ActivityTask {
        // The hub knows it by its token.
        id: ActivityId(0),
        instance: InstanceId::parse(caller.instance_id)?,
        execution: execution.unwrap_or_else(|| ExecutionId::new(Uuid::nil())),
        task_id: request.task_id,
        name: request.name.into(),
        version: text(request.version),
        instance_version: text(request.instance_version),
        input: payload(request.input),
        options: (options != ActivityOptions::default()).then(|| Box::new(options)),
        cancelled: None,
    })
}

/// A batch of an entity's operations for this worker. Who sent a signal is not known.
///
/// # Errors
/// When it cannot be understood.
pub fn received_batch(request: wire::EntityRequest) -> Result<EntityWork, WireError> {
    const MESSAGE: &str = "EntityRequest";
    let first = request.operation_requests.first();
    let now = need(first.and_then(|event| event.timestamp), MESSAGE, "operationRequests")?;
    let operations = request.operation_requests.into_iter().map(requested).collect::<Result<_, _>>()?;
    Ok(EntityWork {
        entity: entity_id(&request.instance_id)?,
        state: optional_payload(request.entity_state),
        operations,
        now: timestamp(now, "timestamp")?,
    })
}

fn requested(event: wire::HistoryEvent) -> Result<BatchOperation, WireError> {
    let operation = |operation: String, input, request_id: String, caller, is_signal| BatchOperation {
        operation: SmolStr::from(operation),
        input: payload(input),
        request_id: request_id.into(),
        caller,
        is_signal,
        scheduled_time: None,
        trace: None,
    };
    Ok(match need(event.event_type, "HistoryEvent", "eventType")? {
        EventType::EntityOperationSignaled(signal) => {
            operation(signal.operation, signal.input, signal.request_id, None, true)
        }
        EventType::EntityOperationCalled(call) => {
            let execution = execution_id(call.parent_execution_id.as_deref(), "parentExecutionId")?;
            let caller = call.parent_instance_id.map(|instance| {
                let instance = match instance.starts_with('@') {
                    true => entity_id(&instance)?.instance_id().clone(),
                    false => InstanceId::parse(instance)?,
                };
                Ok::<_, WireError>(EntityCaller { instance, execution })
            });
            operation(call.operation, call.input, call.request_id, caller.transpose()?, false)
        }
        _ => return Err(WireError::Impossible { what: "an event other than an entity's operation" }),
    })
}

/// What became of an activity, on its way to the hub.
pub fn activity_response(
    completion_token: String,
    task: &ActivityTask,
    outcome: &Result<Payload, FailureDetails>,
) -> wire::ActivityResponse {
    wire::ActivityResponse {
        instance_id: task.instance.to_string(),
        task_id: task.task_id,
        result: outcome.as_ref().ok().and_then(payload_to_wire),
        failure_details: outcome.as_ref().err().map(failure_to_wire),
        completion_token,
    }
}
