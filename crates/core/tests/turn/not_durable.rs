//! Awaiting what is not durable: reported by name instead of hanging for ever.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_util::future::{poll_fn, select};
use futures_util::{FutureExt, join};
use steadfast_core::model::{ActivityName, OrchestrationContext, Registry};

use crate::support::{Driver, code, done, raised, scenario};

const STEP: ActivityName<u32, u32> = ActivityName::new("step");

/// What a runtime's sleep does: it keeps the waker for somebody outside.
struct Outside(Arc<Mutex<Option<Waker>>>);

impl Future for Outside {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        *self.0.lock().unwrap() = Some(task.waker().clone());
        Poll::Pending
    }
}

fn assert_reported(run: &Driver, after: &str) {
    let failure = run.failure();
    assert_eq!(failure.error_type, "NonDurableAwait", "{failure}");
    assert!(failure.non_retriable);
    assert!(failure.message.contains("instance 'the-instance'"), "{failure}");
    assert!(failure.message.contains(after), "{failure}");
}

#[test]
fn pending_for_ever_is_reported_at_once_with_the_last_step() {
    let registry = || {
        code(|ctx: OrchestrationContext, steps: u32| async move {
            for n in 0..steps {
                ctx.call(STEP, n).await?;
            }
            std::future::pending::<()>().await;
            Ok(())
        })
    };
    let run = scenario(registry(), |run| {
        run.start(0);
    });
    assert_reported(&run, "after ExecutionStarted");
    let run = scenario(registry(), |run| {
        run.start(2);
        run.send([done(0, 0)]);
        run.send([done(1, 0)]);
    });
    assert_reported(&run, "after TaskCompleted of #1");
}

#[test]
fn work_that_is_scheduled_but_not_awaited_does_not_hide_it() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let _calls = (ctx.call(STEP, 0), ctx.wait_for_event::<()>("e"));
            std::future::pending::<()>().await;
            Ok(())
        }),
        |run| {
            run.start(());
        },
    );
    assert_reported(&run, "not durable");
}

#[test]
fn a_select_that_stops_awaiting_its_durable_half_is_reported_then() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let both = join!(ctx.call(STEP, 0), std::future::pending::<()>());
            Ok(both.0?)
        }),
        |run| {
            run.start(());
            assert!(!run.is_over(), "the call can still wake it");
            run.send([done(0, 1)]);
        },
    );
    assert_reported(&run, "TaskCompleted of #0");
}

/// Awaits an event beside something outside, whose waker the test gets.
fn beside_outside(outside: Arc<Mutex<Option<Waker>>>) -> Registry {
    code(move |ctx: OrchestrationContext, (): ()| {
        let outside = outside.clone();
        async move {
            select(Outside(outside), ctx.wait_for_event::<()>("e")).await;
            Ok("event")
        }
    })
}

#[test]
fn a_wake_up_from_another_thread_or_between_turns_is_reported_in_the_next_turn() {
    for threaded in [true, false] {
        let outside = Arc::new(Mutex::new(None));
        let mut run = Driver::new(Arc::new(beside_outside(outside.clone())), false);
        run.start(());
        let waker = outside.lock().unwrap().take().unwrap();
        if threaded {
            std::thread::spawn(move || waker.wake()).join().unwrap();
        } else {
            waker.wake();
        }
        assert!(!run.is_over());
        run.send([raised("e", ())]);
        assert_reported(&run, "not durable");
    }
}

#[test]
fn a_wake_up_from_another_thread_during_a_poll_is_reported() {
    let mut run = Driver::new(
        Arc::new(code(|ctx: OrchestrationContext, (): ()| async move {
            let event = ctx.wait_for_event::<()>("e");
            let meddler = poll_fn(|task| {
                let waker = task.waker().clone();
                std::thread::spawn(move || waker.wake()).join().unwrap();
                Poll::<()>::Pending
            });
            select(meddler, event).await;
            Ok(())
        })),
        false,
    );
    run.start(());
    assert_reported(&run, "not durable");
}

#[test]
fn two_instances_that_talk_in_memory_are_reported() {
    let outside = Arc::new(Mutex::new(None));
    let mut one = Driver::new(Arc::new(beside_outside(outside.clone())), false);
    one.start(());
    let mut other = Driver::new(
        Arc::new(code(move |ctx: OrchestrationContext, (): ()| {
            outside.lock().unwrap().take().unwrap().wake();
            async move { Ok(ctx.wait_for_event::<()>("e").await?) }
        })),
        false,
    );
    other.start(());
    one.send([raised("e", ())]);
    assert_reported(&one, "not durable");
    assert!(!other.is_over());
}

#[test]
fn waking_itself_for_ever_is_reported() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let spin = poll_fn(|task| {
                task.waker().wake_by_ref();
                Poll::<()>::Pending
            });
            select(spin, ctx.call(STEP, 0)).await;
            Ok(())
        }),
        |run| {
            run.start(());
        },
    );
    assert_reported(&run, "after ExecutionStarted");
}

#[test]
fn yielding_a_bounded_number_of_times_is_fine() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let mut left = 1000;
            poll_fn(|task| {
                left -= 1;
                task.waker().wake_by_ref();
                if left > 0 { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            Ok(ctx.call(STEP, 0).await?)
        }),
        |run| {
            run.start(());
            run.send([done(0, 1)]);
        },
    );
    assert_eq!(run.output::<u32>(), 1);
}

/// A channel of one value between two branches of one orchestration.
#[derive(Clone, Default)]
struct Channel(Rc<RefCell<(Option<u32>, Option<Waker>)>>);

impl Channel {
    fn send(&self, value: u32) {
        let waker = {
            let mut inner = self.0.borrow_mut();
            inner.0 = Some(value);
            inner.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn receive(&self) -> u32 {
        poll_fn(|task| {
            let mut inner = self.0.borrow_mut();
            match inner.0.take() {
                Some(value) => Poll::Ready(value),
                None => {
                    inner.1 = Some(task.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

#[test]
fn branches_of_one_orchestration_may_talk_in_memory() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let (there, back) = (Channel::default(), Channel::default());
            let producer = async {
                let mut sum = 0;
                for n in 0..3 {
                    there.send(ctx.call(STEP, n).await.unwrap());
                    sum += back.receive().await;
                }
                sum
            };
            let consumer = async {
                for _ in 0..3 {
                    let n = there.receive().await;
                    back.send(n * 10);
                }
            };
            // The receiver is polled first, so it must be woken by the sender.
            let ((), sum) = join!(consumer, producer);
            Ok(sum)
        }),
        |run| {
            run.start(());
            for n in 0..3 {
                run.send([done(n, n + 1)]);
            }
        },
    );
    assert_eq!(run.output::<u32>(), 60);
}

#[test]
fn shared_futures_and_mutexes_of_the_futures_crate_work() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let shared = ctx.wait_for_event::<u32>("e").map(|event| event.unwrap()).shared();
            let turn = ctx.call(STEP, 0).map(|result| result.unwrap());
            let (a, b, c) = join!(shared.clone(), turn, shared);
            Ok(a + b + c)
        }),
        |run| {
            run.start(());
            run.send([raised("e", 1)]);
            run.send([done(0, 10)]);
        },
    );
    assert_eq!(run.output::<u32>(), 12);
}
