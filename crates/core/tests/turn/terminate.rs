//! Terminating, and messages for executions that are over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use steadfast_core::model::{ActivityName, OrchestrationContext, OrchestrationName, Registry};
use steadfast_core::{EventKind, ExecutionId, OrchestrationStatus, TaskMessage};

use crate::support::{
    child_done, code, done, failed, raised, scenario, suspended, terminated, terminated_with_children,
};

const STEP: ActivityName<u32, u32> = ActivityName::new("step");
const CHILD: OrchestrationName<u32, u32> = OrchestrationName::new("child");

fn one_step() -> Registry {
    code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.call(STEP, 0).await?) })
}

/// Code that counts how often it began.
fn counting() -> (Registry, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let counter = count.clone();
    let registry = code(move |ctx: OrchestrationContext, (): ()| {
        counter.fetch_add(1, Ordering::Relaxed);
        async move { Ok(ctx.call(STEP, 0).await?) }
    });
    (registry, count)
}

#[test]
fn terminating_ends_the_execution_with_its_reason_in_the_history() {
    let run = scenario(one_step(), |run| {
        run.start(());
        run.send([terminated("enough")]);
    });
    assert_eq!(run.story()[2..], ["terminate enough", "Terminated #1"]);
    assert_eq!(run.status(), Some(OrchestrationStatus::Terminated));
}

#[test]
fn what_the_code_asked_for_in_the_turn_of_its_termination_is_not_done() {
    let run = scenario(one_step(), |run| {
        run.start(());
        run.send([failed(0, "no"), terminated("enough")]);
    });
    assert_eq!(run.status(), Some(OrchestrationStatus::Failed), "an end that was there before stays");

    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.wait_for_event::<()>("e").await?;
            ctx.raise_event("other", "hello", &())?;
            Ok(ctx.call_orchestration(CHILD, 0).await?)
        }),
        |run| {
            run.start(());
            run.send([raised("e", ()), terminated_with_children("enough")]);
        },
    );
    assert_eq!(run.emitted().len(), 1);
    assert!(run.last().messages.is_empty());
}

#[test]
fn terminated_in_the_batch_that_starts_it_its_code_never_runs() {
    let (registry, count) = counting();
    let run = scenario(registry, |run| {
        run.start_and([raised("e", 1), terminated("never mind")]);
        run.expect(["Terminated #0"]);
        // Nor does it when the history is looked at again.
        run.evict();
    });
    assert_eq!(count.load(Ordering::Relaxed), 0);
    assert_eq!(run.story()[1..], ["raised e 1", "terminate never mind", "Terminated #0"]);
}

#[test]
fn a_stale_termination_behind_a_start_does_not_keep_the_new_execution_from_running() {
    let run = scenario(one_step(), |run| {
        run.start(());
        let old = run.last().execution.unwrap();
        run.send([done(0, 1)]);
        let start = run.start_of("test", ());
        let stale = run.message_to(old, terminated("the old one"));
        run.turn(vec![start, stale]);
        run.expect(["call #0 step 0"]);
        run.send([done(0, 2)]);
    });
    assert_eq!(run.output::<u32>(), 2);
}

#[test]
fn a_termination_before_a_start_is_for_the_execution_before() {
    let run = scenario(one_step(), |run| {
        let terminate = run.message(terminated("the old one"));
        let start = run.start_of("test", ());
        run.turn(vec![terminate, start]);
        run.expect(["call #0 step 0"]);
    });
    assert_eq!(run.last().discarded, 1);
}

fn terminations(messages: &[TaskMessage]) -> Vec<(&str, &EventKind)> {
    messages.iter().map(|message| (message.instance.as_str(), &message.event.kind)).collect()
}

#[test]
fn termination_reaches_the_children_that_are_awaited_and_have_not_ended() {
    for recurse in [true, false] {
        let run = scenario(
            code(|ctx: OrchestrationContext, (): ()| async move {
                ctx.start_orchestration(CHILD, 0, Some("detached"))?;
                let options = |id: &str| steadfast_core::model::SubOrchestrationOptions {
                    instance_id: Some(id.to_owned()),
                    ..Default::default()
                };
                let (a, b, c) = futures_util::join!(
                    ctx.call_orchestration_with(CHILD, 1, options("ended")),
                    ctx.call_orchestration_with(CHILD, 2, options("live-1")),
                    ctx.call_orchestration_with(CHILD, 3, options("live-2")),
                );
                Ok(a? + b? + c?)
            }),
            |run| {
                run.start(());
                run.send([child_done(1, 1)]);
                let kind = if recurse { terminated_with_children("all") } else { terminated("one") };
                run.send([kind]);
            },
        );
        let kind = terminated_with_children("all");
        let expected = if recurse { vec![("live-1", &kind), ("live-2", &kind)] } else { vec![] };
        assert_eq!(terminations(&run.last().messages), expected);
        assert!(run.last().messages.iter().all(|message| message.execution.is_none()));
    }
}

#[test]
fn a_child_whose_future_was_dropped_is_terminated_too() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            drop(ctx.call_orchestration(CHILD, 0));
            Ok(ctx.call(STEP, 0).await?)
        }),
        |run| {
            run.start(());
            run.send([terminated_with_children("all")]);
        },
    );
    assert_eq!(run.last().messages.len(), 1);
}

#[test]
fn messages_for_another_execution_are_discarded() {
    let run = scenario(one_step(), |run| {
        run.start(());
        let other = ExecutionId::new(uuid::Uuid::from_u128(77));
        let current = run.last().execution.unwrap();
        let stale = [done(0, 99), terminated("stale"), suspended()];
        let mut batch: Vec<_> = stale.into_iter().map(|kind| run.message_to(other, kind)).collect();
        run.turn(batch.clone());
        assert_eq!((run.last().discarded, run.last().events.len()), (3, 0));
        batch.push(run.message_to(current, done(0, 1)));
        run.turn(batch);
        assert_eq!(run.last().discarded, 3);
    });
    assert_eq!(run.output::<u32>(), 1);
}

#[test]
fn a_terminated_instance_ignores_everything_but_a_new_start() {
    let run = scenario(one_step(), |run| {
        run.start(());
        run.send([terminated("enough"), done(0, 1), raised("e", 1), terminated("again")]);
        assert_eq!(run.last().discarded, 3);
        run.send([terminated("again"), done(0, 1)]);
        assert_eq!((run.last().discarded, run.last().events.len()), (2, 0));
        run.start(());
        run.expect(["call #0 step 0"]);
        run.send([done(0, 3)]);
    });
    assert_eq!(run.output::<u32>(), 3);
}

#[test]
fn destructors_run_at_termination_and_what_they_ask_for_is_not_done() {
    struct Guard(OrchestrationContext, Arc<AtomicU32>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.raise_event("other", "goodbye", &()).unwrap();
            drop(self.0.call(STEP, 9));
        }
    }
    let dropped = Arc::new(AtomicU32::new(0));
    let counter = dropped.clone();
    let run = scenario(
        code(move |ctx: OrchestrationContext, (): ()| {
            let guard = Guard(ctx.clone(), counter.clone());
            async move {
                let _guard = guard;
                Ok(ctx.call(STEP, 0).await?)
            }
        }),
        |run| {
            run.start(());
            run.send([terminated("enough")]);
        },
    );
    assert!(run.last().messages.is_empty());
    assert_eq!(run.emitted().len(), 1, "{:?}", run.emitted());
    assert!(dropped.load(Ordering::Relaxed) >= 2);
}
