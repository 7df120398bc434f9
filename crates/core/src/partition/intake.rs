//! Intake: everything that comes into a partition from outside.

use super::delayed::delayed_until;
use super::effect::{Accepted, Effect, Rejection, Token};
use super::entities::is_entity_request;
use super::entry::{Asked, Entry, Presence, Queued, suspension};
use super::machine::Partition;
use super::record::LogEntry;
use super::rewind::{is_of_use, is_rewind};
use super::turns::Work;
use crate::codec;
use crate::event::{EventKind, HistoryEvent};
use crate::failure::FailureDetails;
use crate::ids::{InstanceId, PartitionId};
use crate::message::{ActivityId, Origin, TaskMessage};
use crate::payload::Payload;
use crate::reuse::{IdReuse, OnExisting};
use crate::state::OrchestrationStatus;
use crate::time::Timestamp;

/// How many timers fire in one tick at most, so that a crowd of them does not flood memory.
pub(super) const TIMERS_PER_TICK: usize = 1000;

impl Partition {
    /// A client's message. The answer leaves as [`Effect::Reply`]: once the message is durable, or at once when it is
    /// rejected. `fresh_id` says that nobody can have used the instance id before, which saves looking it up.
    pub fn submit(&mut self, token: Token, message: TaskMessage, fresh_id: bool) {
        self.submit_start(token, message, fresh_id, IdReuse::default());
    }

    /// [`Partition::submit`] of a start that says what it does if its id is in use.
    pub fn submit_start(&mut self, token: Token, message: TaskMessage, fresh_id: bool, reuse: IdReuse) {
        if let Some(due) = delayed_until(&message) {
            self.accept_delayed(due, message, Some(token));
            return;
        }
        let instance = message.instance.clone();
        if fresh_id {
            self.ensure_entry(&instance, true);
        }
        self.enqueue(&instance, message, Some(Asked { token, reuse }));
    }

    /// A message from another partition's outbox. One that was applied before changes nothing, and one that comes
    /// before its predecessors waits for the sender to send again.
    pub fn receive(&mut self, message: TaskMessage) {
        let Origin::Remote { source, sequence } = message.origin else { return };
        self.open.received_from.insert(source);
        if sequence != self.links.received_from(source) + 1 {
            return;
        }
        self.links.raise_received(source, sequence);
        if let Some(due) = delayed_until(&message) {
            self.accept_delayed(due, message, None);
            return;
        }
        let instance = message.instance.clone();
        self.enqueue(&instance, message, None);
    }

    /// `receiver` has applied our messages up to `upto`.
    pub fn on_acknowledged(&mut self, receiver: PartitionId, upto: u64) {
        self.drop_outgoing(receiver, upto);
        self.open.lazy.push(LogEntry::OutboxAcknowledged { receiver, upto });
    }

    /// All messages that `receiver` has not acknowledged, to be sent again after it was rebuilt. Those whose record is
    /// not durable yet are not among them: they leave when it is.
    pub fn unacknowledged(&self, receiver: PartitionId) -> Vec<TaskMessage> {
        self.links.unacknowledged(receiver, self.durable).cloned().collect()
    }

    /// An activity returned or failed. False when its result is known already or its work is void: then nothing
    /// changes.
    pub fn complete_activity(&mut self, id: ActivityId, outcome: Result<Payload, FailureDetails>) -> bool {
        let Some(task) = self.settle_activity(id) else { return false };
        let kind = match outcome {
            Ok(result) => EventKind::TaskCompleted { task_scheduled_id: task.task_id, result },
            Err(failure) => EventKind::TaskFailed {
                task_scheduled_id: task.task_id,
                failure: Box::new(failure.bounded()),
            },
        };
        let message = TaskMessage {
            instance: task.instance.clone(),
            execution: Some(task.execution),
            event: HistoryEvent::message(self.now, kind),
            origin: Origin::Activity(id),
        };
        self.enqueue(&task.instance, message, None);
        true
    }

    /// Whether running the activity still makes sense; when not, it is settled without a result. Only termination
    /// makes work void: what a completed orchestration asked for is still done.
    pub fn is_activity_wanted(&mut self, id: ActivityId) -> bool {
        let Some(task) = self.activities.get(id) else { return false };
        if !self.any_terminated {
            return true;
        }
        let state = self.entries.get(&task.instance).and_then(|entry| entry.state());
        let terminated = state.is_some_and(|state| {
            state.execution == task.execution && state.status == crate::state::OrchestrationStatus::Terminated
        });
        if terminated {
            self.settle_activity(id);
            self.open.settled.push(Origin::Activity(id));
        }
        !terminated
    }

    /// Removes an instance that has ended, with its history. The answer leaves as [`Effect::Reply`].
    pub fn purge(&mut self, token: Token, instance: &InstanceId) {
        self.ensure_entry(instance, false);
        self.purges.push((instance.clone(), token));
        self.run_purges(instance);
    }

    pub(super) fn run_purges(&mut self, instance: &InstanceId) {
        if self.purges.is_empty() {
            return;
        }
        let Some(entry) = self.entries.get(instance) else { return };
        let verdict = match (&entry.presence, entry.shown_status()) {
            (Presence::Unknown, _) => match entry.damage() {
                Some(problem) => Err(Rejection::Damaged(problem)),
                None => return,
            },
            (_, Some(status)) => Err(Rejection::NotEnded(status)),
            (Presence::Absent, None) => Err(Rejection::NotFound),
            (Presence::Present(_), None) => Ok(Accepted::Purged),
        };
        let purges = std::mem::take(&mut self.purges);
        let (mine, others): (Vec<_>, Vec<_>) = purges.into_iter().partition(|(id, _)| id == instance);
        self.purges = others;
        for (nth, (_, token)) in mine.into_iter().enumerate() {
            match &verdict {
                Ok(accepted) if nth == 0 => {
                    self.apply_purge(instance);
                    codec::encode(&LogEntry::Purged { instance: instance.clone() }, &mut self.open.buffer);
                    self.open.effects.push(Effect::Reply(token, Ok(accepted.clone())));
                    self.open.effects.push(Effect::Ended(instance.clone(), None));
                }
                Ok(_) => self.open.effects.push(Effect::Reply(token, Err(Rejection::NotFound))),
                Err(rejection) => self.immediate.push(Effect::Reply(token, Err(rejection.clone()))),
            }
        }
        self.forget_if_clean(instance);
    }

    /// Time has passed: fires timers, releases scheduled starts, evicts idle sessions.
    pub fn tick(&mut self) {
        for _ in 0..TIMERS_PER_TICK {
            let Some(first) = self.timers.first_entry().filter(|first| first.key().fire_at <= self.now)
            else {
                break;
            };
            let timer = first.key().clone();
            self.settle_timer(&timer);
            let kind = EventKind::TimerFired { timer_id: timer.timer_id, fire_at: timer.fire_at };
            let instance = timer.instance.clone();
            let message = TaskMessage {
                instance: instance.clone(),
                execution: Some(timer.execution),
                event: HistoryEvent::message(self.now, kind),
                origin: Origin::Timer(timer),
            };
            self.enqueue(&instance, message, None);
        }
        while let Some((at, instance)) = self.held.pop_first() {
            if at > self.now {
                self.held.insert((at, instance));
                break;
            }
            if let Some(entry) = self.entries.get_mut(&instance) {
                entry.held_until = None;
            }
            self.mark_ready(&instance);
        }
        self.deliver_delayed();
        self.evict_sessions();
        if self.open.patience_ends.is_some_and(|at| at <= self.now) {
            self.open.end_patience();
        }
    }

    /// When [`Partition::tick`] next has something to do.
    pub fn next_due(&self) -> Option<Timestamp> {
        let timer = self.timers.first_key_value().map(|(timer, _)| timer.fire_at);
        let held = self.held.first().map(|(at, _)| *at);
        let delayed = self.delayed.first_key_value().map(|(key, _)| key.due);
        [timer, held, delayed, self.next_eviction(), self.end_of_patience()].into_iter().flatten().min()
    }

    /// Makes sure that the instance has an entry, asking for a load if nothing is known of it.
    pub(super) fn ensure_entry(&mut self, instance: &InstanceId, fresh_id: bool) {
        if self.entries.contains_key(instance) {
            return;
        }
        let mut entry = Entry::default();
        if fresh_id {
            entry.presence = Presence::Absent;
        } else {
            entry.loading = true;
            self.work.push_back(Work::Load(instance.clone()));
        }
        self.entries.insert(instance.clone(), Box::new(entry));
    }

    /// Puts a message into its instance's queue, or turns it away.
    pub(super) fn enqueue(&mut self, instance: &InstanceId, message: TaskMessage, asked: Option<Asked>) {
        let Some(entry) = self.entries.get_mut(instance) else {
            self.ensure_entry(instance, false);
            return self.enqueue(instance, message, asked);
        };
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let unknown = matches!(entry.presence, Presence::Unknown);
        let queued = Queued {
            sequence,
            logged: false,
            stored: false,
            unverified: None,
            outside: false,
            asker: None,
            message,
        };
        match asked {
            Some(asked) if let Some(problem) = entry.damage() => {
                self.immediate.push(Effect::Reply(asked.token, Err(Rejection::Damaged(problem))));
            }
            Some(asked)
                if entry.queue.len() >= self.options.instance_messages_max
                    && !matches!(queued.message.event.kind, EventKind::ExecutionTerminated { .. }) =>
            {
                let waiting = entry.queue.len();
                let rejection = Rejection::TooManyMessages(waiting);
                self.immediate.push(Effect::Reply(asked.token, Err(rejection)));
            }
            Some(asked) if unknown => entry.queue.push_back(Queued { unverified: Some(asked), ..queued }),
            Some(asked) => {
                self.verify(instance, queued, asked);
                self.forget_if_clean(instance);
            }
            None => {
                if unknown || can_be_consumed(entry, &queued.message) {
                    self.admit(instance, queued);
                } else {
                    self.open.settled.push(queued.message.origin);
                    self.forget_if_clean(instance);
                }
            }
        }
    }

    /// Accepts or rejects a client's message, now that it is known whether the instance exists. The entry stays: others
    /// may wait for the same answer.
    pub(super) fn verify(&mut self, instance: &InstanceId, queued: Queued, asked: Asked) {
        let Some(entry) = self.entries.get(instance) else { return };
        let Asked { token, reuse } = asked;
        let (live, state) = (entry.live_status(), entry.state());
        if instance.is_entity() {
            if is_entity_request(&queued.message.event.kind) {
                self.accept(instance, queued, token);
            } else {
                self.immediate.push(Effect::Reply(token, Err(Rejection::NotFound)));
            }
            return;
        }
        if let EventKind::ExecutionStarted(started) = &queued.message.event.kind {
            if entry.has_execution(started.execution) {
                // The same call again: what it wants is done already, and may not be durable yet.
                self.open.effects.push(Effect::Reply(token, Ok(Accepted::Existing)));
                return;
            }
            let existing = entry.shown_status().or_else(|| state.map(|state| state.status));
            match existing.map(|status| (reuse.action(status), status)) {
                Some((OnExisting::Error, status)) => {
                    self.immediate.push(Effect::Reply(token, Err(Rejection::AlreadyExists(status))));
                }
                // What it is given may not be durable yet.
                Some((OnExisting::Ignore, _)) => {
                    self.open.effects.push(Effect::Reply(token, Ok(Accepted::Existing)));
                }
                Some((OnExisting::Replace, _)) if live.is_some() => self.replace(instance, queued, asked),
                Some((OnExisting::Replace, _)) | None => self.accept(instance, queued, token),
            }
            return;
        }
        if is_rewind(&queued.message) {
            self.verify_rewind(instance, queued, asked);
            return;
        }
        if let Some(wanted) = suspension(&queued.message)
            && let Some(shown) = entry.shown_status()
            && wanted.is_some() == (shown == OrchestrationStatus::Suspended)
        {
            // It is so already, and that may not be durable yet. No event: SDKs cannot replay a suspension within another.
            self.open.effects.push(Effect::Reply(token, Ok(Accepted::Existing)));
            return;
        }
        match (live, state) {
            (Some(_), _) => match addressed_elsewhere(entry, &queued.message) {
                Some(rejection) => self.immediate.push(Effect::Reply(token, Err(rejection))),
                None => self.accept(instance, queued, token),
            },
            (None, Some(state)) => {
                let rejection = Rejection::Ended(state.status);
                self.immediate.push(Effect::Reply(token, Err(rejection)));
            }
            (None, None) => self.immediate.push(Effect::Reply(token, Err(Rejection::NotFound))),
        }
    }

    pub(super) fn accept(&mut self, instance: &InstanceId, queued: Queued, token: Token) {
        self.open.effects.push(Effect::Reply(token, Ok(Accepted::Message)));
        self.admit(instance, queued);
    }

    /// Adds an accepted message to the queue and to the open record.
    pub(super) fn admit(&mut self, instance: &InstanceId, queued: Queued) {
        let now = self.now;
        let poisoned = self.poisoned.is_parked(instance);
        let Some(entry) = self.entries.get_mut(instance) else { return };
        // An instance that takes no turns can still be ended, and starts of others under its id are refused.
        let kind = &queued.message.event.kind;
        let of_use = !(poisoned || entry.parked.is_some())
            || matches!(kind, EventKind::ExecutionTerminated { .. } | EventKind::ExecutionStarted(_));
        if let Some(at) = scheduled_start(&queued.message).filter(|at| *at > now) {
            entry.held_until = Some(at);
            self.held.insert((at, instance.clone()));
        }
        if suspension(&queued.message).is_some() {
            self.suspending.insert(instance.clone());
        }
        self.open.accepted(&queued.message, queued.sequence, now);
        if entry.queue.capacity() == 0 {
            // Most instances never have two messages waiting.
            entry.queue.reserve_exact(1);
        }
        entry.queue.push_back(queued);
        if of_use && !std::mem::replace(&mut entry.ready, true) {
            self.ready.push_back(instance.clone());
        }
    }
}

/// Why an event that a client sends to one execution or version of an instance will not reach it, as far as that is known
/// already. While a turn is under way it is not, nor is the version of an instance that has not begun: then the turn that
/// takes the event decides.
fn addressed_elsewhere(entry: &Entry, message: &TaskMessage) -> Option<Rejection> {
    let kind = &message.event.kind;
    let is_event = matches!(kind, EventKind::EventRaised { .. } | EventKind::VersionedEventRaised(_));
    let state = entry.state().filter(|_| is_event && entry.running.is_none())?;
    if let Some(wanted) = message.execution.filter(|wanted| !entry.has_execution(*wanted)) {
        return Some(Rejection::OtherExecution { wanted, current: state.execution });
    }
    let wanted = kind.wanted_version().filter(|_| state.status.needs_replay())?;
    (state.version != *wanted).then(|| Rejection::OtherVersion(state.version.clone()))
}

/// When a start is to begin, if it says so.
pub(super) fn scheduled_start(message: &TaskMessage) -> Option<Timestamp> {
    match &message.event.kind {
        EventKind::ExecutionStarted(started) => started.scheduled_start,
        _ => None,
    }
}

/// Whether a turn could do something with a message that no client waits for.
pub(super) fn can_be_consumed(entry: &Entry, message: &TaskMessage) -> bool {
    let kind = &message.event.kind;
    if message.instance.is_entity() {
        return is_entity_request(kind);
    }
    matches!(kind, EventKind::ExecutionStarted(_))
        || entry.live_status().is_some()
        || is_of_use(entry.state().map(|state| &**state), message)
}
