//! Group H: from the start of an instance to its end, and what comes after.

use std::sync::Arc;
use std::time::Duration;

use steadfast::prelude::*;
use steadfast::store::MemoryStore;
use steadfast::{
    ClientError, HubBuilder, HubOptions, IdReuse, OnExisting, OrchestrationName, RestartOptions, StartOptions,
};
use steadfast_testkit::VirtualClock;

use crate::support::{end_of, hub, hub_with_clock, soon, stop, until, with_and_without_sessions, with_id};

/// Waits for "go" and returns its input.
#[orchestration(name = "waits")]
async fn waits(ctx: OrchestrationContext, input: String) -> Result<String> {
    ctx.wait_for_event::<()>("go").await?;
    Ok(input)
}

/// Collects three numbers.
#[orchestration(name = "collects")]
async fn collects(ctx: OrchestrationContext) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    while numbers.len() < 3 {
        numbers.push(ctx.wait_for_event::<u32>("number").await?);
    }
    Ok(numbers)
}

#[orchestration(name = "endless")]
async fn endless(ctx: OrchestrationContext, n: u64) -> Result<()> {
    ctx.continue_as_new(&(n + 1))
}

#[orchestration(name = "parent")]
async fn parent(ctx: OrchestrationContext, children: Vec<String>) -> Result<Vec<String>> {
    let child = |id: String| {
        let options = SubOrchestrationOptions { instance_id: Some(id.clone()), ..Default::default() };
        ctx.call_orchestration_with(waits, id, options)
    };
    let children: Vec<_> = children.into_iter().map(child).collect();
    let mut results = Vec::new();
    for child in children {
        results.push(child.await?);
    }
    Ok(results)
}

fn reusing(id: &str, reuse: IdReuse) -> StartOptions {
    StartOptions { reuse, ..with_id(id) }
}

async fn finish(client: &steadfast::Client, id: &str) {
    until(client, id, |state| state.status == OrchestrationStatus::Running).await;
    client.raise_event(id, "go", &()).await.unwrap();
    end_of(client, id).await;
}

async fn there(client: &steadfast::Client, id: &str) {
    let look = async {
        while client.wait_for_start(id, None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon("the start", look).await;
}

with_and_without_sessions! {
    async fn a_live_id_is_an_error_or_gives_the_existing_instance_or_is_replaced(sessions: bool) {
        let hub = hub(sessions).register(waits).start().await.unwrap();
        let client = hub.client();
        let reuse = IdReuse::default();
        let first = client.start_with(waits, "first".into(), with_id("x")).await.unwrap();
        let error = client.start_with(waits, "second".into(), with_id("x")).await;
        assert!(matches!(error, Err(ClientError::AlreadyExists { .. })));

        let same = client.start_with(waits, "third".into(), reusing("x", reuse.on_live(OnExisting::Ignore)));
        let same = same.await.unwrap();
        assert_eq!((same.execution(), same.id()), (first.execution(), first.id()));

        let replaced = client.start_with(waits, "fourth".into(), reusing("x", reuse.on_live(OnExisting::Replace)));
        let replaced = replaced.await.unwrap();
        let state = client.state("x").await.unwrap();
        assert_eq!((state.execution, state.incarnation), (replaced.execution(), 1), "it is seen at once");
        assert!(!state.status.is_terminal());
        client.raise_event("x", "go", &()).await.unwrap();
        assert_eq!(soon("the result", replaced.result()).await.unwrap(), "fourth");
        stop(hub).await;
    }

    async fn an_ended_id_is_replaced_or_an_error_or_gives_what_ended_by_its_status(sessions: bool) {
        let hub = hub(sessions).register(waits).start().await.unwrap();
        let client = hub.client();
        client.start_with(waits, "first".into(), with_id("x")).await.unwrap();
        finish(&client, "x").await;
        let reuse = IdReuse::default().on(OrchestrationStatus::Completed, OnExisting::Error);
        let error = client.start_with(waits, "second".into(), reusing("x", reuse)).await;
        let Err(ClientError::AlreadyExists { status, .. }) = error else { panic!("it was started") };
        assert_eq!(status, OrchestrationStatus::Completed);

        let once = IdReuse::default().on_ended(OnExisting::Ignore);
        let same = client.start_with(waits, "second".into(), reusing("x", once)).await.unwrap();
        assert_eq!(soon("the result", same.result()).await.unwrap(), "first");

        let again = client.start_with(waits, "second".into(), with_id("x")).await.unwrap();
        assert_ne!(again.execution(), same.execution());
        finish(&client, "x").await;
        let state = client.state("x").await.unwrap();
        assert_eq!((state.output.unwrap().as_str(), state.incarnation), ("\"second\"", 1));
        stop(hub).await;
    }

    async fn a_scheduled_instance_shows_its_time_outlasts_a_restart_and_can_be_terminated_before(sessions: bool) {
        let store = MemoryStore::new(2);
        let clock = VirtualClock::default();
        let build = || {
            let (store, options) = (store.clone(), HubOptions { extended_sessions: sessions, ..HubOptions::default() });
            let builder = HubBuilder::new(move |_| Ok(Arc::new(store))).options(options);
            builder.clock(Arc::new(clock.clone())).register(waits)
        };
        let at = steadfast::Clock::now(&clock).after(Duration::from_secs(3600));
        let later = |id: &str| StartOptions { scheduled_start: Some(at), ..with_id(id) };
        let hub = build().start().await.unwrap();
        for id in ["later", "never"] {
            hub.client().start_with(waits, id.into(), later(id)).await.unwrap();
        }
        stop(hub).await;
        let hub = build().start().await.unwrap();
        let client = hub.client();
        let state = client.state("later").await.unwrap();
        assert_eq!((state.status, state.scheduled_start), (OrchestrationStatus::Pending, Some(at)));
        client.terminate("never", "cancelled", false).await.unwrap();
        let never = end_of(&client, "never").await;
        assert_eq!((never.status, never.reason.as_deref()), (OrchestrationStatus::Terminated, Some("cancelled")));
        clock.advance(Duration::from_secs(3600));
        finish(&client, "later").await;
        stop(hub).await;
    }

    async fn nothing_is_emitted_while_suspended_and_the_order_of_events_is_kept(sessions: bool) {
        let hub = hub(sessions).register(collects).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(collects, (), with_id("c")).await.unwrap();
        client.raise_event("c", "number", &1).await.unwrap();
        client.suspend("c", "lunch").await.unwrap();
        until(&client, "c", |state| state.status == OrchestrationStatus::Suspended).await;
        client.raise_event("c", "number", &2).await.unwrap();
        client.raise_event("c", "number", &3).await.unwrap();
        let state = client.state("c").await.unwrap();
        assert_eq!((state.status, state.reason.as_deref()), (OrchestrationStatus::Suspended, Some("lunch")));
        client.resume("c", "back").await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), [1, 2, 3]);
        stop(hub).await;
    }

    async fn an_instance_that_continues_as_new_for_ever_can_be_suspended_resumed_and_terminated(sessions: bool) {
        let hub = hub(sessions).register(endless).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(endless, 0, with_id("e")).await.unwrap();
        let created = until(&client, "e", |state| state.generation > 3).await.created_at;
        client.suspend("e", "stop it").await.unwrap();
        let stopped = until(&client, "e", |state| state.status == OrchestrationStatus::Suspended).await;
        assert_eq!(stopped.created_at, created, "continuing as new does not create an instance");
        for _ in 0..3 {
            assert_eq!(client.state("e").await.unwrap().generation, stopped.generation);
        }
        client.resume("e", "go on").await.unwrap();
        until(&client, "e", |state| state.generation > stopped.generation).await;
        client.terminate("e", "enough", false).await.unwrap();
        assert!(matches!(soon("the end", run.result()).await, Err(ClientError::Terminated { .. })));
        stop(hub).await;
    }

    async fn an_instance_without_its_code_obeys_a_termination_and_its_parent_and_children_are_told(sessions: bool) {
        let store = MemoryStore::new(2);
        let build = || {
            let (store, options) = (store.clone(), HubOptions { extended_sessions: sessions, ..HubOptions::default() });
            HubBuilder::new(move |_| Ok(Arc::new(store))).options(options).register(waits)
        };
        let hub = build().register(parent).start().await.unwrap();
        hub.client().start_with(parent, vec!["a".into(), "b".into()], with_id("p")).await.unwrap();
        for id in ["a", "b"] {
            there(&hub.client(), id).await;
        }
        stop(hub).await;
        let hub = build().start().await.unwrap();
        let client = hub.client();
        client.raise_event("p", "noise", &()).await.unwrap();
        client.terminate("p", "its code is gone", true).await.unwrap();
        for id in ["p", "a", "b"] {
            let state = end_of(&client, id).await;
            assert_eq!(state.status, OrchestrationStatus::Terminated, "{id}");
            assert_eq!(state.reason.as_deref(), Some("its code is gone"));
        }
        stop(hub).await;
    }

    async fn a_restart_keeps_name_version_input_and_tags_under_the_same_or_a_new_id(sessions: bool) {
        let hub = hub(sessions).register(waits).start().await.unwrap();
        let client = hub.client();
        let options = StartOptions {
            version: Some("3".to_owned()),
            tags: [("tenant".to_owned(), "a".to_owned())].into(),
            ..with_id("old")
        };
        let first = client.start_with(waits, "input".into(), options).await.unwrap();
        let refused = client.restart("old", RestartOptions::default()).await;
        assert!(matches!(refused, Err(ClientError::NotEnded { .. })));
        let under_new_id = RestartOptions { instance_id: Some("new".to_owned()) };
        client.restart("old", under_new_id.clone()).await.unwrap();
        let twice = client.restart("old", under_new_id).await;
        assert!(matches!(twice, Err(ClientError::AlreadyExists { .. })));
        finish(&client, "old").await;
        let again = client.restart("old", RestartOptions::default()).await.unwrap();
        assert_ne!(again.execution, first.execution());
        for id in ["old", "new"] {
            assert!(!client.state(id).await.unwrap().status.is_terminal(), "{id}");
            finish(&client, id).await;
            let state = client.state(id).await.unwrap();
            assert_eq!((state.version.as_str(), state.tags["tenant"].as_str()), ("3", "a"));
            assert_eq!(state.output.unwrap().as_str(), "\"input\"");
        }
        let nobody = client.restart("nobody", RestartOptions::default()).await;
        assert!(matches!(nobody, Err(ClientError::InstanceNotFound { .. })));
        stop(hub).await;
    }

    async fn a_recursive_purge_takes_the_children_along_and_keeps_those_that_live(sessions: bool) {
        let hub = hub(sessions).register(waits).register(parent).start().await.unwrap();
        let client = hub.client();
        client.start_with(parent, vec!["a".into(), "b".into()], with_id("p")).await.unwrap();
        there(&client, "a").await;
        there(&client, "b").await;
        let early = client.purge_recursive("p").await;
        assert!(matches!(early, Err(ClientError::NotEnded { .. })));
        finish(&client, "a").await;
        client.terminate("p", "enough", false).await.unwrap();
        end_of(&client, "p").await;
        let purged = client.purge_recursive("p").await.unwrap();
        assert_eq!((purged.purged, purged.kept.len()), (2, 1));
        for (id, gone) in [("p", true), ("a", true), ("b", false)] {
            let state = client.state(id).await;
            assert_eq!(matches!(state, Err(ClientError::InstanceNotFound { .. })), gone, "{id}");
        }
        assert!(matches!(client.purge_recursive("p").await, Err(ClientError::InstanceNotFound { .. })));
        stop(hub).await;
    }

    async fn state_and_history_of_an_execution_that_is_over_are_typed_errors(sessions: bool) {
        let hub = hub(sessions).register(waits).start().await.unwrap();
        let client = hub.client();
        let old = client.start_with(waits, "old".into(), with_id("x")).await.unwrap();
        finish(&client, "x").await;
        assert_eq!(client.state_of("x", old.execution()).await.unwrap().execution, old.execution());
        assert!(!client.history_of("x", old.execution()).await.unwrap().is_empty());
        let new = client.start_with(waits, "new".into(), with_id("x")).await.unwrap();
        let Err(ClientError::OtherExecution { wanted, current, .. }) = client.state_of("x", old.execution()).await
        else {
            panic!("it is over")
        };
        assert_eq!((wanted, current), (old.execution(), new.execution()));
        let history = client.history_of("x", old.execution()).await;
        assert!(matches!(history, Err(ClientError::OtherExecution { .. })));
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_and_oversized_tags_are_refused_and_reasons_are_cut() {
    let (builder, _clock) = hub_with_clock(true);
    let hub = builder.register(waits).start().await.unwrap();
    let client = hub.client();
    let tagged =
        |key: &str, value: String| StartOptions { tags: [(key.to_owned(), value)].into(), ..with_id("x") };
    for options in [tagged("MS_CreateTrace", "true".into()), tagged("k", "x".repeat(1 << 20))] {
        let error = client.start_with(waits, "x".into(), options).await;
        assert!(matches!(error, Err(ClientError::InvalidTags(_))));
    }
    assert!(matches!(client.state("x").await, Err(ClientError::InstanceNotFound { .. })));
    client.start_with(waits, "x".into(), with_id("x")).await.unwrap();
    client.terminate("x", &"because ".repeat(100_000), false).await.unwrap();
    let reason = end_of(&client, "x").await.reason.unwrap();
    assert!(reason.starts_with("because") && reason.len() < 10_000);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_instance_refuses_a_child_with_its_id_at_once() {
    let (builder, clock) = hub_with_clock(true);
    let hub = builder.register(waits).register(parent).start().await.unwrap();
    let client = hub.client();
    let at = steadfast::Clock::now(&clock).after(Duration::from_secs(3600));
    let later = StartOptions { scheduled_start: Some(at), ..with_id("taken") };
    client.start_with(waits, "later".into(), later).await.unwrap();
    let name: OrchestrationName<Vec<String>, Vec<String>> = OrchestrationName::new("parent");
    let run = client.start(&name, vec!["taken".into()]).await.unwrap();
    let Err(ClientError::Failed { details, .. }) = soon("the refusal", run.result()).await else {
        panic!("the child was started")
    };
    assert!(details.is_caused_by("AlreadyExists"), "{details:?}");
    assert_eq!(client.state("taken").await.unwrap().status, OrchestrationStatus::Pending);
    stop(hub).await;
}
