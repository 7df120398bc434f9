//! Group C: durable timers and their cancellation. The test owns the time.

use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use steadfast::prelude::*;
use steadfast::{Clock, EventKind, OrchestrationStatus};

use crate::support::{end_of, hub_with_clock, soon, stop, until, with_and_without_sessions, with_id};

const HOUR: Duration = Duration::from_secs(3600);

/// Says when it armed its timer, so that the test does not move the time before.
fn armed(ctx: &OrchestrationContext) -> Result<()> {
    ctx.set_custom_status("armed")
}

#[orchestration]
async fn sleep(ctx: OrchestrationContext, hours: u32) -> Result<Timestamp> {
    let timer = ctx.timer(HOUR * hours);
    armed(&ctx)?;
    timer.await;
    Ok(ctx.now())
}

#[orchestration]
async fn approval(ctx: OrchestrationContext, _: ()) -> Result<String> {
    let (event, timer) = (ctx.wait_for_event::<bool>("approval"), ctx.timer(HOUR));
    armed(&ctx)?;
    Ok(match select(event, timer).await {
        Either::Left((approved, _)) => {
            if approved? {
                "Approved"
            } else {
                "Rejected"
            }
        }
        Either::Right(_) => "Expired",
    }
    .to_owned())
}

#[orchestration]
async fn many_timers(ctx: OrchestrationContext, count: u32) -> Result<u32> {
    let timers: Vec<_> = (0..count).map(|n| ctx.timer(HOUR * (n % 7))).collect();
    armed(&ctx)?;
    join_all(timers).await;
    Ok(count)
}

#[orchestration]
async fn next_generation_with_a_timer(ctx: OrchestrationContext, generation: u32) -> Result<u32> {
    if generation < 3 {
        // Nobody waits for this one: it belongs to this generation and must not wake the next.
        drop(ctx.timer(HOUR));
        ctx.continue_as_new(&(generation + 1))?;
        return Ok(generation);
    }
    let timer = ctx.timer(HOUR * 2);
    armed(&ctx)?;
    timer.await;
    Ok(generation)
}

fn is_armed(state: &steadfast::InstanceState) -> bool {
    state.custom_status.as_ref().is_some_and(|status| status.as_str() == "\"armed\"")
}

with_and_without_sessions! {
    async fn a_timer_fires_when_it_is_due_and_not_before(sessions: bool) {
        let (hub, clock) = hub_with_clock(sessions);
        let hub = hub.register(sleep).start().await.unwrap();
        let client = hub.client();
        let began = clock.now();
        let run = client.start_with(sleep, 2, with_id("sleeper")).await.unwrap();
        until(&client, "sleeper", is_armed).await;
        clock.advance(HOUR * 2 - Duration::from_micros(1));
        assert_eq!(client.state("sleeper").await.unwrap().status, OrchestrationStatus::Running);
        clock.advance(Duration::from_micros(1));
        assert_eq!(soon("the result", run.result()).await.unwrap(), began.after(HOUR * 2));
        stop(hub).await;
    }

    async fn a_timer_of_ninety_days_is_one_timer(sessions: bool) {
        let (hub, clock) = hub_with_clock(sessions);
        let hub = hub.register(sleep).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(sleep, 90 * 24, with_id("sleeper")).await.unwrap();
        until(&client, "sleeper", is_armed).await;
        clock.advance(HOUR * 90 * 24);
        soon("the result", run.result()).await.unwrap();
        let history = client.history("sleeper").await.unwrap();
        let created = history.iter().filter(|event| matches!(event.kind, EventKind::TimerCreated { .. }));
        assert_eq!(created.count(), 1);
        stop(hub).await;
    }

    async fn an_event_before_the_timer_wins_and_cancels_it(sessions: bool) {
        let (hub, clock) = hub_with_clock(sessions);
        let hub = hub.register(approval).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(approval, (), with_id("asked")).await.unwrap();
        until(&client, "asked", is_armed).await;
        client.raise_event("asked", "approval", &true).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), "Approved");
        let before = client.history("asked").await.unwrap();
        clock.advance(HOUR * 2);
        assert!(end_of(&client, "asked").await.open_timers.is_empty());
        assert_eq!(client.history("asked").await.unwrap(), before, "the cancelled timer leaves no trace");
        stop(hub).await;
    }

    async fn a_timer_before_the_event_wins(sessions: bool) {
        let (hub, clock) = hub_with_clock(sessions);
        let hub = hub.register(approval).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(approval, (), with_id("asked")).await.unwrap();
        until(&client, "asked", is_armed).await;
        clock.advance(HOUR);
        assert_eq!(soon("the result", run.result()).await.unwrap(), "Expired");
        stop(hub).await;
    }

    async fn a_thousand_timers_of_one_instance_all_fire(sessions: bool) {
        let (hub, clock) = hub_with_clock(sessions);
        let hub = hub.register(many_timers).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(many_timers, 1000, with_id("many")).await.unwrap();
        until(&client, "many", is_armed).await;
        clock.advance(HOUR * 6);
        assert_eq!(soon("the result", run.result()).await.unwrap(), 1000);
        stop(hub).await;
    }

    async fn a_timer_of_an_earlier_generation_does_not_wake_a_later_one(sessions: bool) {
        let (hub, clock) = hub_with_clock(sessions);
        let hub = hub.register(next_generation_with_a_timer).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(next_generation_with_a_timer, 1, with_id("again")).await.unwrap();
        until(&client, "again", is_armed).await;
        clock.advance(HOUR);
        assert_eq!(client.state("again").await.unwrap().status, OrchestrationStatus::Running);
        clock.advance(HOUR);
        assert_eq!(soon("the result", run.result()).await.unwrap(), 3);
        stop(hub).await;
    }
}
