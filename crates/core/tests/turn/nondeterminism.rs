//! Code that asks for something else than the history says.

use std::sync::Arc;
use std::time::Duration;

use steadfast_core::model::{ActivityName, OrchestrationContext, OrchestrationName, Registry};
use steadfast_core::turn::Session;
use steadfast_core::{EventKind, HistoryEvent, OrchestrationStatus, Result};

use crate::support::{
    Driver, MAX_PAYLOAD, child_done, code, done, fired, instance, raised, resumed, suspended,
};

const STEP: ActivityName<u32, u32> = ActivityName::new("step");
const OTHER: ActivityName<u32, u32> = ActivityName::new("other");
const CHILD: OrchestrationName<u32, u32> = OrchestrationName::new("child");
const OTHER_CHILD: OrchestrationName<u32, u32> = OrchestrationName::new("other-child");

/// One thing to ask for; code that is a list of them is easily changed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ask {
    Activity,
    OtherActivity,
    NewVersion,
    Timer,
    Child,
    OtherChild,
    Detached,
    Send,
    SendElsewhere,
}

const ALL: [Ask; 9] = [
    Ask::Activity,
    Ask::OtherActivity,
    Ask::NewVersion,
    Ask::Timer,
    Ask::Child,
    Ask::OtherChild,
    Ask::Detached,
    Ask::Send,
    Ask::SendElsewhere,
];

/// How a failure's text speaks of it.
fn described(ask: Ask) -> &'static str {
    match ask {
        Ask::Activity => "activity 'step'",
        Ask::OtherActivity => "activity 'other'",
        Ask::NewVersion => "activity 'step' version '2'",
        Ask::Timer => "a timer",
        Ask::Child | Ask::Detached => "sub-orchestration 'child' with id",
        Ask::OtherChild => "sub-orchestration 'other-child' with id",
        Ask::Send => "event 'hello' sent to 'there'",
        Ask::SendElsewhere => "event 'hello' sent to 'elsewhere'",
    }
}

/// Asks for things, all at once, then waits for as many events.
fn asks(asked: Vec<Ask>, waits: u32) -> Registry {
    code(move |ctx: OrchestrationContext, (): ()| {
        let asked = asked.clone();
        async move {
            let mut open: Vec<Box<dyn std::any::Any>> = Vec::new();
            for ask in asked {
                match ask {
                    Ask::Activity => open.push(Box::new(ctx.call(STEP, 0))),
                    Ask::OtherActivity => open.push(Box::new(ctx.call(OTHER, 0))),
                    Ask::NewVersion => open.push(Box::new(ctx.call(STEP.version("2"), 0))),
                    Ask::Timer => open.push(Box::new(ctx.timer(Duration::from_secs(9)))),
                    Ask::Child => open.push(Box::new(ctx.call_orchestration(CHILD, 0))),
                    Ask::OtherChild => open.push(Box::new(ctx.call_orchestration(OTHER_CHILD, 0))),
                    Ask::Detached => drop(ctx.start_orchestration(CHILD, 0, None)?),
                    Ask::Send => ctx.raise_event("there", "hello", &0)?,
                    Ask::SendElsewhere => ctx.raise_event("elsewhere", "hello", &0)?,
                }
            }
            for _ in 0..waits {
                ctx.wait_for_event::<()>("e").await?;
            }
            Ok(())
        }
    })
}

/// Runs old code, deploys new code, and wakes the instance.
fn deploy(old: Registry, new: Registry) -> Driver {
    let mut run = Driver::new(Arc::new(old), false);
    run.start(());
    run.deploy(new);
    run.send([raised("e", ())]);
    run
}

/// The instance failed at `id`, did nothing else, and the text says what was expected and what was found.
fn assert_told(run: &Driver, id: i32, expected: &str, found: &str) {
    assert_eq!(run.status(), Some(OrchestrationStatus::Failed));
    let failure = run.failure();
    assert_eq!(failure.error_type, "NonDeterminism", "{failure}");
    assert!(failure.non_retriable);
    for part in [&format!("#{id} "), expected, found, "register the changed code as a new version"] {
        assert!(failure.message.contains(part), "{part:?} is not in {:?}", failure.message);
    }
    assert_eq!(run.emitted().len(), 1, "something was done: {:?}", run.emitted());
    assert!(run.last().messages.is_empty() && run.last().cancelled_timers.is_empty());
    assert!(run.is_over());
}

#[test]
fn every_pair_of_different_actions_is_told_apart() {
    for then in ALL {
        for now in ALL {
            let run = deploy(asks(vec![Ask::Send, then], 2), asks(vec![Ask::Send, now], 2));
            if then == now {
                assert_eq!(run.status(), None, "{then:?}");
            } else {
                let found = format!("asks for {}", described(now));
                assert_told(&run, 1, &format!("is {}", described(then)), &found);
            }
        }
    }
}

#[test]
fn an_action_that_is_missing_is_told() {
    for then in ALL {
        let run = deploy(asks(vec![then], 2), asks(vec![], 2));
        assert_told(&run, 0, described(then), "asks for nothing at that point");
    }
}

#[test]
fn an_action_that_is_new_is_told() {
    for now in ALL {
        let run = deploy(asks(vec![Ask::Send], 2), asks(vec![Ask::Send, now], 2));
        assert_told(&run, 1, "the end of the turn", &format!("asks for {}", described(now)));
    }
}

#[test]
fn actions_in_another_order_are_told() {
    let run = deploy(asks(vec![Ask::Activity, Ask::Timer], 2), asks(vec![Ask::Timer, Ask::Activity], 2));
    assert_told(&run, 0, "activity 'step'", "asks for a timer as #0");
}

#[test]
fn code_that_ends_early_is_told_also_how_it_failed() {
    let run = deploy(asks(vec![], 2), asks(vec![], 0));
    assert_told(&run, 0, "a turn that waits", "ends");

    let broken = code(|_: OrchestrationContext, (): ()| async move {
        Err::<(), _>(steadfast_core::Error::new("Broken", "changed code fails"))
    });
    let run = deploy(asks(vec![Ask::Activity], 2), broken);
    assert_told(&run, 0, "activity 'step'", "asks for nothing at that point");
    assert!(run.failure().is_caused_by("Broken"));
}

#[test]
fn code_that_goes_on_where_the_history_ends_is_only_found_when_the_history_is_replayed() {
    let mut run = Driver::new(Arc::new(asks(vec![], 1)), false);
    run.start(());
    run.send([raised("e", ())]);
    assert_eq!(run.status(), Some(OrchestrationStatus::Completed));
    let mut session = Session::new(Arc::new(asks(vec![], 2)), instance(), MAX_PAYLOAD);
    session.replay(&run.history).unwrap();
    assert!(session.is_over(), "an ended execution stays ended");
}

#[test]
fn a_completion_of_another_kind_is_told() {
    let waits_for = |ask: Ask| {
        code(move |ctx: OrchestrationContext, (): ()| async move {
            Ok(match ask {
                Ask::Activity => ctx.call(STEP, 0).await?,
                Ask::Child => ctx.call_orchestration(CHILD, 0).await?,
                _ => {
                    ctx.timer(Duration::from_secs(9)).await;
                    0
                }
            })
        })
    };
    let cases = [
        (Ask::Activity, child_done(0, 0), "SubOrchestrationInstanceCompleted", "waits for an activity"),
        (Ask::Activity, fired(0), "TimerFired", "waits for an activity"),
        (Ask::Child, done(0, 0), "TaskCompleted", "waits for a sub-orchestration"),
        (Ask::Timer, done(0, 0), "TaskCompleted", "waits for a timer"),
    ];
    for (ask, completion, expected, found) in cases {
        let mut run = Driver::new(Arc::new(waits_for(ask)), false);
        run.start(());
        run.send([completion]);
        assert_told(&run, 0, expected, found);
    }
}

#[test]
fn inputs_and_times_may_change() {
    let version = |input: u32, seconds: u64| {
        code(move |ctx: OrchestrationContext, (): ()| async move {
            let (call, timer) = (ctx.call(STEP, input), ctx.timer(Duration::from_secs(seconds)));
            ctx.raise_event("there", "hello", &input)?;
            timer.await;
            Ok(call.await?)
        })
    };
    let mut run = Driver::new(Arc::new(version(1, 1)), false);
    run.start(());
    run.deploy(version(2, 2));
    run.send([fired(1), done(0, 5)]);
    assert_eq!(run.output::<u32>(), 5);
}

#[test]
fn the_difference_is_found_wherever_in_a_long_history_it_is() {
    let steps = |changed: Option<u32>| {
        code(move |ctx: OrchestrationContext, (): ()| async move {
            for n in 0..20 {
                let name = if Some(n) == changed { OTHER } else { STEP };
                ctx.call(name, n).await?;
            }
            Ok(())
        })
    };
    for changed in 0..19 {
        let mut run = Driver::new(Arc::new(steps(None)), false);
        run.start(());
        for id in 0..18 {
            run.send([done(id, 0)]);
        }
        let clock = run.now;
        run.deploy(steps(Some(changed)));
        run.now = steadfast_core::Timestamp::default();
        run.send([done(18, 0)]);
        assert_told(&run, changed as i32, "is activity 'step'", "asks for activity 'other'");
        // What came behind the difference still counts: ids are not used twice, time does not go back.
        let end = run.history.iter().find(|event| matches!(event.kind, EventKind::ExecutionCompleted { .. }));
        let end = end.unwrap();
        assert_eq!(end.event_id, 19);
        assert_eq!(end.timestamp.after(Duration::from_secs(1)), clock);
    }
}

#[test]
fn a_suspended_instance_that_disagrees_fails_when_it_is_resumed() {
    let mut run = Driver::new(Arc::new(asks(vec![Ask::Activity], 2)), false);
    run.start(());
    run.send([suspended()]);
    run.deploy(asks(vec![Ask::Timer], 2));
    run.send([raised("e", ())]);
    run.expect([]);
    run.send([resumed()]);
    assert_told(&run, 0, "activity 'step'", "asks for a timer as #0");
}

#[test]
fn a_difference_is_only_reported_when_the_instance_wakes() {
    let mut run = Driver::new(Arc::new(asks(vec![Ask::Activity], 2)), false);
    run.start(());
    let turns = run.turns.len();
    run.deploy(asks(vec![Ask::Timer], 2));
    run.deploy(asks(vec![Ask::Activity], 2));
    run.send([raised("e", ())]);
    assert_eq!((run.status(), run.turns.len()), (None, turns + 1));
}

fn replay(
    registry: &Arc<Registry>,
    pieces: &[&[HistoryEvent]],
) -> Result<Session, steadfast_core::turn::Unfit> {
    let mut session = Session::new(registry.clone(), instance(), MAX_PAYLOAD);
    for piece in pieces {
        session.replay(piece)?;
    }
    Ok(session)
}

#[test]
fn a_difference_is_the_same_however_the_history_is_cut() {
    let mut run = Driver::new(Arc::new(asks(vec![Ask::Activity, Ask::Timer], 5)), false);
    run.start(());
    run.send([raised("e", ()), suspended()]);
    run.send([resumed(), raised("e", ())]);
    let changed = Arc::new(asks(vec![Ask::Activity, Ask::Child], 5));
    let wake = || vec![run.message(raised("e", ()))];
    let whole = replay(&changed, &[&run.history]).unwrap().turn(wake(), run.now);
    assert!(whole.events.len() > 1);
    let turns =
        run.history.iter().enumerate().filter(|(_, event)| event.kind == EventKind::OrchestratorStarted);
    for (cut, _) in turns {
        let (prefix, rest) = run.history.split_at(cut);
        let cut = replay(&changed, &[prefix, rest]).unwrap().turn(wake(), run.now);
        assert_eq!(cut, whole);
    }
}
