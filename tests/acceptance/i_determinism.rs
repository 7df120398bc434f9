//! Group I: code that disagrees with the history of its instances, and how code may change under them.

use std::sync::Arc;
use steadfast::prelude::*;
use steadfast::store::MemoryStore;
use steadfast::{
    ActivityName, HubBuilder, HubOptions, OnNonDeterminism, OrchestrationName, Register, failure,
};

use crate::support::{end_of, soon, stop, until, with_and_without_sessions, with_id};

const CODE: OrchestrationName<(), Vec<String>> = OrchestrationName::new("code");

#[activity]
async fn echo(_ctx: ActivityContext, text: String) -> Result<String> {
    Ok(text)
}

#[activity]
async fn shout(_ctx: ActivityContext, text: String) -> Result<String> {
    Ok(text.to_uppercase())
}

fn hub_on(store: &MemoryStore, sessions: bool, code: impl Register) -> HubBuilder {
    let store = store.clone();
    let options = HubOptions { extended_sessions: sessions, ..HubOptions::default() };
    let builder = HubBuilder::new(move |_| Ok(Arc::new(store))).options(options);
    builder.register(echo).register(shout).register(code)
}

/// One durable operation, before an event, and another one behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Activity(&'static str),
    Timer,
    Child(&'static str),
    Signal(&'static str),
    Nothing,
}

const ALL: [Operation; 8] = [
    Operation::Activity("echo"),
    Operation::Activity("shout"),
    Operation::Timer,
    Operation::Child("one"),
    Operation::Child("two"),
    Operation::Signal("one"),
    Operation::Signal("two"),
    Operation::Nothing,
];

fn code(operation: Operation) -> impl Register {
    steadfast::orchestration("code", move |ctx: OrchestrationContext, (): ()| async move {
        match operation {
            Operation::Activity(name) => {
                let name: ActivityName<String, String> = ActivityName::new(name);
                drop(ctx.call(name, "x".to_owned()));
            }
            Operation::Timer => std::mem::forget(ctx.timer(std::time::Duration::from_secs(3600))),
            Operation::Child(name) => {
                let name: OrchestrationName<(), ()> = OrchestrationName::new(name);
                drop(ctx.call_orchestration(name, ()));
            }
            Operation::Signal(name) => ctx.raise_event("nobody", name, &())?,
            Operation::Nothing => {}
        }
        ctx.wait_for_event::<()>("go").await?;
        Ok::<_, Error>(vec!["done".to_owned()])
    })
}

with_and_without_sessions! {
    async fn every_pair_of_different_operations_is_told_apart_and_equal_ones_go_on(sessions: bool) {
        let pairs = ALL.into_iter().flat_map(|before| ALL.map(|now| (before, now)));
        for (before, now) in pairs {
            let store = MemoryStore::new(1);
            let hub = hub_on(&store, sessions, code(before)).start().await.unwrap();
            hub.client().start_with(CODE, (), with_id("i")).await.unwrap();
            until(&hub.client(), "i", |state| state.status == OrchestrationStatus::Running).await;
            stop(hub).await;
            let hub = hub_on(&store, sessions, code(now)).start().await.unwrap();
            // A child's result may wake it first.
            let _ = hub.client().raise_event("i", "go", &()).await;
            let state = end_of(&hub.client(), "i").await;
            if now == before {
                assert_eq!(state.status, OrchestrationStatus::Completed, "{before:?}");
            } else {
                let failure = state.failure.unwrap();
                assert_eq!(failure.error_type, failure::kinds::NON_DETERMINISM, "{before:?} {now:?}: {failure}");
                assert!(failure.non_retriable);
            }
            stop(hub).await;
        }
    }

    async fn a_hub_that_parks_instances_loses_nothing_when_the_code_is_taken_back(sessions: bool) {
        let store = MemoryStore::new(2);
        let (before, changed) = (Operation::Activity("echo"), Operation::Activity("shout"));
        let hub = hub_on(&store, sessions, code(before)).start().await.unwrap();
        for id in ["kept", "ended"] {
            hub.client().start_with(CODE, (), with_id(id)).await.unwrap();
            until(&hub.client(), id, |state| state.status == OrchestrationStatus::Running).await;
        }
        stop(hub).await;

        let hub = hub_on(&store, sessions, code(changed)).on_nondeterminism(OnNonDeterminism::Park);
        let hub = hub.start().await.unwrap();
        let client = hub.client();
        client.raise_event("kept", "go", &()).await.unwrap();
        let other = client.start(CODE, ()).await.unwrap();
        client.raise_event(other.id().as_str(), "go", &()).await.unwrap();
        soon("the others go on", other.result()).await.unwrap();
        assert_eq!(client.state("kept").await.unwrap().status, OrchestrationStatus::Running);
        stop(hub).await;

        let hub = hub_on(&store, sessions, code(before)).start().await.unwrap();
        assert_eq!(end_of(&hub.client(), "kept").await.status, OrchestrationStatus::Completed);
        stop(hub).await;
    }

    async fn patched_code_runs_old_and_new_instances_side_by_side(sessions: bool) {
        let before = steadfast::orchestration("code", |ctx: OrchestrationContext, (): ()| async move {
            let first = ctx.call(echo, "first".to_owned()).await?;
            ctx.wait_for_event::<()>("go").await?;
            Ok::<_, Error>(vec![first, ctx.call(echo, "last".to_owned()).await?])
        });
        let patched = steadfast::orchestration("code", |ctx: OrchestrationContext, (): ()| async move {
            let first = match ctx.patched("shout-first") {
                true => ctx.call(shout, "first".to_owned()).await?,
                false => ctx.call(echo, "first".to_owned()).await?,
            };
            ctx.wait_for_event::<()>("go").await?;
            let last = match ctx.patched("shout-last") {
                true => ctx.call(shout, "last".to_owned()).await?,
                false => ctx.call(echo, "last".to_owned()).await?,
            };
            Ok::<_, Error>(vec![first, last])
        });
        let store = MemoryStore::new(2);
        let hub = hub_on(&store, sessions, before).start().await.unwrap();
        hub.client().start_with(CODE, (), with_id("old")).await.unwrap();
        until(&hub.client(), "old", |state| state.status == OrchestrationStatus::Running).await;
        stop(hub).await;
        let hub = hub_on(&store, sessions, patched).start().await.unwrap();
        let client = hub.client();
        client.start_with(CODE, (), with_id("new")).await.unwrap();
        for (id, expected) in [("old", "[\"first\",\"LAST\"]"), ("new", "[\"FIRST\",\"LAST\"]")] {
            client.raise_event(id, "go", &()).await.unwrap();
            assert_eq!(end_of(&client, id).await.output.unwrap().as_str(), expected);
        }
        stop(hub).await;
    }
}
