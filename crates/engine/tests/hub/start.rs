//! Starting instances, and what reaches them before and after they begin.

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast_core::model::{OrchestrationContext, OrchestrationName, orchestration};
use steadfast_core::{Error, EventKind, OrchestrationStatus, Timestamp};
use steadfast_engine::{Clock, StartOptions};
use steadfast_testkit::VirtualClock;

use crate::support::{
    Counter, STEPS, WAITER, count_events, echo, end_of, fence, history_of, hub, soon, steps, stop, waiter,
    with_id,
};

const HELLO: OrchestrationName<(), String> = OrchestrationName::new("hello");

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_of_activities_returns_its_results_and_leaves_its_history() {
    let hub = hub(2).register(steps()).register(echo()).start().await.unwrap();
    let client = hub.client();
    let run = client.start(STEPS, 3).await.unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), 3);
    let history = history_of(&client, run.id().as_str()).await;
    let kinds: Vec<_> = history.iter().map(|event| event.kind.type_name()).collect();
    let turn = ["OrchestratorStarted", "TaskCompleted", "TaskScheduled", "OrchestratorCompleted"];
    let first = ["OrchestratorStarted", "ExecutionStarted", "TaskScheduled", "OrchestratorCompleted"];
    let last = ["OrchestratorStarted", "TaskCompleted", "ExecutionCompleted", "OrchestratorCompleted"];
    assert_eq!(kinds, [first, turn, turn, last].concat());
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_instances_complete() {
    let hub = hub(4).register(steps()).register(echo()).start().await.unwrap();
    let client = hub.client();
    let mut runs = Vec::new();
    for _ in 0..1000 {
        runs.push(client.start(STEPS, 3).await.unwrap());
    }
    for run in runs {
        assert_eq!(soon("the result", run.result()).await.unwrap(), 3);
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_at_once_start_one_instance() {
    let hub = hub(2).register(waiter()).start().await.unwrap();
    let started = Counter::default();
    let mut callers = Vec::new();
    for _ in 0..1000 {
        let (client, started) = (hub.client(), started.clone());
        callers.push(tokio::spawn(async move {
            if client.start_with(WAITER, (), with_id("contested")).await.is_ok() {
                started.add();
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(started.get(), 1);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_a_start_are_seen_in_the_state_and_by_the_code() {
    let hello = |greeting: &'static str| {
        orchestration("hello", move |ctx: OrchestrationContext, ()| async move {
            let tags: Vec<_> = ctx.tags().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
            Ok::<_, Error>(format!("{greeting} {} {}", ctx.version(), tags.join(",")))
        })
    };
    let builder = hub(2).register(hello("hi").version("1.0")).register(hello("hello").version("2.0"));
    let hub = builder.start().await.unwrap();
    let client = hub.client();
    let options = StartOptions {
        instance_id: Some("greeting/ä-1".to_owned()),
        version: Some("1.0".to_owned()),
        tags: BTreeMap::from([("tenant".to_owned(), "acme".to_owned())]),
        ..StartOptions::default()
    };
    let run = client.start_with(HELLO, (), options).await.unwrap();
    assert_eq!(run.id().as_str(), "greeting/ä-1");
    assert_eq!(soon("the result", run.result()).await.unwrap(), "hi 1.0 tenant=acme");
    let state = run.state().await.unwrap();
    assert_eq!((state.version.as_str(), state.name.as_str()), ("1.0", "hello"));
    assert_eq!(state.tags["tenant"], "acme");
    // Without a version the greatest one runs.
    let run = client.start(HELLO, ()).await.unwrap();
    assert!(soon("the result", run.result()).await.unwrap().starts_with("hello"));
    stop(hub).await;
}

fn tomorrow(clock: &VirtualClock) -> Timestamp {
    clock.now().after(Duration::from_secs(86_400))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_start_is_pending_until_it_is_due() {
    let clock = VirtualClock::default();
    let hub = hub(2).register(waiter()).clock(std::sync::Arc::new(clock.clone())).start().await.unwrap();
    let client = hub.client();
    let due = tomorrow(&clock);
    let options = StartOptions { scheduled_start: Some(due), ..with_id("later") };
    client.start_with(WAITER, (), options).await.unwrap();
    let state = client.state("later").await.unwrap();
    assert_eq!((state.status, state.scheduled_start), (OrchestrationStatus::Pending, Some(due)));
    assert!(client.history("later").await.unwrap().is_empty());
    clock.advance(Duration::from_secs(86_399));
    fence(&client, "later").await;
    assert_eq!(client.state("later").await.unwrap().status, OrchestrationStatus::Pending);
    let started = tokio::spawn({
        let client = client.clone();
        async move { client.wait_for_start("later", None).await }
    });
    clock.advance(Duration::from_secs(1));
    let state = soon("the start", started).await.unwrap().unwrap();
    assert_eq!(state.status, OrchestrationStatus::Running);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_raised_before_a_scheduled_start_are_kept() {
    let clock = VirtualClock::default();
    let hub = hub(1).register(waiter()).clock(std::sync::Arc::new(clock.clone())).start().await.unwrap();
    let client = hub.client();
    let options = StartOptions { scheduled_start: Some(tomorrow(&clock)), ..with_id("later") };
    let run = client.start_with(WAITER, (), options).await.unwrap();
    client.raise_event("later", "go", "early bird").await.unwrap();
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(soon("the result", run.result()).await.unwrap(), "early bird");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_start_survives_a_restart() {
    let clock = VirtualClock::default();
    let store = steadfast_store::MemoryStore::new(2);
    let build =
        || crate::support::hub_on(&store).register(waiter()).clock(std::sync::Arc::new(clock.clone()));
    let hub = build().start().await.unwrap();
    let options = StartOptions { scheduled_start: Some(tomorrow(&clock)), ..with_id("later") };
    hub.client().start_with(WAITER, (), options).await.unwrap();
    hub.client().raise_event("later", "go", "still here").await.unwrap();
    stop(hub).await;
    let hub = build().start().await.unwrap();
    let client = hub.client();
    assert_eq!(client.state("later").await.unwrap().status, OrchestrationStatus::Pending);
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(end_of(&client, "later").await.status, OrchestrationStatus::Completed);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_is_terminated_before_it_begins_never_runs() {
    let clock = VirtualClock::default();
    let ran = Counter::default();
    let seen = ran.clone();
    let code = orchestration("hello", move |_: OrchestrationContext, ()| {
        seen.add();
        async move { Ok::<_, Error>(String::new()) }
    });
    let hub = hub(1).register(code).clock(std::sync::Arc::new(clock.clone())).start().await.unwrap();
    let client = hub.client();
    let options = StartOptions { scheduled_start: Some(tomorrow(&clock)), ..with_id("unborn") };
    client.start_with(HELLO, (), options).await.unwrap();
    client.terminate("unborn", "changed my mind", false).await.unwrap();
    let state = end_of(&client, "unborn").await;
    assert_eq!(state.status, OrchestrationStatus::Terminated);
    assert_eq!(state.reason.as_deref(), Some("changed my mind"));
    clock.advance(Duration::from_secs(100_000));
    fence(&client, "unborn").await;
    assert_eq!(ran.get(), 0);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_kept_until_they_are_waited_for_in_the_order_in_which_they_came() {
    let name: OrchestrationName<(), Vec<u32>> = OrchestrationName::new("collector");
    let code = orchestration("collector", |ctx: OrchestrationContext, ()| async move {
        ctx.wait_for_event::<()>("begin").await?;
        let mut numbers = Vec::new();
        for _ in 0..50 {
            numbers.push(ctx.wait_for_event::<u32>("Number").await?);
        }
        Ok::<_, Error>(numbers)
    });
    let hub = hub(1).register(code).start().await.unwrap();
    let client = hub.client();
    let run = client.start_with(name, (), with_id("collector")).await.unwrap();
    for number in 0..50_u32 {
        client.raise_event("collector", "number", &number).await.unwrap();
    }
    client.raise_event("collector", "begin", &()).await.unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), (0..50).collect::<Vec<_>>());
    let history = history_of(&client, "collector").await;
    assert_eq!(count_events(&history, |kind| matches!(kind, EventKind::EventRaised { .. })), 51);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_are_told() {
    let hub = hub(2).register(waiter()).start().await.unwrap();
    let client = hub.client();
    client.start_with(WAITER, (), with_id("watched")).await.unwrap();
    soon("the start", client.wait_for_start("watched", None)).await.unwrap();
    let watchers: Vec<_> = (0..100)
        .map(|_| {
            let client = hub.client();
            tokio::spawn(async move { client.wait_for_completion("watched", None).await })
        })
        .collect();
    fence(&client, "watched").await;
    client.raise_event("watched", "go", "home").await.unwrap();
    for watcher in watchers {
        let state = soon("the news", watcher).await.unwrap().unwrap();
        assert_eq!(state.output.unwrap().as_str(), "\"home\"");
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_can_be_used_again_after_the_end_and_after_a_purge() {
    let hub = hub(2).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let mut executions = Vec::new();
    for round in 0..4 {
        client.start_with(WAITER, (), with_id("phoenix")).await.unwrap();
        client.raise_event("phoenix", "go", &format!("round {round}")).await.unwrap();
        let state = end_of(&client, "phoenix").await;
        assert_eq!(state.output.unwrap().as_str(), format!("\"round {round}\""));
        executions.push(state.execution);
        let history = history_of(&client, "phoenix").await;
        assert_eq!(count_events(&history, |kind| matches!(kind, EventKind::ExecutionStarted(_))), 1);
        if round % 2 == 1 {
            client.purge("phoenix").await.unwrap();
            assert!(client.state("phoenix").await.is_err());
            assert!(client.purge("phoenix").await.is_err());
        }
    }
    executions.dedup();
    assert_eq!(executions.len(), 4);
    stop(hub).await;
}
