//! Work items on their way to workers, and what workers say of entities and of themselves.

use prost::Message;
use smol_str::SmolStr;
use steadfast_core::entity::{EntityCaller, EntityOperation};
use steadfast_core::model::{BatchOperation, EntityAction};
use steadfast_core::partition::ActivityTask;
use steadfast_core::turn::RemoteTurn;
use steadfast_core::{
    EventKind, ExecutionId, FailureDetails, HistoryEvent, InstanceId, NO_EVENT_ID, Timestamp, failure,
};
use steadfast_engine::{EntityAnswer, EntityWork, NameFilter, WorkFilters};
use uuid::Uuid;

use super::activities::activity_request;
use super::entities::{entity_id, operation_request};
use super::error::{WireError, need};
use super::failure::failure_from_wire;
use super::history::HistoryWriter;
use super::scalars::{due_time, optional_payload, payload, text, trace};
use crate::wire;
use crate::wire::work_item::Request;

/// A turn for a worker. A history of more than `inline_bytes_max` bytes is left out, and the worker asks for it.
pub fn turn_item(token: String, turn: &RemoteTurn, inline_bytes_max: usize) -> wire::WorkItem {
    let mut writer = HistoryWriter::new(turn.instance.clone());
    let mut write = |events: &[HistoryEvent]| {
        let mut written = Vec::with_capacity(events.len());
        events.iter().for_each(|event| writer.write(event, &mut written));
        written
    };
    let (mut past, new) = (write(&turn.past), write(&turn.new));
    let streamed = inline_bytes_max < usize::MAX
        && past.iter().map(wire::HistoryEvent::encoded_len).sum::<usize>() > inline_bytes_max;
    if streamed {
        past.clear();
    }
    item(
        token,
        Request::OrchestratorRequest(wire::OrchestratorRequest {
            instance_id: turn.instance.to_string(),
            execution_id: Some(turn.started.execution.to_string()),
            past_events: past,
            new_events: new,
            requires_history_streaming: streamed,
            orchestration_trace_context: turn.keepsake.as_deref().and_then(trace_context),
            ..wire::OrchestratorRequest::default()
        }),
    )
}

/// What the worker answered the turn before with.
fn trace_context(keepsake: &[u8]) -> Option<wire::OrchestrationTraceContext> {
    wire::OrchestrationTraceContext::decode(keepsake).ok()
}

/// An activity for a worker.
pub fn activity_item(token: String, task: &ActivityTask) -> wire::WorkItem {
    item(token, Request::ActivityRequest(activity_request(task)))
}

/// A batch of an entity's operations for a worker.
pub fn entity_item(token: String, work: &EntityWork) -> wire::WorkItem {
    let operations =
        work.operations.iter().filter_map(|operation| operation_request(&requested(operation, work.now)));
    item(
        token,
        Request::EntityRequestV2(wire::EntityRequest {
            instance_id: work.entity.to_string(),
            execution_id: ExecutionId::new(Uuid::nil()).to_string(),
            entity_state: work.state.as_ref().map(|state| state.as_str().to_owned()),
            operation_requests: operations.collect(),
        }),
    )
}

fn item(completion_token: String, request: Request) -> wire::WorkItem {
    wire::WorkItem { completion_token, request: Some(request) }
}

fn requested(operation: &BatchOperation, now: Timestamp) -> HistoryEvent {
    let asked = Box::new(EntityOperation {
        request_id: operation.request_id.clone(),
        operation: operation.operation.clone(),
        input: operation.input.clone(),
        scheduled_time: operation.scheduled_time,
        target: None,
        caller: operation.caller.clone(),
        trace: operation.trace.clone(),
    });
    let kind = if operation.is_signal {
        EventKind::EntityOperationSignaled(asked)
    } else {
        EventKind::EntityOperationCalled(asked)
    };
    HistoryEvent { event_id: NO_EVENT_ID, timestamp: now, kind }
}

/// What a worker answers to a batch of an entity's operations.
///
/// # Errors
/// When a result or an action cannot be understood.
pub fn entity_answer(result: wire::EntityBatchResult) -> Result<EntityAnswer, WireError> {
    use wire::operation_result::ResultType;
    let results = result.results.into_iter().map(|result| {
        Ok(match need(result.result_type, "OperationResult", "resultType")? {
            ResultType::Success(success) => Ok(payload(success.result)),
            ResultType::Failure(failed) => {
                let unknown = || FailureDetails::new(failure::kinds::MESSAGE, "the operation failed");
                Err(failed.failure_details.map_or_else(unknown, failure_from_wire))
            }
        })
    });
    Ok(EntityAnswer {
        results: results.collect::<Result<_, WireError>>()?,
        actions: result.actions.into_iter().map(entity_action).collect::<Result<_, _>>()?,
        state: optional_payload(result.entity_state),
        failure: result.failure_details.map(failure_from_wire),
    })
}

fn entity_action(action: wire::OperationAction) -> Result<EntityAction, WireError> {
    use wire::operation_action::OperationActionType;
    Ok(match need(action.operation_action_type, "OperationAction", "operationActionType")? {
        OperationActionType::SendSignal(signal) => EntityAction::Signal {
            target: entity_id(&signal.instance_id)?,
            operation: Box::new(EntityOperation {
                request_id: fresh_id(),
                operation: signal.name.into(),
                input: payload(signal.input),
                scheduled_time: due(signal.scheduled_time)?,
                target: None,
                caller: None::<EntityCaller>,
                trace: trace(signal.parent_trace_context).map(Box::new),
            }),
        },
        OperationActionType::StartNewOrchestration(start) => {
            if start.name.is_empty() {
                return Err(WireError::Missing { message: "StartNewOrchestrationAction", field: "name" });
            }
            let instance = match start.instance_id.as_str() {
                "" => InstanceId::from_trusted(fresh_id()),
                id => InstanceId::parse(id)?,
            };
            EntityAction::Start {
                instance,
                name: start.name.into(),
                version: text(start.version),
                input: payload(start.input),
                tags: Default::default(),
                scheduled_start: due(start.scheduled_time)?,
                trace: trace(start.parent_trace_context).map(Box::new),
            }
        }
    })
}

fn due(time: Option<prost_types::Timestamp>) -> Result<Option<Timestamp>, WireError> {
    time.map(|time| due_time(time, "scheduledTime")).transpose()
}

fn fresh_id() -> SmolStr {
    SmolStr::new(Uuid::now_v7().as_simple().to_string())
}

/// What a worker takes.
pub fn work_filters(filters: wire::WorkItemFilters) -> WorkFilters {
    let filter = |name: String, versions: Vec<String>| NameFilter {
        name: name.into(),
        versions: versions.into_iter().map(SmolStr::from).collect(),
    };
    WorkFilters {
        orchestrations: filters.orchestrations.into_iter().map(|it| filter(it.name, it.versions)).collect(),
        activities: filters.activities.into_iter().map(|it| filter(it.name, it.versions)).collect(),
        entities: filters.entities.into_iter().map(|it| it.name.to_lowercase().into()).collect(),
    }
}
