//! Which activities an orchestration has lost interest in, and what travels with a call.

use std::time::Duration;

use futures_util::future::{Either, select};
use steadfast_core::failure::LAST_HEARTBEAT;
use steadfast_core::model::{ActivityName, CallOptions, OrchestrationContext, RetryPolicy};
use steadfast_core::{ActivityOptions, EventKind, FailureDetails, OrchestrationStatus, Payload};

use crate::support::{
    Driver, code, done, failed_with, fired, raised, resumed, scenario, suspended, terminated,
};

const STEP: ActivityName<u32, u32> = ActivityName::new("step");

fn cancelled(run: &Driver) -> &[i32] {
    &run.last().cancelled_activities
}

#[test]
fn an_activity_that_loses_a_race_is_cancelled_in_the_turn_that_decides_it() {
    scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let first = match select(ctx.call(STEP, 0), ctx.timer(Duration::from_secs(1))).await {
                Either::Left(_) => 0,
                Either::Right(_) => 1,
            };
            Ok(first + ctx.call(STEP, 1).await?)
        }),
        |run| {
            run.start(());
            assert!(cancelled(run).is_empty());
            run.send([fired(1)]);
            assert_eq!(cancelled(run), [0]);
            assert!(!run.last().ended);
            // The result that comes all the same changes nothing.
            run.send([done(0, 5)]);
            assert!(cancelled(run).is_empty());
            run.send([done(2, 5)]);
            assert!(cancelled(run).is_empty());
            assert!(run.last().ended);
        },
    );
}

#[test]
fn an_execution_that_ends_cancels_all_that_it_did_not_wait_for() {
    let left_open = |how: &'static str| {
        code(move |ctx: OrchestrationContext, (): ()| async move {
            let open: Vec<_> = (0..3).map(|n| ctx.call(STEP, n)).collect();
            ctx.wait_for_event::<()>("end").await?;
            match how {
                "complete" => Ok(0),
                "fail" => Err(steadfast_core::Error::msg("no")),
                "panic" => panic!("no"),
                _ => {
                    ctx.continue_as_new(&())?;
                    drop(open);
                    Ok(0)
                }
            }
        })
    };
    for how in ["complete", "fail", "panic", "continue"] {
        scenario(left_open(how), |run| {
            run.start(());
            run.send([done(1, 5)]);
            run.send([raised("end", ())]);
            assert_eq!(cancelled(run), [0, 2], "{how}");
            assert!(run.last().ended);
        });
    }
    scenario(left_open("complete"), |run| {
        run.start(());
        run.send([terminated("enough")]);
        assert_eq!(cancelled(run), [0, 1, 2]);
    });
}

#[test]
fn what_is_dropped_while_suspended_is_cancelled_when_the_call_itself_goes_out() {
    scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.wait_for_event::<()>("go").await?;
            drop(ctx.call(STEP, 0));
            ctx.wait_for_event::<()>("end").await?;
            Ok(())
        }),
        |run| {
            run.start(());
            run.send([raised("go", ()), suspended()]);
            assert!(cancelled(run).is_empty());
            run.send([resumed()]);
            run.expect(["call #0 step 0"]);
            assert_eq!(cancelled(run), [0]);
        },
    );
}

fn options_of(event: &EventKind) -> Option<ActivityOptions> {
    match event {
        EventKind::TaskScheduled { options, .. } => options.as_deref().cloned(),
        _ => None,
    }
}

#[test]
fn the_options_of_a_call_are_in_the_history_and_a_call_without_has_none() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let options = CallOptions {
                priority: 3,
                start_to_close_timeout: Some(Duration::from_secs(9)),
                heartbeat_timeout: Some(Duration::from_secs(2)),
                tags: [("tenant".to_owned(), "a".to_owned())].into(),
                version: Some("2".to_owned()),
                ..CallOptions::default()
            };
            ctx.call_with(STEP, 1, options).await?;
            Ok(ctx.call_with(STEP, 2, CallOptions::default()).await?)
        }),
        |run| {
            run.start(());
            run.send([done(0, 1)]);
            run.send([done(1, 2)]);
        },
    );
    let calls: Vec<_> =
        run.history.iter().filter(|event| event.event_id >= 0).map(|event| &event.kind).collect();
    let asked = options_of(calls[0]).unwrap();
    assert_eq!((asked.priority, asked.start_to_close), (3, Some(Duration::from_secs(9))));
    assert_eq!((asked.heartbeat, &*asked.tags["tenant"]), (Some(Duration::from_secs(2)), "a"));
    assert!(matches!(calls[0], EventKind::TaskScheduled { version, .. } if version == "2"));
    assert_eq!(options_of(calls[1]), None);
}

#[test]
fn options_may_change_while_an_instance_is_running() {
    let with = |priority| {
        code(move |ctx: OrchestrationContext, (): ()| async move {
            let options = CallOptions { priority, ..CallOptions::default() };
            Ok(ctx.call_with(STEP, 1, options).await?)
        })
    };
    let run = scenario(with(1), |run| {
        run.start(());
        run.deploy(with(2));
        run.send([done(0, 7)]);
    });
    assert_eq!(run.output::<u32>(), 7);
}

#[test]
fn the_heartbeat_of_a_failed_attempt_goes_to_the_next_one() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let options =
                CallOptions { retry: Some(RetryPolicy::new(3, Duration::ZERO)), ..CallOptions::default() };
            Ok(ctx.call_with(STEP, 1, options).await?)
        }),
        |run| {
            run.start(());
            run.send([failed_with(0, FailureDetails::new("E", "e").with_property(LAST_HEARTBEAT, "40"))]);
            run.send([failed_with(1, FailureDetails::new("E", "e"))]);
            run.send([done(2, 7)]);
        },
    );
    let details: Vec<_> = run
        .history
        .iter()
        .filter(|event| matches!(event.kind, EventKind::TaskScheduled { .. }))
        .map(|event| options_of(&event.kind).and_then(|options| options.last_heartbeat))
        .collect();
    // An attempt that told nothing has nothing to hand on.
    assert_eq!(details, [None, Some(Payload::from_json("40")), None]);
    assert_eq!(run.status(), Some(OrchestrationStatus::Completed));
}
