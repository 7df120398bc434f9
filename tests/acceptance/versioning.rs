//! Versions of orchestrations: what they are inherited by, who sees them, and who runs which.

use std::cmp::Ordering;
use std::sync::Arc;
use steadfast::prelude::*;
use steadfast::store::MemoryStore;
use steadfast::{
    ClientError, ContinueAsNewOptions, EventAddress, ExecutionId, HubBuilder, HubOptions, StartOptions,
    VersionFailure, VersionMatch, VersionOptions, compare_versions, failure,
};

use crate::support::{end_of, hub, soon, stop, until, with_and_without_sessions, with_id};

#[activity]
async fn seen_by_activity(ctx: ActivityContext) -> Result<String> {
    Ok(ctx.instance_version.to_string())
}

/// What the orchestration and its activity see.
#[orchestration(name = "seen")]
async fn seen(ctx: OrchestrationContext) -> Result<(String, String)> {
    Ok((ctx.version().to_string(), ctx.call(seen_by_activity, ()).await?))
}

#[orchestration(name = "waits", version = "1.9")]
async fn waits_old(ctx: OrchestrationContext) -> Result<String> {
    ctx.wait_for_event::<()>("go").await?;
    Ok(format!("old {}", ctx.version()))
}

#[orchestration(name = "waits", version = "1.10")]
async fn waits_new(ctx: OrchestrationContext) -> Result<String> {
    ctx.wait_for_event::<()>("go").await?;
    Ok(format!("new {}", ctx.version()))
}

/// Has children and grandchildren, and tells all their versions.
#[orchestration(name = "family")]
async fn family(ctx: OrchestrationContext, generations: u32) -> Result<Vec<String>> {
    let mut versions = vec![ctx.version().to_string()];
    if generations > 0 {
        versions.extend(ctx.call_orchestration(family, generations - 1).await?);
    }
    Ok(versions)
}

#[orchestration(name = "mixed_family")]
async fn mixed_family(ctx: OrchestrationContext) -> Result<Vec<String>> {
    let inherited = ctx.call_orchestration(seen, ()).await?;
    let other = SubOrchestrationOptions { version: Some("7".to_owned()), ..Default::default() };
    let given = ctx.call_orchestration_with(seen, (), other).await?;
    Ok(vec![inherited.0, inherited.1, given.0, given.1])
}

#[orchestration(name = "moves_on")]
async fn moves_on(ctx: OrchestrationContext, before: Vec<String>) -> Result<Vec<String>> {
    let mut all = before;
    all.push(ctx.version().to_string());
    match all.len() {
        1 => ctx.continue_as_new(&all)?,
        2 => {
            let options = ContinueAsNewOptions { version: Some("3".to_owned()), ..Default::default() };
            ctx.continue_as_new_with(&all, options)?;
        }
        _ => {}
    }
    Ok(all)
}

fn version(version: &str) -> StartOptions {
    StartOptions { version: Some(version.to_owned()), ..StartOptions::default() }
}

with_and_without_sessions! {
    async fn the_version_is_returned_to_the_starter_and_seen_in_state_orchestration_and_activity(sessions: bool) {
        let hub = hub(sessions).register(seen).register(seen_by_activity).start().await.unwrap();
        let run = hub.client().start_with(seen, (), version("4.2")).await.unwrap();
        assert_eq!(run.version(), "4.2");
        assert_eq!(soon("the result", run.result()).await.unwrap(), ("4.2".to_owned(), "4.2".to_owned()));
        let state = run.state().await.unwrap();
        assert_eq!((state.version.as_str(), state.execution), ("4.2", run.execution()));
        stop(hub).await;
    }

    async fn several_versions_run_side_by_side_and_none_asked_for_means_the_greatest(sessions: bool) {
        let hub = hub(sessions).register(waits_old).register(waits_new).start().await.unwrap();
        let client = hub.client();
        let name: steadfast::OrchestrationName<(), String> = steadfast::OrchestrationName::new("waits");
        let old = client.start(waits_old, ()).await.unwrap();
        let new = client.start(waits_new, ()).await.unwrap();
        let greatest = client.start(&name, ()).await.unwrap();
        for run in [&old, &new, &greatest] {
            client.raise_event(run.id().as_str(), "go", &()).await.unwrap();
        }
        assert_eq!(greatest.version(), "1.10");
        for (run, result) in [(old, "old 1.9"), (new, "new 1.10"), (greatest, "new 1.10")] {
            assert_eq!(soon("the result", run.result()).await.unwrap(), result);
        }
        let unknown = client.start_with(&name, (), version("2")).await;
        assert!(matches!(unknown, Err(ClientError::UnknownOrchestration { .. })));
        stop(hub).await;
    }

    async fn children_and_their_children_inherit_the_version_unless_another_is_given(sessions: bool) {
        let hub = hub(sessions).register(family).register(mixed_family).register(seen).register(seen_by_activity);
        let hub = hub.start().await.unwrap();
        let run = hub.client().start_with(family, 3, version("2.5")).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), ["2.5"; 4]);
        let run = hub.client().start_with(mixed_family, (), version("6")).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), ["6", "6", "7", "7"]);
        stop(hub).await;
    }

    async fn continuing_as_new_keeps_the_version_unless_another_is_given(sessions: bool) {
        let hub = hub(sessions).register(moves_on).start().await.unwrap();
        let run = hub.client().start_with(moves_on, vec![], version("1")).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), ["1", "1", "3"]);
        assert_eq!(run.state().await.unwrap().version, "3");
        stop(hub).await;
    }

    async fn starts_without_a_version_get_the_hubs_default(sessions: bool) {
        let options = VersionOptions { default_version: "1.9".into(), ..VersionOptions::default() };
        let hub = hub(sessions).versions(options).register(waits_old).register(waits_new).register(seen);
        let hub = hub.register(seen_by_activity).start().await.unwrap();
        let client = hub.client();
        let name: steadfast::OrchestrationName<(), String> = steadfast::OrchestrationName::new("waits");
        assert_eq!(client.start(&name, ()).await.unwrap().version(), "1.9");
        assert_eq!(client.start_with(&name, (), version("1.10")).await.unwrap().version(), "1.10");
        assert_eq!(client.start(seen, ()).await.unwrap().version(), "1.9");
        stop(hub).await;
    }

    async fn an_activity_is_found_by_the_instances_version_then_without_version_then_the_greatest(sessions: bool) {
        let answer = |version: &'static str| {
            steadfast::activity("which", move |_: ActivityContext, (): ()| async move { Ok::<_, Error>(version) })
                .version(version)
        };
        let which: steadfast::ActivityName<(), String> = steadfast::ActivityName::new("which");
        let asks = steadfast::orchestration("asks", move |ctx: OrchestrationContext, (): ()| {
            let which = which.clone();
            async move { Ok::<_, Error>(ctx.call(which, ()).await?) }
        });
        let handle = asks.handle();
        let hub = hub(sessions).register(asks).register(answer("1")).register(answer("2")).start().await.unwrap();
        for (asked, expected) in [("1", "1"), ("2", "2"), ("5", "2")] {
            let run = hub.client().start_with(&handle, (), version(asked)).await.unwrap();
            assert_eq!(soon("the result", run.result()).await.unwrap(), expected);
        }
        stop(hub).await;
    }
}

fn hub_on(store: &MemoryStore, sessions: bool) -> HubBuilder {
    let store = store.clone();
    let options = HubOptions { extended_sessions: sessions, ..HubOptions::default() };
    HubBuilder::new(move |_| Ok(Arc::new(store))).options(options).register(waits_old).register(waits_new)
}

fn worker(version: &str, match_strategy: VersionMatch, failure_strategy: VersionFailure) -> VersionOptions {
    VersionOptions { version: version.into(), match_strategy, failure_strategy, ..VersionOptions::default() }
}

with_and_without_sessions! {
    async fn an_instance_that_a_worker_rejects_waits_unchanged_for_one_that_takes_it(sessions: bool) {
        let store = MemoryStore::new(2);
        let older = || worker("1.9", VersionMatch::CurrentOrOlder, VersionFailure::Reject);
        let hub = hub_on(&store, sessions).versions(older()).start().await.unwrap();
        let client = hub.client();
        client.start_with(waits_new, (), with_id("pending")).await.unwrap();
        client.start_with(waits_new, (), with_id("given-up")).await.unwrap();
        let other = client.start(waits_old, ()).await.unwrap();
        client.raise_event(other.id().as_str(), "go", &()).await.unwrap();
        assert_eq!(soon("the others go on", other.result()).await.unwrap(), "old 1.9");
        assert_eq!(client.state("pending").await.unwrap().status, OrchestrationStatus::Pending);
        assert!(client.history("pending").await.unwrap().is_empty());
        client.terminate("given-up", "nobody takes it", false).await.unwrap();
        assert_eq!(end_of(&client, "given-up").await.status, OrchestrationStatus::Terminated);
        stop(hub).await;

        let newer = worker("1.10", VersionMatch::CurrentOrOlder, VersionFailure::Reject);
        let hub = hub_on(&store, sessions).versions(newer).start().await.unwrap();
        let client = hub.client();
        until(&client, "pending", |state| state.status == OrchestrationStatus::Running).await;
        stop(hub).await;

        // Taken back: the instance is under way, and waits again.
        let hub = hub_on(&store, sessions).versions(older()).start().await.unwrap();
        let client = hub.client();
        client.raise_event("pending", "go", &()).await.unwrap();
        let other = client.start(waits_old, ()).await.unwrap();
        client.raise_event(other.id().as_str(), "go", &()).await.unwrap();
        soon("the others go on", other.result()).await.unwrap();
        assert_eq!(client.state("pending").await.unwrap().status, OrchestrationStatus::Running);
        stop(hub).await;

        let hub = hub_on(&store, sessions).start().await.unwrap();
        let state = end_of(&hub.client(), "pending").await;
        assert_eq!(state.output.unwrap().as_str(), "\"new 1.10\"");
        stop(hub).await;
    }

    async fn an_instance_that_a_worker_fails_has_a_typed_failure_that_is_not_retried(sessions: bool) {
        let strict = worker("1.9", VersionMatch::Strict, VersionFailure::Fail);
        let store = MemoryStore::new(2);
        let hub = hub_on(&store, sessions).start().await.unwrap();
        hub.client().start_with(waits_new, (), with_id("under-way")).await.unwrap();
        until(&hub.client(), "under-way", |state| state.status == OrchestrationStatus::Running).await;
        stop(hub).await;
        let hub = hub_on(&store, sessions).versions(strict).start().await.unwrap();
        let client = hub.client();
        client.raise_event("under-way", "go", &()).await.unwrap();
        client.start_with(waits_new, (), with_id("new")).await.unwrap();
        for id in ["under-way", "new"] {
            let failure = end_of(&client, id).await.failure.unwrap();
            assert_eq!(failure.error_type, failure::kinds::VERSION_MISMATCH);
            assert!(failure.non_retriable);
        }
        stop(hub).await;
    }
}

/// Takes so many events, and says from which version each came.
#[orchestration(name = "listens")]
async fn listens(ctx: OrchestrationContext, count: usize) -> Result<Vec<(String, String)>> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let (what, from) = ctx.wait_for_event::<String>("say").with_sender_version().await?;
        heard.push((what, from.to_string()));
    }
    Ok(heard)
}

/// Leaves what it is told to its next execution, which has another version.
#[orchestration(name = "leaves")]
async fn leaves(ctx: OrchestrationContext, count: usize) -> Result<Vec<(String, String)>> {
    if ctx.generation() == 0 {
        ctx.wait_for_event::<()>("go on").await?;
        let options = ContinueAsNewOptions { version: Some("2.0".to_owned()), ..Default::default() };
        ctx.continue_as_new_with(&count, options)?;
        return Ok(Vec::new());
    }
    let mut heard = Vec::new();
    while heard.len() < count {
        let (what, from) = ctx.wait_for_event::<String>("say").with_sender_version().await?;
        heard.push((what, from.to_string()));
    }
    Ok(heard)
}

/// Says something to one version of an instance, to another one, and to all.
#[orchestration(name = "says")]
async fn says(ctx: OrchestrationContext, to: String) -> Result<()> {
    for version in ["2.0", "1.0"] {
        ctx.raise_event_to(&to, for_version(version), "say", &format!("for {version}"))?;
    }
    ctx.raise_event(&to, "say", "for all")?;
    Ok(())
}

fn for_version(version: &str) -> EventAddress {
    EventAddress { version: Some(version.into()), ..EventAddress::default() }
}

fn in_version(id: &str, version: &str) -> StartOptions {
    StartOptions { version: Some(version.to_owned()), ..with_id(id) }
}

fn heard(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(what, from)| ((*what).to_owned(), (*from).to_owned())).collect()
}

with_and_without_sessions! {
    async fn a_client_is_told_when_an_event_is_for_another_version_or_execution(sessions: bool) {
        let hub = hub(sessions).register(listens).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(listens, 2, in_version("a", "1.0")).await.unwrap();
        soon("the start", run.wait_for_start()).await.unwrap();
        match client.raise_event_to("a", for_version("2.0"), "say", "wrong").await {
            Err(ClientError::OtherVersion { id, version }) => assert_eq!((id.as_str(), &*version), ("a", "1.0")),
            other => panic!("{other:?}"),
        }
        let current = client.state("a").await.unwrap().execution;
        let other = ExecutionId::new(uuid::Uuid::from_u128(7));
        let to = |execution| EventAddress { execution: Some(execution), version: None };
        match client.raise_event_to("a", to(other), "say", "wrong").await {
            Err(ClientError::OtherExecution { wanted, current: known, .. }) => {
                assert_eq!((wanted, known), (other, current));
            }
            other => panic!("{other:?}"),
        }
        let both = EventAddress { execution: Some(current), version: Some("1.0".into()) };
        client.raise_event_to("a", both, "say", "right").await.unwrap();
        client.raise_event("a", "say", "to whoever").await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), heard(&[("right", ""), ("to whoever", "")]));
        stop(hub).await;
    }

    async fn events_of_orchestrations_carry_their_version_and_reach_only_the_version_they_are_for(sessions: bool) {
        let hub = hub(sessions).register(listens).register(says).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(listens, 2, in_version("b", "1.0")).await.unwrap();
        client.start_with(says, "b".to_owned(), in_version("speaker", "3.1")).await.unwrap();
        let expected = heard(&[("for 1.0", "3.1"), ("for all", "3.1")]);
        assert_eq!(soon("the result", run.result()).await.unwrap(), expected);
        let history = client.history("b").await.unwrap();
        steadfast_testkit::check_history(&history).unwrap();
        let raised = history.iter().filter(|event| event.kind.type_name() == "EventRaised").count();
        assert_eq!(raised, 2, "what is for another version is in no history");
        stop(hub).await;
    }

    async fn continuing_with_another_version_leaves_behind_what_was_for_the_one_before(sessions: bool) {
        let hub = hub(sessions).register(leaves).register(says).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(leaves, 4, in_version("c", "1.0")).await.unwrap();
        client.raise_event("c", "say", "first").await.unwrap();
        let said = client.start_with(says, "c".to_owned(), in_version("before", "3.1")).await.unwrap();
        soon("the speech", said.result()).await.unwrap();
        let all_arrived = async {
            let is_event = |event: &&steadfast::HistoryEvent| event.kind.type_name() == "EventRaised";
            while client.history("c").await.unwrap().iter().filter(is_event).count() < 3 {
                tokio::task::yield_now().await;
            }
        };
        soon("what was said", all_arrived).await;
        client.raise_event("c", "say", "last").await.unwrap();
        client.raise_event("c", "go on", &()).await.unwrap();
        until(&client, "c", |state| state.version == "2.0" && state.status == OrchestrationStatus::Running).await;
        client.raise_event_to("c", for_version("2.0"), "say", "for the new one").await.unwrap();
        let expected = heard(&[("first", ""), ("for all", "3.1"), ("last", ""), ("for the new one", "")]);
        assert_eq!(soon("the result", run.result()).await.unwrap(), expected);
        stop(hub).await;
    }
}

#[activity]
async fn where_it_runs(ctx: ActivityContext) -> Result<String> {
    Ok(ctx.worker_version().to_string())
}

#[orchestration]
async fn tells_workers(ctx: OrchestrationContext) -> Result<(String, String)> {
    let activity = ctx.call(where_it_runs, ()).await?;
    Ok((ctx.worker_version().to_string(), activity))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_the_worker_can_be_read_in_orchestrations_and_activities() {
    for version in ["", "7.2"] {
        let options = VersionOptions { version: version.into(), ..VersionOptions::default() };
        let builder = hub(true).versions(options).register(where_it_runs).register(tells_workers);
        let hub = builder.start().await.unwrap();
        let run = hub.client().start(tells_workers, ()).await.unwrap();
        let told = soon("the result", run.result()).await.unwrap();
        assert_eq!(told, (version.to_owned(), version.to_owned()));
        stop(hub).await;
    }
}

#[test]
fn versions_compare_by_number_ignore_case_and_none_is_the_least() {
    assert_eq!(compare_versions("10", "9"), Ordering::Greater);
    assert_eq!(compare_versions("1.10", "1.9.9"), Ordering::Greater);
    assert_eq!(compare_versions("", "0"), Ordering::Less);
    assert_eq!(compare_versions("RC.2", "rc.2"), Ordering::Equal);
}
