//! The session of an instance whose code runs in another process: its history, and the two halves of its turns.

use std::collections::BTreeSet;
use std::sync::Arc;

use smol_str::SmolStr;

use super::exchange::{RemoteTurn, TurnAnswer};
use super::hooks::{Around, Hooks};
use super::rewind::Rewinding;
use crate::action::{ActionKind, Completion, OrchestratorAction};
use crate::event::{EventKind, ExecutionStarted, HistoryEvent};
use crate::failure::FailureDetails;
use crate::ids::InstanceId;
use crate::message::{Origin, TaskMessage};
use crate::model::{Middleware, Registry};
use crate::payload::Payload;
use crate::time::Timestamp;
use crate::turn::emit::{Ending, emit_action, refuse_start};
use crate::turn::guarded::HistoryRoom;
use crate::turn::ledger::Ledger;
use crate::turn::rewound::refuse_rewind;
use crate::turn::session::{Turn, answered_child, continuation, is_duplicate_start};

/// An instance in memory whose code runs in another process.
pub struct RemoteSession {
    /// Its code is not in there, but middleware is.
    pub(super) registry: Arc<Registry>,
    pub(super) instance: InstanceId,
    max_payload_bytes: usize,
    execution: Option<RemoteExecution>,
    /// The first half of the turn whose answer is awaited.
    asked: Option<(Turn, HistoryRoom)>,
    /// The same of a turn that rewinds.
    pub(super) rewinding: Option<Rewinding>,
}

#[derive(Debug)]
struct RemoteExecution {
    started: Arc<ExecutionStarted>,
    history: Arc<Vec<HistoryEvent>>,
    ledger: Ledger,
    /// Activities without a result.
    activities: BTreeSet<i32>,
    /// The time of the last turn.
    now: Timestamp,
    /// A number greater than that of any action so far.
    next_id: i32,
    suspended: bool,
    ended: bool,
    /// What the last turn in this session set it to; not known before.
    custom_status: Option<Option<Payload>>,
    keepsake: Option<Arc<[u8]>>,
    hooks: Hooks,
}

/// What comes after the first half of a turn.
#[derive(Debug, PartialEq, Eq)]
pub enum RemoteStep {
    /// Nothing: the turn needed no code.
    Done(Turn),
    /// A worker is to run the code, and its answer goes to [`RemoteSession::answer`].
    Ask(RemoteTurn),
}

impl RemoteSession {
    /// A session without history: for a new instance, or one whose execution is over.
    pub fn new(registry: Arc<Registry>, instance: InstanceId, max_payload_bytes: usize) -> Self {
        Self { registry, instance, max_payload_bytes, execution: None, asked: None, rewinding: None }
    }

    /// Takes in a history, and what a worker gave to keep, so that the next turn goes on where it ends.
    pub fn restore(&mut self, history: Vec<HistoryEvent>, keepsake: Option<Arc<[u8]>>) {
        let started = history.iter().find_map(|event| match &event.kind {
            EventKind::ExecutionStarted(started) => Some((started, event.timestamp)),
            _ => None,
        });
        let Some((started, at)) = started else { return };
        let (middleware, instance) = (&self.registry.middleware, &self.instance);
        let mut execution = RemoteExecution::new((**started).clone(), at, middleware, instance);
        history.iter().for_each(|event| execution.note(event));
        execution.custom_status = None;
        execution.keepsake = keepsake;
        execution.history = Arc::new(history);
        self.execution = Some(execution);
    }

    /// How many events the execution's history has, without a turn under way.
    pub fn events(&self) -> usize {
        self.execution.as_ref().map_or(0, |execution| execution.history.len())
    }

    /// Whether the execution in this session is over, so that only a new start can wake it.
    pub fn is_over(&self) -> bool {
        self.execution.as_ref().is_none_or(|execution| execution.ended)
    }

    /// The first half of a turn, over a batch of messages in order. If a turn does not come to its second half, the session
    /// is not to be used again.
    pub fn begin(&mut self, batch: &[TaskMessage], now: Timestamp, room: &HistoryRoom) -> RemoteStep {
        let first = if self.is_over() { continuation(batch) } else { None };
        let rest = batch.iter().enumerate().filter(|(at, _)| Some(*at) != first).map(|(_, message)| message);
        let mut turn = Turn::default();
        let mut terminated = None;
        for message in first.map(|at| &batch[at]).into_iter().chain(rest) {
            self.accept(message, now, &mut terminated, &mut turn);
        }
        let Some(execution) = self.execution.as_mut().filter(|_| turn.execution.is_some()) else {
            return RemoteStep::Done(turn);
        };
        turn.events.iter().for_each(|event| execution.note(event));
        let (middleware, instance) = (&self.registry.middleware, &self.instance);
        let refused = execution.before(middleware, instance, &turn);
        let mut answer = if let Some((reason, recurse)) = terminated {
            execution.ledger.terminated_recursively = recurse;
            TurnAnswer { completion: Some(Completion::Terminated(reason)), ..TurnAnswer::default() }
        } else if let Some(failure) = room.refuse(turn.events.len() + 2) {
            TurnAnswer::failed(failure)
        } else if execution.suspended {
            // It obeys middleware when it is resumed, with the turn that its code takes then.
            execution.after(middleware, instance, &turn, &mut TurnAnswer::default());
            return RemoteStep::Done(execution.close(turn));
        } else if let Some(failure) = refused {
            TurnAnswer::failed(failure)
        } else {
            TurnAnswer::default()
        };
        if answer.completion.is_some() {
            execution.after(middleware, instance, &turn, &mut answer);
            return RemoteStep::Done(execution.finish(instance, turn, answer));
        }
        let asked = RemoteTurn {
            instance: self.instance.clone(),
            started: execution.started.clone(),
            past: execution.history.clone(),
            new: turn.events.as_slice().into(),
            keepsake: execution.keepsake.clone(),
        };
        self.asked = Some((turn, *room));
        RemoteStep::Ask(asked)
    }

    /// The second half: what the worker answered. None when no answer is awaited.
    pub fn answer(&mut self, mut answer: TurnAnswer) -> Option<Turn> {
        let (turn, room) = self.asked.take()?;
        let execution = self.execution.as_mut()?;
        execution.after(&self.registry.middleware, &self.instance, &turn, &mut answer);
        if let Some(failure) = answer.too_large(self.max_payload_bytes) {
            answer = TurnAnswer::failed(failure);
        } else if answer.completion.is_none() {
            // Its end, and that of the turn, are events as well.
            let further = turn.events.len() + answer.patches.len() + answer.actions.len() + 2;
            if let Some(failure) = room.refuse(further) {
                answer = TurnAnswer::failed(failure);
            }
        }
        Some(execution.finish(&self.instance, turn, answer))
    }

    /// Reconciles one message with the state.
    fn accept(
        &mut self,
        message: &TaskMessage,
        now: Timestamp,
        terminated: &mut Option<(SmolStr, bool)>,
        turn: &mut Turn,
    ) {
        let (wanted, mut event) = (message.execution, message.event.clone());
        if let EventKind::ExecutionStarted(started) = &mut event.kind {
            let is_duplicate = self
                .execution
                .as_ref()
                .is_some_and(|execution| is_duplicate_start(&execution.started, started));
            if !self.is_over() || is_duplicate {
                turn.discarded += 1;
                if !is_duplicate {
                    turn.messages.extend(refuse_start(&self.instance, started, event.timestamp));
                }
                return;
            }
            started.version_inherited = false;
            let (middleware, instance) = (&self.registry.middleware, &self.instance);
            let execution = RemoteExecution::new((**started).clone(), event.timestamp, middleware, instance);
            // A continuation's start has the time of the turn that asked for it, and no instance's clock goes back.
            let now = if started.generation > 0 { now.max(event.timestamp) } else { now };
            self.execution.insert(execution).open(now, turn);
        } else {
            let answered = answered_child(&event.kind);
            let current = self.execution.as_mut().filter(|execution| !execution.ended);
            let addressed = current.filter(|execution| {
                let version = &execution.started.version;
                wanted.is_none_or(|wanted| execution.started.answers_to(wanted, answered))
                    && event.kind.wanted_version().is_none_or(|wanted| wanted == version)
            });
            if let EventKind::ExecutionRewound { .. } = &event.kind {
                match addressed {
                    // Its history was rewritten, and nobody has run the code over it yet.
                    Some(execution) if wanted.is_some() && terminated.is_none() => execution.open(now, turn),
                    _ => {
                        turn.discarded += 1;
                        let parent = self.execution.as_ref().and_then(|it| it.started.parent.as_ref());
                        turn.messages.extend(refuse_rewind(&self.instance, parent, &event));
                    }
                }
                return;
            }
            match addressed {
                Some(execution) if terminated.is_none() && !execution.has_answer(answered) => {
                    execution.open(now, turn);
                }
                _ => {
                    turn.discarded += 1;
                    return;
                }
            }
        }
        if let EventKind::ExecutionTerminated { reason, recurse } = &event.kind {
            *terminated = Some((reason.clone(), *recurse));
        }
        turn.events.push(event);
    }
}

impl RemoteExecution {
    fn new(
        started: ExecutionStarted,
        started_at: Timestamp,
        middleware: &Middleware,
        instance: &InstanceId,
    ) -> Self {
        let hooks = Hooks::begin(&Around { middleware, instance, started: &started });
        Self {
            hooks,
            ledger: Ledger::new(started.created_at.unwrap_or(started_at)),
            started: Arc::new(started),
            history: Arc::default(),
            activities: BTreeSet::new(),
            now: Timestamp::default(),
            next_id: 0,
            suspended: false,
            ended: false,
            custom_status: Some(None),
            keepsake: None,
        }
    }

    /// Middleware sees that a turn begins; the failure with which it refuses that.
    fn before(
        &mut self,
        middleware: &Middleware,
        instance: &InstanceId,
        turn: &Turn,
    ) -> Option<FailureDetails> {
        self.hooks.before(&Around { middleware, instance, started: &self.started }, turn)
    }

    /// Middleware sees the answer to a turn.
    fn after(
        &mut self,
        middleware: &Middleware,
        instance: &InstanceId,
        turn: &Turn,
        answer: &mut TurnAnswer,
    ) {
        if !middleware.turns.is_empty() {
            self.hooks.after(&Around { middleware, instance, started: &self.started }, turn, answer);
        }
    }

    /// Takes note of an event of its history.
    fn note(&mut self, event: &HistoryEvent) {
        self.ledger.note_action(event);
        self.ledger.note_answer(&event.kind);
        self.note_number(event);
        match &event.kind {
            EventKind::OrchestratorStarted => self.now = self.now.max(event.timestamp),
            EventKind::TaskCompleted { task_scheduled_id, .. }
            | EventKind::TaskFailed { task_scheduled_id, .. } => {
                self.activities.remove(task_scheduled_id);
            }
            EventKind::ExecutionSuspended { .. } => self.suspended = true,
            EventKind::ExecutionResumed { .. } => self.suspended = false,
            EventKind::ExecutionCompleted { .. } | EventKind::ContinueAsNew { .. } => self.ended = true,
            _ => {}
        }
    }

    fn note_number(&mut self, event: &HistoryEvent) {
        self.next_id = self.next_id.max(event.event_id.saturating_add(1));
        if let EventKind::TaskScheduled { .. } = event.kind {
            self.activities.insert(event.event_id);
        }
    }

    /// Whether a child has answered before: one that was rewound, or whose parent was, may answer again.
    fn has_answer(&self, answered: Option<i32>) -> bool {
        answered.is_some_and(|child| !self.ledger.children.contains_key(&child))
    }

    /// Begins the turn with `OrchestratorStarted`, once. The clock of an execution never goes back.
    fn open(&mut self, now: Timestamp, turn: &mut Turn) {
        if turn.execution.is_none() {
            turn.execution = Some(self.started.execution);
            turn.version = self.started.version.clone();
            turn.events.push(HistoryEvent::message(now.max(self.now), EventKind::OrchestratorStarted));
        }
    }

    /// Makes events and messages of what the code asked for, and ends the turn.
    fn finish(&mut self, instance: &InstanceId, mut turn: Turn, answer: TurnAnswer) -> Turn {
        let now = turn.events[0].timestamp;
        if let Some(keepsake) = answer.kept().filter(|_| answer.completion.is_none())
            && self.keepsake.as_ref() != Some(keepsake)
        {
            turn.keepsake = Some(keepsake.clone());
            self.keepsake.clone_from(&turn.keepsake);
        }
        let TurnAnswer { actions, completion, completion_id, carried_events, terminations, .. } = answer;
        for id in answer.patches {
            turn.events.push(HistoryEvent::message(now, EventKind::PatchApplied { id }));
        }
        turn.cancelled_timers = answer.cancelled_timers;
        turn.cancelled_activities = answer.cancelled_activities;
        turn.cancelled_activities.retain(|id| self.activities.contains(id));
        for mut action in actions {
            self.distinguish_child(&mut action);
            emit_action(instance, &self.started, &mut self.ledger, action, now, &mut turn);
            turn.events.last().into_iter().for_each(|event| self.note_number(event));
        }
        let terminate = |(instance, reason, recurse): (InstanceId, SmolStr, bool)| {
            let event = HistoryEvent::message(now, EventKind::ExecutionTerminated { reason, recurse });
            TaskMessage { instance, execution: None, event, origin: Origin::Local }
        };
        turn.messages.extend(terminations.into_iter().map(terminate));
        let status = answer.custom_status;
        let by_code = !matches!(completion, Some(Completion::Terminated(_)));
        if by_code && !answer.keeps_custom_status && self.custom_status.as_ref() != Some(&status) {
            turn.custom_status = Some(status.clone().unwrap_or_else(|| Payload::from_json("")));
            self.custom_status = Some(status);
        }
        if let Some(mut completion) = completion {
            if let Completion::ContinueAsNew { preserve_events, .. } = &mut completion {
                *preserve_events = true;
            }
            let event_id = completion_id.filter(|id| *id >= self.next_id).unwrap_or(self.next_id);
            let ending = Ending { instance, started: &self.started, event_id, now };
            ending.emit(&mut self.ledger, completion, || carried_events, &mut turn);
            self.ended = true;
        }
        self.close(turn)
    }

    /// A child that is created again under the number of one that failed is another execution: the worker need not number
    /// its attempts.
    fn distinguish_child(&self, action: &mut OrchestratorAction) {
        if let ActionKind::CreateSubOrchestration(created) = &mut action.kind {
            let turn = i32::try_from(self.history.len()).unwrap_or(i32::MAX);
            created.execution = self.started.execution.derive("child", action.id).derive("turn", turn);
        }
    }

    /// Ends a turn whose events are complete.
    fn close(&mut self, mut turn: Turn) -> Turn {
        let now = turn.events[0].timestamp;
        turn.events.push(HistoryEvent::message(now, EventKind::OrchestratorCompleted));
        turn.ended = self.ended;
        if self.ended {
            turn.cancelled_activities = std::mem::take(&mut self.activities).into_iter().collect();
            self.history = Arc::default();
        } else {
            Arc::make_mut(&mut self.history).extend_from_slice(&turn.events);
        }
        turn
    }
}
