//! Turns that crash: the batch comes back as it was.

use std::sync::Arc;

use steadfast_core::model::{OrchestrationContext, Register, Registry, orchestration};
use steadfast_core::turn::{HistoryRoom, Session};
use steadfast_core::{
    Error, EventKind, ExecutionId, ExecutionStarted, HistoryEvent, Origin, Payload, TaskMessage, Timestamp,
};
use uuid::Uuid;

use crate::support::{MAX_PAYLOAD, TEST, instance, raised as raised_kind};

/// A panic that panics again when it is thrown away, which the guards around user code do not catch.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the bomb went off");
    }
}

/// Crashes the turn in which the event "bomb" number `at` arrives; 0 is at once.
fn registry() -> Registry {
    let mut registry = Registry::default();
    let code = |ctx: OrchestrationContext, at: u32| async move {
        for _ in 0..at {
            ctx.wait_for_event::<u32>("bomb").await?;
        }
        std::panic::panic_any(Bomb);
        #[expect(unreachable_code, reason = "it gives the type")]
        Ok::<(), Error>(())
    };
    orchestration(TEST, code).version("2").register(&mut registry).unwrap();
    registry
}

fn message(kind: EventKind) -> TaskMessage {
    let event = HistoryEvent::message(Timestamp::from_micros(5), kind);
    TaskMessage { instance: instance(), execution: None, event, origin: Origin::Client }
}

fn raised(name: &str, value: u32) -> TaskMessage {
    message(raised_kind(name, value))
}

fn start(at: u32, execution: u128, generation: u32, version_inherited: bool) -> TaskMessage {
    let (version, execution) = (if version_inherited { "1" } else { "" }, Uuid::from_u128(execution));
    let started = ExecutionStarted::new(
        TEST.into(),
        version.into(),
        Payload::encode(&at).unwrap(),
        ExecutionId::new(execution),
    );
    message(EventKind::ExecutionStarted(Box::new(ExecutionStarted {
        generation,
        version_inherited,
        ..started
    })))
}

fn crash(batch: Vec<TaskMessage>) {
    let mut session = Session::new(Arc::new(registry()), instance(), MAX_PAYLOAD);
    let crashed = session.try_turn(batch.clone(), Timestamp::from_micros(7), &HistoryRoom::UNLIMITED);
    assert_eq!(crashed.unwrap_err().batch, batch);
}

#[test]
fn a_crash_at_the_first_step_gives_the_start_back_with_the_version_that_it_asked_for() {
    crash(vec![start(0, 1, 0, false)]);
    crash(vec![start(0, 1, 0, true), raised("bomb", 1)]);
    // The second is a duplicate, and the third one of another execution, which is refused.
    crash(vec![start(0, 1, 0, true), start(0, 1, 0, false), start(0, 2, 0, true)]);
}

#[test]
fn a_crash_in_the_middle_gives_back_what_was_consumed_and_what_was_not_in_its_order() {
    for at in 1..4 {
        let stray =
            TaskMessage { execution: Some(ExecutionId::new(Uuid::from_u128(9))), ..raised("bomb", 0) };
        crash(vec![
            start(at, 1, 0, true),
            raised("bomb", 1),
            stray,
            raised("other", 2),
            raised("bomb", 3),
            start(at, 1, 0, false),
            raised("bomb", 4),
        ]);
    }
}

#[test]
fn messages_that_came_before_a_continuation_stay_before_it() {
    crash(vec![raised("bomb", 1), raised("bomb", 2), start(2, 1, 1, true), raised("bomb", 3)]);
}
