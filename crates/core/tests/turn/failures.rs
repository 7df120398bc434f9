//! Errors, panics, code that is not registered, and payloads that cannot be used.

use std::panic::resume_unwind;
use std::sync::Arc;

use steadfast_core::model::{ActivityName, OrchestrationContext, Registry};
use steadfast_core::turn::{NotRegistered, Session, Unfit};
use steadfast_core::{Error, OrchestrationStatus, Result};

use crate::support::{MAX_PAYLOAD, TEST, code, done, failed, instance, raised, scenario};

const STEP: ActivityName<u32, u32> = ActivityName::new("step");
const SAY: ActivityName<String, String> = ActivityName::new("say");

#[derive(Debug, thiserror::Error)]
#[error("the order is void")]
struct Void(#[source] std::num::ParseIntError);

fn parse_error() -> std::num::ParseIntError {
    "x".parse::<u32>().unwrap_err()
}

#[test]
fn an_error_fails_the_instance_with_its_type_message_and_causes() {
    let run = scenario(
        code(|_: OrchestrationContext, (): ()| async move { Err::<(), _>(Error::from(Void(parse_error()))) }),
        |run| {
            run.start(());
        },
    );
    let failure = run.failure();
    assert!(failure.error_type.ends_with("::Void"), "{}", failure.error_type);
    assert_eq!(failure.message, "the order is void");
    assert_eq!(failure.cause.as_ref().unwrap().message, "invalid digit found in string");
    assert!(!failure.non_retriable);
}

#[test]
fn a_panic_before_the_first_await_fails_the_instance() {
    let run = scenario(
        code(|_: OrchestrationContext, text: String| {
            if text.len() > 1 {
                panic!("before: {text}");
            }
            std::panic::panic_any(7);
            #[expect(unreachable_code, reason = "names the future's type")]
            std::future::ready(Ok(()))
        }),
        |run| {
            run.start("now");
            assert_eq!(
                (run.failure().error_type.as_str(), run.failure().message.as_str()),
                ("Panic", "before: now")
            );
            run.start("-");
        },
    );
    assert_eq!(run.failure().message, "panicked with a value that is not text");
}

#[test]
fn a_panic_in_a_poll_keeps_what_was_asked_for_before() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let n = ctx.call(STEP, 0).await?;
            ctx.raise_event("other", "hello", &n)?;
            let _open = (ctx.call(STEP, 1), ctx.timer(std::time::Duration::ZERO));
            let empty: [u32; 0] = [];
            Ok(empty[n as usize])
        }),
        |run| {
            run.start(());
            run.send([done(0, 1), raised("e", 1)]);
        },
    );
    run.expect(["send #1 other hello 1", "call #2 step 1", "timer #3", "Failed #4"]);
    assert!(run.failure().message.contains("index out of bounds"));
    assert_eq!(run.failure().error_type, "Panic");
}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        // Quietly, and only when nothing else is unwinding.
        resume_unwind(Box::new("from a destructor"));
    }
}

#[test]
fn a_panic_in_a_destructor_of_finished_code_fails_the_instance() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let _bomb = PanicsOnDrop;
            Ok(ctx.wait_for_event::<u32>("e").await?)
        }),
        |run| {
            run.start(());
            run.send([raised("e", 1)]);
        },
    );
    assert_eq!(run.failure().message, "from a destructor");
}

#[test]
fn a_panic_in_a_destructor_of_evicted_or_terminated_code_harms_nobody() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| {
            let bomb = PanicsOnDrop;
            async move {
                let _bomb = bomb;
                Ok(ctx.wait_for_event::<u32>("e").await?)
            }
        }),
        |run| {
            run.start(());
            run.evict();
            run.send([crate::support::terminated("enough")]);
        },
    );
    assert_eq!(run.status(), Some(OrchestrationStatus::Terminated));
}

#[test]
fn replaying_an_ended_execution_does_not_let_a_destructor_s_panic_through() {
    let ended = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.wait_for_event::<u32>("e").await?) }),
        |run| {
            run.start(());
            run.send([raised("e", 1)]);
        },
    );
    let changed = code(|ctx: OrchestrationContext, (): ()| async move {
        let _bomb = PanicsOnDrop;
        ctx.wait_for_event::<u32>("e").await?;
        Ok(ctx.wait_for_event::<u32>("e").await?)
    });
    let mut session = Session::new(Arc::new(changed), instance(), MAX_PAYLOAD);
    session.replay(&ended.history).unwrap();
    assert!(session.is_over());
}

#[test]
fn destructors_that_ask_for_things_while_evicted_leave_no_trace() {
    struct Asks(OrchestrationContext);
    impl Drop for Asks {
        fn drop(&mut self) {
            drop((self.0.call(STEP, 9), self.0.timer(std::time::Duration::ZERO)));
            drop(self.0.wait_for_event::<()>("e"));
            let _ = self.0.continue_as_new(&());
        }
    }
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let _asks = Asks(ctx.clone());
            Ok(ctx.wait_for_event::<u32>("go").await?)
        }),
        |run| {
            run.start(());
            run.evict();
            run.evict();
            run.expect([]);
            run.send([raised("noise", 0)]);
            run.expect([]);
        },
    );
    assert!(!run.is_over());
}

#[test]
fn a_name_that_is_not_registered_fails_the_instance_and_replaying_it_is_a_typed_error() {
    let run = scenario(code(|_: OrchestrationContext, (): ()| async move { Ok(()) }), |run| {
        let start = run.start_of("tset", ());
        run.turn(vec![start]);
    });
    assert_eq!(run.failure().error_type, "OrchestrationNotRegistered");
    assert!(run.failure().message.contains("'tset'") && run.failure().non_retriable);

    let live = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.call(STEP, 0).await?) }),
        |run| {
            run.start(());
        },
    );
    let mut session = Session::new(Arc::new(Registry::default()), instance(), MAX_PAYLOAD);
    let error = session.replay(&live.history).unwrap_err();
    let missing = NotRegistered { name: TEST.into(), version: "".into() };
    assert_eq!(error, Unfit::NotRegistered(missing));
    assert!(session.is_over(), "nothing was begun");
}

#[test]
fn an_input_of_another_type_or_that_is_no_json_fails_the_instance() {
    let registry = || code(|_: OrchestrationContext, n: u32| async move { Ok(n) });
    for input in ["\"text\"", "{", "", "1 2"] {
        let run = scenario(registry(), |run| {
            let mut start = run.start_of(TEST, ());
            if let steadfast_core::EventKind::ExecutionStarted(started) = &mut start.event.kind {
                started.input = steadfast_core::Payload::from_json(input);
            }
            run.turn(vec![start]);
        });
        assert_eq!(run.failure().error_type, "InvalidPayload", "{input:?}");
        assert!(run.failure().message.starts_with("the input is not a u32"), "{}", run.failure());
    }
}

#[test]
fn payloads_that_are_too_large_fail_where_they_are_made() {
    let large = || "x".repeat(MAX_PAYLOAD);
    let run = scenario(
        code(move |ctx: OrchestrationContext, (): ()| async move {
            let call = ctx.call(SAY, large()).await.unwrap_err();
            let child: steadfast_core::model::OrchestrationName<String, ()> =
                steadfast_core::model::OrchestrationName::new("child");
            let child_call = ctx.call_orchestration(&child, large()).await.unwrap_err();
            let detached = ctx.start_orchestration(&child, large(), None).unwrap_err();
            let event = ctx.raise_event("other", "e", &large()).unwrap_err();
            let status = ctx.set_custom_status(&large()).unwrap_err();
            let next = ctx.continue_as_new(&large()).unwrap_err();
            assert!(call.is_non_retriable() && call.id == -1);
            let errors = [Error::from(call), Error::from(child_call), detached, event, status, next];
            Ok(errors.iter().filter(|error| error.details().is_caused_by("PayloadTooLarge")).count())
        }),
        |run| {
            run.start(());
        },
    );
    run.expect(["Completed #0 6"]);
}

#[test]
fn a_payload_of_just_the_allowed_size_passes_and_a_result_one_byte_larger_fails() {
    for (letters, passes) in [(MAX_PAYLOAD - 2, true), (MAX_PAYLOAD - 1, false)] {
        let run = scenario(
            code(|_: OrchestrationContext, letters: usize| async move { Ok("x".repeat(letters)) }),
            |run| {
                run.start(letters);
            },
        );
        assert_eq!(run.status() == Some(OrchestrationStatus::Completed), passes);
        if !passes {
            assert_eq!(run.failure().error_type, "PayloadTooLarge");
            assert!(run.failure().message.contains("1001 bytes and the hub allows 1000"));
        }
    }
}

#[test]
fn a_value_without_json_form_is_a_typed_failure() {
    let run = scenario(
        code(|_: OrchestrationContext, (): ()| async move {
            Ok(std::collections::BTreeMap::from([(vec![1], 2)]))
        }),
        |run| {
            run.start(());
        },
    );
    assert_eq!(run.failure().error_type, "InvalidPayload");
}

#[test]
fn the_custom_status_is_that_of_the_turn_and_replay_does_not_repeat_it() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.set_custom_status(&"one")?;
            ctx.set_custom_status(&"two")?;
            ctx.call(STEP, 0).await?;
            ctx.call(STEP, 1).await?;
            ctx.set_custom_status(&"done")?;
            Ok(())
        }),
        |run| {
            run.start(());
            run.send([done(0, 0)]);
            run.send([done(1, 0)]);
        },
    );
    let statuses: Vec<_> =
        run.turns.iter().map(|turn| turn.custom_status.as_ref().map(|status| status.as_str())).collect();
    assert_eq!(statuses, [Some("\"two\""), None, Some("\"done\"")]);
}

#[test]
fn code_may_handle_failures_and_compensate() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let outcome: Result<u32, _> = ctx.call(STEP, 0).await;
            match outcome {
                Ok(_) => Ok("shipped"),
                Err(error) if error.details.error_type == "Flaky" => {
                    ctx.call(STEP, 1).await?;
                    Ok("refunded")
                }
                Err(error) => Err(error.into()),
            }
        }),
        |run| {
            run.start(());
            run.send([failed(0, "no")]);
            run.send([done(1, 0)]);
        },
    );
    assert_eq!(run.output::<String>(), "refunded");
}
