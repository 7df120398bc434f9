//! Continue-as-new: what goes along, and what wins against it.

use steadfast_core::model::{
    ActivityName, ContinueAsNewOptions, OrchestrationContext, Register, Registry, orchestration,
};
use steadfast_core::{CarriedEvent, EventKind, ExecutionStarted, OrchestrationStatus};

use crate::support::{Driver, TEST, code, done, raised, resumed, scenario, suspended, terminated};

const STEP: ActivityName<u32, u32> = ActivityName::new("step");

fn next_of(run: &Driver) -> ExecutionStarted {
    match run.next_start().event.kind {
        EventKind::ExecutionStarted(started) => *started,
        other => panic!("{other:?}"),
    }
}

fn carried(events: &[CarriedEvent]) -> Vec<String> {
    events.iter().map(|event| format!("{} {}", event.name, event.input)).collect()
}

/// Continues as new when "go" arrives, with or without events that were not consumed.
fn goes_on(preserve_events: bool) -> Registry {
    code(move |ctx: OrchestrationContext, n: u32| async move {
        ctx.wait_for_event::<()>("go").await?;
        let options = ContinueAsNewOptions { preserve_events, ..Default::default() };
        ctx.continue_as_new_with(&(n + 1), options)?;
        Ok(())
    })
}

#[test]
fn the_next_execution_has_the_new_input_a_new_id_and_an_empty_history() {
    let run = scenario(goes_on(true), |run| {
        run.start(1);
        run.send([raised("go", ())]);
        run.expect(["next #0 2"]);
        assert!(run.is_over());
        run.next_generation([]);
    });
    assert_eq!(run.story(), ["started 2"]);
    let (first, second) = (run.turns[0].execution, run.last().execution);
    assert_ne!(first, second);
}

#[test]
fn name_tags_parent_and_version_go_along() {
    let run = scenario(goes_on(true), |run| {
        let mut start = run.start_of(TEST, 1);
        if let EventKind::ExecutionStarted(started) = &mut start.event.kind {
            started.tags.insert("tenant".into(), "a".into());
        }
        run.turn(vec![start]);
        run.send([raised("go", ())]);
    });
    let next = next_of(&run);
    assert_eq!((next.name.as_str(), next.generation, next.tags["tenant"].as_str()), (TEST, 1, "a"));
}

#[test]
fn events_that_nobody_consumed_go_along_in_order_of_arrival() {
    let run = scenario(goes_on(true), |run| {
        run.start(1);
        // Before, in an earlier turn; before, in the same batch; behind, in the same batch.
        run.send([raised("b", 1), raised("a", 2)]);
        run.send([raised("b", 3), raised("go", ()), raised("a", 4), raised("b", 5)]);
    });
    assert_eq!(carried(&next_of(&run).carried_events), ["b 1", "a 2", "b 3", "a 4", "b 5"]);
    let arrived: Vec<_> = next_of(&run).carried_events.iter().map(|event| event.timestamp).collect();
    assert!(arrived.is_sorted() && arrived[0] < arrived[4]);
}

#[test]
fn an_event_that_was_handed_to_a_waiter_and_not_taken_goes_along_at_its_place() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let waiter = ctx.wait_for_event::<u32>("a");
            ctx.wait_for_event::<()>("go").await?;
            ctx.continue_as_new(&())?;
            drop(waiter);
            Ok(())
        }),
        |run| {
            run.start(());
            run.send([raised("b", 0), raised("a", 1), raised("a", 2), raised("go", ())]);
        },
    );
    assert_eq!(carried(&next_of(&run).carried_events), ["b 0", "a 1", "a 2"]);
}

#[test]
fn an_event_that_was_handed_to_a_waiter_that_outlives_the_code_goes_along() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            std::mem::forget(ctx.wait_for_event::<u32>("a"));
            ctx.wait_for_event::<()>("go").await?;
            ctx.continue_as_new(&())?;
            Ok(())
        }),
        |run| {
            run.start(());
            run.send([raised("a", 1), raised("go", ()), raised("a", 2)]);
        },
    );
    assert_eq!(carried(&next_of(&run).carried_events), ["a 1", "a 2"]);
}

#[test]
fn an_event_that_was_consumed_does_not_go_along() {
    let run = scenario(goes_on(true), |run| {
        run.start(1);
        run.send([raised("go", ()), raised("go", ())]);
        assert_eq!(carried(&next_of(run).carried_events), ["go null"]);
        // The second one is there from the start.
        run.next_generation([]);
        assert!(run.is_over());
        assert!(next_of(run).carried_events.is_empty());
        run.next_generation([]);
    });
    assert_eq!(run.story(), ["started 3"]);
}

#[test]
fn events_can_be_left_behind() {
    let run = scenario(goes_on(false), |run| {
        run.start(1);
        run.send([raised("a", 1), raised("go", ()), raised("a", 2)]);
    });
    assert!(next_of(&run).carried_events.is_empty());
}

#[test]
fn messages_that_stand_before_the_next_start_are_for_the_next_execution() {
    let run = scenario(goes_on(true), |run| {
        run.start(1);
        let old = run.last().execution.unwrap();
        run.send([raised("go", ())]);
        let early = run.message(raised("go", ()));
        let stale = run.message_to(old, done(0, 1));
        run.turn(vec![early, stale, run.next_start()]);
        assert_eq!(run.last().discarded, 1);
        run.expect(["next #0 3"]);
    });
    assert_eq!(run.status(), Some(OrchestrationStatus::ContinuedAsNew));
}

#[test]
fn suspending_in_the_turn_that_continues_as_new_suspends_the_next_execution() {
    let run = scenario(goes_on(true), |run| {
        run.start(1);
        run.send([raised("go", ()), suspended()]);
        let messages = run.last().messages.clone();
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[1].execution, messages[0].execution);
        let [start, suspension] = <[_; 2]>::try_from(messages).unwrap();
        run.turn(vec![start, suspension]);
        run.send([raised("go", ())]);
        run.expect([]);
        run.send([resumed()]);
        run.expect(["next #0 3"]);
    });
    assert!(run.is_over());
}

#[test]
fn events_held_by_a_suspension_go_along_when_the_first_of_them_continues_as_new() {
    let run = scenario(goes_on(true), |run| {
        run.start(1);
        run.send([suspended(), raised("go", ()), raised("a", 1)]);
        run.send([raised("a", 2), resumed(), raised("a", 3)]);
    });
    assert_eq!(carried(&next_of(&run).carried_events), ["a 1", "a 2", "a 3"]);
}

#[test]
fn the_last_call_wins_and_code_behind_it_still_runs() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.continue_as_new(&1)?;
            ctx.continue_as_new(&2)?;
            Ok(ctx.call(STEP, 7).await?)
        }),
        |run| {
            run.start(());
            run.expect(["call #0 step 7"]);
            run.send([done(0, 1)]);
        },
    );
    run.expect(["next #1 2"]);
}

#[test]
fn failing_after_the_call_fails() {
    let run = scenario(
        code(|ctx: OrchestrationContext, panics: bool| async move {
            ctx.continue_as_new(&true)?;
            assert!(!panics, "a panic counts too");
            Err::<(), _>(steadfast_core::Error::msg("changed my mind"))
        }),
        |run| {
            run.start(false);
            assert_eq!(run.failure().message, "changed my mind");
            run.start(true);
        },
    );
    assert_eq!(run.failure().message, "a panic counts too");
    assert!(run.last().messages.is_empty());
}

#[test]
fn terminating_in_the_same_batch_wins() {
    let run = scenario(goes_on(true), |run| {
        run.start(1);
        run.send([raised("go", ()), raised("a", 1), suspended(), terminated("enough")]);
    });
    run.expect(["Terminated #0"]);
    assert!(run.last().messages.is_empty());
}

#[test]
fn terminating_before_the_next_execution_began_keeps_it_from_running() {
    let run = scenario(goes_on(true), |run| {
        run.start(1);
        run.send([raised("go", ()), raised("go", ())]);
        run.next_generation([terminated("enough")]);
    });
    assert_eq!(run.story(), ["started 2", "terminate enough", "Terminated #0"]);
}

#[test]
fn the_next_execution_may_have_another_version() {
    let mut registry = Registry::default();
    let version = |name: &'static str, to: Option<&'static str>| {
        let code = move |ctx: OrchestrationContext, (): ()| async move {
            let options = ContinueAsNewOptions { version: to.map(str::to_owned), ..Default::default() };
            if to.is_some() {
                ctx.continue_as_new_with(&(), options)?;
            }
            Ok::<_, steadfast_core::Error>(ctx.version().to_string())
        };
        orchestration(TEST, code).version(name)
    };
    version("1", Some("2")).register(&mut registry).unwrap();
    version("2", None).register(&mut registry).unwrap();
    let run = scenario(registry, |run| {
        let mut start = run.start_of(TEST, ());
        if let EventKind::ExecutionStarted(started) = &mut start.event.kind {
            started.version = "1".into();
        }
        run.turn(vec![start]);
        run.next_generation([]);
    });
    assert_eq!(run.output::<String>(), "2");
}

#[test]
fn a_version_that_is_not_registered_fails_the_next_execution() {
    let code = |ctx: OrchestrationContext, (): ()| async move {
        let options = ContinueAsNewOptions { version: Some("9".to_owned()), ..Default::default() };
        ctx.continue_as_new_with(&(), options)
    };
    let mut registry = Registry::default();
    orchestration(TEST, code).version("1").register(&mut registry).unwrap();
    let run = scenario(registry, |run| {
        run.start(());
        run.next_generation([]);
    });
    assert_eq!(run.failure().error_type, "OrchestrationNotRegistered");
    assert!(run.failure().message.contains("version '9'"), "{}", run.failure());
}

#[test]
fn the_instance_keeps_the_time_of_its_creation() {
    let run = scenario(goes_on(true), |run| {
        run.start(1);
        for _ in 0..2 {
            run.send([raised("go", ())]);
            run.next_generation([]);
        }
    });
    let EventKind::ExecutionStarted(first) = &run.turns[0].events[1].kind else { panic!("no start") };
    assert_eq!(first.created_at, None);
    let created = run.turns[0].events[1].timestamp;
    let EventKind::ExecutionStarted(last) = &run.history[1].kind else { panic!("no start") };
    assert_eq!((last.created_at, last.generation), (Some(created), 2));
    assert!(run.history[1].timestamp > created);
}

#[test]
fn an_input_that_is_too_large_is_an_error_of_the_call() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.continue_as_new(&"small")?;
            ctx.continue_as_new(&"x".repeat(2000))?;
            Ok(())
        }),
        |run| {
            run.start(());
        },
    );
    assert_eq!(run.failure().error_type, "PayloadTooLarge");
}

#[test]
fn results_for_the_execution_before_are_discarded() {
    let run = scenario(
        code(|ctx: OrchestrationContext, n: u32| async move {
            if n == 0 {
                let _dropped = ctx.call(STEP, 0);
                ctx.continue_as_new(&1)?;
                return Ok(0);
            }
            Ok(ctx.call(STEP, 1).await?)
        }),
        |run| {
            run.start(0);
            let old = run.last().execution.unwrap();
            run.expect(["call #0 step 0", "next #1 1"]);
            run.next_generation([]);
            run.turn(vec![run.message_to(old, done(0, 99))]);
            assert_eq!(run.last().discarded, 1);
            run.send([done(0, 5)]);
        },
    );
    assert_eq!(run.output::<u32>(), 5);
}

#[test]
fn ten_thousand_generations_carry_what_they_have_and_grow_nothing() {
    let registry = code(|ctx: OrchestrationContext, n: u32| async move {
        assert_eq!(ctx.generation(), n);
        let kept = ctx.wait_for_event::<u32>("token").await?;
        ctx.raise_event(ctx.instance_id().as_str(), "token", &kept)?;
        ctx.continue_as_new(&(n + 1))?;
        Ok(())
    });
    let run = scenario(registry, |run| {
        run.start(0);
        run.send([raised("token", 7), raised("other", 1)]);
        for _ in 0..10_000 {
            let messages = run.last().messages.clone();
            assert_eq!(messages.len(), 2);
            // The start comes last: the event was asked for before.
            run.turn(messages.into_iter().rev().collect());
            run.turns.drain(..run.turns.len() - 1);
            assert!(run.history.len() <= 8, "{:?}", run.story());
        }
    });
    let next = next_of(&run);
    assert_eq!((next.generation, carried(&next.carried_events)), (10_001, vec!["other 1".to_owned()]));
}
