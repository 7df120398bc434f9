//! Rewinding by local code: which failures go, which stay, and what is done again.

use std::time::Duration;

use futures_util::future::{Either, join, join_all, select};
use steadfast_core::model::{ActivityName, OrchestrationContext, Registry, RetryPolicy};
use steadfast_core::{Error, EventKind, ExecutionId, ExecutionStarted, OrchestrationStatus};

use crate::support::{Driver, code, done, failed, fired, scenario};

pub(crate) const STEP: ActivityName<u32, u32> = ActivityName::new("step");
pub(crate) const UNDO: ActivityName<u32, u32> = ActivityName::new("undo");

pub(crate) fn two_steps() -> Registry {
    code(|ctx: OrchestrationContext, (): ()| async move {
        let first = ctx.call(STEP, 1).await?;
        Ok(ctx.call(STEP, first).await?)
    })
}

fn fan_out() -> Registry {
    code(|ctx: OrchestrationContext, (): ()| async move {
        let results = join_all((0..4).map(|n| ctx.call(STEP, n))).await;
        results.into_iter().try_fold(0, |sum, result| Ok(sum + result?))
    })
}

pub(crate) fn executions(run: &Driver) -> Vec<ExecutionId> {
    run.turns.iter().filter_map(|turn| turn.execution).collect()
}

fn start(run: &Driver) -> &ExecutionStarted {
    match &run.history[1].kind {
        EventKind::ExecutionStarted(started) => started,
        other => panic!("no start: {other:?}"),
    }
}

#[test]
fn a_failed_activity_is_open_again_and_what_succeeded_stays() {
    let run = scenario(two_steps(), |run| {
        run.start(());
        run.send([done(0, 10)]);
        run.send([failed(1, "down")]);
        run.rewind().unwrap();
        run.expect([]);
        run.send([done(1, 20)]);
    });
    assert_eq!(run.output::<u32>(), 20);
    let story = [
        "started null",
        "call #0 step 1",
        "done #0 10",
        "call #1 step 10",
        "ExecutionRewound",
        "done #1 20",
        "Completed #2 20",
    ];
    assert_eq!(run.story(), story);
    let [first, .., last] = executions(&run)[..] else { panic!() };
    assert_ne!(first, last, "it is a new execution");
    assert_eq!(start(&run).predecessors.iter().map(|it| it.execution).collect::<Vec<_>>(), [first]);
    assert_eq!(start(&run).root_execution(), first);
}

#[test]
fn all_failures_of_a_fan_out_go_also_those_that_nobody_had_looked_at() {
    let run = scenario(fan_out(), |run| {
        run.start(());
        run.send([failed(2, "down")]);
        run.send([done(0, 1)]);
        run.send([failed(1, "down"), done(3, 3)]);
        assert_eq!(run.status(), Some(OrchestrationStatus::Failed));
        run.rewind().unwrap();
        run.expect([]);
        run.send([done(1, 5)]);
        run.send([done(2, 7)]);
    });
    assert_eq!(run.output::<u32>(), 16);
}

#[test]
fn it_can_be_rewound_as_often_as_it_fails() {
    let run = scenario(two_steps(), |run| {
        run.start(());
        for _ in 0..3 {
            run.send([failed(0, "down")]);
            run.rewind().unwrap();
        }
        run.send([done(0, 1)]);
        run.send([failed(1, "down")]);
        run.rewind().unwrap();
        run.send([done(1, 2)]);
    });
    assert_eq!(run.output::<u32>(), 2);
    let mut all: Vec<_> = start(&run).predecessors.iter().map(|it| it.execution).collect();
    all.push(start(&run).execution);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 5);
    assert_eq!(run.story().iter().filter(|line| *line == "ExecutionRewound").count(), 4);
}

#[test]
fn code_that_failed_by_itself_and_is_mended_goes_on_where_it_was() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.call(STEP, 1).await?;
            Err::<u32, _>(Error::msg("not thought of"))
        }),
        |run| {
            run.start(());
            run.send([done(0, 10)]);
            run.deploy(two_steps());
            run.rewind().unwrap();
            run.expect(["call #1 step 10"]);
            run.send([done(1, 20)]);
        },
    );
    assert_eq!(run.output::<u32>(), 20);
}

#[test]
fn code_that_fails_again_at_once_has_failed_as_a_new_execution() {
    let panics = || {
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.call(STEP, 1).await?;
            if true {
                panic!("still broken");
            }
            Ok(())
        })
    };
    let run = scenario(panics(), |run| {
        run.start(());
        run.send([done(0, 10)]);
        let turn = run.rewind().unwrap();
        assert!(turn.ended);
        // And it can be mended after that.
        run.deploy(two_steps());
        run.rewind().unwrap();
        run.expect(["call #1 step 10"]);
    });
    assert_eq!(start(&run).predecessors.len(), 2);
}

#[test]
fn attempts_of_a_retry_policy_stay_but_for_the_last() {
    let policies = [Duration::from_secs(3), Duration::ZERO];
    for pause in policies {
        let retried = code(move |ctx: OrchestrationContext, (): ()| async move {
            Ok(ctx.call_with_retry(STEP, 7, RetryPolicy::new(3, pause)).await?)
        });
        let run = scenario(retried, |run| {
            run.start(());
            let mut last = 0;
            while !run.is_over() {
                let event = run.last().events.iter().rev().nth(1).unwrap().clone();
                match event.kind {
                    EventKind::TimerCreated { fire_at } => {
                        run.now = fire_at;
                        run.send([fired(event.event_id)]);
                    }
                    _ => {
                        last = event.event_id;
                        run.send([failed(last, "again")]);
                    }
                }
            }
            run.rewind().unwrap();
            run.expect([]);
            let failures = run.story().iter().filter(|line| line.starts_with("failed")).count();
            assert_eq!(failures, 2, "{:#?}", run.story());
            run.send([done(last, 5)]);
        });
        assert_eq!(run.output::<u32>(), 5);
    }
}

#[test]
fn a_failure_that_the_code_made_good_stays() {
    let careful = code(|ctx: OrchestrationContext, (): ()| async move {
        let mut result = ctx.call(STEP, 1).await;
        if result.is_err() {
            result = ctx.call(UNDO, 1).await;
        }
        Ok(result? + ctx.call(STEP, 2).await?)
    });
    let run = scenario(careful, |run| {
        run.start(());
        run.send([failed(0, "down")]);
        run.send([done(1, 1)]);
        run.send([failed(2, "down")]);
        run.rewind().unwrap();
        run.expect([]);
        run.send([done(2, 2)]);
    });
    assert_eq!(run.output::<u32>(), 3);
    assert!(run.story().contains(&"failed #0".to_owned()));
}

#[test]
fn failures_that_came_in_one_turn_are_told_apart() {
    let each = |ctx: OrchestrationContext, n: u32| async move {
        match ctx.call(STEP, n).await {
            Ok(result) => Ok(result),
            Err(_) => ctx.call(UNDO, n).await,
        }
    };
    let run = scenario(
        code(move |ctx: OrchestrationContext, (): ()| async move {
            let careless = ctx.call(STEP, 0);
            let (one, two) = join(each(ctx.clone(), 1), each(ctx.clone(), 2)).await;
            Ok(one? + two? + careless.await?)
        }),
        |run| {
            run.start(());
            run.send([failed(1, "down"), failed(0, "down"), failed(2, "down")]);
            run.expect(["call #3 undo 1", "call #4 undo 2"]);
            run.send([done(3, 10), done(4, 20)]);
            assert_eq!(run.status(), Some(OrchestrationStatus::Failed));
            run.rewind().unwrap();
            run.expect([]);
            run.send([done(0, 1)]);
        },
    );
    assert_eq!(run.output::<u32>(), 31);
    let failures: Vec<_> = run.story().into_iter().filter(|line| line.starts_with("failed")).collect();
    assert_eq!(failures, ["failed #1", "failed #2"]);
}

#[test]
fn a_failure_that_was_handled_long_after_it_came_stays() {
    let late = code(|ctx: OrchestrationContext, (): ()| async move {
        let (first, second, third) = (ctx.call(STEP, 1), ctx.call(STEP, 2), ctx.call(STEP, 3));
        first.await?;
        if second.await.is_err() {
            ctx.call(UNDO, 2).await?;
        }
        Ok(third.await?)
    });
    let run = scenario(late, |run| {
        run.start(());
        run.send([failed(1, "down")]);
        run.send([failed(2, "down")]);
        run.send([done(0, 1)]);
        run.expect(["call #3 undo 2"]);
        run.send([done(3, 2)]);
        run.rewind().unwrap();
        run.send([done(2, 3)]);
    });
    assert_eq!(run.output::<u32>(), 3);
}

#[test]
fn more_failures_than_are_looked_at_one_by_one_stay() {
    let stubborn = code(|ctx: OrchestrationContext, (): ()| async move {
        while ctx.call(STEP, 1).await.is_err() {
            if ctx.call(UNDO, 1).await.is_err() {
                return Err(Error::msg("not even that"));
            }
        }
        Ok(1)
    });
    let run = scenario(stubborn, |run| {
        run.start(());
        for n in 0..120 {
            run.send([failed(2 * n, "down")]);
            run.send([done(2 * n + 1, 1)]);
        }
        run.send([failed(240, "down")]);
        run.send([failed(241, "down")]);
        run.rewind().unwrap();
        run.send([done(241, 1)]);
        run.send([done(242, 1)]);
    });
    assert_eq!(run.output::<u32>(), 1);
}

#[test]
fn results_for_the_execution_that_failed_do_not_count() {
    let run = scenario(fan_out(), |run| {
        run.start(());
        run.send([done(0, 1), failed(1, "down"), done(2, 1), done(3, 1)]);
        let old = executions(run)[0];
        run.rewind().unwrap();
        let late = run.message_to(old, done(1, 100));
        assert_eq!(run.turn(vec![late]).discarded, 1);
        run.send([done(1, 1)]);
    });
    assert_eq!(run.output::<u32>(), 4);
}

#[test]
fn timers_go_on_unless_the_code_had_lost_interest() {
    let racing = code(|ctx: OrchestrationContext, (): ()| async move {
        let (short, long) = (ctx.timer(Duration::from_secs(1)), ctx.timer(Duration::from_secs(3600)));
        select(short, long).await;
        let waiting = ctx.timer(Duration::from_secs(60));
        match select(ctx.call(STEP, 1), waiting).await {
            Either::Left((result, waiting)) => {
                result?;
                waiting.await;
            }
            Either::Right(_) => {}
        }
        Ok(())
    });
    let run = scenario(racing, |run| {
        run.start(());
        run.send([fired(0)]);
        run.send([failed(3, "down")]);
        run.rewind().unwrap();
        assert_eq!(run.last().cancelled_timers, [1], "the others have fired, or are waited for");
        run.send([done(3, 1)]);
        run.send([fired(2)]);
    });
    assert_eq!(run.status(), Some(OrchestrationStatus::Completed));
}

#[test]
fn what_nobody_waits_for_is_not_done_again() {
    let careless = code(|ctx: OrchestrationContext, (): ()| async move {
        drop(ctx.call(STEP, 1));
        drop(ctx.call(STEP, 2));
        Ok(ctx.call(STEP, 3).await?)
    });
    let run = scenario(careless, |run| {
        run.start(());
        run.send([failed(1, "down")]);
        run.send([failed(2, "down")]);
        run.rewind().unwrap();
        assert_eq!(run.last().cancelled_activities, [0], "the one that failed is done again all the same");
    });
    assert!(!run.is_over());
}
