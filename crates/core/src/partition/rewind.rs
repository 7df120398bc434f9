//! Rewinding failed instances.
//!
//! The request is a message in the queue, which outlives a crash, and it is alone in its turn. The shell gets the whole
//! history for that turn, although it has ended, and the checkpoint puts a new one in its place. A client is answered when
//! that is durable: until then the instance shows as failed. The children that a rewound execution awaits get such a
//! message too, and each of them does what its state asks for.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::effect::{Accepted, Effect, Rejection, Token};
use super::entry::{Asked, Entry, Presence, Queued};
use super::forced::{incarnation, take_until};
use super::machine::Partition;
use super::poison::has_termination;
use super::record::CheckpointHead;
use super::turns::{ParkReason, SessionSource, TurnRequest, Work, whole_history};
use crate::event::{EventKind, ExecutionStarted, HistoryEvent};
use crate::failure::{FailureDetails, kinds};
use crate::ids::InstanceId;
use crate::message::TaskMessage;
use crate::payload::Payload;
use crate::state::{InstanceState, OrchestrationStatus};
use crate::turn::HistoryRoom;
use crate::turn::{RewindRefusal, Turn, is_same_child, rewound_execution, taken_over, to_parent, unanswered};

/// What a rewind does to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is rewound.
    Rewind,
    /// It is a child that is gone: it begins anew.
    Begin,
    /// It is a child that has ended otherwise: it answers once more.
    Answer,
    /// Nothing.
    Nothing,
}

fn verdict(state: Option<&InstanceState>, child: Option<&ExecutionStarted>) -> Verdict {
    match (state, child) {
        (None, Some(_)) => Verdict::Begin,
        (Some(state), Some(child)) if !is_same_child(state.parent.as_ref(), child) => Verdict::Begin,
        (Some(state), _) if state.status == OrchestrationStatus::Failed => Verdict::Rewind,
        (Some(_), Some(_)) => Verdict::Answer,
        (_, None) => Verdict::Nothing,
    }
}

fn child_of(message: &TaskMessage) -> Option<Option<&ExecutionStarted>> {
    match &message.event.kind {
        EventKind::ExecutionRewound { child, .. } => Some(child.as_deref()),
        _ => None,
    }
}

pub(super) fn is_rewind(message: &TaskMessage) -> bool {
    child_of(message).is_some()
}

/// Whether an instance in that state, which has ended or is not there, lives again through a message.
pub(super) fn revives(state: Option<&InstanceState>, message: &TaskMessage) -> bool {
    let verdict = child_of(message).map(|child| verdict(state, child));
    matches!(verdict, Some(Verdict::Rewind | Verdict::Begin))
}

/// Whether a rewind can be consumed by an instance that has ended or is not there.
pub(super) fn is_of_use(state: Option<&InstanceState>, message: &TaskMessage) -> bool {
    child_of(message).is_some_and(|child| verdict(state, child) != Verdict::Nothing)
}

/// What the parent of a child is told that was to be rewound and was not.
pub(super) fn not_rewound(message: &TaskMessage, failure: &FailureDetails) -> Option<TaskMessage> {
    let parent = child_of(message)??.parent.as_ref()?;
    Some(to_parent(parent, message.event.timestamp, Err(Box::new(failure.clone()))))
}

impl Partition {
    /// Accepts or rejects a client's rewind. It is answered when it has been done.
    pub(super) fn verify_rewind(&mut self, instance: &InstanceId, mut queued: Queued, asked: Asked) {
        let Some(entry) = self.entries.get(instance) else { return };
        let status = entry.live_status().or_else(|| entry.state().map(|state| state.status));
        if status == Some(OrchestrationStatus::Failed) {
            queued.asker = Some(asked.token);
            self.admit(instance, queued);
        } else {
            self.reject_rewind(asked.token, status);
        }
    }

    fn reject_rewind(&mut self, token: Token, status: Option<OrchestrationStatus>) {
        let rejection = status.map_or(Rejection::NotFound, Rejection::NotFailed);
        self.immediate.push(Effect::Reply(token, Err(rejection)));
    }

    /// A client's rewind was consumed, by a turn that did it or in some other way.
    pub(super) fn answer_rewind(&mut self, token: Token, instance: &InstanceId, done: bool) {
        if done {
            self.open.effects.push(Effect::Reply(token, Ok(Accepted::Message)));
        } else {
            let state = self.entries.get(instance).and_then(|entry| entry.state());
            match state.map(|state| state.status) {
                Some(OrchestrationStatus::Failed) => {
                    let rejection = Rejection::NotRewound(RewindRefusal::Overtaken);
                    self.immediate.push(Effect::Reply(token, Err(rejection)));
                }
                status => self.reject_rewind(token, status),
            }
        }
    }

    /// The rewind at the front of the queue of an instance that has ended or is not there.
    pub(super) fn begin_rewind(&mut self, instance: &InstanceId) -> Option<TurnRequest> {
        let entry = self.entries.get_mut(instance)?;
        if has_termination(entry) {
            // Nobody may be there who could rewind it, and it has ended already.
            self.end_parked(instance);
            return None;
        }
        let state = entry.state().cloned();
        let front = entry.queue.front()?;
        let (upto, child) = (front.sequence, child_of(&front.message)?);
        match verdict(state.as_deref(), child) {
            Verdict::Rewind => {
                let state = state?;
                let Some((stored, stored_events, pieces)) = whole_history(entry, state.history_events) else {
                    entry.loading = true;
                    self.work.push_back(Work::LoadEnded(instance.clone()));
                    return None;
                };
                entry.parked = None;
                let (batch, mut running) = take_until(entry, upto);
                running.has_start = true;
                let session = SessionSource::Rewind { stored, stored_events, pieces };
                let is_new = entry.begin_turn(running);
                // Its events are counted when it is known which of them stay.
                let room = HistoryRoom { bytes: state.history_bytes, ..self.options.room(None) };
                let instance = instance.clone();
                Some(self.hand_out(TurnRequest { instance, batch, session, now: self.now, room }, is_new))
            }
            Verdict::Begin => {
                entry.parked = None;
                let (mut batch, mut running) = take_until(entry, upto);
                for message in &mut batch {
                    running.begins_again = begin_instead(entry, message);
                }
                running.has_start = true;
                let is_new = entry.begin_turn(running);
                let (instance, session, room) =
                    (instance.clone(), SessionSource::New, self.options.room(None));
                Some(self.hand_out(TurnRequest { instance, batch, session, now: self.now, room }, is_new))
            }
            Verdict::Answer | Verdict::Nothing => {
                let (batch, running) = take_until(entry, upto);
                let answers = batch.iter().filter_map(|message| answer_again(message, state.as_deref()?));
                let turn = Turn { messages: answers.collect(), ..Turn::default() };
                self.conclude(instance, turn, running);
                self.mark_ready(instance);
                self.forget_if_clean(instance);
                None
            }
        }
    }

    /// A turn that was to rewind an instance could not: the instance stays as it is. The client that asked is told; or the
    /// parent that awaits it. A child whose code this process does not have waits for another process, like any
    /// instance.
    pub fn on_rewind_refused(
        &mut self,
        instance: &InstanceId,
        batch: Vec<TaskMessage>,
        refusal: RewindRefusal,
    ) {
        let Some(mut running) = self.take_running(instance) else { return };
        let awaited = batch.iter().any(|message| child_of(message).flatten().is_some());
        let reason = match &refusal {
            RewindRefusal::NotRegistered(missing) if awaited => {
                let (name, version) = (missing.name.clone(), missing.version.clone());
                Some(ParkReason::NotRegistered { name, version })
            }
            RewindRefusal::Version(mismatch) if awaited => Some(ParkReason::Version(mismatch.clone())),
            _ => None,
        };
        if let Some(reason) = reason {
            self.put_back(instance, batch, running, false);
            if let Some(entry) = self.entries.get_mut(instance) {
                entry.parked = Some(reason);
            }
        } else {
            if let Some(token) = running.asker.take() {
                let rejection = Rejection::NotRewound(refusal.clone());
                self.immediate.push(Effect::Reply(token, Err(rejection)));
            }
            let failure = FailureDetails::from(refusal);
            let told = batch.iter().filter_map(|message| not_rewound(message, &failure));
            let turn = Turn { messages: told.collect(), ..Turn::default() };
            self.conclude(instance, turn, running);
        }
        self.mark_ready(instance);
        self.evict(instance);
        self.run_replacements(instance);
    }

    /// What a turn's events mean for rows. When the turn rewinds an execution, most of its events have been there before:
    /// of these only what is open counts, and takes the place of what the old execution had under way.
    pub(super) fn open_events(
        &mut self,
        head: &CheckpointHead,
        mut events: Vec<HistoryEvent>,
    ) -> Vec<HistoryEvent> {
        let Some(before) = rewound_execution(&events) else { return events };
        let fresh = taken_over(&events);
        let open: BTreeSet<_> = unanswered(&events).into_values().collect();
        let unwanted = |event: &HistoryEvent| head.cancelled_activities.contains(&event.event_id);
        let mut at = 0;
        events.retain(|event| {
            let kept = at >= fresh || (open.contains(&at) && !unwanted(event));
            at += 1;
            kept
        });
        for event in &events {
            if matches!(event.kind, EventKind::TaskScheduled { .. })
                && let Some(id) = self.activities.find(before, event.event_id)
            {
                self.settle_activity(id);
            }
        }
        events
    }
}

/// A child that is gone begins anew, in a turn like any. Returns the reason of the rewind.
fn begin_instead(entry: &Entry, message: &mut TaskMessage) -> Option<SmolStr> {
    let EventKind::ExecutionRewound { child: Some(child), reason } = &mut message.event.kind else {
        return None;
    };
    let reason = std::mem::take(reason);
    child.incarnation = incarnation(entry, child);
    message.execution = Some(child.execution);
    message.event.kind = EventKind::ExecutionStarted(child.clone());
    Some(reason)
}

/// What [`begin_instead`] made of a rewind becomes one again: its turn did not come about.
pub(super) fn rewind_instead(message: &mut TaskMessage, reason: &SmolStr) {
    let EventKind::ExecutionStarted(child) = &mut message.event.kind else { return };
    child.incarnation = 0;
    message.execution = None;
    message.event.kind = EventKind::ExecutionRewound { reason: reason.clone(), child: Some(child.clone()) };
}

/// The answer of a child that had answered an execution of its parent which was rewound since.
fn answer_again(message: &TaskMessage, state: &InstanceState) -> Option<TaskMessage> {
    let parent = child_of(message)??.parent.as_ref()?;
    let outcome = match (state.status, &state.failure) {
        (OrchestrationStatus::Completed, _) => Ok(state.output.clone().unwrap_or(Payload::null())),
        (_, Some(failure)) => Err(failure.clone()),
        (_, None) => {
            let reason = state.reason.clone().unwrap_or_default();
            Err(Box::new(FailureDetails::new(kinds::TERMINATED, reason).non_retriable()))
        }
    };
    Some(to_parent(parent, state.updated_at.max(message.event.timestamp), outcome))
}

/// Whether the next thing that an instance's queue asks for is to be rewound, and it has nothing better to do.
pub(super) fn is_rewind_next(entry: &Entry) -> bool {
    let rewind = entry.queue.front().is_some_and(|queued| is_rewind(&queued.message));
    rewind
        && match &entry.presence {
            Presence::Present(state) => state.status.is_terminal(),
            Presence::Absent => true,
            Presence::Unknown => false,
        }
}
