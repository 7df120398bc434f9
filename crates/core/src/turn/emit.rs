//! What a turn emits: the actions of its code, as events and messages, and its end.

use smol_str::SmolStr;

use super::entities::{entity_message, free_all};
use super::execution::Execution;
use super::hooks;
use super::ledger::Ledger;
use super::session::Turn;
use crate::action::{ActionKind, Completion, OrchestratorAction};
use crate::event::{
    CarriedEvent, EventAddress, EventKind, EventVersions, ExecutionStarted, HistoryEvent, NO_EVENT_ID,
    ParentInstance, SubOrchestrationCreated, TraceContext,
};
use crate::failure::{FailureDetails, bounded_reason, kinds};
use crate::ids::{ExecutionId, InstanceId};
use crate::message::{Origin, TaskMessage};
use crate::model::Middleware;
use crate::payload::Payload;
use crate::state::OrchestrationStatus;
use crate::time::Timestamp;

/// Turns what the code asked for into events and messages, and closes the turn.
pub(super) fn emit(
    middleware: &Middleware,
    instance: &InstanceId,
    execution: &mut Execution,
    turn: &mut Turn,
) {
    let now = turn.events[0].timestamp;
    // Not even a suspension holds these back: what the code does next depends on them.
    for id in execution.context.borrow_mut().patches.taken.drain(..) {
        turn.events.push(HistoryEvent::message(now, EventKind::PatchApplied { id }));
    }
    // Nothing is emitted while suspended; what was asked for waits for the resumption.
    let mut completion = None;
    if execution.is_terminated() {
        execution.context.borrow_mut().actions.clear();
        completion = execution.completion.take();
    } else if !execution.suspended {
        completion = execution.completion.take();
    }
    if !middleware.turns.is_empty() {
        hooks::after(middleware, instance, execution, &mut completion);
    }
    if execution.suspended && !matches!(completion, None | Some(Completion::Terminated(_))) {
        execution.completion = completion.take();
    }
    if !execution.suspended {
        let mut context = execution.context.borrow_mut();
        for action in context.actions.drain(..) {
            emit_action(instance, &execution.started, &mut execution.ledger, action, now, turn);
        }
    }
    if let Some(completion) = completion {
        let mut context = execution.context.borrow_mut();
        let event_id = context.next_id;
        context.next_id += 1;
        let unconsumed = || context.inbox.take_unconsumed();
        let ending = Ending { instance, started: &execution.started, event_id, now };
        ending.emit(&mut execution.ledger, completion, unconsumed, turn);
        drop(context);
        execution.ended = true;
    }
    let mut context = execution.context.borrow_mut();
    turn.cancelled_timers = context.take_cancelled_timers();
    turn.ended = execution.ended;
    turn.cancelled_activities = context.take_cancelled_activities(execution.ended);
    turn.custom_status = context.custom_status.take();
    turn.events.push(HistoryEvent::message(now, EventKind::OrchestratorCompleted));
}

/// Turns one action into the event that records it, and into what it sends.
pub(super) fn emit_action(
    instance: &InstanceId,
    started: &ExecutionStarted,
    ledger: &mut Ledger,
    action: OrchestratorAction,
    now: Timestamp,
    turn: &mut Turn,
) {
    let Some(kind) = action.kind.scheduled_event() else { return };
    let event = HistoryEvent { event_id: action.id, timestamp: now, kind };
    ledger.note_action(&event);
    turn.events.push(event);
    match action.kind {
        ActionKind::CreateSubOrchestration(created) => {
            turn.messages.push(start_child(instance, started, action.id, *created, now));
        }
        ActionKind::SendEvent { instance, name, input, address } => {
            let (parent, id) = (started.trace.as_deref(), started.execution);
            let trace = parent.map(|trace| Box::new(trace.child(id, "event", action.id)));
            let EventAddress { execution, version } = address.map_or_else(Default::default, |it| *it);
            let versions = EventVersions { sender: started.version.clone(), receiver: version };
            let kind = EventKind::raised(name, input, trace, Some(versions));
            let event = HistoryEvent::message(now, kind);
            turn.messages.push(TaskMessage { instance, execution, event, origin: Origin::Local });
        }
        ActionKind::ScheduleTask { .. } | ActionKind::CreateTimer { .. } | ActionKind::Complete(_) => {}
        for_entity => turn.messages.extend(entity_message(for_entity, instance, started.execution, now)),
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
    let (child, execution) = (created.instance.clone(), created.execution);
    let start = child_start(started, created, parent);
    let event = HistoryEvent::message(now, EventKind::ExecutionStarted(Box::new(start)));
    TaskMessage { instance: child, execution: Some(execution), event, origin: Origin::Local }
}

/// How a child of the execution `started` begins.
pub(crate) fn child_start(
    started: &ExecutionStarted,
    created: SubOrchestrationCreated,
    parent: Option<ParentInstance>,
) -> ExecutionStarted {
    let mut tags = started.tags.clone();
    tags.extend(created.tags);
    let version_inherited = created.version.is_empty();
    let version = if version_inherited { started.version.clone() } else { created.version };
    let start = ExecutionStarted::new(created.name, version, created.input, created.execution);
    ExecutionStarted { parent, tags, trace: created.trace, version_inherited, ..start }
}

/// An execution that ends in a turn.
pub(super) struct Ending<'a> {
    pub(super) instance: &'a InstanceId,
    pub(super) started: &'a ExecutionStarted,
    /// The number of the event that records the end.
    pub(super) event_id: i32,
    pub(super) now: Timestamp,
}

impl Ending<'_> {
    /// Records the end, and tells whom it concerns. `unconsumed` gives the external events that may go along to the next
    /// execution.
    pub(super) fn emit(
        &self,
        ledger: &mut Ledger,
        completion: Completion,
        unconsumed: impl FnOnce() -> Vec<CarriedEvent>,
        turn: &mut Turn,
    ) {
        let Self { instance, started, event_id, now } = *self;
        if let Some(locks) = ledger.take_locks() {
            turn.messages.extend(free_all(locks, instance, started.execution, now));
        }
        let (status, output, failure, outcome) = match completion {
            Completion::Completed(output) => {
                (OrchestrationStatus::Completed, Some(output.clone()), None, Ok(output))
            }
            Completion::Failed(failure) => {
                (OrchestrationStatus::Failed, None, Some(failure.clone()), Err(failure))
            }
            Completion::Terminated(reason) => {
                if ledger.terminated_recursively {
                    let children = std::mem::take(&mut ledger.children).into_values();
                    turn.messages.extend(children.map(|child| terminated_child(&child, &reason, now)));
                }
                let failure = FailureDetails::new(kinds::TERMINATED, bounded_reason(&reason)).non_retriable();
                (OrchestrationStatus::Terminated, None, None, Err(Box::new(failure)))
            }
            Completion::ContinueAsNew { input, version, preserve_events, new_trace } => {
                let unconsumed = unconsumed();
                let mut next = next_execution(started, ledger.created_at, input.clone(), version);
                let mut sent_after = Vec::new();
                if preserve_events {
                    let mut kept = unconsumed;
                    kept.retain(|event| event.is_for(&next.version));
                    // All of them go one way, so that their order stays.
                    match kept.iter().any(|it| it.versions.is_some()) {
                        true => sent_after = kept,
                        false => next.carried_events = kept,
                    }
                }
                if new_trace && next.trace.is_some() {
                    next.trace = Some(Box::new(TraceContext::root_of(next.execution)));
                }
                let id = next.execution;
                let start = HistoryEvent::message(now, EventKind::ExecutionStarted(Box::new(next)));
                let forwarded = std::mem::take(&mut ledger.forwarded);
                let sent_after = sent_after.into_iter().map(CarriedEvent::into_event);
                let events = std::iter::once(start).chain(sent_after).chain(forwarded);
                turn.messages.extend(events.map(|event| to_self(instance, id, event)));
                let kind = EventKind::ContinueAsNew { input };
                turn.events.push(HistoryEvent { event_id, timestamp: now, kind });
                return;
            }
        };
        turn.messages.extend(started.parent.as_ref().map(|parent| to_parent(parent, now, outcome)));
        let kind = EventKind::ExecutionCompleted { status, output, failure };
        turn.events.push(HistoryEvent { event_id, timestamp: now, kind });
    }
}

/// Terminates a child with all of its own.
pub(crate) fn terminated_child(child: &InstanceId, reason: &SmolStr, now: Timestamp) -> TaskMessage {
    let kind = EventKind::ExecutionTerminated { reason: bounded_reason(reason), recurse: true };
    let event = HistoryEvent::message(now, kind);
    TaskMessage { instance: child.clone(), execution: None, event, origin: Origin::Local }
}

/// The id is in use by a live instance: whoever awaits the new one is told.
pub(crate) fn refuse_start(
    instance: &InstanceId,
    started: &ExecutionStarted,
    at: Timestamp,
) -> Option<TaskMessage> {
    let parent = started.parent.as_ref()?;
    let problem = format!("an instance with id '{instance}' exists and has not ended");
    let failure = Box::new(FailureDetails::new(kinds::ALREADY_EXISTS, problem));
    Some(to_parent(parent, at, Err(failure)))
}

fn next_execution(
    started: &ExecutionStarted,
    created_at: Timestamp,
    input: Payload,
    version: Option<SmolStr>,
) -> ExecutionStarted {
    ExecutionStarted {
        name: started.name.clone(),
        version: version.unwrap_or_else(|| started.version.clone()),
        input,
        execution: started.execution.derive("next", 0),
        parent: started.parent.clone(),
        tags: started.tags.clone(),
        scheduled_start: None,
        generation: started.generation.saturating_add(1),
        carried_events: Vec::new(),
        trace: started.trace.clone(),
        version_inherited: false,
        incarnation: started.incarnation,
        created_at: Some(created_at),
        predecessors: Vec::new(),
    }
}

fn to_self(instance: &InstanceId, execution: ExecutionId, event: HistoryEvent) -> TaskMessage {
    TaskMessage { instance: instance.clone(), execution: Some(execution), event, origin: Origin::Local }
}

/// The result of a child for whoever awaits it.
pub(crate) fn to_parent(
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
