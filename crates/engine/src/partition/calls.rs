//! Handlers for what comes from clients and from other partitions.

use std::sync::Arc;

use actix::{AsyncContext, Context, Handler};
use steadfast_core::partition::{Accepted, Rejection, Token};
use steadfast_core::{InstanceId, InstanceState, OrchestrationStatus};
use tokio::sync::OwnedSemaphorePermit;

use super::actor::{PartitionActor, PendingRead, Stopping};
use super::messages::{
    Answer, Call, CallError, CountsRead, HistoryRead, OverlayRead, PartitionMessage, PoisonRead, Resend,
    StateRead, Stop, Submit, Tick, Wait, WaitFor,
};
use super::waiters::Together;
use crate::storage::LoadRequest;

/// A client call that waits for what it asked to become durable.
pub(super) struct PendingCall {
    pub(super) answer: Answer<Accepted>,
    pub(super) _permit: OwnedSemaphorePermit,
    /// A wait that begins when the call is accepted.
    watch: Option<Wait>,
}

impl WaitFor {
    fn is_reached(self, status: OrchestrationStatus) -> bool {
        match self {
            Self::Nothing => true,
            Self::Start => status != OrchestrationStatus::Pending,
            Self::End => status.is_terminal(),
        }
    }
}

impl Handler<Submit> for PartitionActor {
    type Result = ();

    fn handle(&mut self, submit: Submit, context: &mut Context<Self>) {
        self.mail.note();
        if self.failed || self.stopping.is_some() {
            return;
        }
        if self.machine.is_overloaded() || !self.held_back.is_empty() {
            self.held_back.push_back(submit);
        } else {
            self.submit(submit);
        }
        self.pump_soon(context);
    }
}

impl PartitionActor {
    /// Hands a client's call to the machine.
    pub(super) fn submit(&mut self, submit: Submit) {
        let Submit { call, answer, permit } = submit;
        let token = self.token();
        let mut pending = PendingCall { answer, _permit: permit, watch: None };
        self.machine.set_now(self.shared.clock.now());
        match call {
            Call::Message { message, fresh_id, reuse, watch } => {
                let instance = || message.instance.clone();
                pending.watch = watch.map(|answer| Wait {
                    instance: instance(),
                    wait_for: WaitFor::End,
                    may_come: false,
                    answer,
                });
                self.calls.insert(token, pending);
                self.machine.submit_start(token, *message, fresh_id, reuse);
            }
            Call::Release(instance) => {
                self.calls.insert(token, pending);
                self.machine.release(token, &instance);
            }
            Call::End { instance, reason } => {
                self.calls.insert(token, pending);
                self.machine.end(token, &instance, reason);
            }
            Call::Purge(instance) => {
                self.calls.insert(token, pending);
                self.machine.purge(token, &instance);
            }
        }
    }

    pub(super) fn reply(&mut self, token: Token, outcome: Result<Accepted, Rejection>) {
        let Some(PendingCall { answer, watch, .. }) = self.calls.remove(&token) else { return };
        // The end of an instance is an effect of the same record or a later one, so it can't have been missed.
        if let Some(wait) = watch.filter(|_| outcome == Ok(Accepted::Message)) {
            self.waiters.add(token, wait);
        }
        let _ = answer.send(outcome.map_err(CallError::Rejected));
    }

    /// An instance's state is known (and durable): answers the client that asked, or lets it wait.
    pub(super) fn state_known(&mut self, token: Token, state: Option<Arc<InstanceState>>) {
        let Some(PendingRead::State(wait)) = self.reads.remove(&token) else { return };
        match state {
            Some(state) if !wait.wait_for.is_reached(state.status) => self.waiters.add(token, wait),
            None if wait.may_come => self.waiters.add(token, wait),
            state => {
                let _ = wait.answer.send(Ok(state));
            }
        }
    }

    /// The instance started or ended: tells those who wait for that.
    pub(super) fn notify(&mut self, instance: &InstanceId, state: Option<&Arc<InstanceState>>) {
        let Some(waiting) = self.waiters.take(instance) else { return };
        let mut left = Together::new();
        for waiter in waiting {
            match state {
                Some(state) if !waiter.wait_for.is_reached(state.status) => left.push(waiter),
                None if waiter.may_come => left.push(waiter),
                state => {
                    let _ = waiter.answer.send(Ok(state.cloned()));
                }
            }
        }
        self.waiters.put_back(instance, left);
    }

    /// The instance started: those who wait for that read its state anew.
    pub(super) fn notify_started(&mut self, instance: &InstanceId, context: &Context<Self>) {
        let Some(waiting) = self.waiters.take(instance) else { return };
        let (started, left): (Together, Together) =
            waiting.into_iter().partition(|waiter| waiter.wait_for == WaitFor::Start);
        self.waiters.put_back(instance, left);
        for waiter in started {
            self.read_state(waiter.into_wait(instance.clone()), context);
        }
    }

    fn read_state(&mut self, wait: Wait, context: &Context<Self>) {
        let token = self.token();
        let instance = wait.instance.clone();
        if self.machine.read_state(token, &instance) {
            self.reads.insert(token, PendingRead::State(wait));
            return;
        }
        // It waits from now on: the instance may come into memory, end and be gone again while it is read.
        self.waiters.add(token, wait);
        let reply = context.address();
        self.shared.storage.load(LoadRequest::State { token, instance, reply });
    }
}

impl Handler<Wait> for PartitionActor {
    type Result = ();

    fn handle(&mut self, wait: Wait, context: &mut Context<Self>) {
        self.mail.note();
        self.read_state(wait, context);
        self.pump_soon(context);
    }
}

impl Handler<StateRead> for PartitionActor {
    type Result = ();

    fn handle(&mut self, read: StateRead, context: &mut Context<Self>) {
        self.mail.note();
        let StateRead { token, instance, outcome } = read;
        let Some(wait) = self.waiters.take_one(token, &instance) else { return };
        match outcome {
            Ok(state) => {
                self.reads.insert(token, PendingRead::State(wait));
                // The instance may have come into memory while it was read; what is there is newer.
                if !self.machine.read_state(token, &instance) {
                    self.state_known(token, state.map(Arc::new));
                }
            }
            Err(error) => {
                let _ = wait.answer.send(Err(CallError::Store(error)));
            }
        }
        self.pump_soon(context);
    }
}

impl Handler<HistoryRead> for PartitionActor {
    type Result = ();

    fn handle(&mut self, read: HistoryRead, context: &mut Context<Self>) {
        self.mail.note();
        let token = self.token();
        match self.machine.read_history(token, &read.instance) {
            Some(pieces) => self.release_later(token, pieces, read.answer),
            None => {
                let _ = read.answer.send(Ok(Vec::new()));
            }
        }
        self.pump_soon(context);
    }
}

impl Handler<PoisonRead> for PartitionActor {
    type Result = ();

    fn handle(&mut self, read: PoisonRead, context: &mut Context<Self>) {
        self.mail.note();
        let _ = read.answer.send(Ok(self.machine.poisoned()));
        self.pump_soon(context);
    }
}

impl Handler<OverlayRead> for PartitionActor {
    type Result = ();

    fn handle(&mut self, mut read: OverlayRead, context: &mut Context<Self>) {
        self.mail.note();
        let token = self.token();
        let (filter, after) = (&read.filter, read.after.as_ref());
        match self.machine.read_overlay(token, filter, after, read.cursor, &mut read.overlay) {
            // What else is in the mailbox comes first.
            Some(cursor) => context.address().do_send(OverlayRead { cursor, ..read }),
            None => {
                self.release_later(token, read.overlay, read.answer);
                self.pump_soon(context);
            }
        }
    }
}

impl Handler<CountsRead> for PartitionActor {
    type Result = ();

    fn handle(&mut self, read: CountsRead, context: &mut Context<Self>) {
        self.mail.note();
        let token = self.token();
        match self.machine.read_counts(token) {
            Some(counts) => {
                self.release_later(token, counts, read.answer);
                self.pump_soon(context);
            }
            // What is to be looked up after a recovery is on its way.
            None => context.address().do_send(read),
        }
    }
}

impl PartitionActor {
    /// Sends the answer once what it shows is durable.
    fn release_later<T: Send + 'static>(&mut self, token: Token, value: T, answer: Answer<T>) {
        let release = move |outcome: Result<(), _>| {
            let _ = answer.send(outcome.map(|()| value).map_err(CallError::Store));
        };
        self.reads.insert(token, PendingRead::Release(Box::new(release)));
    }
}

impl Handler<PartitionMessage> for PartitionActor {
    type Result = ();

    fn handle(&mut self, message: PartitionMessage, context: &mut Context<Self>) {
        self.mail.note();
        self.machine.set_now(self.shared.clock.now());
        match message {
            PartitionMessage::Deliver(messages) => {
                messages.into_iter().for_each(|message| self.machine.receive(message))
            }
            PartitionMessage::Acknowledged { receiver, upto } => self.machine.on_acknowledged(receiver, upto),
        }
        self.pump_soon(context);
    }
}

impl Handler<Resend> for PartitionActor {
    type Result = ();

    fn handle(&mut self, Resend(peer): Resend, _context: &mut Context<Self>) {
        self.mail.note();
        let messages = self.machine.unacknowledged(peer);
        if !messages.is_empty() {
            self.shared.routes.send(peer, PartitionMessage::Deliver(messages));
        }
    }
}

impl Handler<Tick> for PartitionActor {
    type Result = ();

    fn handle(&mut self, _tick: Tick, context: &mut Context<Self>) {
        self.mail.note();
        self.tick(context);
    }
}

impl Handler<Stop> for PartitionActor {
    type Result = ();

    fn handle(&mut self, stop: Stop, context: &mut Context<Self>) {
        self.mail.note();
        self.stopping = Some(Stopping { done: stop.done, overdue: false });
        if stop.forced {
            self.finish(context);
            return;
        }
        self.machine.begin_no_more_turns();
        self.give_up_turns_of_workers();
        self.held_back.clear();
        self.attempts.forget_waiting();
        context.run_later(self.shared.options.stop_timeout, |actor, context| {
            if let Some(stopping) = &mut actor.stopping {
                stopping.overdue = true;
            }
            actor.pump(context);
        });
        self.pump_soon(context);
    }
}
