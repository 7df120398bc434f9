//! Group D: external events are buffered, ordered, and never lost.

use std::time::Duration;

use futures_util::future::{join, join_all};
use steadfast::prelude::*;
use steadfast::{ClientError, failure};

use crate::support::{end_of, hub, hub_with_clock, soon, stop, until, with_and_without_sessions, with_id};

#[orchestration]
async fn sum_of_events(ctx: OrchestrationContext, count: u32) -> Result<Vec<i64>> {
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(ctx.wait_for_event("number").await?);
    }
    Ok(seen)
}

#[orchestration]
async fn late_listener(ctx: OrchestrationContext, _: ()) -> Result<Vec<i64>> {
    ctx.set_custom_status("begun")?;
    let _: () = ctx.wait_for_event("listen").await?;
    let (first, second) = join(ctx.wait_for_event("number"), ctx.wait_for_event("number")).await;
    Ok(vec![first?, second?])
}

#[orchestration]
async fn two_names(ctx: OrchestrationContext, _: ()) -> Result<(i64, i64)> {
    let (upper, lower) = join(ctx.wait_for_event("Number"), ctx.wait_for_event("number")).await;
    Ok((upper?, lower?))
}

#[orchestration]
async fn impatient(ctx: OrchestrationContext, seconds: u64) -> Result<i64> {
    let event = ctx.wait_for_event_timeout("number", Duration::from_secs(seconds));
    ctx.set_custom_status("begun")?;
    Ok(event.await?)
}

#[orchestration]
async fn sender(ctx: OrchestrationContext, (to, count): (String, i64)) -> Result<()> {
    (0..count).try_for_each(|number| ctx.raise_event(&to, "number", &number))
}

fn has_begun(state: &steadfast::InstanceState) -> bool {
    state.custom_status.is_some()
}

with_and_without_sessions! {
    async fn events_of_one_name_are_taken_in_the_order_in_which_they_were_accepted(sessions: bool) {
        let hub = hub(sessions).register(sum_of_events).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(sum_of_events, 200, with_id("listener")).await.unwrap();
        for number in 0..200_i64 {
            client.raise_event("listener", "number", &number).await.unwrap();
        }
        assert_eq!(soon("the result", run.result()).await.unwrap(), (0..200).collect::<Vec<_>>());
        stop(hub).await;
    }

    async fn an_event_that_nobody_waits_for_yet_is_kept(sessions: bool) {
        let hub = hub(sessions).register(late_listener).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(late_listener, (), with_id("late")).await.unwrap();
        until(&client, "late", has_begun).await;
        client.raise_event("late", "number", &1).await.unwrap();
        client.raise_event("late", "number", &2).await.unwrap();
        client.raise_event("late", "listen", &()).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), [1, 2]);
        stop(hub).await;
    }

    async fn case_makes_no_difference_in_the_names_of_events(sessions: bool) {
        let hub = hub(sessions).register(two_names).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(two_names, (), with_id("names")).await.unwrap();
        client.raise_event("names", "number", &1).await.unwrap();
        client.raise_event("names", "Number", &2).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), (1, 2));
        stop(hub).await;
    }

    async fn a_wait_ends_with_a_typed_failure_when_its_time_is_over(sessions: bool) {
        let (hub, clock) = hub_with_clock(sessions);
        let hub = hub.register(impatient).start().await.unwrap();
        let client = hub.client();
        client.start_with(impatient, 60, with_id("impatient")).await.unwrap();
        until(&client, "impatient", has_begun).await;
        clock.advance(Duration::from_secs(60));
        let failed = end_of(&client, "impatient").await;
        let details = failed.failure.unwrap();
        assert!(details.is_caused_by(failure::kinds::TIMED_OUT), "{details:?}");
        stop(hub).await;
    }

    async fn events_from_other_orchestrations_arrive_once_and_in_order(sessions: bool) {
        let hub = hub(sessions).register(sum_of_events).register(sender).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(sum_of_events, 50, with_id("receiver")).await.unwrap();
        client.start(sender, ("receiver".into(), 50)).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), (0..50).collect::<Vec<_>>());
        stop(hub).await;
    }

    async fn events_from_many_clients_at_once_all_arrive(sessions: bool) {
        let hub = hub(sessions).register(sum_of_events).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(sum_of_events, 500, with_id("busy")).await.unwrap();
        let raise = |number: i64| {
            let client = client.clone();
            async move { client.raise_event("busy", "number", &number).await.unwrap() }
        };
        join_all((0..500).map(raise)).await;
        let mut seen = soon("the result", run.result()).await.unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_for_nobody_is_a_typed_error() {
    let hub = hub(true).register(sum_of_events).start().await.unwrap();
    let client = hub.client();
    let error = client.raise_event("nobody", "number", &1).await.unwrap_err();
    assert!(matches!(error, ClientError::InstanceNotFound { .. }), "{error}");
    client.start_with(sum_of_events, 0, with_id("over")).await.unwrap();
    end_of(&client, "over").await;
    let error = client.raise_event("over", "number", &1).await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { .. }), "{error}");
    stop(hub).await;
}
