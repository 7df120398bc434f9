//! Durable timers, and cancelling them by dropping them.

use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use steadfast_core::model::{ActivityName, OrchestrationContext};
use steadfast_core::{EventKind, Timestamp};

use crate::support::{code, done, fired, raised, resumed, scenario, suspended};

const STEP: ActivityName<u32, u32> = ActivityName::new("step");
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_timer_is_due_a_duration_after_the_turn_began_and_code_goes_on_when_it_fires() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.timer(HOUR).await;
            Ok("late")
        }),
        |run| {
            let at = run.now;
            run.start(());
            run.expect(["timer #0"]);
            assert_eq!(run.history[2].kind, EventKind::TimerCreated { fire_at: at.after(HOUR) });
            run.send([fired(0)]);
        },
    );
    run.expect(["Completed #1 \"late\""]);
}

#[test]
fn extreme_moments_saturate_and_the_past_is_asked_for_like_the_future() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let past = ctx.timer_until(Timestamp::from_micros(i64::MIN));
            let (now, never) = (ctx.timer(Duration::ZERO), ctx.timer(Duration::MAX));
            join_all([past, now, never]).await;
            Ok(())
        }),
        |run| {
            run.start(());
            run.expect(["timer #0", "timer #1", "timer #2"]);
            assert_eq!(run.history[4].kind, EventKind::TimerCreated { fire_at: Timestamp::MAX });
            run.send([fired(0), fired(1), fired(2)]);
        },
    );
    assert!(run.is_over());
}

#[test]
fn dropping_a_timer_cancels_it_and_its_late_firing_is_ignored() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let winner = match select(ctx.call(STEP, 0), ctx.timer(HOUR)).await {
                Either::Left((result, _timer)) => result?,
                Either::Right(((), _call)) => 0,
            };
            Ok((winner, ctx.call(STEP, 1).await?))
        }),
        |run| {
            run.start(());
            assert!(run.last().cancelled_timers.is_empty());
            run.send([done(0, 10)]);
            assert_eq!(run.last().cancelled_timers, [1]);
            run.expect(["call #2 step 1"]);
            run.send([fired(1), fired(1)]);
            run.expect([]);
            assert!(run.last().cancelled_timers.is_empty());
            run.send([done(2, 11)]);
        },
    );
    assert_eq!(run.output::<(u32, u32)>(), (10, 11));
}

#[test]
fn the_timer_wins_if_it_fired_first_and_is_not_cancelled_then() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let late = matches!(select(ctx.call(STEP, 0), ctx.timer(HOUR)).await, Either::Right(_));
            ctx.wait_for_event::<()>("end").await?;
            Ok(late)
        }),
        |run| {
            run.start(());
            run.send([fired(1), done(0, 10)]);
            assert!(run.last().cancelled_timers.is_empty());
            run.send([raised("end", ())]);
        },
    );
    assert!(run.output::<bool>());
}

#[test]
fn a_timer_that_is_dropped_in_its_own_turn_is_created_and_cancelled() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            drop(ctx.timer(HOUR));
            Ok(ctx.call(STEP, 0).await?)
        }),
        |run| {
            run.start(());
            run.expect(["timer #0", "call #1 step 0"]);
            assert_eq!(run.last().cancelled_timers, [0]);
            run.send([fired(0), done(1, 1)]);
        },
    );
    assert!(run.is_over());
}

#[test]
fn a_timer_that_fired_before_it_was_awaited_is_ready() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let timer = ctx.timer(HOUR);
            ctx.call(STEP, 0).await?;
            timer.await;
            Ok(())
        }),
        |run| {
            run.start(());
            run.send([fired(0)]);
            run.send([done(1, 1)]);
        },
    );
    assert!(run.is_over());
    assert!(run.turns.iter().all(|turn| turn.cancelled_timers.is_empty()));
}

#[test]
fn dropping_a_timer_that_fired_unseen_cancels_nothing() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let timer = ctx.timer(HOUR);
            ctx.call(STEP, 0).await?;
            drop(timer);
            Ok(ctx.call(STEP, 1).await?)
        }),
        |run| {
            run.start(());
            run.send([fired(0), done(1, 1)]);
        },
    );
    run.expect(["call #2 step 1"]);
    assert!(run.last().cancelled_timers.is_empty());
}

#[test]
fn timers_that_are_open_at_the_end_are_cancelled_by_dropping_them() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let _long = (ctx.timer(HOUR), ctx.timer(HOUR));
            Ok(ctx.call(STEP, 0).await?)
        }),
        |run| {
            run.start(());
            run.send([done(2, 1)]);
        },
    );
    let mut cancelled = run.last().cancelled_timers.clone();
    cancelled.sort();
    assert_eq!(cancelled, [0, 1]);
}

#[test]
fn a_timer_that_was_cancelled_while_suspended_is_cancelled_when_it_is_created() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let timer = ctx.timer(HOUR);
            ctx.wait_for_event::<()>("go").await?;
            drop(timer);
            Ok(ctx.call(STEP, 0).await?)
        }),
        |run| {
            run.start_and([raised("go", ()), suspended()]);
            run.expect([]);
            assert!(run.last().cancelled_timers.is_empty());
            run.send([resumed()]);
            run.expect(["timer #0", "call #1 step 0"]);
            assert_eq!(run.last().cancelled_timers, [0]);
        },
    );
    assert!(!run.is_over());
}

#[test]
fn a_thousand_timers_fire_in_any_order() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            join_all((0..1000).map(|n| ctx.timer(HOUR * n))).await;
            Ok(())
        }),
        |run| {
            run.start(());
            run.send((0..1000).rev().map(fired));
        },
    );
    assert!(run.is_over());
}
