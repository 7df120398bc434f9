//! External events: buffers, waiters, timeouts.

use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::{FutureExt, join};
use steadfast_core::OrchestrationStatus;
use steadfast_core::model::{ActivityName, OrchestrationContext};

use crate::support::{code, done, fired, raised, scenario};

const STEP: ActivityName<u32, u32> = ActivityName::new("step");
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn events_that_nobody_awaits_yet_are_kept_in_order_per_name() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.call(STEP, 0).await?;
            let mut seen = Vec::new();
            for name in ["b", "a", "a", "b"] {
                seen.push(ctx.wait_for_event::<u32>(name).await?);
            }
            Ok(seen)
        }),
        |run| {
            run.start(());
            run.send([raised("a", 1), raised("b", 2)]);
            run.send([raised("a", 3)]);
            run.send([raised("b", 4), done(0, 0)]);
        },
    );
    assert_eq!(run.output::<Vec<u32>>(), [2, 1, 3, 4]);
}

#[test]
fn waiters_of_one_name_are_served_in_the_order_in_which_they_came() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let first = ctx.wait_for_event::<u32>("e");
            let second = ctx.wait_for_event::<u32>("e");
            // Awaited the other way round: the place in the queue counts.
            let second = second.await?;
            Ok((first.await?, second))
        }),
        |run| {
            run.start(());
            run.send([raised("e", 1)]);
            assert!(!run.is_over());
            run.send([raised("e", 2)]);
        },
    );
    assert_eq!(run.output::<(u32, u32)>(), (1, 2));
}

#[test]
fn event_names_are_compared_without_case() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let early = ctx.wait_for_event::<u32>("APPROVAL").await?;
            Ok((early, ctx.wait_for_event::<u32>("approval").await?))
        }),
        |run| {
            run.start(());
            run.send([raised("Approval", 1), raised("aPPROVAL", 2)]);
        },
    );
    assert_eq!(run.output::<(u32, u32)>(), (1, 2));
}

#[test]
fn a_waiter_that_is_dropped_gives_its_event_back_at_its_old_place() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let quitter = ctx.wait_for_event::<u32>("e");
            ctx.call(STEP, 0).await?;
            // It has been handed the first event by now, and has not taken it.
            drop(quitter);
            let first = ctx.wait_for_event::<u32>("e").await?;
            Ok((first, ctx.wait_for_event::<u32>("e").await?))
        }),
        |run| {
            run.start(());
            run.send([raised("e", 1), raised("e", 2), done(0, 0)]);
        },
    );
    assert_eq!(run.output::<(u32, u32)>(), (1, 2));
}

#[test]
fn the_event_of_a_dropped_waiter_goes_to_the_one_behind_it() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let quitter = ctx.wait_for_event::<u32>("e");
            let heir = ctx.wait_for_event::<u32>("e");
            let leave = async {
                ctx.call(STEP, 0).await.unwrap();
                drop(quitter);
            };
            let ((), got) = join!(leave, heir);
            Ok(got?)
        }),
        |run| {
            run.start(());
            run.send([raised("e", 1)]);
            assert!(!run.is_over());
            run.send([done(0, 0)]);
        },
    );
    assert_eq!(run.output::<u32>(), 1);
}

#[test]
fn a_waiter_dropped_before_its_event_leaves_no_trace() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            match select(ctx.wait_for_event::<u32>("e"), ctx.timer(MINUTE)).await {
                Either::Left(_) => panic!("there was no event"),
                Either::Right(((), _waiter)) => {}
            }
            Ok(ctx.wait_for_event::<u32>("e").await?)
        }),
        |run| {
            run.start(());
            run.send([fired(0)]);
            run.send([raised("e", 1)]);
        },
    );
    assert_eq!(run.output::<u32>(), 1);
}

fn with_timeout(timeout: Duration) -> steadfast_core::model::Registry {
    code(move |ctx: OrchestrationContext, wait_first: bool| async move {
        if wait_first {
            ctx.call(STEP, 0).await?;
        }
        match ctx.wait_for_event_timeout::<u32>("e", timeout).await {
            Ok(value) => Ok(format!("event {value}")),
            Err(error) => Ok(error.details.error_type.to_string()),
        }
    })
}

#[test]
fn whichever_of_event_and_timeout_is_first_in_the_history_wins() {
    let orders = [([raised("e", 5), fired(0)], "event 5"), ([fired(0), raised("e", 5)], "TimedOut")];
    for (batch, outcome) in orders {
        let run = scenario(with_timeout(MINUTE), |run| {
            run.start(false);
            run.expect(["timer #0"]);
            run.send(batch.clone());
        });
        assert_eq!(run.output::<String>(), outcome);
    }
}

#[test]
fn an_event_in_time_cancels_the_timeout_s_timer() {
    let run = scenario(with_timeout(MINUTE), |run| {
        run.start(false);
        run.send([raised("E", 5)]);
    });
    assert_eq!(run.last().cancelled_timers, [0]);
}

#[test]
fn a_buffered_event_wins_even_against_a_timeout_of_zero() {
    let run = scenario(with_timeout(Duration::ZERO), |run| {
        run.start(true);
        run.send([raised("e", 5)]);
        run.send([done(0, 0)]);
    });
    assert_eq!(run.output::<String>(), "event 5");
}

#[test]
fn a_timeout_of_zero_ends_without_an_event() {
    let run = scenario(with_timeout(Duration::ZERO), |run| {
        run.start(false);
        run.send([fired(0)]);
    });
    assert_eq!(run.output::<String>(), "TimedOut");
}

#[test]
fn an_event_that_came_too_late_for_one_wait_is_kept_for_the_next() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let first = ctx.wait_for_event_timeout::<u32>("e", MINUTE).await.is_ok();
            let second = ctx.wait_for_event_timeout::<u32>("e", MINUTE).await?;
            Ok((first, second))
        }),
        |run| {
            run.start(());
            run.send([fired(0), raised("e", 5)]);
        },
    );
    assert_eq!(run.output::<(bool, u32)>(), (false, 5));
}

#[test]
fn an_event_of_another_type_fails_the_wait_and_is_consumed() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let error = ctx.wait_for_event::<u32>("e").await.unwrap_err();
            let next = ctx.wait_for_event::<u32>("e").await?;
            Ok((error.details.error_type.to_string(), error.is_non_retriable(), error.to_string(), next))
        }),
        |run| {
            run.start(());
            run.send([raised("e", "text"), raised("e", 2)]);
        },
    );
    let (kind, final_, text, next) = run.output::<(String, bool, String, u32)>();
    assert_eq!((kind.as_str(), final_, next), ("InvalidPayload", true, 2));
    assert!(text.starts_with("waiting for event 'e' failed: the event's payload is not a u32"), "{text}");
}

#[test]
fn an_unhandled_event_failure_fails_the_orchestration_as_it_is() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.wait_for_event::<u32>("e").await?) }),
        |run| {
            run.start(());
            run.send([raised("e", [1])]);
        },
    );
    assert_eq!(run.status(), Some(OrchestrationStatus::Failed));
    assert_eq!(run.failure().error_type, "InvalidPayload");
}

#[test]
fn events_may_arrive_before_the_code_in_the_batch_that_starts_it() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.wait_for_event::<u32>("e").await?) }),
        |run| {
            run.start_and([raised("other", 0), raised("e", 1)]);
        },
    );
    assert_eq!(run.output::<u32>(), 1);
}

#[test]
fn events_for_an_instance_that_has_ended_or_never_began_are_discarded() {
    let run = scenario(code(|_: OrchestrationContext, (): ()| async move { Ok(()) }), |run| {
        run.send([raised("e", 1)]);
        run.start(());
        run.send([raised("e", 1), raised("e", 2)]);
    });
    let discarded: Vec<_> = run.turns.iter().map(|turn| (turn.discarded, turn.events.len())).collect();
    assert_eq!(discarded, [(1, 0), (0, 4), (2, 0)]);
}

#[test]
fn a_select_over_many_names_sees_every_event_once() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let mut seen = Vec::new();
            let (mut a, mut b) = (ctx.wait_for_event("a").fuse(), ctx.wait_for_event("b").fuse());
            for _ in 0..6 {
                let event: Result<u32, _> = futures_util::select_biased! {
                    event = a => { a = ctx.wait_for_event("a").fuse(); event }
                    event = b => { b = ctx.wait_for_event("b").fuse(); event }
                };
                seen.push(event?);
            }
            Ok(seen)
        }),
        |run| {
            run.start(());
            run.send([raised("b", 1), raised("a", 2), raised("b", 3)]);
            run.send([raised("a", 4), raised("a", 5), raised("b", 6)]);
        },
    );
    assert_eq!(run.output::<Vec<u32>>(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn thousands_of_buffered_events_are_drained_in_order() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.call(STEP, 0).await?;
            let mut last = 0;
            for _ in 0..3000 {
                let next = ctx.wait_for_event::<u32>("e").await?;
                assert_eq!(next, last + 1);
                last = next;
            }
            Ok(last)
        }),
        |run| {
            run.start(());
            run.send((1..=3000).map(|n| raised("e", n)));
            run.send([done(0, 0)]);
        },
    );
    assert_eq!(run.output::<u32>(), 3000);
}
