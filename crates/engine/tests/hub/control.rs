//! Termination, suspension and resumption, within and across partitions.

use std::time::Duration;

use steadfast_core::model::{
    OrchestrationContext, OrchestrationDefinition, OrchestrationName, SubOrchestrationOptions, orchestration,
};
use steadfast_core::{Error, EventKind, InstanceId, OrchestrationStatus};
use steadfast_store::MemoryStore;
use steadfast_testkit::VirtualClock;

use crate::support::{
    STEPS, WAITER, count_events, echo, end_of, fence, history_of, hub, hub_on, id_in, ids_in, soon, steps,
    stop, waiter, with_id,
};

const PARENT: OrchestrationName<Vec<String>, Vec<String>> = OrchestrationName::new("parent");

/// Awaits a child under each of the ids.
fn parent() -> OrchestrationDefinition<Vec<String>, Vec<String>> {
    orchestration("parent", |ctx: OrchestrationContext, ids: Vec<String>| async move {
        let child = |id: String| {
            let options = SubOrchestrationOptions { instance_id: Some(id), ..Default::default() };
            ctx.call_orchestration_with(WAITER, (), options)
        };
        let children: Vec<_> = ids.into_iter().map(child).collect();
        let mut results = Vec::new();
        for child in children {
            results.push(child.await?);
        }
        Ok::<_, Error>(results)
    })
}

async fn started(client: &steadfast_engine::Client, id: &str) {
    // A child is not there before its partition has heard of it.
    let wait = async {
        while client.wait_for_start(id, None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon("the start", wait).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn termination_with_children_reaches_them_in_all_partitions() {
    let hub = hub(4).register(parent()).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let children: Vec<_> = (0..4).map(|partition| id_in("child", partition, 4)).collect();
    client.start_with(PARENT, children.clone(), with_id("parent")).await.unwrap();
    for child in &children {
        started(&client, child).await;
    }
    client.terminate("parent", "bankrupt", true).await.unwrap();
    assert_eq!(end_of(&client, "parent").await.status, OrchestrationStatus::Terminated);
    for child in &children {
        let state = end_of(&client, child).await;
        assert_eq!(state.status, OrchestrationStatus::Terminated);
        assert_eq!(state.reason.as_deref(), Some("bankrupt"));
        history_of(&client, child).await;
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn termination_without_children_leaves_them_alone() {
    let hub = hub(4).register(parent()).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let children: Vec<_> = (0..4).map(|partition| id_in("child", partition, 4)).collect();
    client.start_with(PARENT, children.clone(), with_id("parent")).await.unwrap();
    for child in &children {
        started(&client, child).await;
    }
    client.terminate("parent", "bankrupt", false).await.unwrap();
    assert_eq!(end_of(&client, "parent").await.status, OrchestrationStatus::Terminated);
    for child in &children {
        assert_eq!(client.state(child).await.unwrap().status, OrchestrationStatus::Running);
        client.raise_event(child, "go", "on").await.unwrap();
        assert_eq!(end_of(&client, child).await.status, OrchestrationStatus::Completed);
    }
    // Their results come too late for anybody.
    assert_eq!(client.state("parent").await.unwrap().status, OrchestrationStatus::Terminated);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_child_fails_its_parent_in_another_partition() {
    let hub = hub(2).register(parent()).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let (parent, child) = (id_in("parent", 0, 2), id_in("child", 1, 2));
    client.start_with(PARENT, vec![child.clone()], with_id(&parent)).await.unwrap();
    started(&client, &child).await;
    client.terminate(&child, "no budget", false).await.unwrap();
    let state = end_of(&client, &parent).await;
    assert_eq!(state.status, OrchestrationStatus::Failed);
    assert!(state.failure.unwrap().is_caused_by("Terminated"));
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_in_all_partitions_return_their_results() {
    let hub = hub(4).register(parent()).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let children: Vec<_> = (0..4).flat_map(|partition| ids_in("child", partition, 4).take(5)).collect();
    let run = client.start_with(PARENT, children.clone(), with_id("parent")).await.unwrap();
    for child in &children {
        started(&client, child).await;
        client.raise_event(child, "go", child).await.unwrap();
    }
    assert_eq!(soon("the result", run.result()).await.unwrap(), children);
    let state = client.state(&children[0]).await.unwrap();
    assert_eq!(state.parent.unwrap().instance, InstanceId::from_trusted("parent"));
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_instance_emits_nothing_until_it_is_resumed() {
    let hub = hub(2).register(waiter()).start().await.unwrap();
    let client = hub.client();
    client.start_with(WAITER, (), with_id("paused")).await.unwrap();
    client.suspend("paused", "lunch").await.unwrap();
    client.raise_event("paused", "go", "kept").await.unwrap();
    fence(&client, "paused").await;
    let state = client.state("paused").await.unwrap();
    assert_eq!((state.status, state.reason.as_deref()), (OrchestrationStatus::Suspended, Some("lunch")));
    client.resume("paused", "back").await.unwrap();
    let state = end_of(&client, "paused").await;
    assert_eq!(state.output.unwrap().as_str(), "\"kept\"");
    assert_eq!(state.reason, None);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_outlasts_a_restart_and_does_not_hold_a_termination_back() {
    let store = MemoryStore::new(2);
    let build = || hub_on(&store).register(waiter());
    let hub = build().start().await.unwrap();
    for id in ["resumed", "terminated"] {
        hub.client().start_with(WAITER, (), with_id(id)).await.unwrap();
        hub.client().suspend(id, "night").await.unwrap();
        hub.client().raise_event(id, "go", "kept").await.unwrap();
    }
    stop(hub).await;
    let hub = build().start().await.unwrap();
    let client = hub.client();
    assert_eq!(client.state("resumed").await.unwrap().status, OrchestrationStatus::Suspended);
    client.resume("resumed", "morning").await.unwrap();
    client.terminate("terminated", "never again", false).await.unwrap();
    assert_eq!(end_of(&client, "resumed").await.status, OrchestrationStatus::Completed);
    assert_eq!(end_of(&client, "terminated").await.status, OrchestrationStatus::Terminated);
    history_of(&client, "resumed").await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_and_retries_fire_in_virtual_time() {
    use steadfast_core::model::{ActivityContext, ActivityName, RetryPolicy, activity};
    let clock = VirtualClock::default();
    let flaky: ActivityName<u32, u32> = ActivityName::new("flaky");
    let attempts = crate::support::Counter::default();
    let seen = attempts.clone();
    let (tried, mut tries) = tokio::sync::mpsc::unbounded_channel();
    let flaky_code = activity("flaky", move |_: ActivityContext, needed: u32| {
        let attempt = seen.add();
        let _ = tried.send(attempt);
        async move { if attempt < needed as usize { Err(Error::msg("not yet")) } else { Ok(needed) } }
    });
    let name: OrchestrationName<u32, u32> = OrchestrationName::new("patient");
    let code = orchestration("patient", move |ctx: OrchestrationContext, needed: u32| {
        let flaky = flaky.clone();
        async move {
            let policy = RetryPolicy::new(10, Duration::from_secs(60)).backoff(2.0);
            Ok::<_, Error>(ctx.call_with_retry(flaky, needed, policy).await?)
        }
    });
    let builder = hub(2).register(flaky_code).register(code);
    let hub = builder.clock(std::sync::Arc::new(clock.clone())).start().await.unwrap();
    let client = hub.client();
    let run = client.start_with(name, 5, with_id("patient")).await.unwrap();
    let mut delay = Duration::from_secs(60);
    for attempt in 1..=5_usize {
        assert_eq!(soon("an attempt", tries.recv()).await, Some(attempt));
        if attempt < 5 {
            // The timer is armed as soon as the failure has been noted.
            let armed = async {
                loop {
                    let state = client.state("patient").await.unwrap();
                    if state.open_timers.len() == 1 {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            };
            soon("the timer", armed).await;
            clock.advance(delay - Duration::from_micros(1));
            fence(&client, "patient").await;
            assert_eq!(attempts.get(), attempt);
            clock.advance(Duration::from_micros(1));
            delay *= 2;
        }
    }
    assert_eq!(soon("the result", run.result()).await.unwrap(), 5);
    let history = history_of(&client, "patient").await;
    assert_eq!(count_events(&history, |kind| matches!(kind, EventKind::TimerFired { .. })), 4);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_timers_that_are_due_at_once_all_fire() {
    let clock = VirtualClock::default();
    let name: OrchestrationName<u32, u32> = OrchestrationName::new("sleeper");
    let code = orchestration("sleeper", |ctx: OrchestrationContext, timers: u32| async move {
        let day = Duration::from_secs(86_400);
        let all: Vec<_> = (0..timers).map(|_| ctx.timer(day)).collect();
        for timer in all {
            timer.await;
        }
        Ok::<_, Error>(timers)
    });
    let hub = hub(1).register(code).clock(std::sync::Arc::new(clock.clone())).start().await.unwrap();
    let client = hub.client();
    let run = client.start(name, 3000).await.unwrap();
    soon("the start", run.wait_for_start()).await.unwrap();
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(soon("the result", run.result()).await.unwrap(), 3000);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_without_a_duration_fires_although_time_stands_still() {
    let clock = VirtualClock::default();
    let name: OrchestrationName<(), u32> = OrchestrationName::new("instant");
    let code = orchestration("instant", |ctx: OrchestrationContext, ()| async move {
        ctx.timer(Duration::ZERO).await;
        Ok::<_, Error>(7)
    });
    let hub = hub(1).register(code).clock(std::sync::Arc::new(clock)).start().await.unwrap();
    let run = hub.client().start(name, ()).await.unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), 7);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_fire_in_real_time_and_after_a_restart() {
    let name: OrchestrationName<u64, u64> = OrchestrationName::new("nap");
    let store = MemoryStore::new(2);
    let build = || {
        hub_on(&store).register(steps()).register(echo()).register(orchestration(
            "nap",
            |ctx: OrchestrationContext, millis: u64| async move {
                ctx.timer(Duration::from_millis(millis)).await;
                Ok::<_, Error>(millis)
            },
        ))
    };
    let hub = build().start().await.unwrap();
    let run = hub.client().start(&name, 5).await.unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), 5);
    hub.client().start_with(&name, 300, with_id("nap")).await.unwrap();
    hub.client().start(STEPS, 1).await.unwrap();
    stop(hub).await;
    let hub = build().start().await.unwrap();
    assert_eq!(end_of(&hub.client(), "nap").await.status, OrchestrationStatus::Completed);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_was_pending_at_a_restart_has_the_time_of_the_restart() {
    let clock = VirtualClock::default();
    let store = MemoryStore::new(2);
    let build = || hub_on(&store).clock(std::sync::Arc::new(clock.clone()));
    let hub = build().register(waiter()).start().await.unwrap();
    hub.client().start_with(WAITER, (), with_id("late")).await.unwrap();
    started(&hub.client(), "late").await;
    stop(hub).await;
    // Nobody has the code now, so the turn waits.
    let hub = build().start().await.unwrap();
    hub.client().raise_event("late", "go", "kept").await.unwrap();
    stop(hub).await;
    clock.advance(Duration::from_secs(3600));
    let hub = build().register(waiter()).start().await.unwrap();
    let client = hub.client();
    assert_eq!(end_of(&client, "late").await.status, OrchestrationStatus::Completed);
    let history = history_of(&client, "late").await;
    let turn = history.iter().rfind(|event| matches!(event.kind, EventKind::OrchestratorStarted));
    assert_eq!(turn.unwrap().timestamp, steadfast_engine::Clock::now(&clock));
    stop(hub).await;
}
