//! Group K: queries, paging, counts, and purges by filter.

use std::collections::BTreeSet;
use std::time::Duration;

use steadfast::prelude::*;
use steadfast::{
    Client, Clock, InstanceFilter, InstanceKind, InstanceQuery, InstanceState, PageToken, StartOptions,
    TimeRange,
};

use crate::support::{end_of, hub, hub_with_clock, soon, stop, with_id};

#[orchestration]
async fn greet(_: OrchestrationContext, name: String) -> Result<String> {
    Ok(format!("Hello, {name}!"))
}

#[orchestration]
async fn break_down(_: OrchestrationContext, _: ()) -> Result<()> {
    Err(Error::msg("it was meant to"))
}

#[orchestration]
async fn wait(ctx: OrchestrationContext, _: ()) -> Result<String> {
    Ok(ctx.wait_for_event("go").await?)
}

#[orchestration(version = "1.0")]
async fn versioned(_: OrchestrationContext, _: ()) -> Result<()> {
    Ok(())
}

fn query(filter: InstanceFilter) -> InstanceQuery {
    InstanceQuery { filter, ..InstanceQuery::default() }
}

fn status(status: OrchestrationStatus) -> InstanceFilter {
    InstanceFilter { statuses: vec![status], ..InstanceFilter::default() }
}

async fn states(client: &Client, filter: InstanceFilter) -> Vec<InstanceState> {
    let page = soon("a page", client.query(&query(filter))).await.unwrap();
    assert!(page.continuation.is_none());
    page.instances
}

async fn ids(client: &Client, filter: InstanceFilter) -> Vec<String> {
    states(client, filter).await.iter().map(|state| state.instance.as_str().to_owned()).collect()
}

/// What the tests look for: ended and running instances of several names, versions and tags.
async fn fill(client: &Client) {
    for name in ["anna", "bert"] {
        client.start_with(greet, name.to_owned(), with_id(&format!("greet-{name}"))).await.unwrap();
        end_of(client, &format!("greet-{name}")).await;
    }
    client.start_with(break_down, (), with_id("broken")).await.unwrap();
    end_of(client, "broken").await;
    client.start_with(versioned, (), with_id("versioned")).await.unwrap();
    end_of(client, "versioned").await;
    for (id, team) in [("wait-1", "red"), ("wait-2", "blue")] {
        let tags = [("team".to_owned(), team.to_owned()), ("kind".to_owned(), "wait".to_owned())].into();
        let options = StartOptions { tags, ..with_id(id) };
        client.start_with(wait, (), options).await.unwrap();
        soon("the start", client.wait_for_start(id, None)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_condition_finds_what_fulfils_it() {
    for extended_sessions in [true, false] {
        let builder = hub(extended_sessions).register(greet).register(break_down);
        let hub = builder.register(wait).register(versioned).start().await.unwrap();
        let client = hub.client();
        fill(&client).await;
        let all = InstanceFilter::default;
        let everything = ["broken", "greet-anna", "greet-bert", "versioned", "wait-1", "wait-2"];
        assert_eq!(ids(&client, all()).await, everything);
        assert_eq!(ids(&client, status(OrchestrationStatus::Failed)).await, ["broken"]);
        assert_eq!(ids(&client, status(OrchestrationStatus::Running)).await, ["wait-1", "wait-2"]);
        let ended = InstanceFilter {
            statuses: vec![OrchestrationStatus::Completed, OrchestrationStatus::Failed],
            ..all()
        };
        assert_eq!(ids(&client, ended).await, everything[..4]);
        let named = InstanceFilter { name: Some("greet".into()), ..all() };
        assert_eq!(ids(&client, named).await, ["greet-anna", "greet-bert"]);
        let version = InstanceFilter { version: Some("1.0".into()), ..all() };
        assert_eq!(ids(&client, version).await, ["versioned"]);
        let tag =
            |key: &str, value: &str| InstanceFilter { tags: [(key.into(), value.into())].into(), ..all() };
        assert_eq!(ids(&client, tag("team", "blue")).await, ["wait-2"]);
        assert_eq!(ids(&client, tag("kind", "wait")).await, ["wait-1", "wait-2"]);
        assert!(ids(&client, tag("team", "green")).await.is_empty());
        let prefix = InstanceFilter { id_prefix: "greet-".into(), ..all() };
        assert_eq!(ids(&client, prefix).await, ["greet-anna", "greet-bert"]);
        let entities = InstanceFilter { kind: InstanceKind::Entities, ..all() };
        assert!(ids(&client, entities).await.is_empty());
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_time_include_their_beginning_and_not_their_end() {
    let (builder, clock) = hub_with_clock(true);
    let hub = builder.register(greet).register(wait).start().await.unwrap();
    let client = hub.client();
    client.start_with(wait, (), with_id("early")).await.unwrap();
    soon("the start", client.wait_for_start("early", None)).await.unwrap();
    let first = clock.now();
    clock.advance(Duration::from_secs(60));
    let second = clock.now();
    client.start_with(greet, "anna".to_owned(), with_id("late")).await.unwrap();
    end_of(&client, "late").await;
    let all = InstanceFilter::default;
    let created = |created| InstanceFilter { created, ..all() };
    assert_eq!(ids(&client, created(TimeRange::between(first, second))).await, ["early"]);
    assert_eq!(ids(&client, created(TimeRange::since(second))).await, ["late"]);
    assert_eq!(ids(&client, created(TimeRange::before(first))).await, [""; 0]);
    let completed = |completed| InstanceFilter { completed, ..all() };
    assert_eq!(ids(&client, completed(TimeRange::since(first))).await, ["late"], "the other has not ended");
    clock.advance(Duration::from_secs(60));
    let third = clock.now();
    client.raise_event("early", "go", "on").await.unwrap();
    end_of(&client, "early").await;
    let updated = InstanceFilter { updated: TimeRange::since(third), ..all() };
    assert_eq!(ids(&client, updated).await, ["early"]);
    assert_eq!(ids(&client, completed(TimeRange::between(second, third))).await, ["late"]);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paging_shows_each_instance_that_stays_exactly_once_while_others_come_and_go() {
    let hub = hub(true).register(greet).register(wait).start().await.unwrap();
    let client = hub.client();
    for n in 0..50 {
        client.start_with(wait, (), with_id(&format!("{n:02}-stays"))).await.unwrap();
    }
    let mut page = InstanceQuery { page_size: 7, ..InstanceQuery::default() };
    let mut seen = Vec::new();
    let mut round = 0;
    loop {
        let shown = client.query(&page).await.unwrap();
        seen.extend(shown.instances.iter().map(|state| state.instance.as_str().to_owned()));
        // Between two pages one instance comes, one that was shown goes, and one that stays changes.
        let id = format!("{:02}-comes", round * 5);
        client.start_with(greet, "anna".to_owned(), with_id(&id)).await.unwrap();
        end_of(&client, &id).await;
        if round > 0 {
            client.purge(&format!("{:02}-comes", (round - 1) * 5)).await.unwrap();
        }
        client.suspend(&format!("{:02}-stays", round * 3), "a change").await.unwrap();
        round += 1;
        let Some(token) = shown.continuation else { break };
        // A token is a text like any other on its way to another process and back.
        page.continuation = Some(token.to_string().parse::<PageToken>().unwrap());
    }
    let stayed: Vec<_> = seen.iter().filter(|id| id.ends_with("stays")).cloned().collect();
    let expected: Vec<_> = (0..50).map(|n| format!("{n:02}-stays")).collect();
    assert_eq!(stayed, expected);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "nothing is shown twice");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_without_instances_has_an_empty_page_and_no_continuation() {
    let hub = hub(true).register(greet).start().await.unwrap();
    let page = hub.client().query(&InstanceQuery::default()).await.unwrap();
    assert!(page.instances.is_empty() && page.continuation.is_none());
    assert_eq!(hub.client().counts().await.unwrap().orchestrations(), 0);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_and_outputs_are_shown_unless_they_are_left_out() {
    let hub = hub(true).register(greet).start().await.unwrap();
    let client = hub.client();
    client.start_with(greet, "anna".to_owned(), with_id("i")).await.unwrap();
    end_of(&client, "i").await;
    let shown = states(&client, InstanceFilter::default()).await.remove(0);
    assert_eq!(shown.input.as_str(), "\"anna\"");
    assert_eq!(shown.output.unwrap().as_str(), "\"Hello, anna!\"");
    let without = InstanceQuery { omit_payloads: true, ..InstanceQuery::default() };
    let shown = client.query(&without).await.unwrap().instances.remove(0);
    assert!(shown.input.as_str() == "null" && shown.output.is_none());
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_inputs_and_outputs_are_shown_or_left_out_wherever_the_instance_is() {
    let hub = hub(true).register(greet).start().await.unwrap();
    let client = hub.client();
    let long = "anna".repeat(100_000);
    client.start_with(greet, long.clone(), with_id("long")).await.unwrap();
    end_of(&client, "long").await;
    // At first it is in memory, later in the store, and at some moment in both.
    for _ in 0..50 {
        for omit_payloads in [true, false] {
            let page = client.query(&InstanceQuery { omit_payloads, ..InstanceQuery::default() }).await;
            let shown = page.unwrap().instances.remove(0);
            assert_eq!((shown.instance.as_str(), shown.status), ("long", OrchestrationStatus::Completed));
            let (input, output) = (shown.input.as_str().len(), shown.output.map(|it| it.as_str().len()));
            match omit_payloads {
                true => assert_eq!((input, output), (4, None)),
                false => assert_eq!((input, output), (long.len() + 2, Some(long.len() + 10))),
            }
        }
        tokio::task::yield_now().await;
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_by_status_follow_every_change() {
    for extended_sessions in [true, false] {
        let builder = hub(extended_sessions).register(greet).register(break_down);
        let hub = builder.register(wait).register(versioned).start().await.unwrap();
        let client = hub.client();
        fill(&client).await;
        use OrchestrationStatus::{Completed, Failed, Pending, Running, Terminated};
        let counts = client.counts().await.unwrap();
        assert_eq!((counts.of(Completed), counts.of(Failed), counts.of(Running)), (3, 1, 2));
        client.terminate("wait-1", "enough", false).await.unwrap();
        end_of(&client, "wait-1").await;
        client.purge("broken").await.unwrap();
        let tomorrow = steadfast::SystemClock.now().after(Duration::from_secs(86_400));
        // The id of an instance that has ended is used again, for one that has not begun.
        let later = StartOptions { scheduled_start: Some(tomorrow), ..with_id("greet-anna") };
        client.start_with(greet, "anna".to_owned(), later).await.unwrap();
        let counts = client.counts().await.unwrap();
        let of = |status| counts.of(status);
        assert_eq!((of(Completed), of(Failed), of(Running), of(Terminated), of(Pending)), (2, 0, 1, 1, 1));
        assert_eq!((counts.orchestrations(), counts.entities()), (5, 0));
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_by_filter_removes_what_has_ended_and_matches_and_nothing_else() {
    let builder = hub(true).register(greet).register(break_down);
    let hub = builder.register(wait).register(versioned).start().await.unwrap();
    let client = hub.client();
    fill(&client).await;
    let named = InstanceFilter { name: Some("greet".into()), ..InstanceFilter::default() };
    let result = client.purge_matching(&named, None).await.unwrap();
    assert_eq!((result.deleted, result.complete), (2, true));
    assert_eq!(ids(&client, InstanceFilter::default()).await, ["broken", "versioned", "wait-1", "wait-2"]);
    let failed = client.purge_matching(&status(OrchestrationStatus::Failed), None).await.unwrap();
    assert_eq!((failed.deleted, failed.complete), (1, true));
    let rest = client.purge_matching(&InstanceFilter::default(), None).await.unwrap();
    assert_eq!((rest.deleted, rest.complete), (1, true));
    assert_eq!(ids(&client, InstanceFilter::default()).await, ["wait-1", "wait-2"]);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_whose_time_is_up_says_so_and_goes_on_at_the_next_call() {
    let hub = hub(true).register(greet).start().await.unwrap();
    let client = hub.client();
    for n in 0..200 {
        client.start_with(greet, "anna".to_owned(), with_id(&format!("{n:03}"))).await.unwrap();
    }
    for n in 0..200 {
        end_of(&client, &format!("{n:03}")).await;
    }
    let first = client.purge_matching(&InstanceFilter::default(), Some(Duration::ZERO)).await.unwrap();
    assert!(!first.complete && first.deleted > 0 && first.deleted < 200);
    let rest = client.purge_matching(&InstanceFilter::default(), None).await.unwrap();
    assert_eq!((rest.deleted, rest.complete), (200 - first.deleted, true));
    stop(hub).await;
}
