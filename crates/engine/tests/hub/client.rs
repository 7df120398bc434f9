//! Every error that a client or a program that starts a hub can get, and that its text says what to do.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::Error as _;
use steadfast_core::model::{OrchestrationContext, OrchestrationName, orchestration};
use steadfast_core::{Error, OrchestrationStatus};
use steadfast_engine::{ClientError, HubBuilder, HubError, HubOptions};
use steadfast_store::{Fault, FaultPoint, MemoryStore, Operation, Store, StoreError};
use steadfast_store_sled::{SledOptions, SledStore};

use crate::support::{STEPS, WAITER, echo, end_of, hub, hub_on, soon, steps, stop, waiter, with_id};

const FAILING: OrchestrationName<(), u32> = OrchestrationName::new("failing");

/// A value without a JSON form.
struct Unwritable;

impl serde::Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("not today"))
    }
}

fn assert_says(error: &ClientError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

fn disk_error() -> StoreError {
    StoreError::Io { doing: "running a test", problem: "the disk is gone".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_in_use_can_not_be_started_again() {
    let hub = hub(2).register(waiter()).start().await.unwrap();
    let client = hub.client();
    client.start_with(WAITER, (), with_id("twice")).await.unwrap();
    client.wait_for_start("twice", None).await.unwrap();
    let error = client.start_with(WAITER, (), with_id("twice")).await.map(|_| ()).unwrap_err();
    assert!(matches!(&error, ClientError::AlreadyExists { id, status: OrchestrationStatus::Running }
        if id.as_str() == "twice"));
    assert_says(&error, &["'twice'", "Running", "another id"]);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_about_an_unknown_instance_says_that_there_is_none() {
    let hub = hub(2).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let outcomes = [
        client.state("nobody").await.map(|_| ()),
        client.history("nobody").await.map(|_| ()),
        client.wait_for_start("nobody", None).await.map(|_| ()),
        client.wait_for_completion("nobody", None).await.map(|_| ()),
        client.raise_event("nobody", "go", "x").await,
        client.terminate("nobody", "because", false).await,
        client.suspend("nobody", "because").await,
        client.resume("nobody", "because").await,
        client.purge("nobody").await,
    ];
    for (at, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.unwrap_err();
        assert!(matches!(error, ClientError::InstanceNotFound { .. }), "{at}: {error}");
        assert_says(&error, &["'nobody'", "never started", "purged"]);
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_has_ended_takes_no_messages() {
    let hub = hub(2).register(steps()).register(echo()).start().await.unwrap();
    let client = hub.client();
    client.start_with(STEPS, 1, with_id("done")).await.unwrap();
    end_of(&client, "done").await;
    let outcomes = [
        client.raise_event("done", "go", "x").await,
        client.terminate("done", "because", false).await,
        client.suspend("done", "because").await,
        client.resume("done", "because").await,
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(
            matches!(error, ClientError::NotRunning { status: OrchestrationStatus::Completed, .. }),
            "{error}"
        );
        assert_says(&error, &["'done'", "has ended"]);
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_has_ended_can_be_purged() {
    let hub = hub(2).register(waiter()).start().await.unwrap();
    let client = hub.client();
    client.start_with(WAITER, (), with_id("alive")).await.unwrap();
    let error = client.purge("alive").await.unwrap_err();
    assert!(matches!(error, ClientError::NotEnded { .. }), "{error}");
    assert_says(&error, &["'alive'", "terminate it first"]);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_orchestration_is_refused_with_the_names_that_are_known() {
    // Code without a version would run any.
    let hub = hub(1).register(waiter().version("1")).register(steps()).start().await.unwrap();
    let client = hub.client();
    let unknown: OrchestrationName<(), ()> = OrchestrationName::new("waitress");
    let error = client.start(unknown, ()).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ClientError::UnknownOrchestration { .. }), "{error}");
    assert_says(&error, &["'waitress'", "steps, waiter", "register it before"]);
    let error = client.start(WAITER.version("9"), ()).await.map(|_| ()).unwrap_err();
    assert_says(&error, &["'waiter'", "version '9'"]);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_that_are_too_large_or_have_no_json_form_are_refused() {
    let options = HubOptions { payload_bytes_max: 100, ..HubOptions::default() };
    let text: OrchestrationName<String, String> = OrchestrationName::new("text");
    let code = orchestration("text", |ctx: OrchestrationContext, text: String| async move {
        ctx.wait_for_event::<()>("never").await?;
        Ok::<_, Error>(text)
    });
    let hub = hub(1).register(code).options(options).start().await.unwrap();
    let client = hub.client();
    let error = client.start(&text, "x".repeat(99)).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ClientError::PayloadTooLarge { bytes: 101, max: 100 }), "{error}");
    assert_says(&error, &["101", "100", "payload_bytes_max", "reference"]);
    let run = client.start(&text, "x".repeat(98)).await.unwrap();
    let id = run.id().as_str();
    let error = client.raise_event(id, "go", &"x".repeat(200)).await.unwrap_err();
    assert!(matches!(error, ClientError::PayloadTooLarge { .. }), "{error}");
    let error = client.raise_event(id, "go", &Unwritable).await.unwrap_err();
    assert!(matches!(error, ClientError::InvalidPayload(_)), "{error}");
    assert!(error.source().unwrap().to_string().contains("not today"));
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_of_another_type_is_an_invalid_payload() {
    let hub = hub(1).register(steps()).register(echo()).start().await.unwrap();
    let wrong: OrchestrationName<u32, Vec<String>> = OrchestrationName::new("steps");
    let run = hub.client().start(wrong, 0).await.unwrap();
    let error = soon("the result", run.result()).await.unwrap_err();
    assert!(matches!(error, ClientError::InvalidPayload(_)), "{error}");
    assert!(error.source().is_some());
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_cannot_be_used_are_refused_wherever_they_come_in() {
    let hub = hub(1).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let outcomes = [
        client.start_with(WAITER, (), with_id("")).await.map(|_| ()),
        client.state("@counter@a").await.map(|_| ()),
        client.history(&"x".repeat(513)).await.map(|_| ()),
        client.wait_for_completion("a\nb", None).await.map(|_| ()),
        client.raise_event("", "go", "x").await,
        client.purge("").await,
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(matches!(error, ClientError::InvalidInstanceId(_)), "{error}");
        assert_says(&error, &["is not usable"]);
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_takes_too_long_ends_and_can_be_repeated() {
    let hub = hub(1).register(waiter()).start().await.unwrap();
    let client = hub.client();
    client.start_with(WAITER, (), with_id("slow")).await.unwrap();
    let timeout = Duration::from_millis(1);
    let error = client.wait_for_completion("slow", Some(timeout)).await.unwrap_err();
    assert!(matches!(&error, ClientError::TimedOut { timeout: after, .. } if *after == timeout), "{error}");
    assert_says(&error, &["'slow'", "1ms", "wait again"]);
    client.raise_event("slow", "go", "on").await.unwrap();
    let state = client.wait_for_completion("slow", Some(Duration::from_secs(60))).await.unwrap();
    assert_eq!(state.status, OrchestrationStatus::Completed);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_a_failed_or_terminated_instance_says_why_there_is_none() {
    let failing = orchestration("failing", |_: OrchestrationContext, ()| async move {
        Err::<u32, _>(Error::new("shop::OutOfStock", "no more socks"))
    });
    let hub = hub(1).register(failing).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let run = client.start(FAILING, ()).await.unwrap();
    let error = soon("the end", run.result()).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Failed { details, .. } if details.error_type == "shop::OutOfStock")
    );
    assert_says(&error, &["no more socks", run.id().as_str()]);
    let run = client.start(WAITER, ()).await.unwrap();
    client.terminate(run.id().as_str(), "season is over", false).await.unwrap();
    let error = soon("the end", run.result()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Terminated { reason, .. } if reason == "season is over"));
    assert_says(&error, &["season is over", run.id().as_str()]);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_after_the_stop_says_that_the_hub_is_closed() {
    let hub = hub(2).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let run = client.start_with(WAITER, (), with_id("left")).await.unwrap();
    stop(hub).await;
    let outcomes = [
        client.start(WAITER, ()).await.map(|_| ()),
        run.result().await.map(|_| ()),
        client.state("left").await.map(|_| ()),
        client.history("left").await.map(|_| ()),
        client.raise_event("left", "go", "x").await,
        client.purge("left").await,
        client.query(&Default::default()).await.map(|_| ()),
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(matches!(error, ClientError::HubClosed), "{error}");
        assert_says(&error, &["start it again"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_a_failing_store_interrupts_says_that_it_may_have_taken_effect() {
    let store = MemoryStore::new(1);
    let hub = hub_on(&store).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let (operation, point) = (Operation::Append, FaultPoint::Before);
    store.fail(Fault { operation, nth: 1, point, error: disk_error() });
    let error = client.start(WAITER, ()).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ClientError::Store(StoreError::Io { .. })), "{error}");
    assert_says(&error, &["may have taken effect"]);
    assert!(error.source().unwrap().to_string().contains("the disk is gone"));
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_does_not_come_back_is_unavailable() {
    let store = MemoryStore::new(1);
    let options = HubOptions { unavailable_timeout: Duration::from_millis(1), ..HubOptions::default() };
    let hub = hub_on(&store).register(waiter()).options(options).start().await.unwrap();
    let client = hub.client();
    store.crash();
    let error = client.start(WAITER, ()).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ClientError::Store(_)), "{error}");
    let error = loop {
        match client.start(WAITER, ()).await.map(|_| ()).unwrap_err() {
            ClientError::Store(_) => tokio::task::yield_now().await,
            error => break error,
        }
    };
    assert!(matches!(error, ClientError::Unavailable), "{error}");
    assert_says(&error, &["try again later"]);
    // Nothing can be written any more; a stop ends nevertheless.
    assert!(matches!(soon("the stop", hub.stop()).await, Err(HubError::Store(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_is_registered_twice_is_refused_at_the_start() {
    let error = hub(1).register(waiter()).register(waiter()).start().await.map(|_| ()).unwrap_err();
    assert!(matches!(&error, HubError::Registration(duplicate) if duplicate.name == "waiter"));
    assert!(error.to_string().contains("orchestration 'waiter'"), "{error}");
    let error = hub(1).register(echo()).register(echo()).start().await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("activity 'echo'"), "{error}");
    // Versions tell them apart.
    let hub = hub(1).register(waiter()).register(waiter().version("2")).start().await.unwrap();
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let on_disk = || {
        let path = path.clone();
        HubBuilder::new(move |partitions| {
            let options = SledOptions { partitions, ..SledOptions::default() };
            Ok(Arc::new(SledStore::open(&path, options)?) as Arc<dyn Store>)
        })
    };
    let first = on_disk().partitions(2).start().await.unwrap();
    let cause = |error: HubError| match error {
        HubError::Store(error) => error,
        other => panic!("{other}"),
    };
    let locked = cause(on_disk().start().await.map(|_| ()).unwrap_err());
    assert!(matches!(locked, StoreError::Locked { .. }), "{locked}");
    assert!(locked.to_string().contains("another data folder"), "{locked}");
    stop(first).await;
    let mismatch = cause(on_disk().partitions(3).start().await.map(|_| ()).unwrap_err());
    assert!(matches!(mismatch, StoreError::PartitionCount { found: 2, asked: 3 }), "{mismatch}");
    assert!(mismatch.to_string().contains("leave it out"), "{mismatch}");
    let again = on_disk().start().await.unwrap();
    assert_eq!(again.partitions(), 2);
    stop(again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_panics_while_it_is_opened_is_an_error() {
    let builder = HubBuilder::new(|_| panic!("no such driver"));
    let error = builder.start().await.map(|_| ()).unwrap_err();
    assert!(matches!(error, HubError::Threads { .. }), "{error}");
    assert!(error.to_string().contains("no such driver"), "{error}");
}
