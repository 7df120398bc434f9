//! Turns: which are to be run, what they need, and what becomes of their results.

use std::sync::Arc;

use smol_str::SmolStr;

use super::effect::{Effect, Rejection};
use super::entities::{entity_checkpoint, entity_source, take_entity_batch};
use super::entry::{Entry, HistoryPiece, Presence, Queued, RunningBatch, SessionPhase};
use super::forced::incarnation;
use super::intake::can_be_consumed;
use super::machine::Partition;
use super::poison::has_termination;
use super::record::{CheckpointHead, LogEntry};
use super::rewind::{is_rewind, is_rewind_next};
use crate::codec;
use crate::entity::EntityState;
use crate::event::EventKind;
use crate::ids::{InstanceId, Position};
use crate::message::{Origin, TaskMessage};
use crate::state::InstanceState;
use crate::time::Timestamp;
use crate::turn::{HistoryRoom, NonDeterminism, NotRegistered, Turn, Unfit, rewound_execution};
use crate::version::VersionMismatch;

/// How many turns are under way at most. An instance is looked at when its messages are taken, when its code runs and when
/// its checkpoint is written; with few others in between it is still in the processor's cache each time.
const TURNS_AT_ONCE: usize = 16;

/// Something for the shell to do for the partition, now: none of it leaves the process.
#[derive(Debug)]
pub enum Work {
    /// Read an instance from the instance store, with its history if it has not ended, and call
    /// [`Partition::on_loaded`].
    Load(InstanceId),
    /// The same of an instance that has ended, with its history.
    LoadEnded(InstanceId),
    /// Run a turn and call [`Partition::on_turn`].
    Turn(TurnRequest),
    /// Drop the instance's session.
    Evict(InstanceId),
}

/// A turn to be run.
#[derive(Debug)]
pub struct TurnRequest {
    /// Whose turn.
    pub instance: InstanceId,
    /// The messages to consume, in order.
    pub batch: Vec<TaskMessage>,
    /// Where the session comes from.
    pub session: SessionSource,
    /// The time of the turn.
    pub now: Timestamp,
    /// How much the history has and may have.
    pub room: HistoryRoom,
}

/// Where the session for a turn comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum SessionSource {
    /// It is in memory.
    Resident,
    /// A new one, without history.
    New,
    /// A new one that replays the first `stored_events` of `stored`, then all of `pieces`.
    Replay {
        /// Encoded events from the instance store.
        stored: Vec<u8>,
        /// How many of them count.
        stored_events: u64,
        /// Encoded events from the overlay.
        pieces: Vec<HistoryPiece>,
        /// What the worker that runs it gave to keep.
        keepsake: Option<Arc<[u8]>>,
    },
    /// A new one, which rewinds the failed execution whose history this is; see [`crate::turn::Session::rewind`].
    Rewind {
        /// Encoded events from the instance store.
        stored: Vec<u8>,
        /// How many of them count.
        stored_events: u64,
        /// Encoded events from the overlay.
        pieces: Vec<HistoryPiece>,
    },
    /// The instance is an entity, and this is what is kept of it. A session that is in memory may be used again.
    Entity(Box<EntityState>),
}

/// What was read of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedInstance {
    /// Its state.
    pub state: InstanceState,
    /// Its encoded history; may be empty when the instance has ended.
    pub history: Vec<u8>,
}

/// Why an instance cannot take turns in this process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParkReason {
    /// Its code is not registered.
    #[error("no orchestration is registered as '{name}' version '{version}'; its messages wait until one is")]
    NotRegistered {
        /// The name asked for.
        name: SmolStr,
        /// The version asked for.
        version: SmolStr,
    },
    /// Its history cannot be read.
    #[error("its history is damaged: {0}")]
    Damaged(String),
    /// This process does not take instances of its version.
    #[error("{0}")]
    Version(VersionMismatch),
    /// Its code disagrees with its history, and this process does not fail such instances.
    #[error("{0}")]
    Disagrees(NonDeterminism),
    /// Workers run its code, and the hub no longer gives work to them.
    #[error("the hub is stopping and gives no more work to workers; the instance goes on at its next start")]
    Stopping,
}

impl From<Unfit> for ParkReason {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::NotRegistered(NotRegistered { name, version }) => Self::NotRegistered { name, version },
            Unfit::Version(mismatch) => Self::Version(mismatch),
            Unfit::Disagrees(problem) => Self::Disagrees(problem),
        }
    }
}

impl Partition {
    /// The next thing to do, if any.
    pub fn next_work(&mut self) -> Option<Work> {
        if let Some(work) = self.work.pop_front() {
            return Some(work);
        }
        if self.draining || self.closing || self.running >= TURNS_AT_ONCE {
            return None;
        }
        while let Some(instance) = self.ready.pop_front() {
            if let Some(request) = self.begin_turn(&instance) {
                return Some(Work::Turn(request));
            }
            if let Some(load) = self.work.pop_front() {
                return Some(load);
            }
        }
        None
    }

    pub(super) fn mark_ready(&mut self, instance: &InstanceId) {
        if let Some(entry) = self.entries.get_mut(instance)
            && !entry.ready
        {
            entry.ready = true;
            self.ready.push_back(instance.clone());
        }
    }

    fn begin_turn(&mut self, instance: &InstanceId) -> Option<TurnRequest> {
        let poisoned = self.poisoned.is_parked(instance);
        let entry = self.entries.get_mut(instance)?;
        entry.ready = false;
        if Self::is_interrupted(entry) {
            self.interrupt_outside(instance);
            return None;
        }
        let parked = poisoned || entry.parked.is_some();
        // Where turns crash, none is taken, not even to end one that has not begun.
        let needs_force = poisoned || is_under_way(entry);
        let blocked = entry.session == SessionPhase::Running
            || entry.queue.is_empty()
            || entry.loading
            || (parked && (needs_force || !has_termination(entry)))
            || matches!(entry.presence, Presence::Unknown)
            || (entry.held_until.is_some() && !has_termination(entry));
        if blocked {
            let waits = entry.held_until.is_some() || parked;
            if waits && entry.session != SessionPhase::Running {
                if parked && needs_force && has_termination(entry) {
                    self.end_parked(instance);
                } else {
                    self.refuse_starts(instance);
                }
            }
            return None;
        }
        if instance.is_entity() {
            return self.begin_entity_turn(instance);
        }
        if is_rewind_next(entry) {
            return self.begin_rewind(instance);
        }
        let Some(session) = session_source(entry) else {
            entry.loading = true;
            self.work.push_back(Work::Load(instance.clone()));
            return None;
        };
        if let Some(at) = entry.held_until.take() {
            self.held.remove(&(at, instance.clone()));
        }
        // One that is terminated before it begins needs no code; so it does not matter why it was parked.
        entry.parked = None;
        let (batch, running) = take_batch(entry);
        let room = self.options.room(entry.state().map(|state| &**state));
        let is_new = entry.begin_turn(running);
        let request = TurnRequest { instance: instance.clone(), batch, session, now: self.now, room };
        Some(self.hand_out(request, is_new))
    }

    fn begin_entity_turn(&mut self, instance: &InstanceId) -> Option<TurnRequest> {
        let entry = self.entries.get_mut(instance)?;
        let (batch, running) = take_entity_batch(entry, self.options.entity_batch_max)?;
        let session = entity_source(entry);
        let is_new = entry.begin_turn(running);
        let (instance, room) = (instance.clone(), HistoryRoom::UNLIMITED);
        Some(self.hand_out(TurnRequest { instance, batch, session, now: self.now, room }, is_new))
    }

    pub(super) fn hand_out(&mut self, request: TurnRequest, is_new_session: bool) -> TurnRequest {
        if is_new_session {
            self.residents.added();
        }
        self.running += 1;
        self.open.turns += 1;
        request
    }

    /// A load is done.
    pub fn on_loaded(&mut self, instance: &InstanceId, loaded: Option<LoadedInstance>) {
        let Some(entry) = self.entries.get_mut(instance) else { return };
        entry.loading = false;
        self.tally.unseen.remove(instance);
        entry.stored |= loaded.is_some();
        let unverified = if matches!(entry.presence, Presence::Unknown) {
            entry.presence = match &loaded {
                Some(loaded) => Presence::Present(Arc::new(loaded.state.clone())),
                None => Presence::Absent,
            };
            if let Some(state) = entry.state() {
                self.tally.learn(instance, state);
            }
            std::mem::take(&mut entry.queue)
        } else {
            Default::default()
        };
        let needed = |loaded: &LoadedInstance| {
            let replayed = loaded.state.status.needs_replay() || !loaded.history.is_empty();
            replayed && loaded.state.entity.is_none()
        };
        entry.loaded = loaded.filter(needed).map(Box::new);
        // Recovery applies what a record accepted as it reads it; so what records accepted meanwhile comes first here.
        for queued in unverified.iter().filter(|queued| queued.logged) {
            self.apply_accepted(&queued.message, Position(self.open.position.0 - 1));
        }
        for mut queued in unverified {
            match queued.unverified.take() {
                Some(asked) => self.verify(instance, queued, asked),
                None => self.requeue(instance, queued),
            }
        }
        self.run_purges(instance);
        self.run_endings(instance);
        self.mark_ready(instance);
        self.forget_if_clean(instance);
    }

    /// A load found that the instance cannot be read. It takes no turns in this process, and clients are told so;
    /// messages that were accepted before that was known are kept.
    pub fn on_damaged(&mut self, instance: &InstanceId, problem: &str) {
        let Some(entry) = self.entries.get_mut(instance) else { return };
        entry.loading = false;
        self.tally.unseen.remove(instance);
        entry.parked = Some(ParkReason::Damaged(problem.to_owned()));
        let rejected = || Err(Rejection::Damaged(problem.to_owned()));
        for mut queued in std::mem::take(&mut entry.queue) {
            match queued.unverified.take() {
                Some(asked) => self.immediate.push(Effect::Reply(asked.token, rejected())),
                None => entry.queue.push_back(queued),
            }
        }
        let purges = std::mem::take(&mut self.purges);
        let (mine, others): (Vec<_>, Vec<_>) = purges.into_iter().partition(|(id, _)| id == instance);
        self.purges = others;
        self.immediate.extend(mine.into_iter().map(|(_, token)| Effect::Reply(token, rejected())));
        self.run_endings(instance);
        self.forget_if_clean(instance);
    }

    /// A message that was accepted before it was known whether its instance exists.
    fn requeue(&mut self, instance: &InstanceId, queued: Queued) {
        let Some(entry) = self.entries.get_mut(instance) else { return };
        if can_be_consumed(entry, &queued.message) {
            entry.queue.push_back(queued);
            return;
        }
        if queued.stored {
            self.changes.delete_queued(queued.sequence);
        }
        if queued.logged {
            let entry = LogEntry::Discarded { instance: instance.clone(), upto: queued.sequence };
            codec::encode(&entry, &mut self.open.buffer);
        } else {
            self.open.settled.push(queued.message.origin);
        }
    }

    /// A turn is done.
    pub fn on_turn(&mut self, instance: &InstanceId, turn: Turn) {
        let Some(running) = self.take_running(instance) else { return };
        self.conclude(instance, turn, running);
        self.after_turn(instance);
        self.run_replacements(instance);
    }

    /// Writes what a turn did, or only that its messages are gone.
    pub(super) fn conclude(&mut self, instance: &InstanceId, turn: Turn, running: RunningBatch) {
        for sequence in &running.stored {
            self.changes.delete_queued(*sequence);
        }
        if !self.suspending.is_empty() {
            self.forget_suspension(instance);
        }
        let asker = running.asker.map(|token| (token, rewound_execution(&turn.events).is_some()));
        if turn.execution.is_none() && turn.messages.is_empty() && turn.entity.is_none() {
            self.forgive(instance);
            if running.any_logged {
                let entry = LogEntry::Discarded { instance: instance.clone(), upto: running.upto };
                codec::encode(&entry, &mut self.open.buffer);
            }
            self.open.settled.extend(running.settled);
        } else {
            self.checkpoint(instance, turn, running);
        }
        if let Some((token, done)) = asker {
            self.answer_rewind(token, instance, done);
        }
    }

    /// A turn could not be run: its messages go back to the front of the queue, and the instance takes no more turns
    /// in this process.
    pub fn on_parked(&mut self, instance: &InstanceId, batch: Vec<TaskMessage>, reason: ParkReason) {
        let Some(running) = self.end_running(instance) else { return };
        self.put_back(instance, batch, running, false);
        if let Some(entry) = self.entries.get_mut(instance) {
            entry.parked = Some(reason);
        }
        self.mark_ready(instance);
        self.evict(instance);
        self.run_replacements(instance);
    }

    pub(super) fn end_running(&mut self, instance: &InstanceId) -> Option<RunningBatch> {
        let running = self.entries.get_mut(instance)?.end_turn()?;
        self.running -= 1;
        Some(running)
    }

    pub(super) fn after_turn(&mut self, instance: &InstanceId) {
        self.note_use(instance);
        let Some(entry) = self.entries.get(instance) else { return };
        let over = entry.state().is_none_or(|state| state.status.is_terminal());
        if !entry.queue.is_empty() {
            self.mark_ready(instance);
        }
        if over || !self.options.extended_sessions {
            self.evict(instance);
        } else if self.residents.count() > self.options.resident_sessions_max {
            self.evict_sessions();
        }
    }

    /// Makes a turn's result part of the open record and of the state.
    fn checkpoint(&mut self, instance: &InstanceId, turn: Turn, running: RunningBatch) {
        let Some(entry) = self.entries.get(instance) else { return };
        let removed_timers = removed_timers(entry.state().map(|state| &**state), &turn);
        let execution = turn
            .execution
            .or_else(|| entry.state().map(|state| state.execution))
            .unwrap_or_else(nil_execution);
        let mut event_bytes = std::mem::take(&mut self.changes.event_buffer);
        event_bytes.clear();
        for event in &turn.events {
            codec::encode(event, &mut event_bytes);
        }
        let messages = turn.messages.into_iter().map(|message| self.number(message)).collect();
        let entry = LogEntry::Checkpoint(CheckpointHead {
            instance: instance.clone(),
            execution,
            consumed_upto: running.upto,
            settled: running.settled,
            messages,
            removed_timers,
            custom_status: turn.custom_status,
            version: turn.version,
            event_bytes: event_bytes.len() as u64,
            cancelled_activities: turn.cancelled_activities,
            ended: turn.ended,
            entity: turn.entity.map(|entity| Box::new(entity_checkpoint(*entity, running.apart))),
        });
        codec::encode(&entry, &mut self.open.buffer);
        self.open.buffer.extend_from_slice(&event_bytes);
        let LogEntry::Checkpoint(head) = entry else { return };
        self.apply_checkpoint(head, turn.events, &event_bytes);
        self.changes.event_buffer = event_bytes;
        if let Some(keepsake) = turn.keepsake {
            let kept = LogEntry::Kept { instance: instance.clone(), keepsake: keepsake.clone() };
            codec::encode(&kept, &mut self.open.buffer);
            self.apply_kept(instance, keepsake);
        }
    }

    /// Gives an outgoing message its number: in the queue of this partition, or in the outbox for another.
    pub(super) fn number(&mut self, mut message: TaskMessage) -> (u64, TaskMessage) {
        let receiver = message.instance.partition(self.options.count);
        if receiver == self.options.id {
            message.origin = Origin::Local;
            self.next_sequence += 1;
            return (self.next_sequence - 1, message);
        }
        let sequence = self.links.allocate(receiver);
        message.origin = Origin::Remote { source: self.options.id, sequence };
        (0, message)
    }
}

fn nil_execution() -> crate::ids::ExecutionId {
    crate::ids::ExecutionId::new(uuid::Uuid::nil())
}

/// Whether code of the instance has begun and not ended.
pub(super) fn is_under_way(entry: &Entry) -> bool {
    entry.state().is_some_and(|state| state.status.needs_replay())
}

/// Where the session of the next turn comes from; none when the history has to be loaded first.
fn session_source(entry: &mut Entry) -> Option<SessionSource> {
    if entry.session == SessionPhase::Idle {
        return Some(SessionSource::Resident);
    }
    let Some(state) = entry.state() else { return Some(SessionSource::New) };
    if !state.status.needs_replay() {
        return Some(SessionSource::New);
    }
    let (events, keepsake) = (state.history_events, state.keepsake.clone());
    let (stored, stored_events, pieces) = whole_history(entry, events)?;
    Some(SessionSource::Replay { stored, stored_events, pieces, keepsake })
}

/// An instance's history of so many events: bytes from the instance store, how many of their events count, and what comes
/// after them. None when it has to be loaded first.
pub(super) fn whole_history(entry: &mut Entry, events: u64) -> Option<(Vec<u8>, u64, Vec<HistoryPiece>)> {
    let pieces = entry.history_pieces();
    let stored_events = pieces.first().map_or(events, |piece| piece.at);
    if entry.has_whole_history() || stored_events == 0 {
        return Some((Vec::new(), 0, pieces));
    }
    // What was loaded may be older than what has been materialised meanwhile; then it is loaded again.
    let loaded = entry.loaded.take().filter(|loaded| loaded.state.history_events >= stored_events)?;
    Some((loaded.history, stored_events, pieces))
}

/// Takes the whole queue, up to a rewind that is not its first message: what comes before that may end the instance.
fn take_batch(entry: &mut Entry) -> (Vec<TaskMessage>, RunningBatch) {
    let rewind = entry.queue.iter().skip(1).position(|queued| is_rewind(&queued.message));
    let count = rewind.map_or(entry.queue.len(), |at| at + 1);
    let mut running = RunningBatch::for_messages(count);
    let mut batch = Vec::with_capacity(count);
    let mut queue = std::mem::take(&mut entry.queue);
    for mut queued in queue.drain(..count) {
        running.note(&queued, u64::MAX);
        if let EventKind::ExecutionStarted(started) = &mut queued.message.event.kind {
            started.incarnation = incarnation(entry, started);
        }
        batch.push(queued.message);
    }
    // It keeps its memory.
    entry.queue = queue;
    (batch, running)
}

/// The timers that a turn makes void: those that its code cancelled, and all of them when the execution ends.
fn removed_timers(before: Option<&InstanceState>, turn: &Turn) -> Vec<(Timestamp, i32)> {
    let ended = turn.events.iter().any(|event| {
        matches!(event.kind, EventKind::ExecutionCompleted { .. } | EventKind::ContinueAsNew { .. })
    });
    if !ended && turn.cancelled_timers.is_empty() {
        return Vec::new();
    }
    let open = before.into_iter().flat_map(|state| state.open_timers.iter().map(|(id, at)| (*at, *id)));
    let created = turn.events.iter().filter_map(|event| match event.kind {
        EventKind::TimerCreated { fire_at } => Some((fire_at, event.event_id)),
        _ => None,
    });
    open.chain(created).filter(|(_, id)| ended || turn.cancelled_timers.contains(id)).collect()
}
