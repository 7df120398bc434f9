//! Futures of durable operations: activities, sub-orchestrations and timers.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use serde::de::DeserializeOwned;
use smol_str::SmolStr;

use super::converter::Converter;
use super::registry::Outcome;
use super::shared::SharedContext;
use crate::error::{TaskError, TaskKind};
use crate::failure::{FailureDetails, kinds};

/// What kind of completion an open task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenKind {
    Activity,
    SubOrchestration,
    Timer,
    EntityCall,
    EntityLock,
}

/// A scheduled operation whose future is still alive.
#[derive(Debug)]
pub(crate) struct OpenTask {
    pub(crate) kind: OpenKind,
    pub(crate) waker: Option<Waker>,
    pub(crate) outcome: Option<Outcome>,
}

/// An activity or sub-orchestration under way. It was scheduled when it was made; awaiting it observes its outcome,
/// and dropping it gives up interest in the outcome without undoing the work. An activity that is running then learns of it
/// through [`super::ActivityContext::cancelled`].
#[must_use = "the work is scheduled already, but its outcome is lost unless it is awaited"]
pub struct TaskFuture<O> {
    context: SharedContext,
    kind: TaskKind,
    name: SmolStr,
    id: i32,
    /// A call that failed before anything was scheduled.
    rejected: Option<FailureDetails>,
    done: bool,
    output: PhantomData<fn() -> O>,
}

impl<O> TaskFuture<O> {
    pub(super) fn scheduled(context: SharedContext, kind: TaskKind, name: SmolStr, id: i32) -> Self {
        Self { context, kind, name, id, rejected: None, done: false, output: PhantomData }
    }

    pub(super) fn rejected(
        context: SharedContext,
        kind: TaskKind,
        name: SmolStr,
        failure: FailureDetails,
    ) -> Self {
        Self { context, kind, name, id: -1, rejected: Some(failure), done: true, output: PhantomData }
    }

    fn converter(&self) -> Converter {
        self.context.borrow().converter()
    }

    fn error(&self, details: FailureDetails) -> TaskError {
        TaskError { kind: self.kind, name: self.name.clone(), id: self.id, details }
    }
}

impl<O: DeserializeOwned> Future for TaskFuture<O> {
    type Output = Result<O, TaskError>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(failure) = this.rejected.take() {
            return Poll::Ready(Err(this.error(failure)));
        }
        let Some(outcome) = this.context.borrow_mut().poll_open(this.id, task.waker()) else {
            return Poll::Pending;
        };
        this.done = true;
        Poll::Ready(match outcome {
            Ok(payload) => this.converter().decode(&payload).map_err(|error| {
                let expected = std::any::type_name::<O>();
                let problem = format!("the result is not a {expected}: {error}");
                this.error(FailureDetails::new(kinds::INVALID_PAYLOAD, problem).non_retriable())
            }),
            Err(failure) => Err(this.error(failure)),
        })
    }
}

impl<O> Drop for TaskFuture<O> {
    fn drop(&mut self) {
        if !self.done {
            let mut context = self.context.borrow_mut();
            if context.close_open(self.id) && self.kind == TaskKind::Activity {
                context.cancelled_activities.push(self.id);
            }
        }
    }
}

/// A durable timer. It was armed when it was made; dropping it before it fires cancels it.
#[must_use = "a timer that is dropped is cancelled"]
pub struct TimerFuture {
    context: SharedContext,
    id: i32,
    done: bool,
}

impl TimerFuture {
    pub(super) fn armed(context: SharedContext, id: i32) -> Self {
        Self { context, id, done: false }
    }
}

impl Future for TimerFuture {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.context.borrow_mut().poll_open(this.id, task.waker()).is_none() {
            return Poll::Pending;
        }
        this.done = true;
        Poll::Ready(())
    }
}

impl Drop for TimerFuture {
    fn drop(&mut self) {
        if !self.done {
            let mut context = self.context.borrow_mut();
            if context.close_open(self.id) {
                context.cancelled_timers.push(self.id);
            }
        }
    }
}
