//! Group F: orchestrations of orchestrations.

use std::time::Duration;

use futures_util::future::try_join_all;
use steadfast::prelude::*;
use steadfast::{ClientError, Tags};

use crate::support::{end_of, hub, hub_with_clock, soon, stop, until, with_and_without_sessions, with_id};

#[orchestration(name = "leaf")]
async fn leaf(_ctx: OrchestrationContext, n: u64) -> Result<u64> {
    match n {
        13 => Err(Error::new("Unlucky", "13 is not a number").non_retriable()),
        n => Ok(n * 2),
    }
}

#[orchestration(name = "tree")]
async fn tree(ctx: OrchestrationContext, depth: u64) -> Result<u64> {
    if depth == 0 {
        return Ok(1);
    }
    let branches = try_join_all((0..3).map(|_| ctx.call_orchestration(tree, depth - 1))).await?;
    Ok(branches.into_iter().sum())
}

#[orchestration(name = "fans_out")]
async fn fans_out(ctx: OrchestrationContext, leaves: Vec<u64>) -> Result<Vec<u64>> {
    let leaves = leaves.into_iter().map(|n| ctx.call_orchestration(leaf, n));
    Ok(try_join_all(leaves).await?)
}

#[orchestration(name = "tagged")]
async fn tagged(ctx: OrchestrationContext) -> Result<Vec<String>> {
    Ok(ctx.tags().into_iter().map(|(key, value)| format!("{key}={value}")).collect())
}

#[orchestration(name = "tags_its_child")]
async fn tags_its_child(ctx: OrchestrationContext) -> Result<Vec<String>> {
    let tags = Tags::from([("zone".into(), "child".into()), ("own".into(), "yes".into())]);
    let options = SubOrchestrationOptions { tags, ..Default::default() };
    Ok(ctx.call_orchestration_with(tagged, (), options).await?)
}

#[orchestration(name = "waits")]
async fn waits(ctx: OrchestrationContext) -> Result<()> {
    Ok(ctx.wait_for_event::<()>("go").await?)
}

/// Does not wait for the one that it starts.
#[orchestration(name = "fires_and_forgets")]
async fn fires_and_forgets(ctx: OrchestrationContext, id: String) -> Result<()> {
    ctx.start_orchestration(waits, (), Some(&id))?;
    Ok(())
}

#[orchestration(name = "flaky")]
async fn flaky(ctx: OrchestrationContext) -> Result<u64> {
    // Each attempt is an execution of its own; only time tells them apart.
    let seconds = ctx.now().as_micros() / 1_000_000;
    if seconds % 100 < 20 { Err(Error::msg("too early")) } else { Ok(7) }
}

#[orchestration(name = "tries_again")]
async fn tries_again(ctx: OrchestrationContext) -> Result<u64> {
    ctx.timer_until(Timestamp::from_micros((ctx.now().as_micros() / 100_000_000 + 1) * 100_000_000)).await;
    let retry = Some(RetryPolicy::new(5, Duration::from_secs(10)));
    let options = SubOrchestrationOptions { retry, ..Default::default() };
    Ok(ctx.call_orchestration_with(flaky, (), options).await?)
}

with_and_without_sessions! {
    async fn results_come_back_through_a_tree_of_orchestrations(sessions: bool) {
        let hub = hub(sessions).register(tree).start().await.unwrap();
        let run = hub.client().start(tree, 3).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), 27);
        stop(hub).await;
    }

    async fn a_fan_out_keeps_the_order_of_its_results(sessions: bool) {
        let hub = hub(sessions).register(fans_out).register(leaf).start().await.unwrap();
        let run = hub.client().start(fans_out, (100..300).collect()).await.unwrap();
        let expected: Vec<u64> = (100..300).map(|n| n * 2).collect();
        assert_eq!(soon("the result", run.result()).await.unwrap(), expected);
        stop(hub).await;
    }

    async fn the_childs_own_failure_reaches_the_parents_caller(sessions: bool) {
        let hub = hub(sessions).register(fans_out).register(leaf).start().await.unwrap();
        let run = hub.client().start(fans_out, vec![1, 13, 2]).await.unwrap();
        let Err(ClientError::Failed { details, .. }) = soon("the failure", run.result()).await else {
            panic!("it succeeded")
        };
        assert!(details.is_caused_by("Unlucky") && details.non_retriable, "{details:?}");
        stop(hub).await;
    }

    async fn tags_are_inherited_and_overlaid_by_those_given(sessions: bool) {
        let hub = hub(sessions).register(tagged).register(tags_its_child).start().await.unwrap();
        let tags = [("zone".to_owned(), "parent".to_owned()), ("tenant".to_owned(), "a".to_owned())].into();
        let options = steadfast::StartOptions { tags, ..Default::default() };
        let run = hub.client().start_with(tags_its_child, (), options).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), ["own=yes", "tenant=a", "zone=child"]);
        stop(hub).await;
    }

    async fn an_instance_that_is_started_and_forgotten_outlives_the_one_that_started_it(sessions: bool) {
        let hub = hub(sessions).register(waits).register(fires_and_forgets).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(fires_and_forgets, "detached".into(), with_id("starter")).await.unwrap();
        soon("the result", run.result()).await.unwrap();
        let there = async {
            while client.wait_for_start("detached", None).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        soon("the start", there).await;
        assert_eq!(client.state("detached").await.unwrap().parent, None);
        client.raise_event("detached", "go", &()).await.unwrap();
        assert_eq!(end_of(&client, "detached").await.status, OrchestrationStatus::Completed);
        stop(hub).await;
    }

    async fn a_child_that_fails_is_tried_again_as_the_policy_says(sessions: bool) {
        let (builder, clock) = hub_with_clock(sessions);
        let hub = builder.register(flaky).register(tries_again).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(tries_again, (), with_id("t")).await.unwrap();
        // The first timer, and then two pauses of the policy.
        for _ in 0..3 {
            let armed = until(&client, "t", |state| !state.open_timers.is_empty()).await;
            let due = *armed.open_timers.values().next().unwrap();
            clock.advance(due.since(steadfast::Clock::now(&clock)));
            until(&client, "t", |state| !state.open_timers.values().any(|at| *at == due)).await;
        }
        assert_eq!(soon("the result", run.result()).await.unwrap(), 7);
        stop(hub).await;
    }
}
