//! Extended sessions: who replays, and when.

use std::sync::Arc;
use std::time::Duration;

use steadfast_core::model::{
    OrchestrationContext, OrchestrationDefinition, OrchestrationName, orchestration,
};
use steadfast_core::{Error, EventKind, ExecutionId, HistoryEvent, OrchestrationStatus};
use steadfast_engine::{Client, HubBuilder, HubOptions};
use steadfast_store::MemoryStore;
use steadfast_testkit::VirtualClock;
use uuid::Uuid;

use crate::support::{
    Counter, ECHO, echo, end_of, fence, history_of, hub, hub_on, soon, stop, waiter, with_id,
};

const CAREFUL: OrchestrationName<u32, u32> = OrchestrationName::new("careful");

/// Waits for so many events and calls an activity after each; counts how often it is run again over what happened.
fn careful(replays: &Counter) -> OrchestrationDefinition<u32, u32> {
    let replays = replays.clone();
    orchestration("careful", move |ctx: OrchestrationContext, events: u32| {
        let replays = replays.clone();
        async move {
            if ctx.is_replaying() {
                replays.add();
            }
            for _ in 0..events {
                let text = ctx.wait_for_event::<String>("next").await?;
                ctx.call(ECHO, text).await?;
            }
            Ok::<_, Error>(events)
        }
    })
}

/// Raises the next event and waits until the instance has done with it.
async fn step(client: &Client, id: &str, steps_done: usize) {
    client.raise_event(id, "next", "on").await.unwrap();
    let noted = async {
        loop {
            let history = client.history(id).await.unwrap();
            let done =
                history.iter().filter(|event| matches!(event.kind, EventKind::TaskCompleted { .. })).count();
            if done > steps_done {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("the step", noted).await;
}

fn with_options(builder: HubBuilder, change: impl FnOnce(&mut HubOptions)) -> HubBuilder {
    let mut options = HubOptions::default();
    change(&mut options);
    builder.options(options)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_session_never_replays_and_without_sessions_every_turn_does() {
    for (extended, expected) in [(true, 0), (false, 10)] {
        let replays = Counter::default();
        let builder = hub(2).register(careful(&replays)).register(echo());
        let builder = with_options(builder, |options| options.extended_sessions = extended);
        let hub = builder.start().await.unwrap();
        let client = hub.client();
        client.start_with(CAREFUL, 5, with_id("careful")).await.unwrap();
        soon("the start", client.wait_for_start("careful", None)).await.unwrap();
        for done in 0..5 {
            step(&client, "careful", done).await;
        }
        assert_eq!(end_of(&client, "careful").await.status, OrchestrationStatus::Completed);
        assert_eq!(replays.get(), expected, "with extended sessions: {extended}");
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_with_and_without_extended_sessions_are_equal() {
    let mut histories = Vec::new();
    for extended in [true, false] {
        let clock = VirtualClock::default();
        let builder =
            hub(2).register(careful(&Counter::default())).register(echo()).clock(Arc::new(clock.clone()));
        let builder = with_options(builder, |options| options.extended_sessions = extended);
        let hub = builder.start().await.unwrap();
        let client = hub.client();
        client.start_with(CAREFUL, 6, with_id("careful")).await.unwrap();
        soon("the start", client.wait_for_start("careful", None)).await.unwrap();
        for done in 0..6 {
            clock.advance(Duration::from_secs(10));
            step(&client, "careful", done).await;
        }
        end_of(&client, "careful").await;
        let mut history = history_of(&client, "careful").await;
        // The execution's id is made by the client, anew for each start.
        history.iter_mut().for_each(without_execution);
        histories.push(history);
        stop(hub).await;
    }
    assert_eq!(histories[0], histories[1]);
}

fn without_execution(event: &mut HistoryEvent) {
    if let EventKind::ExecutionStarted(started) = &mut event.kind {
        started.execution = ExecutionId::new(Uuid::nil());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_sessions_go_when_there_are_too_many() {
    let replays = Counter::default();
    let builder = hub(1).register(careful(&replays)).register(echo());
    let hub = with_options(builder, |options| options.resident_sessions_max = 10).start().await.unwrap();
    let client = hub.client();
    let ids: Vec<_> = (0..20).map(|n| format!("careful-{n}")).collect();
    for id in &ids {
        client.start_with(CAREFUL, 5, with_id(id)).await.unwrap();
        soon("the start", client.wait_for_start(id, None)).await.unwrap();
    }
    // The last ten are in memory.
    for id in &ids[10..] {
        step(&client, id, 0).await;
    }
    assert_eq!(replays.get(), 0);
    // The first ten are not.
    for id in &ids[..10] {
        step(&client, id, 0).await;
    }
    assert_eq!(replays.get(), 10);
    // They have taken the places of the others.
    for id in &ids[..10] {
        step(&client, id, 1).await;
    }
    assert_eq!(replays.get(), 10);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_were_idle_for_too_long_are_evicted_and_come_back() {
    let (replays, clock) = (Counter::default(), VirtualClock::default());
    let builder = hub(1).register(careful(&replays)).register(echo()).clock(Arc::new(clock.clone()));
    let idle = Duration::from_secs(30);
    let hub = with_options(builder, |options| options.session_idle_timeout = idle).start().await.unwrap();
    let client = hub.client();
    client.start_with(CAREFUL, 5, with_id("careful")).await.unwrap();
    soon("the start", client.wait_for_start("careful", None)).await.unwrap();
    clock.advance(idle - Duration::from_micros(1));
    fence(&client, "careful").await;
    step(&client, "careful", 0).await;
    assert_eq!(replays.get(), 0);
    clock.advance(idle);
    fence(&client, "careful").await;
    step(&client, "careful", 1).await;
    assert_eq!(replays.get(), 1);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_without_code_waits_until_a_program_has_it_again() {
    let store = MemoryStore::new(2);
    let replays = Counter::default();
    let hub = hub_on(&store).register(careful(&replays)).register(echo()).start().await.unwrap();
    let client = hub.client();
    client.start_with(CAREFUL, 2, with_id("careful")).await.unwrap();
    soon("the start", client.wait_for_start("careful", None)).await.unwrap();
    step(&client, "careful", 0).await;
    stop(hub).await;

    let hub = hub_on(&store).register(waiter()).register(echo()).start().await.unwrap();
    let client = hub.client();
    client.raise_event("careful", "next", "kept").await.unwrap();
    fence(&client, "careful").await;
    assert_eq!(client.state("careful").await.unwrap().status, OrchestrationStatus::Running);
    stop(hub).await;

    let hub = hub_on(&store).register(careful(&replays)).register(echo()).start().await.unwrap();
    assert_eq!(end_of(&hub.client(), "careful").await.status, OrchestrationStatus::Completed);
    history_of(&hub.client(), "careful").await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_changed_under_an_instance_is_a_nondeterminism_failure() {
    let store = MemoryStore::new(1);
    let hub = hub_on(&store).register(careful(&Counter::default())).register(echo()).start().await.unwrap();
    let client = hub.client();
    client.start_with(CAREFUL, 3, with_id("careful")).await.unwrap();
    soon("the start", client.wait_for_start("careful", None)).await.unwrap();
    step(&client, "careful", 0).await;
    stop(hub).await;

    let changed = orchestration("careful", |ctx: OrchestrationContext, _: u32| async move {
        ctx.wait_for_event::<String>("next").await?;
        ctx.timer(Duration::from_secs(1)).await;
        Ok::<_, Error>(0)
    });
    let hub = hub_on(&store).register(changed).register(echo()).start().await.unwrap();
    let client = hub.client();
    client.raise_event("careful", "next", "on").await.unwrap();
    let failure = end_of(&client, "careful").await.failure.unwrap();
    assert_eq!(failure.error_type, "NonDeterminism");
    assert!(failure.message.contains("echo"), "{failure}");
    stop(hub).await;
}
