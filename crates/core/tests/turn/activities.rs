//! Activities in sequence, in parallel and in races.

use futures_util::future::{Either, join_all, select, select_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, join, try_join};
use steadfast_core::model::{ActivityName, OrchestrationContext};
use steadfast_core::{EventKind, OrchestrationStatus};

use crate::support::{code, done, failed, raised, scenario};

const STEP: ActivityName<u32, u32> = ActivityName::new("step");

#[test]
fn activities_run_one_after_the_other_and_hand_on_their_results() {
    let run = scenario(
        code(|ctx: OrchestrationContext, n: u32| async move {
            let n = ctx.call(STEP, n).await?;
            let n = ctx.call(STEP, n).await?;
            Ok(ctx.call(STEP, n).await? + 1)
        }),
        |run| {
            run.start(1);
            run.expect(["call #0 step 1"]);
            run.send([done(0, 10)]);
            run.expect(["call #1 step 10"]);
            run.send([done(1, 20)]);
            run.expect(["call #2 step 20"]);
            run.send([done(2, 30)]);
        },
    );
    run.expect(["Completed #3 31"]);
    assert!(run.is_over());
}

#[test]
fn parallel_activities_are_all_scheduled_in_the_first_turn_and_may_end_in_any_order() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let (a, b, c) = join!(ctx.call(STEP, 1), ctx.call(STEP, 2), ctx.call(STEP, 3));
            Ok((a?, b?, c?))
        }),
        |run| {
            run.start(());
            run.expect(["call #0 step 1", "call #1 step 2", "call #2 step 3"]);
            run.send([done(2, 30)]);
            run.expect([]);
            run.send([done(0, 10), done(1, 20)]);
        },
    );
    assert_eq!(run.output::<(u32, u32, u32)>(), (10, 20, 30));
}

#[test]
fn work_is_scheduled_when_it_is_called_and_not_when_it_is_awaited() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let (second, first) = (ctx.call(STEP, 2), ctx.call(STEP, 1));
            Ok((first.await?, second.await?))
        }),
        |run| {
            run.start(());
            run.expect(["call #0 step 2", "call #1 step 1"]);
            // The result that nobody awaits yet is kept.
            run.send([done(0, 20)]);
            run.send([done(1, 10)]);
        },
    );
    assert_eq!(run.output::<(u32, u32)>(), (10, 20));
}

#[test]
fn the_order_of_the_history_decides_a_race_even_within_one_batch() {
    for (first, second) in [(0, 1), (1, 0)] {
        let run = scenario(
            code(|ctx: OrchestrationContext, (): ()| async move {
                Ok(match select(ctx.call(STEP, 0), ctx.call(STEP, 1)).await {
                    Either::Left((result, _)) => ("left", result?),
                    Either::Right((result, _)) => ("right", result?),
                })
            }),
            |run| {
                run.start(());
                run.send([done(first, first), done(second, second)]);
            },
        );
        let winner = if first == 0 { ("left".to_owned(), 0) } else { ("right".to_owned(), 1) };
        assert_eq!(run.output::<(String, u32)>(), winner);
        // The loser arrived when the code had ended already.
        assert_eq!(run.last().discarded, 1);
    }
}

#[test]
fn the_loser_of_a_race_can_be_awaited_later() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            Ok(match select(ctx.call(STEP, 0), ctx.call(STEP, 1)).await {
                Either::Left((first, rest)) => (first?, rest.await?),
                Either::Right((first, rest)) => (first?, rest.await?),
            })
        }),
        |run| {
            run.start(());
            run.send([done(1, 11)]);
            run.send([done(0, 10)]);
        },
    );
    assert_eq!(run.output::<(u32, u32)>(), (11, 10));
}

#[test]
fn the_result_of_a_dropped_call_is_recorded_and_ignored() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            drop(ctx.call(STEP, 0));
            let (winner, _, losers) = select_all([ctx.call(STEP, 1), ctx.call(STEP, 2)]).await;
            drop(losers);
            Ok((winner?, ctx.call(STEP, 3).await?))
        }),
        |run| {
            run.start(());
            run.send([done(2, 12)]);
            run.expect(["call #3 step 3"]);
            run.send([done(0, 99), done(1, 99), failed(1, "late")]);
            run.expect([]);
            run.send([done(3, 13)]);
        },
    );
    assert_eq!(run.output::<(u32, u32)>(), (12, 13));
    assert!(run.story().contains(&"done #1 99".to_owned()), "{:?}", run.story());
}

#[test]
fn the_code_is_polled_after_each_event_and_not_after_each_batch() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let mut order = Vec::new();
            let (a, b) = (ctx.call(STEP, 0), ctx.wait_for_event::<u32>("go"));
            let (mut a, mut b) = (a.fuse(), b.fuse());
            // Both are ready only if both were fed before the poll.
            for _ in 0..2 {
                futures_util::select_biased! {
                    result = a => order.push(("activity", result?)),
                    result = b => order.push(("event", result?)),
                }
            }
            Ok(order)
        }),
        |run| {
            run.start(());
            run.send([raised("go", 2), done(0, 1)]);
        },
    );
    let order: Vec<(String, u32)> = run.output();
    assert_eq!(order, [("event".to_owned(), 2), ("activity".to_owned(), 1)]);
}

#[test]
fn hundreds_of_children_of_an_unordered_set_come_in_order_of_history() {
    const WIDTH: i32 = 500;
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let mut calls: FuturesUnordered<_> = (0..WIDTH as u32).map(|n| ctx.call(STEP, n)).collect();
            let mut results = Vec::new();
            while let Some(result) = calls.next().await {
                results.push(result?);
            }
            // A short result, for the bound on payloads.
            let ordered = results.iter().rev().is_sorted();
            Ok((results.len(), ordered))
        }),
        |run| {
            run.start(());
            assert_eq!(run.emitted().len(), WIDTH as usize);
            let results =
                |range: std::ops::Range<i32>| range.rev().map(|id| done(id, id)).collect::<Vec<_>>();
            run.send(results(250..WIDTH));
            run.send(results(0..250));
        },
    );
    assert_eq!(run.output::<(i32, bool)>(), (WIDTH, true));
}

#[test]
fn a_wide_join_completes_with_the_last_of_its_children() {
    const WIDTH: i32 = 300;
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let calls = (0..WIDTH as u32).map(|n| ctx.call(STEP, n));
            let results = join_all(calls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
            Ok(results.iter().enumerate().all(|(at, result)| at as u32 == *result))
        }),
        |run| {
            run.start(());
            for id in (0..WIDTH).rev() {
                assert!(!run.is_over());
                run.send([done(id, id)]);
            }
        },
    );
    assert!(run.output::<bool>());
}

#[test]
fn the_first_failure_of_a_join_ends_the_orchestration_with_its_cause() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let (a, b) = try_join!(ctx.call(STEP, 0), ctx.call(STEP, 1))?;
            Ok(a + b)
        }),
        |run| {
            run.start(());
            run.send([failed(1, "out of stock"), done(0, 1)]);
        },
    );
    assert_eq!(run.status(), Some(OrchestrationStatus::Failed));
    assert_eq!(run.failure().message, "activity 'step' (#1) failed: out of stock");
    assert!(run.failure().is_caused_by("Flaky"));
}

#[test]
fn a_second_completion_of_the_same_call_changes_nothing() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let first = ctx.call(STEP, 0).await?;
            let second = ctx.call(STEP, 1).await?;
            Ok((first, second))
        }),
        |run| {
            run.start(());
            run.send([done(0, 1), done(0, 2), failed(0, "no")]);
            run.send([done(0, 3)]);
            run.send([done(1, 4), done(1, 5)]);
        },
    );
    assert_eq!(run.output::<(u32, u32)>(), (1, 4));
}

#[test]
fn a_second_completion_does_not_replace_one_that_waits_to_be_seen() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let early = ctx.call(STEP, 0);
            let late = ctx.call(STEP, 1).await?;
            Ok((early.await?, late))
        }),
        |run| {
            run.start(());
            run.send([done(0, 1), done(0, 2), failed(0, "no")]);
            run.send([done(1, 3)]);
        },
    );
    assert_eq!(run.output::<(u32, u32)>(), (1, 3));
}

#[test]
fn a_result_that_is_not_of_the_expected_type_is_a_typed_failure_of_the_call() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let error = ctx.call(STEP, 0).await.unwrap_err();
            Ok((error.id, error.details.error_type.to_string(), error.is_non_retriable()))
        }),
        |run| {
            run.start(());
            run.send([done(0, "text")]);
        },
    );
    assert_eq!(run.output::<(i32, String, bool)>(), (0, "InvalidPayload".to_owned(), true));
}

#[test]
fn results_for_ids_that_were_never_scheduled_are_ignored() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.call(STEP, 0).await?) }),
        |run| {
            run.start(());
            run.send([done(7, 1), done(-1, 1), done(i32::MAX, 1), done(i32::MIN, 1)]);
            run.expect([]);
            run.send([done(0, 2)]);
        },
    );
    assert_eq!(run.output::<u32>(), 2);
}

#[test]
fn activity_versions_and_the_whole_input_are_in_the_event() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.call(STEP.version("2.0"), 5).await?) }),
        |run| {
            run.start(());
        },
    );
    let scheduled = &run.history[2].kind;
    let EventKind::TaskScheduled { name, version, input, .. } = scheduled else { panic!("{scheduled:?}") };
    assert_eq!((name.as_str(), version.as_str(), input.as_str()), ("step", "2.0", "5"));
}
