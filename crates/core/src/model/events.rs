//! External events: the inbox of an execution and the future that waits for one.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use serde::de::DeserializeOwned;
use smol_str::{SmolStr, StrExt};

use super::shared::SharedContext;
use crate::error::{TaskError, TaskKind};
use crate::event::CarriedEvent;
use crate::failure::{FailureDetails, kinds};

/// Events that arrived and were not consumed, and who waits for which. Names are compared without regard to the case
/// of ASCII letters. Both events and waiters of one name are served in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// By arrival, over all names. An event that was handed to a waiter and not yet taken stays here, marked.
    events: VecDeque<Arrived>,
    waiters: VecDeque<Waiter>,
    next_waiter: u64,
    /// How many waiters have been polled and have no event: what the execution durably waits for.
    pub(super) awaited: usize,
}

#[derive(Debug)]
struct Arrived {
    key: SmolStr,
    event: CarriedEvent,
    for_waiter: Option<u64>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    key: SmolStr,
    waker: Option<Waker>,
    served: bool,
}

impl Inbox {
    pub(crate) fn push(&mut self, event: CarriedEvent) {
        let key = event.name.to_ascii_lowercase_smolstr();
        self.events.push_back(Arrived { key: key.clone(), event, for_waiter: None });
        self.serve(&key);
    }

    pub(crate) fn extend(&mut self, event: Option<CarriedEvent>) {
        event.into_iter().for_each(|event| self.push(event));
    }

    /// All events that nobody consumed, in order of arrival.
    pub(crate) fn take_unconsumed(&mut self) -> Vec<CarriedEvent> {
        self.events.drain(..).map(|arrived| arrived.event).collect()
    }

    fn register(&mut self, key: SmolStr) -> u64 {
        let id = self.next_waiter;
        self.next_waiter += 1;
        self.waiters.push_back(Waiter { id, key: key.clone(), waker: None, served: false });
        self.serve(&key);
        id
    }

    /// Marks the first free event of the name for the first waiter of the name that has none, as long as there are both.
    fn serve(&mut self, key: &SmolStr) {
        loop {
            let event = self.events.iter_mut().find(|event| event.for_waiter.is_none() && event.key == *key);
            let waiter = self.waiters.iter_mut().find(|waiter| !waiter.served && waiter.key == *key);
            let (Some(event), Some(waiter)) = (event, waiter) else { return };
            event.for_waiter = Some(waiter.id);
            waiter.served = true;
            if let Some(waker) = waiter.waker.take() {
                self.awaited -= 1;
                waker.wake();
            }
        }
    }

    fn poll(&mut self, id: u64, waker: &Waker) -> Option<CarriedEvent> {
        let at = self.waiters.iter().position(|waiter| waiter.id == id)?;
        if self.waiters[at].served {
            self.waiters.remove(at);
            let event = self.events.iter().position(|event| event.for_waiter == Some(id))?;
            return self.events.remove(event).map(|arrived| arrived.event);
        }
        if self.waiters[at].waker.replace(waker.clone()).is_none() {
            self.awaited += 1;
        }
        None
    }

    /// A waiter gives up; an event that was marked for it is free again, at its old place.
    fn unregister(&mut self, id: u64) {
        let Some(at) = self.waiters.iter().position(|waiter| waiter.id == id) else { return };
        let Some(waiter) = self.waiters.remove(at) else { return };
        if waiter.waker.is_some() {
            self.awaited -= 1;
        }
        if waiter.served {
            for event in &mut self.events {
                if event.for_waiter == Some(id) {
                    event.for_waiter = None;
                }
            }
            self.serve(&waiter.key);
        }
    }
}

/// A wait for an external event. It takes its place in the queue of its name when it is made; dropping it gives the
/// place up, and an event that it had not yet taken goes to the next waiter or stays in the buffer.
#[must_use = "a wait that is dropped waits for nothing"]
pub struct EventFuture<T> {
    context: SharedContext,
    name: SmolStr,
    waiter: u64,
    done: bool,
    payload: PhantomData<fn() -> T>,
}

impl<T> EventFuture<T> {
    pub(super) fn register(context: SharedContext, name: SmolStr) -> Self {
        let waiter = context.borrow_mut().inbox.register(name.to_ascii_lowercase_smolstr());
        Self { context, name, waiter, done: false, payload: PhantomData }
    }
}

impl<T: DeserializeOwned> EventFuture<T> {
    /// Gives the version of the orchestration that sent the event beside its payload: empty if a client sent it, or if that
    /// has none.
    pub fn with_sender_version(mut self) -> impl Future<Output = Result<(T, SmolStr), TaskError>> {
        poll_fn(move |task| {
            let Some(event) = self.poll_event(task) else { return Poll::Pending };
            let version = event.versions.as_ref().map_or_else(SmolStr::default, |it| it.sender.clone());
            self.decoded(&event).map_ok(|payload| (payload, version))
        })
    }

    fn poll_event(&mut self, task: &mut Context<'_>) -> Option<CarriedEvent> {
        let event = self.context.borrow_mut().inbox.poll(self.waiter, task.waker())?;
        self.done = true;
        Some(event)
    }

    fn decoded(&self, event: &CarriedEvent) -> Poll<Result<T, TaskError>> {
        let converter = self.context.borrow().converter();
        Poll::Ready(converter.decode(&event.input).map_err(|error| {
            let expected = std::any::type_name::<T>();
            let problem = format!("the event's payload is not a {expected}: {error}");
            let details = FailureDetails::new(kinds::INVALID_PAYLOAD, problem).non_retriable();
            TaskError { kind: TaskKind::Event, name: self.name.clone(), id: -1, details }
        }))
    }
}

impl<T: DeserializeOwned> Future for EventFuture<T> {
    type Output = Result<T, TaskError>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        match this.poll_event(task) {
            None => Poll::Pending,
            Some(event) => this.decoded(&event),
        }
    }
}

impl<T> Drop for EventFuture<T> {
    fn drop(&mut self) {
        if !self.done {
            self.context.borrow_mut().unregister_waiter(self.waiter);
        }
    }
}

impl super::shared::ContextState {
    fn unregister_waiter(&mut self, waiter: u64) {
        if !self.closed {
            self.inbox.unregister(waiter);
        }
    }
}
