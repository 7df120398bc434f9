//! Retry policies: every field, and what they leave in the history.

use std::time::Duration;

use steadfast_core::model::{
    ActivityName, OrchestrationContext, OrchestrationName, Registry, RetryPolicy, SubOrchestrationOptions,
};
use steadfast_core::{EventKind, FailureDetails, HistoryEvent, OrchestrationStatus};

use crate::support::{Driver, child_done, child_failed, code, done, failed, failed_with, fired, scenario};

const FLAKY: ActivityName<u32, u32> = ActivityName::new("flaky");

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn flaky(policy: RetryPolicy) -> Registry {
    code(move |ctx: OrchestrationContext, (): ()| {
        let policy = policy.clone();
        async move { Ok(ctx.call_with_retry(FLAKY, 7, policy).await?) }
    })
}

/// Lets every attempt fail and every timer fire at its time, until the code ends.
fn exhaust(run: &mut Driver) {
    run.start(());
    while !run.is_over() {
        let last = run.last().events.iter().rev().nth(1).unwrap().clone();
        match last.kind {
            EventKind::TaskScheduled { .. } => run.send([failed(last.event_id, "again")]),
            EventKind::TimerCreated { fire_at } => {
                run.now = fire_at;
                run.send([fired(last.event_id)])
            }
            other => panic!("neither a call nor a timer: {other:?}"),
        };
    }
}

/// How long each timer was set for, in whole seconds.
fn intervals(history: &[HistoryEvent]) -> Vec<u64> {
    let timers = history.iter().filter_map(|event| match event.kind {
        EventKind::TimerCreated { fire_at } => Some(fire_at.since(event.timestamp).as_secs()),
        _ => None,
    });
    timers.collect()
}

fn calls(history: &[HistoryEvent]) -> usize {
    history.iter().filter(|event| matches!(event.kind, EventKind::TaskScheduled { .. })).count()
}

#[test]
fn failing_attempts_make_as_many_calls_and_one_timer_less() {
    for attempts in [1, 2, 5] {
        let run = scenario(flaky(RetryPolicy::new(attempts, seconds(3))), exhaust);
        assert_eq!(calls(&run.history), attempts as usize);
        assert_eq!(intervals(&run.history), vec![3; attempts as usize - 1]);
        assert_eq!(run.status(), Some(OrchestrationStatus::Failed));
        // The last failure is the one that is reported.
        let id = 2 * (attempts - 1);
        assert_eq!(run.failure().message, format!("activity 'flaky' (#{id}) failed: again"));
    }
}

#[test]
fn zero_attempts_count_as_one() {
    let run = scenario(flaky(RetryPolicy::new(0, seconds(3))), exhaust);
    assert_eq!((calls(&run.history), intervals(&run.history).len()), (1, 0));
}

#[test]
fn a_success_after_failures_ends_the_attempts_and_sends_the_same_input_each_time() {
    let run = scenario(flaky(RetryPolicy::new(9, seconds(1))), |run| {
        run.start(());
        run.expect(["call #0 flaky 7"]);
        run.send([failed(0, "no")]);
        run.expect(["timer #1"]);
        run.send([fired(1)]);
        run.expect(["call #2 flaky 7"]);
        run.send([done(2, 5)]);
    });
    assert_eq!(run.output::<u32>(), 5);
}

#[test]
fn intervals_grow_by_the_coefficient_up_to_the_longest() {
    let policy = RetryPolicy::new(7, seconds(2)).backoff(3.0).max_interval(seconds(100));
    let run = scenario(flaky(policy), exhaust);
    assert_eq!(intervals(&run.history), [2, 6, 18, 54, 100, 100]);
}

#[test]
fn a_coefficient_below_one_or_not_a_number_leaves_the_interval_as_it_is() {
    for coefficient in [0.5, -2.0, f64::NAN] {
        let run = scenario(flaky(RetryPolicy::new(4, seconds(2)).backoff(coefficient)), exhaust);
        assert_eq!(intervals(&run.history), [2, 2, 2]);
    }
}

#[test]
fn a_first_interval_longer_than_the_longest_is_shortened() {
    let run = scenario(flaky(RetryPolicy::new(2, seconds(50)).max_interval(seconds(4))), exhaust);
    assert_eq!(intervals(&run.history), [4]);
}

#[test]
fn endless_growth_saturates_instead_of_panicking() {
    let policy = RetryPolicy::new(u32::MAX, seconds(1)).backoff(f64::INFINITY);
    assert_eq!(policy.delay_after(5), Duration::MAX);
    assert_eq!(RetryPolicy::new(9, Duration::MAX).backoff(9.0).delay_after(u32::MAX), Duration::MAX);
    // Nothing times infinity is nothing.
    assert_eq!(RetryPolicy::new(9, Duration::ZERO).backoff(2.0).delay_after(u32::MAX), Duration::ZERO);
}

#[test]
fn without_an_interval_attempts_follow_each_other_without_timers() {
    let run = scenario(flaky(RetryPolicy::new(3, Duration::ZERO)), exhaust);
    assert_eq!((calls(&run.history), intervals(&run.history).len()), (3, 0));
}

#[test]
fn no_attempt_begins_after_the_overall_timeout() {
    // Attempts would begin after 0, 11, 22, 33 … seconds: a turn takes one, an interval ten.
    let run = scenario(flaky(RetryPolicy::new(100, seconds(10)).timeout(seconds(25))), exhaust);
    assert_eq!(calls(&run.history), 3);
    assert_eq!(run.status(), Some(OrchestrationStatus::Failed));
}

#[test]
fn the_overall_timeout_counts_from_the_call_and_not_from_its_await() {
    let policy = RetryPolicy::new(100, seconds(10)).timeout(seconds(25));
    let run = scenario(
        code(move |ctx: OrchestrationContext, (): ()| {
            let policy = policy.clone();
            async move {
                let call = ctx.call_with_retry(FLAKY, 7, policy);
                ctx.timer(seconds(20)).await;
                Ok(call.await?)
            }
        }),
        |run| {
            run.start(());
            run.send([failed(0, "no")]);
            run.now = run.now.after(seconds(20));
            run.send([fired(1)]);
        },
    );
    assert_eq!(run.status(), Some(OrchestrationStatus::Failed));
}

#[test]
fn failures_that_the_predicate_refuses_are_not_tried_again() {
    let policy = RetryPolicy::new(9, seconds(1)).retry_if(|failure| failure.message == "again");
    let run = scenario(flaky(policy), |run| {
        run.start(());
        run.send([failed(0, "again")]);
        run.send([fired(1)]);
        run.send([failed(2, "declined")]);
    });
    assert_eq!(run.failure().message, "activity 'flaky' (#2) failed: declined");
    assert_eq!(intervals(&run.history), [1]);
}

#[test]
fn non_retriable_failures_are_not_tried_again_whatever_the_predicate_says() {
    let run = scenario(flaky(RetryPolicy::new(9, seconds(1)).retry_if(|_| true)), |run| {
        run.start(());
        run.send([failed_with(0, FailureDetails::new("Declined", "no").non_retriable())]);
    });
    assert!(run.is_over() && run.failure().non_retriable);
    assert_eq!(calls(&run.history), 1);
}

#[test]
fn a_predicate_that_panics_fails_the_orchestration() {
    let policy = RetryPolicy::new(9, seconds(1)).retry_if(|_| panic!("bad predicate"));
    let run = scenario(flaky(policy), |run| {
        run.start(());
        run.send([failed(0, "no")]);
    });
    assert_eq!(
        (run.failure().error_type.as_str(), run.failure().message.as_str()),
        ("Panic", "bad predicate")
    );
}

#[test]
fn retries_of_parallel_calls_do_not_disturb_each_other() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let policy = || RetryPolicy::new(3, seconds(1));
            let calls = (0..3).map(|n| ctx.call_with_retry(FLAKY, n, policy()));
            Ok(futures_util::future::try_join_all(calls).await?)
        }),
        |run| {
            run.start(());
            run.send([failed(1, "no"), failed(0, "no"), done(2, 12)]);
            run.expect(["timer #3", "timer #4"]);
            run.send([fired(4), fired(3)]);
            run.expect(["call #5 flaky 0", "call #6 flaky 1"]);
            run.send([done(6, 11), done(5, 10)]);
        },
    );
    assert_eq!(run.output::<Vec<u32>>(), [10, 11, 12]);
}

#[test]
fn a_retried_child_gets_a_new_id_unless_one_is_given() {
    const CHILD: OrchestrationName<(), u32> = OrchestrationName::new("child");
    for given in [None, Some("child-1")] {
        let run = scenario(
            code(move |ctx: OrchestrationContext, (): ()| async move {
                let options = SubOrchestrationOptions {
                    instance_id: given.map(str::to_owned),
                    retry: Some(RetryPolicy::new(2, seconds(1))),
                    ..Default::default()
                };
                Ok(ctx.call_orchestration_with(CHILD, (), options).await?)
            }),
            |run| {
                run.start(());
                run.send([child_failed(0, FailureDetails::new("Flaky", "no"))]);
                run.send([fired(1)]);
                run.send([child_done(2, 3)]);
            },
        );
        let children: Vec<_> = run.turns.iter().flat_map(|turn| &turn.messages).collect();
        assert_eq!(children.len(), 2);
        assert_eq!(children[0].instance == children[1].instance, given.is_some());
        assert_ne!(children[0].execution, children[1].execution);
        assert_eq!(run.output::<u32>(), 3);
    }
}
