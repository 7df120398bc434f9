//! Looking at an instance: its state, waits, its history.

use steadfast_grpc::wire;
use steadfast_grpc::wire::OrchestrationStatus as Status;
use steadfast_grpc::wire::history_event::EventType;
use tonic::Code;

use crate::support::{Served, assert_refused, get, serve, soon};

pub(crate) async fn history(served: &mut Served, id: &str) -> Vec<EventType> {
    let request = wire::StreamInstanceHistoryRequest { instance_id: id.to_owned(), ..Default::default() };
    let mut stream = soon(served.client.stream_instance_history(request)).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(chunk) = soon(stream.message()).await.unwrap() {
        events.extend(chunk.events.into_iter().map(|event| event.event_type.unwrap()));
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_is_answered() {
    let mut served = serve().await;
    soon(served.client.hello(())).await.unwrap();
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_instance_does_not_exist_which_is_no_error() {
    let mut served = serve().await;
    let found = soon(served.client.get_instance(get("nobody"))).await.unwrap().into_inner();
    assert_eq!((found.exists, found.orchestration_state), (false, None));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_and_outputs_are_shown_when_they_are_asked_for() {
    let mut served = serve().await;
    served.start("echo", "e").await;
    let state = served.ended("e").await;
    assert_eq!((state.input.as_deref(), state.output.as_deref()), (Some("\"in\""), Some("\"in\"")));
    assert_eq!(state.orchestration_status(), Status::Completed);
    assert!(state.failure_details.is_none() && state.completed_timestamp.is_some());
    let request = wire::GetInstanceRequest { instance_id: "e".to_owned(), get_inputs_and_outputs: false };
    let found = soon(served.client.get_instance(request)).await.unwrap().into_inner();
    let state = found.orchestration_state.unwrap();
    assert_eq!((state.input, state.output), (None, None));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_instance_shows_its_failure() {
    let mut served = serve().await;
    served.start("failing", "f").await;
    let state = served.ended("f").await;
    assert_eq!(state.orchestration_status(), Status::Failed);
    let failure = state.failure_details.unwrap();
    assert_eq!((failure.error_type.as_str(), failure.error_message.as_str()), ("app::Broken", "it broke"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_outlasts_the_start_of_an_instance_that_does_not_exist_yet() {
    let mut served = serve().await;
    let (mut start, mut end) = (served.client.clone(), served.client.clone());
    let start = tokio::spawn(async move { start.wait_for_instance_start(get("later")).await });
    let end = tokio::spawn(async move { end.wait_for_instance_completion(get("later")).await });
    served.start("waiter", "later").await;
    let begun = soon(start).await.unwrap().unwrap().into_inner().orchestration_state.unwrap();
    assert_ne!(begun.orchestration_status(), Status::Pending);
    served.raise("later", "\"now\"").await.unwrap();
    let ended = soon(end).await.unwrap().unwrap().into_inner().orchestration_state.unwrap();
    assert_eq!(ended.output.as_deref(), Some("\"now\""));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_ends_with_the_completion_and_has_no_ends_of_turns() {
    let mut served = serve().await;
    served.start("waiter", "w").await;
    served.begun("w").await;
    served.raise("w", "\"x\"").await.unwrap();
    let execution_id = served.ended("w").await.execution_id;
    let names: Vec<_> = history(&mut served, "w")
        .await
        .iter()
        .map(|event| match event {
            EventType::OrchestratorStarted(_) => "turn",
            EventType::ExecutionStarted(_) => "start",
            EventType::EventRaised(_) => "event",
            EventType::ExecutionCompleted(_) => "end",
            _ => "other",
        })
        .collect();
    assert_eq!(names, ["turn", "start", "turn", "event", "end"]);
    let mut request = wire::StreamInstanceHistoryRequest {
        instance_id: "w".to_owned(),
        execution_id,
        for_work_item_processing: false,
    };
    assert!(soon(served.client.stream_instance_history(request.clone())).await.is_ok());
    request.execution_id = Some("0".repeat(32));
    let other = soon(served.client.stream_instance_history(request)).await.map(|_| ());
    assert_refused(other, Code::NotFound, &["no execution"]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_instance_has_no_history() {
    let mut served = serve().await;
    let request =
        wire::StreamInstanceHistoryRequest { instance_id: "nobody".to_owned(), ..Default::default() };
    let outcome = soon(served.client.stream_instance_history(request)).await.map(|_| ());
    assert_refused(outcome, Code::NotFound, &["'nobody'"]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_status_is_shown_verbatim_also_without_inputs_and_outputs() {
    let mut served = serve().await;
    served.start("status", "s").await;
    assert_eq!(served.begun("s").await.custom_status.as_deref(), Some("\"\""));
    served.raise("s", "\"x\"").await.unwrap();
    served.ended("s").await;
    let request = wire::GetInstanceRequest { instance_id: "s".to_owned(), get_inputs_and_outputs: false };
    let found = soon(served.client.get_instance(request)).await.unwrap().into_inner();
    assert_eq!(found.orchestration_state.unwrap().custom_status.as_deref(), Some("\"busy\""));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_instance_shows_its_failure_also_without_inputs_and_outputs() {
    let mut served = serve().await;
    served.start("failing", "f").await;
    served.ended("f").await;
    let request = wire::GetInstanceRequest { instance_id: "f".to_owned(), get_inputs_and_outputs: false };
    let found = soon(served.client.get_instance(request)).await.unwrap().into_inner();
    assert!(found.orchestration_state.unwrap().failure_details.is_some());
    served.stop().await;
}

/// The events of a history as they are on the wire.
async fn events(served: &mut Served, id: &str) -> Vec<wire::HistoryEvent> {
    let request = wire::StreamInstanceHistoryRequest { instance_id: id.to_owned(), ..Default::default() };
    let mut stream = soon(served.client.stream_instance_history(request)).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(chunk) = soon(stream.message()).await.unwrap() {
        events.extend(chunk.events);
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn events_have_times_that_do_not_go_back_and_actions_are_confirmed_by_growing_ids_within_their_turn() {
    let mut served = serve().await;
    served.start("family", "p").await;
    served.begun("p-child").await;
    served.raise("p-child", "\"x\"").await.unwrap();
    let created = served.ended("p").await.created_timestamp.unwrap();
    let events = events(&mut served, "p").await;
    let time = |at: &prost_types::Timestamp| (at.seconds, at.nanos);
    let turns: Vec<_> = events
        .iter()
        .filter(|event| matches!(event.event_type, Some(EventType::OrchestratorStarted(_))))
        .map(|event| time(event.timestamp.as_ref().unwrap()))
        .collect();
    assert!(turns.is_sorted(), "{turns:?}");
    assert!(time(&created) <= turns[0], "it is created before its first turn");
    let ids: Vec<_> = events.iter().map(|event| event.event_id).filter(|id| *id >= 0).collect();
    assert!(ids.is_sorted_by(|left, right| left < right), "{ids:?}");
    let confirmed = |event: &wire::HistoryEvent| event.event_id >= 0;
    for turn in events.split(|event| matches!(event.event_type, Some(EventType::OrchestratorStarted(_)))) {
        assert!(turn.is_sorted_by_key(confirmed), "what is new comes before what is confirmed: {turn:#?}");
    }
    assert!(events.iter().all(|event| event.timestamp.is_some() && event.event_type.is_some()));
    assert!(matches!(events.last().unwrap().event_type, Some(EventType::ExecutionCompleted(_))));
    assert!(!events.iter().any(|it| matches!(it.event_type, Some(EventType::OrchestratorCompleted(_)))));
    served.stop().await;
}
