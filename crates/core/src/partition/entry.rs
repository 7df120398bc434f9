//! What a partition holds in memory of one instance. An instance that is neither resident, nor changed since the last
//! materialisation, nor has messages waiting, has no entry at all.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;
use smol_str::SmolStr;

use super::effect::Token;
use super::materialise::CapturedInstance;
use super::rewind::revives;
use super::turns::{LoadedInstance, ParkReason};
use crate::event::EventKind;
use crate::ids::{ExecutionId, Position};
use crate::message::{Origin, TaskMessage};
use crate::reuse::IdReuse;
use crate::state::{InstanceState, OrchestrationStatus};
use crate::time::Timestamp;

/// What is known of whether the instance exists.
#[derive(Debug, Clone, Default)]
pub(super) enum Presence {
    /// It is being looked up in the instance store.
    #[default]
    Unknown,
    /// It does not exist.
    Absent,
    /// It exists.
    Present(Arc<InstanceState>),
}

/// Where its session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum SessionPhase {
    /// There is none: the next turn needs a new one.
    #[default]
    None,
    /// It is in memory and waits for messages.
    Idle,
    /// It is running a turn.
    Running,
}

/// A client call that brought a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) token: Token,
    /// Of a start: what it does if its id is in use.
    pub(super) reuse: IdReuse,
}

/// A message in the queue of its instance.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) sequence: u64,
    /// It is part of a record.
    pub(super) logged: bool,
    /// It has a row in the instance store.
    pub(super) stored: bool,
    /// The client call that brought it, as long as nobody knows whether it can be accepted.
    pub(super) unverified: Option<Asked>,
    /// It is part of a turn that goes on elsewhere.
    pub(super) outside: bool,
    /// Of a rewind: the client call that is answered when it has been done.
    pub(super) asker: Option<Token>,
    pub(super) message: TaskMessage,
}

impl Queued {
    pub(super) fn is_start(&self) -> bool {
        matches!(self.message.event.kind, EventKind::ExecutionStarted(_))
    }
}

/// What a message says of whether its instance is suspended: with a reason if it is, and none if it is no more.
pub(super) fn suspension(message: &TaskMessage) -> Option<Option<&SmolStr>> {
    match &message.event.kind {
        EventKind::ExecutionSuspended { reason } => Some(Some(reason)),
        EventKind::ExecutionResumed { .. } => Some(None),
        _ => None,
    }
}

/// The batch of the turn under way.
#[derive(Debug, Default)]
pub(super) struct RunningBatch {
    /// The greatest number among its messages.
    pub(super) upto: u64,
    /// Whether some of its messages are in records already.
    pub(super) any_logged: bool,
    /// Origins of those that are not.
    pub(super) settled: Vec<Origin>,
    /// Numbers of those that have rows.
    pub(super) stored: Vec<u64>,
    /// Of an entity: the numbers of those that come behind messages which stay in the queue.
    pub(super) apart: Vec<u64>,
    /// Whether a start is among them.
    pub(super) has_start: bool,
    /// What the last of them says of whether the instance is suspended.
    pub(super) suspension: Option<Option<SmolStr>>,
    /// Of a rewind: the client call that is answered when it has been done.
    pub(super) asker: Option<Token>,
    /// The child that begins with its first message is one that its parent rewinds, for this reason.
    pub(super) begins_again: Option<SmolStr>,
    /// Number, logged and stored of each, should they have to go back into the queue.
    pub(super) items: SmallVec<[(u64, bool, bool); 1]>,
}

impl RunningBatch {
    /// For so many messages.
    pub(super) fn for_messages(count: usize) -> Self {
        Self { items: SmallVec::with_capacity(count), ..Self::default() }
    }

    /// Adds a message that was taken out of the queue; `first_left` is the first number that stays there.
    pub(super) fn note(&mut self, queued: &Queued, first_left: u64) {
        if queued.sequence < first_left {
            self.upto = self.upto.max(queued.sequence);
        } else {
            self.apart.push(queued.sequence);
        }
        self.has_start |= queued.is_start();
        if let Some(suspension) = suspension(&queued.message) {
            self.suspension = Some(suspension.cloned());
        }
        self.asker = self.asker.or(queued.asker);
        self.items.push((queued.sequence, queued.logged, queued.stored));
        if queued.stored {
            self.stored.push(queued.sequence);
        }
        if queued.logged {
            self.any_logged = true;
        } else if queued.message.origin != Origin::Client {
            if self.settled.is_empty() {
                // Nearly every batch has one, and room for four is a larger allocation.
                self.settled.reserve_exact(1);
            }
            self.settled.push(queued.message.origin.clone());
        }
    }
}

/// Encoded events that are not in the instance store yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPiece {
    /// The number of the first event in `bytes`, counted from 0 in the execution's history.
    pub at: u64,
    /// The events.
    pub bytes: Arc<[u8]>,
}

/// What changed since the last capture.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// A new history began: what is stored is void.
    pub(super) replace: bool,
    /// The instance was purged.
    pub(super) deleted: bool,
    /// The number of the first event in `history`.
    pub(super) at: u64,
    /// New events, encoded.
    pub(super) history: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) presence: Presence,
    pub(super) session: SessionPhase,
    pub(super) queue: VecDeque<Queued>,
    pub(super) running: Option<RunningBatch>,
    /// Its start is scheduled for later.
    pub(super) held_until: Option<Timestamp>,
    /// It is in the list of instances with something to do.
    pub(super) ready: bool,
    /// A load from the instance store is under way.
    pub(super) loading: bool,
    /// Loaded for the next turn.
    pub(super) loaded: Option<Box<LoadedInstance>>,
    pub(super) parked: Option<ParkReason>,
    /// Its turn goes on elsewhere.
    pub(super) outside: bool,
    /// Of a locked entity: no message up to this number is one that it takes before it is unlocked.
    pub(super) passed_over: u64,
    pub(super) dirty: Option<Dirty>,
    pub(super) captured: Option<Arc<CapturedInstance>>,
    /// Something is (or is being) stored under this id.
    pub(super) stored: bool,
    /// The record that last changed it in this process.
    pub(super) changed_at: Position,
    /// During recovery: the position that its stored state reflects. Records up to it are contained in that state.
    pub(super) reflects: Position,
    /// When its session was last used, as a running number.
    pub(super) used: u64,
}

impl Entry {
    /// A turn over these messages begins; whether its session has to be made.
    pub(super) fn begin_turn(&mut self, running: RunningBatch) -> bool {
        self.running = Some(running);
        std::mem::replace(&mut self.session, SessionPhase::Running) == SessionPhase::None
    }

    /// The turn under way has ended; its messages.
    pub(super) fn end_turn(&mut self) -> Option<RunningBatch> {
        let running = self.running.take()?;
        self.session = SessionPhase::Idle;
        Some(running)
    }

    pub(super) fn state(&self) -> Option<&Arc<InstanceState>> {
        match &self.presence {
            Presence::Present(state) => Some(state),
            Presence::Unknown | Presence::Absent => None,
        }
    }

    /// The status of an instance that has not ended; a start or a rewind that waits in the queue counts, and one that a
    /// turn is about to consume.
    pub(super) fn live_status(&self) -> Option<OrchestrationStatus> {
        let live = self.state().map(|state| state.status).filter(|status| !status.is_terminal());
        live.or_else(|| self.has_start().then_some(OrchestrationStatus::Pending))
    }

    /// [`Entry::live_status`] as clients see it: a suspension or a resumption that was accepted counts before it is consumed,
    /// unless code may still go on before that.
    pub(super) fn shown_status(&self) -> Option<OrchestrationStatus> {
        let live = self.live_status()?;
        Some(match self.suspension_ahead() {
            Some(Some(_)) => OrchestrationStatus::Suspended,
            Some(None) if live == OrchestrationStatus::Suspended => OrchestrationStatus::Running,
            _ => live,
        })
    }

    /// The state as clients see it.
    pub(super) fn shown_state(&self) -> Option<Arc<InstanceState>> {
        let mut state = self.state()?.clone();
        if !state.status.is_terminal()
            && let Some(ahead) = self.suspension_ahead()
            && let Some(status) = self.shown_status().filter(|status| *status != state.status)
        {
            let state = Arc::make_mut(&mut state);
            (state.status, state.reason) = (status, ahead);
        }
        Some(state)
    }

    /// What the last message that has not been consumed says of whether the instance is suspended. None as long as a turn
    /// is under way without it, or the next execution is about to begin: what shows as suspended stays as it is.
    pub(super) fn suspension_ahead(&self) -> Option<Option<SmolStr>> {
        let goes_on = self.running.as_ref().is_some_and(|running| running.suspension.is_none());
        let continues = self.state().is_some_and(|it| it.status == OrchestrationStatus::ContinuedAsNew);
        if goes_on || continues {
            return None;
        }
        for queued in self.queue.iter().rev() {
            if let Some(suspension) = suspension(&queued.message) {
                return Some(suspension.cloned());
            }
            // What came before it concerns another execution.
            if queued.is_start() {
                return None;
            }
        }
        self.running.as_ref().and_then(|running| running.suspension.clone())
    }

    /// Whether this very execution is the instance's, or waits to begin.
    pub(super) fn has_execution(&self, execution: ExecutionId) -> bool {
        let waits = |queued: &Queued| match &queued.message.event.kind {
            EventKind::ExecutionStarted(started) => started.execution == execution,
            _ => false,
        };
        self.state().is_some_and(|state| state.execution == execution) || self.queue.iter().any(waits)
    }

    fn has_start(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.has_start)
            || self.queue.iter().any(|queued| {
                queued.is_start() || revives(self.state().map(|state| &**state), &queued.message)
            })
    }

    /// What is wrong with the stored instance, if it could not be read.
    pub(super) fn damage(&self) -> Option<String> {
        match (&self.presence, &self.parked) {
            (Presence::Unknown, Some(ParkReason::Damaged(problem))) => Some(problem.clone()),
            _ => None,
        }
    }

    /// Where the message with that number is in the queue, or where it would have to be: the queue is always in the
    /// order of the numbers.
    pub(super) fn queue_place(&self, sequence: u64) -> Result<usize, usize> {
        match self.queue.back() {
            Some(last) if last.sequence < sequence => Err(self.queue.len()),
            _ => self.queue.binary_search_by_key(&sequence, |queued| queued.sequence),
        }
    }

    pub(super) fn queued_mut(&mut self, sequence: u64) -> Option<&mut Queued> {
        let place = self.queue_place(sequence).ok()?;
        self.queue.get_mut(place)
    }

    /// Whether nothing would be lost by forgetting the entry: the instance store says the same.
    pub(super) fn is_forgettable(&self) -> bool {
        self.session == SessionPhase::None
            && self.queue.is_empty()
            && self.dirty.is_none()
            && self.captured.is_none()
            && !self.loading
    }

    /// Encoded events that the instance store may not have, in order.
    pub(super) fn history_pieces(&self) -> Vec<HistoryPiece> {
        let mut pieces = Vec::new();
        let replaced = self.dirty.as_ref().is_some_and(|dirty| dirty.replace || dirty.deleted);
        if let Some(captured) = self.captured.as_ref().filter(|_| !replaced) {
            pieces.extend(captured.history_piece());
        }
        if let Some(dirty) = &self.dirty {
            pieces.push(HistoryPiece { at: dirty.at, bytes: Arc::from(&dirty.history[..]) });
        }
        pieces
    }

    /// Whether the whole history is in memory.
    pub(super) fn has_whole_history(&self) -> bool {
        match (&self.dirty, &self.captured) {
            (Some(dirty), _) if dirty.replace || dirty.deleted => true,
            (_, Some(captured)) => captured.begins_history(),
            _ => false,
        }
    }
}
