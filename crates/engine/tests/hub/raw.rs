//! The untyped client: names and JSON text.

use steadfast_core::{EventKind, OrchestrationStatus, Payload, TraceContext};
use steadfast_engine::{ClientError, HubOptions, StartOptions};

use crate::support::{end_of, fence, history_of, hub, soon, stop, waiter, with_id};

fn json(text: &str) -> Payload {
    Payload::from_json(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestration_is_started_and_answered_with_json_text() {
    let hub = hub(2).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let trace = TraceContext {
        parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        state: "vendor=1".into(),
    };
    let raw = client.raw();
    let start = raw.start("waiter", json(""), Some(trace.clone()), with_id("w"));
    let started = soon("the start", start).await.unwrap();
    assert_eq!(started.instance.as_str(), "w");
    client.raw().raise_event("w", "go", json("\"now\"")).await.unwrap();
    let state = end_of(&client, "w").await;
    assert_eq!((state.status, state.output), (OrchestrationStatus::Completed, Some(json("\"now\""))));
    assert_eq!(state.execution, started.execution);
    let history = history_of(&client, "w").await;
    let EventKind::ExecutionStarted(begun) = &history[1].kind else { panic!("{:?}", history[1]) };
    assert_eq!(begun.trace.as_deref(), Some(&trace));
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_registered_in_this_process_can_be_started() {
    let hub = hub(1).start().await.unwrap();
    let client = hub.client();
    let options = StartOptions { version: Some("2.0".to_owned()), ..StartOptions::default() };
    let started = client.raw().start("elsewhere", json("[1,2]"), None, options).await.unwrap();
    let state = client.state(started.instance.as_str()).await.unwrap();
    assert_eq!(
        (state.name.as_str(), state.version.as_str(), state.input.as_str()),
        ("elsewhere", "2.0", "[1,2]")
    );
    assert_eq!(started.version, "2.0");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_text_is_bounded_like_any_payload() {
    let options = HubOptions { payload_bytes_max: 10, ..HubOptions::default() };
    let hub = hub(1).options(options).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let long = || json("\"longer than ten bytes\"");
    let start = client.raw().start("waiter", long(), None, with_id("w")).await.unwrap_err();
    assert!(matches!(start, ClientError::PayloadTooLarge { bytes: 23, max: 10 }), "{start}");
    client.raw().start("waiter", json("null"), None, with_id("w")).await.unwrap();
    let raise = client.raw().raise_event("w", "go", long()).await.unwrap_err();
    assert!(matches!(raise, ClientError::PayloadTooLarge { .. }), "{raise}");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_outlast_the_start_of_an_instance_that_does_not_exist_yet() {
    let hub = hub(2).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let (start, end) = (client.clone(), client.clone());
    let start = tokio::spawn(async move { start.raw().wait_for_start("later").await });
    let end = tokio::spawn(async move { end.raw().wait_for_completion("later").await });
    fence(&client, "later").await;
    client.raw().start("waiter", json("null"), None, with_id("later")).await.unwrap();
    let begun = soon("the start", start).await.unwrap().unwrap();
    assert_eq!(begun.status, OrchestrationStatus::Running);
    client.raw().raise_event("later", "go", json("\"now\"")).await.unwrap();
    let ended = soon("the end", end).await.unwrap().unwrap();
    assert_eq!(ended.output, Some(json("\"now\"")));
    stop(hub).await;
}
