//! A worker as SDKs have one, made by hand.

use steadfast_grpc::wire;
use steadfast_grpc::wire::history_event::EventType;
use steadfast_grpc::wire::orchestrator_action::OrchestratorActionType as Action;
use steadfast_grpc::wire::work_item::Request;
use tonic::Streaming;

use crate::support::{Client, soon};

/// One stream of work items.
pub(crate) struct Worker {
    client: Client,
    items: Streaming<wire::WorkItem>,
}

/// A turn of an orchestration, as the worker got it.
pub(crate) struct Turn {
    pub(crate) token: String,
    pub(crate) request: wire::OrchestratorRequest,
}

impl Worker {
    pub(crate) async fn connect(client: &Client) -> Self {
        Self::connect_with(client, wire::GetWorkItemsRequest::default()).await
    }

    pub(crate) async fn connect_with(client: &Client, request: wire::GetWorkItemsRequest) -> Self {
        let mut client = client.clone();
        let items = soon(client.get_work_items(request)).await.unwrap().into_inner();
        Self { client, items }
    }

    pub(crate) async fn next(&mut self) -> wire::WorkItem {
        soon(self.items.message()).await.unwrap().expect("the stream goes on")
    }

    pub(crate) async fn turn(&mut self) -> Turn {
        let item = self.next().await;
        let Some(Request::OrchestratorRequest(request)) = item.request else { panic!("a turn: {item:?}") };
        Turn { token: item.completion_token, request }
    }

    pub(crate) async fn activity(&mut self) -> (String, wire::ActivityRequest) {
        let item = self.next().await;
        let Some(Request::ActivityRequest(request)) = item.request else { panic!("an activity: {item:?}") };
        (item.completion_token, request)
    }

    pub(crate) async fn batch(&mut self) -> (String, wire::EntityRequest) {
        let item = self.next().await;
        let Some(Request::EntityRequestV2(request)) = item.request else { panic!("a batch: {item:?}") };
        (item.completion_token, request)
    }

    /// Answers a turn.
    pub(crate) async fn answer(&mut self, turn: &Turn, actions: Vec<wire::OrchestratorAction>) {
        let response = wire::OrchestratorResponse {
            instance_id: turn.request.instance_id.clone(),
            completion_token: turn.token.clone(),
            actions,
            ..Default::default()
        };
        self.respond(response).await;
    }

    pub(crate) async fn respond(&mut self, response: wire::OrchestratorResponse) {
        soon(self.client.complete_orchestrator_task(response)).await.unwrap();
    }

    pub(crate) async fn result(&mut self, token: &str, result: &str) {
        let response = wire::ActivityResponse {
            completion_token: token.to_owned(),
            result: Some(result.to_owned()),
            ..Default::default()
        };
        soon(self.client.complete_activity_task(response)).await.unwrap();
    }

    pub(crate) async fn entity_result(&mut self, result: wire::EntityBatchResult) {
        soon(self.client.complete_entity_task(result)).await.unwrap();
    }

    pub(crate) async fn give_back(&mut self, turn: &Turn) {
        let request = wire::AbandonOrchestrationTaskRequest { completion_token: turn.token.clone() };
        soon(self.client.abandon_task_orchestrator_work_item(request)).await.unwrap();
    }
}

impl Turn {
    /// The types of the past and of the new events.
    pub(crate) fn events(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let names = |events: &[wire::HistoryEvent]| events.iter().map(name).collect();
        (names(&self.request.past_events), names(&self.request.new_events))
    }
}

pub(crate) fn name(event: &wire::HistoryEvent) -> &'static str {
    match event.event_type.as_ref().expect("every event has a type") {
        EventType::ExecutionStarted(_) => "ExecutionStarted",
        EventType::ExecutionCompleted(_) => "ExecutionCompleted",
        EventType::ExecutionTerminated(_) => "ExecutionTerminated",
        EventType::ExecutionRewound(_) => "ExecutionRewound",
        EventType::TaskScheduled(_) => "TaskScheduled",
        EventType::TaskCompleted(_) => "TaskCompleted",
        EventType::TaskFailed(_) => "TaskFailed",
        EventType::OrchestratorStarted(_) => "OrchestratorStarted",
        EventType::EventRaised(_) => "EventRaised",
        EventType::ExecutionSuspended(_) => "ExecutionSuspended",
        EventType::ExecutionResumed(_) => "ExecutionResumed",
        EventType::SubOrchestrationInstanceCreated(_) => "SubOrchestrationInstanceCreated",
        EventType::SubOrchestrationInstanceCompleted(_) => "SubOrchestrationInstanceCompleted",
        EventType::SubOrchestrationInstanceFailed(_) => "SubOrchestrationInstanceFailed",
        EventType::EntityOperationCalled(_) => "EntityOperationCalled",
        EventType::EntityOperationCompleted(_) => "EntityOperationCompleted",
        other => panic!("not expected in these tests: {other:?}"),
    }
}

pub(crate) fn action(id: i32, action: Action) -> wire::OrchestratorAction {
    wire::OrchestratorAction { id, orchestrator_action_type: Some(action) }
}

pub(crate) fn call(id: i32, name: &str) -> wire::OrchestratorAction {
    let task = wire::ScheduleTaskAction {
        name: name.to_owned(),
        input: Some("\"x\"".to_owned()),
        ..Default::default()
    };
    action(id, Action::ScheduleTask(task))
}

pub(crate) fn child(id: i32, name: &str, instance: &str) -> wire::OrchestratorAction {
    let child = wire::CreateSubOrchestrationAction {
        instance_id: instance.to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    action(id, Action::CreateSubOrchestration(child))
}

pub(crate) fn call_entity(id: i32, target: &str, operation: &str, request: &str) -> wire::OrchestratorAction {
    let called = wire::EntityOperationCalledEvent {
        request_id: request.to_owned(),
        operation: operation.to_owned(),
        input: Some("5".to_owned()),
        target_instance_id: Some(target.to_owned()),
        ..Default::default()
    };
    let message = wire::send_entity_message_action::EntityMessageType::EntityOperationCalled(called);
    action(
        id,
        Action::SendEntityMessage(wire::SendEntityMessageAction { entity_message_type: Some(message) }),
    )
}

pub(crate) fn end(
    id: i32,
    status: wire::OrchestrationStatus,
    result: Option<&str>,
) -> wire::OrchestratorAction {
    let complete = wire::CompleteOrchestrationAction {
        orchestration_status: status.into(),
        result: result.map(str::to_owned),
        ..Default::default()
    };
    action(id, Action::CompleteOrchestration(complete))
}

pub(crate) fn complete(id: i32, result: &str) -> wire::OrchestratorAction {
    end(id, wire::OrchestrationStatus::Completed, Some(result))
}
