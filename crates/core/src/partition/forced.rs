//! What a partition does to an instance without running its code: ending it, replacing it, and turning away starts of
//! others under its id.

use smol_str::SmolStr;

use super::effect::{Accepted, Effect, Rejection, Token};
use super::entry::{Asked, Entry, Presence, Queued, RunningBatch, SessionPhase};
use super::machine::Partition;
use super::record::LogEntry;
use super::rewind::not_rewound;
use super::turns::is_under_way;
use crate::codec;
use crate::event::{EventKind, ExecutionStarted, HistoryEvent, ParentInstance};
use crate::failure::{FailureDetails, bounded_reason, kinds};
use crate::ids::InstanceId;
use crate::message::{Origin, TaskMessage};
use crate::state::OrchestrationStatus;
use crate::turn::{Turn, free_all, refuse_start, terminated_child, to_parent};

/// An instance that a client ends without its code.
#[derive(Debug)]
pub(super) struct Ending {
    instance: InstanceId,
    token: Token,
    reason: SmolStr,
}

/// The reason that an instance gets which a start replaces.
const REPLACED: &str = "replaced by a new instance with the same id";

impl Partition {
    /// Ends an instance that cannot be run in this process, or whose turns crash, and that was asked to terminate. Its
    /// code is not needed for that: what it waits for is known from its state.
    pub(super) fn end_parked(&mut self, instance: &InstanceId) {
        let Some(entry) = self.entries.get(instance) else { return };
        if entry.loading || matches!(entry.presence, Presence::Unknown) {
            return;
        }
        let termination = entry.queue.iter().find_map(|queued| match &queued.message.event.kind {
            EventKind::ExecutionTerminated { reason, recurse } => {
                Some((queued.sequence, reason.clone(), *recurse))
            }
            _ => None,
        });
        // A termination also ends a continuation whose start came after it.
        let continuation = entry.queue.iter().find(|queued| is_continuation(&queued.message));
        let continuation = continuation.filter(|_| !is_under_way(entry)).map_or(0, |queued| queued.sequence);
        if let Some((upto, reason, recurse)) = termination {
            let upto = upto.max(continuation);
            self.end_by_force(instance, reason, recurse, upto);
        }
    }

    /// Ends an instance that takes no turn at the moment, and consumes its messages up to a number.
    fn end_by_force(&mut self, instance: &InstanceId, reason: SmolStr, recurse: bool, upto: u64) {
        let Some(entry) = self.entries.get_mut(instance) else { return };
        let (mut batch, running) = take_until(entry, upto);
        let mut turn = Turn::default();
        let state = entry.state().filter(|state| state.status.needs_replay()).cloned();
        let mut parent: Option<ParentInstance> = None;
        let mut now = self.now;
        let mut event_id = 0;
        let begun = match &state {
            Some(state) => {
                now = now.max(state.updated_at);
                event_id = state.next_event_id;
                turn.execution = Some(state.execution);
                turn.version = state.version.clone();
                turn.cancelled_activities = self.activities.of_execution(state.execution);
                parent.clone_from(&state.parent);
                let children = state.open_children.values().filter(|_| recurse);
                turn.messages.extend(children.map(|child| terminated_child(child, &reason, now)));
                if let Some(locks) = &state.requested_locks {
                    turn.messages.extend(free_all((**locks).clone(), instance, state.execution, now));
                }
                None
            }
            None => {
                let start = |message: &TaskMessage| start_of(message).is_some();
                let at = batch.iter().position(is_continuation).or_else(|| batch.iter().position(start));
                at.map(|at| batch.remove(at))
            }
        };
        turn.events.push(HistoryEvent::message(now, EventKind::OrchestratorStarted));
        if let Some(message) = begun {
            if let Some(started) = start_of(&message) {
                turn.execution = Some(started.execution);
                turn.version = started.version.clone();
                parent.clone_from(&started.parent);
            }
            turn.events.push(message.event);
        }
        let failure = FailureDetails::new(kinds::TERMINATED, bounded_reason(&reason)).non_retriable();
        for message in &batch {
            let refused =
                start_of(message).and_then(|it| refuse_start(instance, it, message.event.timestamp));
            turn.messages.extend(refused);
            turn.messages.extend(not_rewound(message, &failure));
        }
        turn.ended = turn.execution.is_some();
        if turn.ended {
            let failure = Err(Box::new(failure));
            turn.messages.extend(parent.as_ref().map(|parent| to_parent(parent, now, failure)));
            turn.events.push(HistoryEvent::message(now, EventKind::ExecutionTerminated { reason, recurse }));
            let kind = EventKind::ExecutionCompleted {
                status: OrchestrationStatus::Terminated,
                output: None,
                failure: None,
            };
            turn.events.push(HistoryEvent { event_id, timestamp: now, kind });
            turn.events.push(HistoryEvent::message(now, EventKind::OrchestratorCompleted));
        } else {
            turn.events.clear();
        }
        if let Some(at) = entry.held_until.take() {
            self.held.remove(&(at, instance.clone()));
        }
        entry.parked = None;
        self.conclude(instance, turn, running);
        self.mark_ready(instance);
        self.evict(instance);
    }

    /// A start is to replace an instance that has not ended.
    pub(super) fn replace(&mut self, instance: &InstanceId, queued: Queued, asked: Asked) {
        self.interrupt_outside(instance);
        let Some(entry) = self.entries.get(instance) else { return };
        if entry.session == SessionPhase::Running {
            // Its turn goes on from what it was before; so it ends first.
            self.replacements.push((instance.clone(), queued.message, asked));
            return;
        }
        let upto = entry.queue.back().map_or(0, |last| last.sequence);
        // Nobody awaits its children any more, and they may have ids that the new one needs.
        self.end_by_force(instance, REPLACED.into(), true, upto);
        self.accept(instance, queued, asked.token);
    }

    /// Ends an instance without running its code, which so cannot object or tidy up; only a turn that is under way ends
    /// first. Its locks of entities are freed; what it had asked of children stays as it is. The answer leaves as [`Effect::Reply`], once the
    /// end is durable.
    pub fn end(&mut self, token: Token, instance: &InstanceId, reason: SmolStr) {
        self.ensure_entry(instance, false);
        self.interrupt_outside(instance);
        self.endings.push(Ending { instance: instance.clone(), token, reason });
        self.run_endings(instance);
        self.forget_if_clean(instance);
    }

    pub(super) fn run_endings(&mut self, instance: &InstanceId) {
        if self.endings.is_empty() {
            return;
        }
        let Some(entry) = self.entries.get(instance) else { return };
        if entry.session == SessionPhase::Running {
            return;
        }
        let mut verdict = match (&entry.presence, entry.live_status()) {
            (Presence::Unknown, _) => match entry.damage() {
                Some(problem) => Err(Rejection::Damaged(problem)),
                None => return,
            },
            (_, Some(_)) => Ok(Accepted::Message),
            (Presence::Absent, None) => Err(Rejection::NotFound),
            (Presence::Present(state), None) => Err(Rejection::Ended(state.status)),
        };
        let upto = entry.queue.back().map_or(0, |last| last.sequence);
        let endings = std::mem::take(&mut self.endings);
        let (mine, others): (Vec<_>, Vec<_>) = endings.into_iter().partition(|it| it.instance == *instance);
        self.endings = others;
        for Ending { token, reason, .. } in mine {
            if verdict.is_ok() {
                self.end_by_force(instance, reason, false, upto);
            }
            // What the answer says may not be durable yet.
            self.open.effects.push(Effect::Reply(token, verdict.clone()));
            if verdict.is_ok() {
                verdict = Err(Rejection::Ended(OrchestrationStatus::Terminated));
            }
        }
    }

    /// The instance's turn is done: what waited for that is looked at anew.
    pub(super) fn run_replacements(&mut self, instance: &InstanceId) {
        self.run_endings(instance);
        if self.replacements.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.replacements);
        let (mine, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(id, ..)| id == instance);
        self.replacements = others;
        for (instance, message, asked) in mine {
            self.enqueue(&instance, message, Some(asked));
        }
    }

    /// While a scheduled or parked instance waits, starts of others under its id are refused without waiting with it.
    pub(super) fn refuse_starts(&mut self, instance: &InstanceId) {
        let Some(entry) = self.entries.get_mut(instance) else { return };
        let known = !matches!(entry.presence, Presence::Unknown) && !entry.loading;
        if !known || entry.session == SessionPhase::Running {
            return;
        }
        // The first start is the instance itself, unless that has begun.
        let mut own = !is_under_way(entry);
        let (mut sequences, mut settled, mut messages) = (Vec::new(), Vec::new(), Vec::new());
        entry.queue.retain(|queued| {
            let Some(started) = start_of(&queued.message) else { return true };
            if std::mem::take(&mut own) || started.generation > 0 || queued.unverified.is_some() {
                return true;
            }
            sequences.push((queued.sequence, queued.stored));
            if !queued.logged {
                settled.push(queued.message.origin.clone());
            }
            messages.extend(refuse_start(instance, started, queued.message.event.timestamp));
            false
        });
        if sequences.is_empty() {
            return;
        }
        for (sequence, _) in sequences.iter().filter(|(_, stored)| *stored) {
            self.changes.delete_queued(*sequence);
        }
        let messages: Vec<_> = messages.into_iter().map(|message| self.number(message)).collect();
        let entry = LogEntry::Refused {
            instance: instance.clone(),
            sequences: sequences.into_iter().map(|(sequence, _)| sequence).collect(),
            settled,
            messages,
        };
        codec::encode(&entry, &mut self.open.buffer);
        let LogEntry::Refused { messages, .. } = entry else { return };
        for (sequence, message) in messages {
            self.send(sequence, message);
        }
        if self.entries.get(instance).is_some_and(|entry| entry.queue.is_empty()) {
            self.forgive(instance);
        }
    }

    /// What [`Partition::refuse_starts`] wrote is read back.
    pub(super) fn apply_refused(
        &mut self,
        instance: &InstanceId,
        sequences: &[u64],
        settled: &[Origin],
        messages: Vec<(u64, TaskMessage)>,
    ) {
        settled.iter().for_each(|origin| self.settle(origin));
        if let Some(entry) = self.entries.get_mut(instance) {
            let changes = &mut self.changes;
            entry.queue.retain(|queued| {
                let refused = sequences.contains(&queued.sequence);
                if refused && queued.stored {
                    changes.delete_queued(queued.sequence);
                }
                !refused
            });
        }
        for (sequence, message) in messages {
            self.send(sequence, message);
        }
    }
}

/// How many instances had the id of a start before it.
pub(super) fn incarnation(entry: &Entry, started: &ExecutionStarted) -> u32 {
    match entry.state() {
        Some(state) if state.execution == started.execution || started.generation > 0 => {
            state.incarnation.max(started.incarnation)
        }
        Some(state) if state.status.is_terminal() => state.incarnation.saturating_add(1),
        _ => started.incarnation,
    }
}

fn start_of(message: &TaskMessage) -> Option<&ExecutionStarted> {
    match &message.event.kind {
        EventKind::ExecutionStarted(started) => Some(started),
        _ => None,
    }
}

fn is_continuation(message: &TaskMessage) -> bool {
    start_of(message).is_some_and(|started| started.generation > 0)
}

/// Takes the messages up to a number out of the queue.
pub(super) fn take_until(entry: &mut Entry, upto: u64) -> (Vec<TaskMessage>, RunningBatch) {
    let mut running = RunningBatch { upto, ..RunningBatch::default() };
    let mut batch = Vec::new();
    while let Some(mut queued) = entry.queue.pop_front_if(|queued| queued.sequence <= upto) {
        running.note(&queued, u64::MAX);
        if let EventKind::ExecutionStarted(started) = &mut queued.message.event.kind {
            started.incarnation = incarnation(entry, started);
        }
        batch.push(queued.message);
    }
    (batch, running)
}
