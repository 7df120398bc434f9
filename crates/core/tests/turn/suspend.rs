//! Suspending and resuming.

use steadfast_core::OrchestrationStatus;
use steadfast_core::model::{ActivityName, OrchestrationContext, Registry};

use crate::support::{code, done, fired, raised, resumed, scenario, suspended, terminated};

const STEP: ActivityName<u32, u32> = ActivityName::new("step");

fn two_steps() -> Registry {
    code(|ctx: OrchestrationContext, (): ()| async move {
        let first = ctx.call(STEP, 0).await?;
        Ok(first + ctx.call(STEP, 1).await?)
    })
}

#[test]
fn nothing_is_emitted_while_suspended_and_everything_when_resumed() {
    let run = scenario(two_steps(), |run| {
        run.start(());
        run.send([suspended()]);
        run.send([done(0, 1)]);
        run.expect([]);
        run.send([raised("noise", 0)]);
        run.expect([]);
        run.send([resumed()]);
        run.expect(["call #1 step 1"]);
        run.send([done(1, 2)]);
    });
    assert_eq!(run.output::<u32>(), 3);
}

#[test]
fn what_was_asked_for_in_the_turn_of_the_suspension_waits_too() {
    let run = scenario(two_steps(), |run| {
        run.start_and([suspended()]);
        run.expect([]);
        assert!(run.last().messages.is_empty());
        run.send([resumed()]);
        run.expect(["call #0 step 0"]);
        run.send([done(0, 1), suspended()]);
        run.expect([]);
        run.send([resumed()]);
        run.expect(["call #1 step 1"]);
    });
    assert!(!run.is_over());
}

#[test]
fn a_completion_behind_the_suspension_in_its_batch_is_held() {
    let run = scenario(two_steps(), |run| {
        run.start(());
        run.send([done(0, 1)]);
        run.send([suspended(), done(1, 2)]);
        assert_eq!((run.emitted().len(), run.is_over()), (0, false));
        run.send([resumed()]);
    });
    run.expect(["Completed #2 3"]);
}

#[test]
fn a_completion_before_the_suspension_in_its_batch_ends_the_execution() {
    let run = scenario(two_steps(), |run| {
        run.start(());
        run.send([done(0, 1)]);
        run.send([done(1, 2), suspended()]);
    });
    run.expect(["Completed #2 3"]);
    assert_eq!(run.last().discarded, 1);
    assert!(!run.story().contains(&"ExecutionSuspended".to_owned()));
}

#[test]
fn held_events_keep_their_order_over_several_turns_and_suspensions() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let mut seen = Vec::new();
            for _ in 0..5 {
                seen.push(ctx.wait_for_event::<u32>("e").await?);
            }
            Ok(seen)
        }),
        |run| {
            run.start(());
            run.send([raised("e", 1), suspended(), raised("e", 2)]);
            run.send([raised("e", 3), suspended()]);
            run.send([raised("e", 4), resumed(), raised("e", 5)]);
        },
    );
    assert_eq!(run.output::<Vec<u32>>(), [1, 2, 3, 4, 5]);
}

#[test]
fn held_results_decide_a_race_in_the_order_in_which_they_arrived() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            use futures_util::future::{Either, select};
            let timer = ctx.timer(std::time::Duration::from_secs(60));
            Ok(matches!(select(ctx.call(STEP, 0), timer).await, Either::Right(_)))
        }),
        |run| {
            run.start(());
            run.send([suspended(), fired(0)]);
            run.send([done(1, 1)]);
            run.send([resumed()]);
        },
    );
    assert!(run.output::<bool>(), "the timer fired first");
}

#[test]
fn suspended_and_resumed_in_one_batch_is_as_if_nothing_had_happened() {
    let run = scenario(two_steps(), |run| {
        run.start(());
        run.send([suspended(), done(0, 1), resumed()]);
        run.expect(["call #1 step 1"]);
        run.send([resumed(), done(1, 1), suspended()]);
    });
    assert_eq!(run.status(), Some(OrchestrationStatus::Completed));
}

#[test]
fn resuming_what_is_not_suspended_changes_nothing() {
    let run = scenario(two_steps(), |run| {
        run.start_and([resumed(), resumed()]);
        run.send([resumed(), done(0, 1), resumed()]);
        run.send([done(1, 1)]);
    });
    assert_eq!(run.output::<u32>(), 2);
}

#[test]
fn one_resumption_ends_any_number_of_suspensions() {
    let run = scenario(two_steps(), |run| {
        run.start(());
        run.send([suspended(), suspended()]);
        run.send([suspended()]);
        run.send([done(0, 1), resumed()]);
        run.expect(["call #1 step 1"]);
    });
    assert!(!run.is_over());
}

#[test]
fn suspended_before_it_began_it_runs_and_emits_nothing() {
    let run = scenario(two_steps(), |run| {
        let start = run.start_of("test", ());
        let suspend = run.message(suspended());
        run.turn(vec![suspend.clone(), start]);
        // The suspension was for nobody: the instance did not exist.
        assert_eq!(run.last().discarded, 1);
        run.expect(["call #0 step 0"]);
        run.turn(vec![suspend]);
        run.send([terminated("enough")]);
    });
    assert_eq!(run.status(), Some(OrchestrationStatus::Terminated));
}

#[test]
fn terminating_wins_over_a_suspension_and_over_results_that_are_held() {
    let run = scenario(two_steps(), |run| {
        run.start(());
        run.send([suspended(), done(0, 1)]);
        run.send([terminated("enough"), terminated("too late"), resumed()]);
    });
    assert_eq!(run.status(), Some(OrchestrationStatus::Terminated));
    run.expect(["Terminated #1"]);
    assert!(run.is_over());
}

#[test]
fn the_first_of_two_terminations_gives_the_reason_also_while_suspended() {
    use crate::support::instance;
    use steadfast_core::{EventKind, ExecutionId, ParentInstance};
    for prelude in [None, Some(suspended())] {
        let run = scenario(two_steps(), |run| {
            let mut start = run.start_of("test", ());
            if let EventKind::ExecutionStarted(started) = &mut start.event.kind {
                let execution = ExecutionId::new(uuid::Uuid::from_u128(9));
                started.parent = Some(ParentInstance {
                    instance: instance(),
                    execution,
                    task_scheduled_id: 0,
                    name: "test".into(),
                });
            }
            run.turn(vec![start]);
            run.send(prelude.clone());
            run.send([terminated("first"), terminated("second")]);
        });
        let EventKind::SubOrchestrationInstanceFailed { failure, .. } = &run.last().messages[0].event.kind
        else {
            panic!("{:?}", run.last().messages)
        };
        assert_eq!((failure.error_type.as_str(), failure.message.as_str()), ("Terminated", "first"));
    }
}

#[test]
fn code_that_was_wrong_while_suspended_fails_when_resumed() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.wait_for_event::<()>("e").await?;
            Err::<(), _>(steadfast_core::Error::msg("broken"))
        }),
        |run| {
            run.start(());
            run.send([suspended(), raised("e", ())]);
            assert!(!run.is_over());
            run.send([resumed()]);
        },
    );
    assert_eq!(run.failure().message, "broken");
}

/// Each generation ends in the turn in which it begins.
#[test]
fn suspending_an_instance_whose_every_generation_ends_at_once_stops_it() {
    let run = scenario(
        code(|ctx: OrchestrationContext, n: u32| async move {
            ctx.continue_as_new(&(n + 1))?;
            Ok(())
        }),
        |run| {
            run.start(0);
            run.next_generation([suspended()]);
            run.expect([]);
            assert!(!run.is_over());
            run.send([raised("noise", ())]);
            run.expect([]);
            run.send([resumed()]);
            run.expect(["next #0 2"]);
            run.next_generation([suspended(), raised("noise", ()), resumed()]);
            run.expect(["next #0 3"]);
        },
    );
    assert_eq!(
        run.story(),
        ["started 2", "ExecutionSuspended", "raised noise null", "ExecutionResumed", "next #0 3"]
    );
}
