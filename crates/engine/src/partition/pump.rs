//! The pump: after anything came in, hands out work, commits, and performs effects until nothing is left to do.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};
use steadfast_core::log_event;
use steadfast_core::partition::{Effect, SessionSource, TurnRequest, Work};
use steadfast_core::turn::CrashedTurn;
use steadfast_store::{LogRecord, StoreError};

use super::actor::{PartitionActor, PendingRead, ResidentActor};
use super::instance::{GiveUp, InstanceActor, RunTurn, TurnOutcome};
use super::messages::{Appended, Loaded, Materialised, PartitionMessage, TurnDone, TurnPanicked};
use crate::storage::{AppendRequest, LoadRequest, MaterialiseRequest};

/// How long due timers are left alone while the materialiser is behind.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(20);

/// Hands out work and commits, once for all messages that came in before.
#[derive(Message)]
#[rtype(result = "()")]
struct Pump;

impl Handler<Pump> for PartitionActor {
    type Result = ();

    fn handle(&mut self, _pump: Pump, context: &mut Context<Self>) {
        self.mail.note();
        self.pump_due = false;
        self.pump(context);
    }
}

impl PartitionActor {
    /// Pumps when the messages that are in the mailbox now have been handled, so that they share a pass.
    pub(super) fn pump_soon(&mut self, context: &Context<Self>) {
        if !std::mem::replace(&mut self.pump_due, true) {
            context.address().do_send(Pump);
        }
    }

    pub(super) fn pump(&mut self, context: &mut Context<Self>) {
        if self.failed {
            return;
        }
        loop {
            while let Some(work) = self.machine.next_work() {
                self.perform_work(work, context);
            }
            let commit = self.machine.commit();
            // After a record that was full, more turns are ready than there was room for.
            let idle = commit.effects.is_empty() && commit.record.is_none();
            if let Some(record) = commit.record {
                let turns = record.turns;
                let record = LogRecord {
                    partition: self.machine.id(),
                    position: record.position,
                    bytes: record.bytes,
                };
                self.shared.storage.append(AppendRequest { record, turns, reply: context.address() });
                self.arm_materialisation(context);
            }
            self.perform_effects(commit.effects, context);
            self.dispatch(context);
            if idle && !self.release_held_back() {
                break;
            }
        }
        self.arm_tick(context);
        self.stop_if_done(context);
    }

    fn perform_work(&mut self, work: Work, context: &mut Context<Self>) {
        match work {
            Work::Load(instance) => {
                let reply = context.address();
                self.shared.storage.load(LoadRequest::Instance { instance, ended: false, reply });
            }
            Work::LoadEnded(instance) => {
                let reply = context.address();
                self.shared.storage.load(LoadRequest::Instance { instance, ended: true, reply });
            }
            Work::Evict(instance) => {
                self.instances.remove(&instance);
                if self.instances.len() < self.instances.capacity() / 8 {
                    self.instances.shrink_to(self.instances.capacity() / 2);
                }
                self.waiters.forget_absent(&instance);
            }
            Work::Turn(request) => self.run_turn(request, context),
        }
    }

    fn run_turn(&mut self, request: TurnRequest, context: &mut Context<Self>) {
        self.mail.note();
        let instance = &request.instance;
        if matches!(request.session, SessionSource::Resident | SessionSource::Entity(_))
            && let Some(actor) = self.instances.get(instance)
        {
            actor.address.do_send(RunTurn(request));
            return;
        }
        let (instance, number) = (instance.clone(), self.token().0);
        let address = InstanceActor::start_for(instance.clone(), number, &self.shared, context);
        address.do_send(RunTurn(request));
        self.instances.insert(instance, ResidentActor { address, number });
    }

    fn perform_effects(&mut self, effects: Vec<Effect>, context: &mut Context<Self>) {
        let mut outgoing = Vec::new();
        for effect in effects {
            match effect {
                Effect::Reply(token, outcome) => self.reply(token, outcome),
                Effect::State(token, state) => self.state_known(token, state),
                Effect::Release(token) => {
                    if let Some(PendingRead::Release(release)) = self.reads.remove(&token) {
                        release(Ok(()));
                    }
                }
                Effect::Dispatch(task) => self.wait_for_place(task),
                Effect::Cancel(id, reason) => self.cancel_attempt(id, reason),
                Effect::Send(receiver, message) => outgoing.push((receiver, *message)),
                Effect::Acknowledge(source, upto) => {
                    let receiver = self.machine.id();
                    self.shared.routes.send(source, PartitionMessage::Acknowledged { receiver, upto });
                }
                Effect::Started(instance) => {
                    if !self.waiters.is_empty() {
                        self.notify_started(&instance, context);
                    }
                }
                Effect::Ended(instance, state) => {
                    if !self.waiters.is_empty() {
                        self.notify(&instance, state.as_ref());
                    }
                }
                Effect::Materialise(capture) => {
                    self.shared.storage.materialise(MaterialiseRequest { capture, reply: context.address() });
                }
            }
        }
        self.send_outgoing(outgoing);
    }

    /// Messages to one receiver travel together; their order is kept.
    fn send_outgoing(&self, mut outgoing: Vec<(steadfast_core::PartitionId, steadfast_core::TaskMessage)>) {
        outgoing.sort_by_key(|(receiver, _)| *receiver);
        let mut outgoing = outgoing.into_iter().peekable();
        while let Some((receiver, first)) = outgoing.next() {
            let mut messages = vec![first];
            while let Some((_, message)) = outgoing.next_if(|(next, _)| *next == receiver) {
                messages.push(message);
            }
            // A receiver that is being rebuilt asks for what it missed.
            self.shared.routes.send(receiver, PartitionMessage::Deliver(messages));
        }
    }

    /// Takes on calls that were held back, if the materialiser has caught up; true if there were any.
    fn release_held_back(&mut self) -> bool {
        let mut released = false;
        while !self.machine.is_overloaded()
            && let Some(submit) = self.held_back.pop_front()
        {
            self.submit(submit);
            released = true;
        }
        released
    }

    /// Makes sure that what has changed is materialised before long.
    fn arm_materialisation(&mut self, context: &mut Context<Self>) {
        if self.materialise_tick.is_none() {
            let handle = context.run_later(self.shared.options.materialise_interval, |actor, context| {
                actor.materialise_tick = None;
                actor.machine.want_materialisation();
                actor.pump(context);
            });
            self.materialise_tick = Some(handle);
        }
    }

    /// Sleeps until the next timer is due. A clock that announces its jumps is not slept for; but what is due already,
    /// because it was made so or because one tick did not get through it all, must not wait for the next jump.
    fn arm_tick(&mut self, context: &mut Context<Self>) {
        if self.stopping.is_some() {
            return;
        }
        let Some(due) = self.machine.next_due().into_iter().chain(self.attempts.next_due()).min() else {
            return;
        };
        if !self.shared.clock_flows && due > self.shared.clock.now() {
            return;
        }
        if let Some((armed, handle)) = &self.tick {
            if *armed <= due {
                return;
            }
            context.cancel_future(*handle);
        }
        let mut delay = due.since(self.shared.clock.now());
        if self.machine.is_overloaded() {
            // What is due must wait for the materialiser; asking at once again would only turn in circles.
            delay = delay.max(OVERLOAD_PAUSE);
        }
        let handle = context.run_later(delay, |actor, context| {
            actor.tick = None;
            actor.tick(context);
        });
        self.tick = Some((due, handle));
    }

    pub(super) fn tick(&mut self, context: &mut Context<Self>) {
        if !self.machine.is_overloaded() && self.stopping.is_none() {
            self.machine.set_now(self.shared.clock.now());
            self.machine.tick();
            self.expire_attempts();
        }
        self.pump_soon(context);
    }

    /// No worker answers any more. What has been answered already is on its way to the instances.
    pub(super) fn give_up_turns_of_workers(&self) {
        for instance in self.machine.orchestrations_outside() {
            if let Some(actor) = self.instances.get(instance) {
                self.mail.note();
                actor.address.do_send(GiveUp);
            }
        }
    }

    fn stop_if_done(&mut self, context: &mut Context<Self>) {
        let Some(stopping) = &self.stopping else { return };
        let waited_for = self.attempts.running() + self.machine.turns_outside();
        if (waited_for == 0 || stopping.overdue) && self.machine.is_settled() {
            if self.machine.is_quiet() {
                self.finish(context);
            } else {
                self.machine.want_materialisation();
                let commit = self.machine.commit();
                self.perform_effects(commit.effects, context);
            }
        }
    }
}

impl Handler<TurnDone> for PartitionActor {
    type Result = ();

    fn handle(&mut self, done: TurnDone, context: &mut Context<Self>) {
        // The answer to a turn that was given up may be on its way already. It is nobody's: another actor has the instance,
        // whose turn would be taken for the one that it reports.
        if self.instances.get(&done.instance).is_none_or(|current| current.number != done.actor) {
            return;
        }
        self.mail.note();
        match done.outcome {
            TurnOutcome::Done(turn) => self.machine.on_turn(&done.instance, turn),
            TurnOutcome::Outside(batch) => self.machine.on_turn_outside(&done.instance, batch),
            TurnOutcome::GivenUp => self.machine.on_turn_abandoned(&done.instance),
            TurnOutcome::Crashed(CrashedTurn { batch, problem }) => {
                tracing::error!(instance = %done.instance, problem, "a turn crashed; the instance is tried again later");
                self.machine.on_crashed(&done.instance, batch, &problem);
            }
            TurnOutcome::NotRewound(batch, refusal) => {
                self.machine.on_rewind_refused(&done.instance, batch, refusal);
            }
            TurnOutcome::Parked(batch, reason) => {
                log_event!(OrchestrationAborted, instance = %done.instance, %reason);
                self.machine.on_parked(&done.instance, batch, reason);
            }
        }
        self.pump_soon(context);
    }
}

impl Handler<TurnPanicked> for PartitionActor {
    type Result = ();

    fn handle(&mut self, panicked: TurnPanicked, context: &mut Context<Self>) {
        self.mail.note();
        log_event!(ProcessWorkItemFailed, problem = %panicked.0);
        self.fail(&StoreError::Io { doing: "running a turn", problem: panicked.0 }, context);
    }
}

impl Handler<Appended> for PartitionActor {
    type Result = ();

    fn handle(&mut self, appended: Appended, context: &mut Context<Self>) {
        self.mail.note();
        match appended.outcome {
            Ok(()) => {
                self.machine.on_durable(appended.position);
                self.pump_soon(context);
            }
            Err(error) => self.fail(&error, context),
        }
    }
}

impl Handler<Materialised> for PartitionActor {
    type Result = ();

    fn handle(&mut self, materialised: Materialised, context: &mut Context<Self>) {
        self.mail.note();
        match materialised.outcome {
            Ok(()) => {
                self.machine.on_materialised(materialised.upto);
                self.pump_soon(context);
            }
            Err(error) => self.fail(&error, context),
        }
    }
}

impl Handler<Loaded> for PartitionActor {
    type Result = ();

    fn handle(&mut self, loaded: Loaded, context: &mut Context<Self>) {
        self.mail.note();
        match loaded.outcome {
            Ok(found) => {
                self.machine.on_loaded(&loaded.instance, found);
                self.pump_soon(context);
            }
            // What is wrong with one instance concerns no other.
            Err(StoreError::Corrupt { place, problem }) => {
                log_event!(FetchWorkItemFailure, instance = %loaded.instance, place, problem);
                self.machine.on_damaged(&loaded.instance, &problem);
                self.pump_soon(context);
            }
            Err(error) => self.fail(&error, context),
        }
    }
}
