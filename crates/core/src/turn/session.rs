//! A session: an instance in memory, and the turns it takes.

use std::rc::Rc;
use std::sync::Arc;

use smol_str::SmolStr;

use super::entities::entity_message;
use super::execution::{Execution, is_lock_step};
use crate::action::{ActionKind, Completion};
use crate::event::{
    CarriedEvent, EventKind, ExecutionStarted, HistoryEvent, NO_EVENT_ID, ParentInstance,
    SubOrchestrationCreated,
};
use crate::failure::{FailureDetails, kinds};
use crate::ids::{ExecutionId, InstanceId};
use crate::message::{Origin, TaskMessage};
use crate::model::Registry;
use crate::payload::Payload;
use crate::state::OrchestrationStatus;
use crate::time::Timestamp;

/// An instance in memory. As long as it lives, its user future stays suspended where it is and a turn feeds it only
/// what is new; a session made anew replays the history first.
pub struct Session {
    registry: Arc<Registry>,
    instance: InstanceId,
    max_payload_bytes: usize,
    execution: Option<Execution>,
}

/// The code of a loaded instance is not registered in this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no orchestration is registered as '{name}' version '{version}'")]
pub struct NotRegistered {
    /// The name asked for.
    pub name: SmolStr,
    /// The version asked for.
    pub version: SmolStr,
}

/// What one turn changed: everything that must become durable together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The execution that the events belong to; none when every message was discarded.
    pub execution: Option<ExecutionId>,
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
    /// How many messages were discarded: duplicates, and those for executions that are over.
    pub discarded: usize,
}

impl Session {
    /// A session without history: for a new instance, or one whose execution is over.
    pub fn new(registry: Arc<Registry>, instance: InstanceId, max_payload_bytes: usize) -> Self {
        Self { registry, instance, max_payload_bytes, execution: None }
    }

    /// Replays a history, so that the next turn goes on where it ends. It may come in pieces of whole turns. History that the code disagrees with does not
    /// fail here: the next turn ends the execution with a [`super::NonDeterminism`] failure.
    ///
    /// # Errors
    /// When the orchestration is not registered; nothing has been changed then, and a program that has it can go on.
    pub fn replay(&mut self, history: &[HistoryEvent]) -> Result<(), NotRegistered> {
        if let Some(execution) = &mut self.execution {
            execution.set_replaying(true);
        }
        let mut began = None;
        for (at, event) in history.iter().enumerate() {
            if event.kind == EventKind::OrchestratorStarted {
                began = Some(event.timestamp);
            }
            if let EventKind::ExecutionStarted(started) = &event.kind {
                let ExecutionStarted { name, version, .. } = &**started;
                if self.registry.find_orchestration(name, version).is_none() {
                    return Err(NotRegistered { name: name.clone(), version: version.clone() });
                }
                self.begin(started);
                if let Some(execution) = &mut self.execution {
                    execution.set_replaying(true);
                    // The turn's OrchestratorStarted stands before it.
                    execution.context.borrow_mut().now = began.unwrap_or(event.timestamp);
                }
                if terminated_unborn(&history[at..]) {
                    continue;
                }
            }
            let Some(execution) = &mut self.execution else { continue };
            if execution.disagreed {
                execution.skip(event);
            } else if let Err(error) = execution.feed(event) {
                execution.fail_nondeterministic(error);
                execution.skip(event);
            }
        }
        if let Some(execution) = &mut self.execution {
            execution.set_replaying(false);
        }
        Ok(())
    }

    fn begin(&mut self, started: &ExecutionStarted) {
        let code = self.registry.find_orchestration(&started.name, &started.version).cloned();
        let started = Rc::new(started.clone());
        self.execution = Some(Execution::new(self.instance.clone(), started, code, self.max_payload_bytes));
    }

    /// Whether the execution in this session is over, so that only a new start can wake it.
    pub fn is_over(&self) -> bool {
        self.execution.as_ref().is_none_or(|execution| execution.ended)
    }

    /// Runs one turn over a batch of messages, in order.
    pub fn turn(&mut self, mut batch: Vec<TaskMessage>, now: Timestamp) -> Turn {
        let mut turn = Turn::default();
        if self.is_over() {
            put_continuation_first(&mut batch);
        }
        let mut batch = batch.into_iter();
        while let Some(message) = batch.next() {
            self.accept(message, batch.as_slice(), now, &mut turn);
        }
        if let Some(execution) = &mut self.execution
            && turn.execution.is_some()
        {
            emit(&self.instance, execution, &mut turn);
        }
        turn
    }

    /// Reconciles one message with the state, and feeds its event to the execution it is for.
    fn accept(&mut self, message: TaskMessage, rest: &[TaskMessage], now: Timestamp, turn: &mut Turn) {
        let mut event = message.event;
        if let EventKind::ExecutionStarted(started) = &mut event.kind {
            if !self.is_over() || self.is_known(started) {
                turn.discarded += 1;
                turn.messages.extend(self.refuse_start(started, event.timestamp));
                return;
            }
            // An instance keeps the version that it began with, also when a greater one is registered later.
            if started.version.is_empty()
                && let Some(version) = self.registry.greatest_version(&started.name)
            {
                started.version = version.clone();
            }
            self.begin(started);
            // A continuation's start has the time of the turn that asked for it, and no instance's clock goes back.
            let now = if started.generation > 0 { now.max(event.timestamp) } else { now };
            open_turn(self.execution.as_ref(), now, turn);
            let execution = started.execution;
            let terminates = |later: &TaskMessage| {
                matches!(later.event.kind, EventKind::ExecutionTerminated { .. })
                    && later.execution.is_none_or(|wanted| wanted == execution)
            };
            if rest.iter().any(terminates) {
                // Terminated before it began: its code never runs.
                turn.events.push(event);
                return;
            }
        } else {
            let current = self.execution.as_ref().filter(|execution| !execution.ended);
            let addressed = current.is_some_and(|execution| {
                message.execution.is_none_or(|wanted| wanted == execution.started.execution)
            });
            if !addressed {
                turn.discarded += 1;
                return;
            }
            open_turn(current, now, turn);
        }
        let Some(execution) = &mut self.execution else { return };
        execution.context.borrow_mut().now = turn.events[0].timestamp;
        let over = execution.completion.is_some() && !execution.suspended;
        let continues = matches!(execution.completion, Some(Completion::ContinueAsNew { .. }));
        let overrides = continues && matches!(event.kind, EventKind::ExecutionTerminated { .. });
        if over && !overrides {
            match event.kind {
                // Arrived in the turn in which the code continued as new: it goes along.
                EventKind::EventRaised { name, input, trace } if continues => {
                    let carried = CarriedEvent { name, input, timestamp: event.timestamp, trace };
                    execution.context.borrow_mut().inbox.push(carried);
                }
                EventKind::ExecutionSuspended { .. } | EventKind::ExecutionResumed { .. } if continues => {
                    execution.forwarded.push(event);
                }
                _ => turn.discarded += 1,
            }
            return;
        }
        if let Err(error) = execution.feed(&event) {
            execution.fail_nondeterministic(error);
        }
        turn.events.push(event);
    }

    /// Whether a start is a duplicate: that of the execution in this session, or of one that it continues.
    fn is_known(&self, started: &ExecutionStarted) -> bool {
        self.execution.as_ref().is_some_and(|known| {
            let continues = known.started.generation > started.generation && started.parent.is_some();
            known.started.execution == started.execution
                || continues && known.started.parent == started.parent
        })
    }

    /// The id is in use by a live instance: whoever awaits the new one is told.
    fn refuse_start(&self, started: &ExecutionStarted, at: Timestamp) -> Option<TaskMessage> {
        let parent = started.parent.as_ref().filter(|_| !self.is_known(started))?;
        let problem = format!("an instance with id '{}' exists and has not ended", self.instance);
        let failure = Box::new(FailureDetails::new(kinds::ALREADY_EXISTS, problem));
        Some(to_parent(parent, at, Err(failure)))
    }
}

/// An instance that continues as new is there all the time: what was sent to it before its next execution began, and
/// was not for the one before, is for the next.
fn put_continuation_first(batch: &mut [TaskMessage]) {
    let is_continuation = |message: &TaskMessage| match &message.event.kind {
        EventKind::ExecutionStarted(started) => started.generation > 0,
        _ => false,
    };
    if let Some(at) = batch.iter().position(is_continuation) {
        batch[..=at].rotate_right(1);
    }
}

/// Whether the turn at the front of `history`, which begins an execution, also terminates it: its code never ran then.
fn terminated_unborn(history: &[HistoryEvent]) -> bool {
    let mut turn = history.iter().take_while(|event| event.kind != EventKind::OrchestratorCompleted);
    turn.any(|event| matches!(event.kind, EventKind::ExecutionTerminated { .. }))
}

/// Begins the turn with `OrchestratorStarted`, once. The clock of an execution never goes back.
fn open_turn(execution: Option<&Execution>, now: Timestamp, turn: &mut Turn) {
    let Some(execution) = execution else { return };
    if turn.execution.is_none() {
        turn.execution = Some(execution.started.execution);
        let now = now.max(execution.now());
        turn.events.push(HistoryEvent::message(now, EventKind::OrchestratorStarted));
    }
}

/// Turns what the code asked for into events and messages, and closes the turn.
fn emit(instance: &InstanceId, execution: &mut Execution, turn: &mut Turn) {
    let now = turn.events[0].timestamp;
    // Nothing is emitted while suspended; what was asked for waits for the resumption.
    let mut completion = None;
    if execution.is_terminated() {
        execution.context.borrow_mut().actions.clear();
        completion = execution.completion.take();
    } else if !execution.suspended {
        emit_actions(instance, execution, now, turn);
        completion = execution.completion.take();
    }
    if let Some(completion) = completion {
        emit_completion(instance, execution, completion, now, turn);
    }
    let mut context = execution.context.borrow_mut();
    turn.cancelled_timers = context.take_cancelled_timers();
    turn.ended = execution.ended;
    turn.cancelled_activities = context.take_cancelled_activities(execution.ended);
    turn.custom_status = context.custom_status.take();
    turn.events.push(HistoryEvent::message(now, EventKind::OrchestratorCompleted));
}

fn emit_actions(instance: &InstanceId, execution: &mut Execution, now: Timestamp, turn: &mut Turn) {
    let mut context = execution.context.borrow_mut();
    for action in context.actions.drain(..) {
        let Some(kind) = action.kind.scheduled_event() else { continue };
        if is_lock_step(&kind) {
            execution.locks.get_or_insert_default().note(&kind);
        }
        turn.events.push(HistoryEvent { event_id: action.id, timestamp: now, kind });
        match action.kind {
            ActionKind::CreateSubOrchestration(created) => {
                if !created.detached {
                    execution.children.insert(action.id, created.instance.clone());
                }
                turn.messages.push(start_child(instance, &execution.started, action.id, *created, now));
            }
            ActionKind::SendEvent { instance, name, input } => {
                let event = HistoryEvent::message(now, EventKind::EventRaised { name, input, trace: None });
                turn.messages.push(TaskMessage { instance, execution: None, event, origin: Origin::Local });
            }
            ActionKind::ScheduleTask { .. } | ActionKind::CreateTimer { .. } | ActionKind::Complete(_) => {}
            for_entity => {
                let execution = execution.started.execution;
                turn.messages.extend(entity_message(for_entity, instance, execution, now));
            }
        }
    }
}

fn start_child(
    instance: &InstanceId,
    started: &ExecutionStarted,
    id: i32,
    created: SubOrchestrationCreated,
    now: Timestamp,
) -> TaskMessage {
    let parent = (!created.detached).then(|| ParentInstance {
        instance: instance.clone(),
        execution: started.execution,
        task_scheduled_id: id,
        name: started.name.clone(),
    });
    let mut tags = started.tags.clone();
    tags.extend(created.tags);
    let child = ExecutionStarted {
        name: created.name,
        version: created.version,
        input: created.input,
        execution: created.execution,
        parent,
        tags,
        scheduled_start: None,
        generation: 0,
        carried_events: Vec::new(),
        trace: created.trace,
    };
    TaskMessage {
        instance: created.instance,
        execution: Some(created.execution),
        event: HistoryEvent::message(now, EventKind::ExecutionStarted(Box::new(child))),
        origin: Origin::Local,
    }
}

fn emit_completion(
    instance: &InstanceId,
    execution: &mut Execution,
    completion: Completion,
    now: Timestamp,
    turn: &mut Turn,
) {
    let event_id = {
        let mut context = execution.context.borrow_mut();
        context.next_id += 1;
        context.next_id - 1
    };
    let started = execution.started.clone();
    if let Some(locks) = &mut execution.locks {
        turn.messages.extend(locks.free_all(instance, started.execution, now));
    }
    let (status, output, failure, outcome) = match completion {
        Completion::Completed(output) => {
            (OrchestrationStatus::Completed, Some(output.clone()), None, Ok(output))
        }
        Completion::Failed(failure) => {
            (OrchestrationStatus::Failed, None, Some(failure.clone()), Err(failure))
        }
        Completion::Terminated(reason) => {
            terminate_children(execution, &reason, now, turn);
            let failure = Box::new(FailureDetails::new(kinds::TERMINATED, reason.as_str()).non_retriable());
            (OrchestrationStatus::Terminated, None, None, Err(failure))
        }
        Completion::ContinueAsNew { input, version, preserve_events } => {
            let next = next_execution(execution, input.clone(), version, preserve_events);
            let id = next.execution;
            let start = HistoryEvent::message(now, EventKind::ExecutionStarted(Box::new(next)));
            let forwarded = std::mem::take(&mut execution.forwarded);
            let events = std::iter::once(start).chain(forwarded);
            turn.messages.extend(events.map(|event| to_self(instance, id, event)));
            turn.events.push(HistoryEvent {
                event_id,
                timestamp: now,
                kind: EventKind::ContinueAsNew { input },
            });
            execution.ended = true;
            return;
        }
    };
    turn.messages.extend(started.parent.as_ref().map(|parent| to_parent(parent, now, outcome)));
    let kind = EventKind::ExecutionCompleted { status, output, failure };
    turn.events.push(HistoryEvent { event_id, timestamp: now, kind });
    execution.ended = true;
}

fn terminate_children(execution: &mut Execution, reason: &SmolStr, now: Timestamp, turn: &mut Turn) {
    if !execution.terminated_recursively {
        return;
    }
    for child in std::mem::take(&mut execution.children).into_values() {
        let kind = EventKind::ExecutionTerminated { reason: reason.clone(), recurse: true };
        let event = HistoryEvent::message(now, kind);
        turn.messages.push(TaskMessage { instance: child, execution: None, event, origin: Origin::Local });
    }
}

fn next_execution(
    execution: &Execution,
    input: Payload,
    version: Option<SmolStr>,
    preserve_events: bool,
) -> ExecutionStarted {
    let unconsumed = execution.context.borrow_mut().inbox.take_unconsumed();
    let started = &execution.started;
    ExecutionStarted {
        name: started.name.clone(),
        version: version.unwrap_or_else(|| started.version.clone()),
        input,
        execution: started.execution.derive("next", 0),
        parent: started.parent.clone(),
        tags: started.tags.clone(),
        scheduled_start: None,
        generation: started.generation.saturating_add(1),
        carried_events: if preserve_events { unconsumed } else { Vec::new() },
        trace: started.trace.clone(),
    }
}

fn to_self(instance: &InstanceId, execution: ExecutionId, event: HistoryEvent) -> TaskMessage {
    TaskMessage { instance: instance.clone(), execution: Some(execution), event, origin: Origin::Local }
}

/// The result of a child for whoever awaits it.
fn to_parent(
    parent: &ParentInstance,
    now: Timestamp,
    outcome: Result<Payload, Box<FailureDetails>>,
) -> TaskMessage {
    let task_scheduled_id = parent.task_scheduled_id;
    let kind = match outcome {
        Ok(result) => EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, result },
        Err(failure) => EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, failure },
    };
    TaskMessage {
        instance: parent.instance.clone(),
        execution: Some(parent.execution),
        event: HistoryEvent { event_id: NO_EVENT_ID, timestamp: now, kind },
        origin: Origin::Local,
    }
}
