//! Workers that are connected to a server: how many there may be, and what becomes of their work when it stops.

use rustix::process::Signal;
use steadfast_grpc::wire;
use steadfast_grpc::wire::extension::worker_link_client::WorkerLinkClient;
use steadfast_grpc::wire::history_event::EventType;
use steadfast_grpc::wire::orchestrator_action::OrchestratorActionType;
use steadfast_grpc::wire::work_item::Request;
use tempfile::TempDir;
use tonic::{Code, Status, Streaming};

use crate::stop::{ended, watch_health};
use crate::support::{Client, Server, assert_refused, get, soon, start};

async fn connect(client: &mut Client) -> Result<Streaming<wire::WorkItem>, Status> {
    Ok(soon(client.get_work_items(wire::GetWorkItemsRequest::default())).await?.into_inner())
}

async fn next(items: &mut Streaming<wire::WorkItem>) -> Result<(String, Request), Status> {
    let item = soon(items.message()).await?.unwrap();
    Ok((item.completion_token, item.request.unwrap()))
}

async fn answer(client: &mut Client, completion_token: String, id: i32, action: OrchestratorActionType) {
    let action = wire::OrchestratorAction { id, orchestrator_action_type: Some(action) };
    let actions = vec![action];
    let response = wire::OrchestratorResponse { completion_token, actions, ..Default::default() };
    soon(client.complete_orchestrator_task(response)).await.unwrap();
}

fn call(name: &str) -> OrchestratorActionType {
    let name = name.to_owned();
    OrchestratorActionType::ScheduleTask(wire::ScheduleTaskAction { name, ..Default::default() })
}

fn complete(result: &str) -> OrchestratorActionType {
    OrchestratorActionType::CompleteOrchestration(wire::CompleteOrchestrationAction {
        orchestration_status: wire::OrchestrationStatus::Completed.into(),
        result: Some(result.to_owned()),
        ..Default::default()
    })
}

#[tokio::test]
async fn workers_beyond_the_limit_are_refused_and_places_come_back() {
    let server = Server::start(&["--worker-streams-max", "1"]);
    let (mut first, mut second) = (server.client().await, server.client().await);
    let mut stream = connect(&mut first).await.unwrap();
    assert_refused(connect(&mut second).await, Code::ResourceExhausted, &["1 worker streams"]);
    // Calls have their own limit.
    start(&mut second, "one").await.unwrap();
    next(&mut stream).await.unwrap();
    drop(stream);
    soon(async { while connect(&mut second).await.is_err() {} }).await;
    server.stop().await;
}

/// A server with an instance whose activity is with the worker.
async fn with_activity_under_way(
    arguments: &[&str],
) -> (Server, Client, Streaming<wire::WorkItem>, wire::ActivityResponse) {
    let server = Server::start(arguments);
    let mut client = server.client().await;
    let mut items = connect(&mut client).await.unwrap();
    start(&mut client, "one").await.unwrap();
    let (token, Request::OrchestratorRequest(_)) = next(&mut items).await.unwrap() else {
        panic!("the first item is a turn");
    };
    answer(&mut client, token, 1, call("work")).await;
    let (completion_token, Request::ActivityRequest(task)) = next(&mut items).await.unwrap() else {
        panic!("the turn called an activity");
    };
    let response = result_of(completion_token, task);
    (server, client, items, response)
}

fn result_of(completion_token: String, task: wire::ActivityRequest) -> wire::ActivityResponse {
    let instance_id = task.orchestration_instance.unwrap().instance_id;
    let result = Some("1".to_owned());
    wire::ActivityResponse {
        completion_token,
        instance_id,
        task_id: task.task_id,
        result,
        ..Default::default()
    }
}

/// Serves the folder again with a worker that completes everything; says whether an activity was among it.
async fn goes_on(folder: TempDir) -> bool {
    let server = Server::start_in(folder, &[]);
    let mut client = server.client().await;
    let mut items = connect(&mut client).await.unwrap();
    let mut had_activity = false;
    loop {
        match next(&mut items).await.unwrap() {
            (token, Request::ActivityRequest(task)) => {
                soon(client.complete_activity_task(result_of(token, task))).await.unwrap();
                had_activity = true;
            }
            (token, Request::OrchestratorRequest(_)) => {
                answer(&mut client, token, 2, complete("2")).await;
                break;
            }
            (_, other) => panic!("{other:?}"),
        }
    }
    let state = soon(client.wait_for_instance_completion(get("one"))).await.unwrap().into_inner();
    assert_eq!(state.orchestration_state.unwrap().output.as_deref(), Some("2"));
    server.stop().await;
    had_activity
}

#[tokio::test]
async fn a_server_that_stops_takes_the_results_of_work_that_was_begun() {
    let (server, mut client, mut items, response) = with_activity_under_way(&["--drain-timeout", "1h"]).await;
    let health = watch_health(server.channel().await).await.unwrap();
    let mut other = server.client().await;
    let stopping = tokio::spawn(server.stop());
    // From now on it stops.
    assert_eq!(ended(health).await.code(), Code::Unavailable);
    assert_refused(start(&mut other, "two").await, Code::Unavailable, &[]);
    assert_refused(connect(&mut other).await, Code::Unavailable, &[]);
    soon(client.complete_activity_task(response)).await.unwrap();
    assert_refused(next(&mut items).await.map(|_| ()), Code::Unavailable, &[]);
    let (_, folder) = soon(stopping).await.unwrap();
    assert!(!goes_on(folder).await, "its result is known");
}

#[tokio::test]
async fn work_that_is_not_done_in_time_is_given_out_again_after_the_next_start() {
    let (server, mut client, mut items, response) = with_activity_under_way(&["--drain-timeout", "0s"]).await;
    let (_, folder) = soon(server.stop()).await;
    assert_refused(next(&mut items).await.map(|_| ()), Code::Unavailable, &[]);
    soon(client.complete_activity_task(response)).await.unwrap_err();
    assert!(goes_on(folder).await, "it is done again");
}

#[tokio::test]
async fn an_orchestration_is_in_the_same_span_after_the_server_was_killed() {
    let parent = wire::TraceContext {
        trace_parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        span_id: "b7ad6b7169203331".to_owned(),
        ..Default::default()
    };
    let span = wire::OrchestrationTraceContext {
        span_id: Some("00f067aa0ba902b7".to_owned()),
        span_start_time: Some(std::time::SystemTime::now().into()),
    };
    let server = Server::start(&[]);
    let mut client = server.client().await;
    let mut items = connect(&mut client).await.unwrap();
    let create = wire::CreateInstanceRequest {
        instance_id: "one".to_owned(),
        name: "anything".to_owned(),
        parent_trace_context: Some(parent.clone()),
        ..Default::default()
    };
    soon(client.start_instance(create)).await.unwrap();
    let (completion_token, Request::OrchestratorRequest(first)) = next(&mut items).await.unwrap() else {
        panic!("the first item is a turn");
    };
    assert_eq!(first.orchestration_trace_context, None);
    let action = wire::OrchestratorAction { id: 1, orchestrator_action_type: Some(call("work")) };
    let response = wire::OrchestratorResponse {
        completion_token,
        actions: vec![action],
        orchestration_trace_context: Some(span.clone()),
        ..Default::default()
    };
    soon(client.complete_orchestrator_task(response)).await.unwrap();
    next(&mut items).await.unwrap();
    server.signal(Signal::KILL);
    let (_, _, folder) = server.ended().await;

    let server = Server::start_in(folder, &[]);
    let mut client = server.client().await;
    let mut items = connect(&mut client).await.unwrap();
    let (token, Request::ActivityRequest(task)) = next(&mut items).await.unwrap() else {
        panic!("the activity has no result");
    };
    soon(client.complete_activity_task(result_of(token, task))).await.unwrap();
    let (_, Request::OrchestratorRequest(second)) = next(&mut items).await.unwrap() else {
        panic!("its result is for a turn");
    };
    assert_eq!(second.orchestration_trace_context, Some(span));
    let started = second.past_events.into_iter().find_map(|event| match event.event_type {
        Some(EventType::ExecutionStarted(started)) => started.parent_trace_context,
        _ => None,
    });
    assert_eq!(started, Some(parent));
    server.stop().await;
}

#[tokio::test]
async fn places_and_leases_are_those_of_the_settings() {
    let lease = ["--worker-default-places", "1", "--worker-orchestration-lease", "50ms"];
    let server = Server::start(&lease);
    let mut client = server.client().await;
    let mut first = connect(&mut client).await.unwrap();
    for id in ["one", "two"] {
        start(&mut client, id).await.unwrap();
    }
    let (stuck, _) = next(&mut first).await.unwrap();
    let mut second = connect(&mut client).await.unwrap();
    // It has one place, for the one that waited; the other comes to it, once that is done, after its lease is over.
    let (token, _) = next(&mut second).await.unwrap();
    answer(&mut client, token, 1, complete("1")).await;
    let (token, _) = next(&mut second).await.unwrap();
    answer(&mut client, token, 1, complete("2")).await;
    answer(&mut client, stuck, 1, complete("3")).await;
    for id in ["one", "two"] {
        let state = soon(client.wait_for_instance_completion(get(id))).await.unwrap().into_inner();
        assert_ne!(state.orchestration_state.unwrap().output.as_deref(), Some("3"));
    }
    server.stop().await;
}

#[tokio::test]
async fn the_extension_of_the_protocol_can_be_switched_off() {
    // A worker that says nothing of itself is told so where the extension is spoken.
    for (switch, expected) in
        [("=false", Code::Unimplemented), ("=true", Code::InvalidArgument), ("", Code::InvalidArgument)]
    {
        let server = Server::start(&[&format!("--worker-extension{switch}")]);
        let mut link = WorkerLinkClient::new(server.channel().await);
        assert_refused(soon(link.work(futures_util::stream::empty())).await, expected, &[]);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_worker_whose_hub_is_deleted_is_told_so() {
    let server = Server::start(&["--create-hubs"]);
    let mut client = server.client_of("orders").await;
    let mut items = connect(&mut client).await.unwrap();
    soon(client.delete_task_hub(wire::DeleteTaskHubRequest {})).await.unwrap();
    let status = next(&mut items).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    server.stop().await;
}
