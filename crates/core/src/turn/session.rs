//! A session: an instance in memory, and the turns it takes.

use std::rc::Rc;
use std::sync::Arc;

use smol_str::SmolStr;

use super::emit::{emit, refuse_start};
use super::execution::Execution;
use super::guarded::HistoryRoom;
use super::hooks;
use super::nondeterminism::NonDeterminism;
use super::rewound::refuse_rewind;
use crate::action::Completion;
use crate::entity::EntityTurn;
use crate::event::{CarriedEvent, EventKind, ExecutionStarted, HistoryEvent};
use crate::ids::{ExecutionId, InstanceId};
use crate::message::TaskMessage;
use crate::model::{OnNonDeterminism, Registry};
use crate::payload::Payload;
use crate::time::Timestamp;
use crate::version::{VersionFailure, VersionMismatch};

/// An instance in memory. As long as it lives, its user future stays suspended where it is and a turn feeds it only
/// what is new; a session made anew replays the history first.
pub struct Session {
    pub(super) registry: Arc<Registry>,
    pub(super) instance: InstanceId,
    max_payload_bytes: usize,
    pub(super) execution: Option<Execution>,
    /// Of the execution that the turn under way begins: the version that its start asked for, and whether as an inherited one.
    asked_version: Option<(ExecutionId, SmolStr, bool)>,
}

/// `OrchestratorStarted`, an action, and `OrchestratorCompleted`.
const EVENTS_OF_A_SMALL_TURN: usize = 3;

/// In place of an event that a turn has taken out of its batch. No event of a message has such a number.
const TAKEN: i32 = i32::MIN;

/// The code of a loaded instance is not registered in this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no orchestration is registered as '{name}' version '{version}'")]
pub struct NotRegistered {
    /// The name asked for.
    pub name: SmolStr,
    /// The version asked for.
    pub version: SmolStr,
}

/// Why a program leaves an instance alone. Nothing has been changed, and another program can go on with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its code is not registered.
    #[error(transparent)]
    NotRegistered(#[from] NotRegistered),
    /// The program does not take instances of its version.
    #[error(transparent)]
    Version(#[from] VersionMismatch),
    /// Its code disagrees with its history, and the program does not fail such instances.
    #[error(transparent)]
    Disagrees(#[from] NonDeterminism),
}

/// What one turn changed: everything that must become durable together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The execution that the events belong to; none when every message was discarded.
    pub execution: Option<ExecutionId>,
    /// The instance's version.
    pub version: SmolStr,
    /// New events, in order. If the first after `OrchestratorStarted` is `ExecutionStarted`, a new history begins.
    pub events: Vec<HistoryEvent>,
    /// Messages to other instances, and to the instance itself when it continues as new.
    pub messages: Vec<TaskMessage>,
    /// Timers that the code lost interest in.
    pub cancelled_timers: Vec<i32>,
    /// Activities whose outcome nobody waits for any more: the code dropped their futures, or the execution has ended.
    pub cancelled_activities: Vec<i32>,
    /// The execution has ended, or continues as new.
    pub ended: bool,
    /// The custom status, if the code set it.
    pub custom_status: Option<Payload>,
    /// What a worker gave to keep for its next turns, if that is something new.
    pub keepsake: Option<Arc<[u8]>>,
    /// Of an entity: what it is from now on. It has no events.
    pub entity: Option<Box<EntityTurn>>,
    /// How many messages were discarded: duplicates, and those for executions that are over.
    pub discarded: usize,
}

impl Session {
    /// A session without history: for a new instance, or one whose execution is over.
    pub fn new(registry: Arc<Registry>, instance: InstanceId, max_payload_bytes: usize) -> Self {
        Self { registry, instance, max_payload_bytes, execution: None, asked_version: None }
    }

    /// Replays a history, so that the next turn goes on where it ends. It may come in pieces of whole turns. History that the code disagrees with does not
    /// fail here: the next turn ends the execution with a [`super::NonDeterminism`] failure.
    ///
    /// # Errors
    /// When this program does not go on with the instance.
    pub fn replay(&mut self, history: &[HistoryEvent]) -> Result<(), Unfit> {
        let parks = self.registry.on_nondeterminism() == OnNonDeterminism::Park;
        self.replay_with(history, parks, |_, _| {}).map_err(|(_, unfit)| unfit)
    }

    /// [`Session::replay`] that shows each event to `seen` before it is fed, and says at which one it stopped. `stops` says
    /// that it does where the code disagrees.
    pub(super) fn replay_with(
        &mut self,
        history: &[HistoryEvent],
        stops: bool,
        mut seen: impl FnMut(&Execution, &HistoryEvent),
    ) -> Result<(), (usize, Unfit)> {
        if let Some(execution) = &mut self.execution {
            execution.set_replaying(true);
        }
        let mut began = None;
        let patched = history.iter().any(|event| matches!(event.kind, EventKind::PatchApplied { .. }));
        for (at, event) in history.iter().enumerate() {
            if event.kind == EventKind::OrchestratorStarted {
                began = Some(event.timestamp);
                if patched {
                    self.note_patches(&history[at..]);
                }
            }
            if let EventKind::ExecutionStarted(started) = &event.kind {
                let mismatch = self.enter(started, event.timestamp).map_err(|unfit| (at, unfit))?;
                self.note_patches(&history[at..]);
                if let Some(execution) = &mut self.execution {
                    execution.set_replaying(true);
                    // The turn's OrchestratorStarted stands before it.
                    execution.context.borrow_mut().now = began.unwrap_or(event.timestamp);
                }
                if terminated_unborn(&history[at..]) {
                    continue;
                }
                if let Some(execution) = &mut self.execution {
                    if let Some(mismatch) = mismatch {
                        execution.disagreed = true;
                        execution.fail(mismatch.into());
                    } else if suspended_unborn(&history[at..]) {
                        execution.begin_suspended(event);
                        continue;
                    }
                }
            }
            let Some(execution) = &mut self.execution else { continue };
            seen(execution, event);
            if execution.disagreed {
                execution.skip(event);
            } else if let Err(error) = execution.feed(event) {
                if stops {
                    return Err((at, error.into()));
                }
                execution.fail_nondeterministic(error);
                execution.skip(event);
            }
        }
        if let Some(execution) = &mut self.execution {
            execution.set_replaying(false);
        }
        Ok(())
    }

    /// Begins an execution under the version that its history says. Gives why it is to fail, if this program fails those of
    /// its version.
    ///
    /// # Errors
    /// When this program does not go on with it.
    pub(super) fn enter(
        &mut self,
        started: &ExecutionStarted,
        at: Timestamp,
    ) -> Result<Option<VersionMismatch>, Unfit> {
        let ExecutionStarted { name, version, .. } = started;
        let mismatch = self.registry.versions().check(version).err();
        if let Some(mismatch) = &mismatch
            && self.registry.versions().failure_strategy == VersionFailure::Reject
        {
            return Err(mismatch.clone().into());
        }
        if mismatch.is_none() && self.registry.find_orchestration(name, version).is_none() {
            return Err(NotRegistered { name: name.clone(), version: version.clone() }.into());
        }
        self.begin(started, at);
        Ok(mismatch)
    }

    pub(super) fn execution_mut(&mut self) -> Option<&mut Execution> {
        self.execution.as_mut()
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(super) fn instance(&self) -> &InstanceId {
        &self.instance
    }

    fn begin(&mut self, started: &ExecutionStarted, at: Timestamp) {
        let code = self.registry.find_orchestration(&started.name, &started.version).cloned();
        let (started, instance) = (Rc::new(started.clone()), self.instance.clone());
        let converter = self.registry.converter().clone();
        let execution = Execution::new(instance, started, code, converter, self.max_payload_bytes, at);
        let worker_version = self.registry.versions().version.clone();
        execution.context.borrow_mut().worker_version = worker_version;
        hooks::begin(&self.registry.middleware, &self.instance, &execution);
        self.execution = Some(execution);
    }

    /// Lets the code that is replayed know which patches the turn at the front of `history` recorded.
    fn note_patches(&mut self, history: &[HistoryEvent]) {
        let Some(execution) = &mut self.execution else { return };
        let recorded = turn_of(history).filter_map(|event| match &event.kind {
            EventKind::PatchApplied { id } => Some(id.clone()),
            _ => None,
        });
        execution.context.borrow_mut().patches.recorded = recorded.collect();
    }

    /// Whether this program takes the turn over `batch`, which it does unless its versions say otherwise.
    ///
    /// # Errors
    /// When it does not: the turn is not to be run.
    pub fn check(&self, batch: &[TaskMessage]) -> Result<(), Unfit> {
        let versions = self.registry.versions();
        if versions.failure_strategy != VersionFailure::Reject {
            return Ok(());
        }
        match self.execution.as_ref().filter(|execution| !execution.ended) {
            Some(execution) => versions.check(&execution.started.version)?,
            None => {
                let begun = batch.iter().enumerate().find_map(|(at, message)| match &message.event.kind {
                    EventKind::ExecutionStarted(started) => Some((started, &batch[at + 1..])),
                    _ => None,
                });
                // One that is terminated before it begins needs nobody who could run it.
                if let Some((started, rest)) = begun
                    && !is_sent(rest, started.execution, is_termination)
                {
                    versions.check(&self.registry.version_of(started))?;
                }
            }
        }
        Ok(())
    }

    /// Whether the execution in this session is over, so that only a new start can wake it.
    pub fn is_over(&self) -> bool {
        self.execution.as_ref().is_none_or(|execution| execution.ended)
    }

    /// Runs one turn over a batch of messages, in order.
    pub fn turn(&mut self, mut batch: Vec<TaskMessage>, now: Timestamp) -> Turn {
        if self.is_over() {
            put_continuation_first(&mut batch);
        }
        let mut turn = Turn::default();
        self.run(&mut batch, now, &HistoryRoom::UNLIMITED, &mut turn);
        turn
    }

    /// The events move from the batch to the turn. [`Session::put_events_back`] undoes that.
    pub(super) fn run(
        &mut self,
        batch: &mut [TaskMessage],
        now: Timestamp,
        room: &HistoryRoom,
        turn: &mut Turn,
    ) {
        self.asked_version = None;
        turn.events.reserve(batch.len() + EVENTS_OF_A_SMALL_TURN);
        let mut rest = batch;
        while let Some((message, behind)) = rest.split_first_mut() {
            self.accept(message, behind, now, turn);
            rest = behind;
        }
        if let Some(execution) = &mut self.execution
            && turn.execution.is_some()
        {
            execution.end_without_room(room, turn);
            emit(&self.registry.middleware, &self.instance, execution, turn);
        }
    }

    /// Makes the batch what it was before a turn that did not end well.
    pub(super) fn put_events_back(&mut self, batch: &mut [TaskMessage], turn: Turn) {
        // Behind `OrchestratorStarted`, what was taken comes first, and in the order of the batch.
        let mut taken = turn.events.into_iter().skip(1);
        for message in batch {
            if message.event.event_id == TAKEN
                && let Some(event) = taken.next()
            {
                message.event = event;
            }
            if let EventKind::ExecutionStarted(started) = &mut message.event.kind
                && let Some((_, version, inherited)) =
                    self.asked_version.take_if(|(execution, ..)| *execution == started.execution)
            {
                (started.version, started.version_inherited) = (version, inherited);
            }
        }
    }

    /// Reconciles one message with the state, and feeds its event to the execution it is for.
    fn accept(&mut self, message: &mut TaskMessage, rest: &[TaskMessage], now: Timestamp, turn: &mut Turn) {
        let TaskMessage { execution: wanted, event, .. } = message;
        if let EventKind::ExecutionStarted(started) = &mut event.kind {
            if !self.is_over() || self.is_known(started) {
                turn.discarded += 1;
                if !self.is_known(started) {
                    turn.messages.extend(refuse_start(&self.instance, started, event.timestamp));
                }
                return;
            }
            // An instance keeps the version that it began with, also when a greater one is registered later.
            let version = self.registry.version_of(started);
            let asked = std::mem::replace(&mut started.version, version);
            let inherited = std::mem::take(&mut started.version_inherited);
            self.asked_version = Some((started.execution, asked, inherited));
            self.begin(started, event.timestamp);
            // A continuation's start has the time of the turn that asked for it, and no instance's clock goes back.
            let now = if started.generation > 0 { now.max(event.timestamp) } else { now };
            open_turn(self.execution.as_ref(), now, turn);
            if self.refused(true) {
                take_event(event, turn);
                return;
            }
            let (execution, mismatch) = (started.execution, self.registry.versions().check(&started.version));
            if is_sent(rest, execution, is_termination) {
                // Terminated before it began: its code never runs.
                take_event(event, turn);
                return;
            }
            if let (Some(execution), Err(mismatch)) = (&mut self.execution, mismatch) {
                execution.fail(mismatch.into());
                take_event(event, turn);
                return;
            }
            if is_sent(rest, execution, is_suspension) {
                // Suspended before it began: its code waits.
                if let Some(execution) = &mut self.execution {
                    execution.begin_suspended(event);
                }
                take_event(event, turn);
                return;
            }
        } else {
            if matches!(event.kind, EventKind::ExecutionRewound { .. }) {
                // Of an instance that has not failed, so it changes nothing.
                turn.discarded += 1;
                let parent = self.execution.as_ref().and_then(|it| it.started.parent.as_ref());
                turn.messages.extend(refuse_rewind(&self.instance, parent, event));
                return;
            }
            let current = self.execution.as_ref().filter(|execution| !execution.ended);
            let addressed = current.is_some_and(|execution| {
                let answers = |wanted| execution.started.answers_to(wanted, answered_child(&event.kind));
                wanted.is_none_or(answers)
            });
            let other_version = event
                .kind
                .wanted_version()
                .is_some_and(|wanted| current.is_some_and(|current| current.started.version != *wanted));
            let answered = current.is_some_and(|execution| execution.has_answer(&event.kind));
            if !addressed || answered || other_version {
                turn.discarded += 1;
                return;
            }
            let opens = turn.execution.is_none();
            open_turn(current, now, turn);
            if opens {
                self.refused(false);
            }
        }
        let Some(execution) = &mut self.execution else { return };
        execution.context.borrow_mut().now = turn.events[0].timestamp;
        let over = execution.completion.is_some() && !execution.suspended;
        let continues = matches!(execution.completion, Some(Completion::ContinueAsNew { .. }));
        let overrides = continues && matches!(event.kind, EventKind::ExecutionTerminated { .. });
        if over && !overrides {
            match &event.kind {
                // Arrived in the turn in which the code continued as new: it goes along.
                EventKind::EventRaised { .. } | EventKind::VersionedEventRaised(_) if continues => {
                    execution.context.borrow_mut().inbox.extend(CarriedEvent::of(event));
                }
                EventKind::ExecutionSuspended { .. } | EventKind::ExecutionResumed { .. } if continues => {
                    execution.ledger.forwarded.push(event.clone());
                }
                _ => turn.discarded += 1,
            }
            return;
        }
        if let Err(error) = execution.feed(event) {
            execution.fail_nondeterministic(error);
        }
        take_event(event, turn);
    }

    /// The turn has begun. True when middleware refused it; the execution has failed then.
    pub(super) fn refused(&mut self, is_first: bool) -> bool {
        let middleware = &self.registry.middleware;
        match &mut self.execution {
            Some(execution) if !middleware.turns.is_empty() => {
                execution.first_turn = is_first;
                hooks::before(middleware, &self.instance, execution, is_first)
            }
            _ => false,
        }
    }

    /// Whether a start is a duplicate of that of the execution in this session.
    fn is_known(&self, started: &ExecutionStarted) -> bool {
        self.execution.as_ref().is_some_and(|known| is_duplicate_start(&known.started, started))
    }
}

/// Whether a start is a duplicate: that of the execution `known`, or of one that it continues.
pub(super) fn is_duplicate_start(known: &ExecutionStarted, started: &ExecutionStarted) -> bool {
    let continues = known.generation > started.generation && started.parent.is_some();
    known.answers_to(started.execution, Some(i32::MIN)) || continues && known.parent == started.parent
}

/// An instance that continues as new is there all the time: what was sent to it before its next execution began, and
/// was not for the one before, is for the next.
/// Returns how many messages changed their places: the first so many.
pub(super) fn put_continuation_first(batch: &mut [TaskMessage]) -> usize {
    let moved = continuation(batch).map_or(0, |at| at + 1);
    batch[..moved].rotate_right(moved.min(1));
    moved
}

/// Where in a batch the start of an instance is that continues as new.
pub(super) fn continuation(batch: &[TaskMessage]) -> Option<usize> {
    batch.iter().position(|message| match &message.event.kind {
        EventKind::ExecutionStarted(started) => started.generation > 0,
        _ => false,
    })
}

/// The start that a batch for an instance without a live execution begins with, if it holds one.
pub fn first_start(batch: &[TaskMessage]) -> Option<&ExecutionStarted> {
    let mut starts = batch.iter().filter_map(|message| match &message.event.kind {
        EventKind::ExecutionStarted(started) => Some(&**started),
        _ => None,
    });
    match continuation(batch) {
        Some(_) => starts.find(|started| started.generation > 0),
        None => starts.next(),
    }
}

/// The events of the turn at the front of `history`.
fn turn_of(history: &[HistoryEvent]) -> impl Iterator<Item = &HistoryEvent> {
    history.iter().take_while(|event| event.kind != EventKind::OrchestratorCompleted)
}

/// Whether the turn at the front of `history`, which begins an execution, also terminates it: its code never ran then.
fn terminated_unborn(history: &[HistoryEvent]) -> bool {
    turn_of(history).any(|event| is_termination(&event.kind))
}

/// Whether the turn at the front of `history`, which begins an execution, also suspends it: its code waited then.
pub(super) fn suspended_unborn(history: &[HistoryEvent]) -> bool {
    turn_of(history).any(|event| is_suspension(&event.kind))
}

fn is_termination(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ExecutionTerminated { .. })
}

fn is_suspension(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ExecutionSuspended { .. })
}

/// Whether a message of a kind is among those for `execution`.
fn is_sent(messages: &[TaskMessage], execution: ExecutionId, kind: fn(&EventKind) -> bool) -> bool {
    let addressed = |message: &TaskMessage| message.execution.is_none_or(|wanted| wanted == execution);
    messages.iter().any(|message| kind(&message.event.kind) && addressed(message))
}

/// The action that a sub-orchestration's result answers.
pub(super) fn answered_child(kind: &EventKind) -> Option<i32> {
    match kind {
        EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, .. }
        | EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, .. } => Some(*task_scheduled_id),
        _ => None,
    }
}

/// Makes the message's event part of the turn.
fn take_event(event: &mut HistoryEvent, turn: &mut Turn) {
    let (timestamp, kind) = (event.timestamp, EventKind::OrchestratorStarted);
    turn.events.push(std::mem::replace(event, HistoryEvent { event_id: TAKEN, timestamp, kind }));
}

/// Begins the turn with `OrchestratorStarted`, once. The clock of an execution never goes back.
fn open_turn(execution: Option<&Execution>, now: Timestamp, turn: &mut Turn) {
    let Some(execution) = execution else { return };
    if turn.execution.is_none() {
        turn.execution = Some(execution.started.execution);
        turn.version = execution.started.version.clone();
        let now = now.max(execution.now());
        turn.events.push(HistoryEvent::message(now, EventKind::OrchestratorStarted));
    }
}
