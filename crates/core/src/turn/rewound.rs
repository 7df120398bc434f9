//! A failed execution goes on as a new one: what is done with its history once that is rewritten, whoever did so.
//!
//! A rewritten history takes the place of the failed one within a single turn. The execution has a new id; what its
//! history asks for and has no answer to is done again: activities, calls of entities, timers, and children, which are
//! told to rewind themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::emit::{child_start, refuse_start};
use super::entities::entity_message;
use super::nondeterminism::NonDeterminism;
use super::session::{NotRegistered, Turn};
use crate::action::ActionKind;
use crate::entity::RequestedLocks;
use crate::event::{
    EventKind, ExecutionStarted, HistoryEvent, ParentInstance, Predecessor, SubOrchestrationCreated,
};
use crate::failure::{FailureDetails, kinds};
use crate::ids::{ExecutionId, InstanceId};
use crate::message::{Origin, TaskMessage};
use crate::state::OrchestrationStatus;
use crate::time::Timestamp;
use crate::version::VersionMismatch;

/// Why a failed instance is not rewound. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewindRefusal {
    /// Its code is not registered.
    #[error(transparent)]
    NotRegistered(#[from] NotRegistered),
    /// The program does not take instances of its version.
    #[error(transparent)]
    Version(#[from] VersionMismatch),
    /// Its code disagrees with what would be left of its history.
    #[error(transparent)]
    Disagrees(#[from] NonDeterminism),
    /// It failed within a critical section, whose locks were freed then.
    #[error(
        "it failed within a critical section: the locks of {0} were freed then, and others may have used them since; \
         start a new instance instead"
    )]
    HeldLocks(String),
    /// Middleware did not let the turn pass.
    #[error("middleware refused it: {0}")]
    Middleware(Box<FailureDetails>),
    /// Its history cannot be read.
    #[error("its history is damaged: {0}")]
    Damaged(String),
    /// What is to be its history is none that could go on.
    #[error("the rewritten history cannot be used: {0}")]
    Malformed(&'static str),
    /// The worker that runs its code did not do it.
    #[error("the worker that was to do it failed: {0}")]
    ByWorker(Box<FailureDetails>),
    /// It was to be terminated meanwhile.
    #[error("it was terminated before that could be done")]
    Overtaken,
    /// The turn crashed.
    #[error("the turn that was to rewind it crashed: {0}")]
    Crashed(String),
}

impl From<RewindRefusal> for FailureDetails {
    fn from(refusal: RewindRefusal) -> Self {
        Self::new(kinds::NOT_REWOUND, refusal.to_string()).non_retriable()
    }
}

/// What is known of a failed execution before it is rewound.
pub(super) struct Failed<'a> {
    pub(super) started: &'a ExecutionStarted,
    /// The place of its `ExecutionStarted`.
    pub(super) start_at: usize,
}

impl<'a> Failed<'a> {
    /// Looks through the history of an execution that failed.
    pub(super) fn of(history: &'a [HistoryEvent]) -> Result<Self, RewindRefusal> {
        let damaged = |problem: &str| RewindRefusal::Damaged(problem.to_owned());
        let start = history.iter().take(2).enumerate().find_map(|(at, event)| match &event.kind {
            EventKind::ExecutionStarted(started) => Some((at, &**started)),
            _ => None,
        });
        let (start_at, started) = start.ok_or_else(|| damaged("it has no start"))?;
        if !history.iter().any(|event| is_failed_end(&event.kind)) {
            return Err(damaged("it does not end with a failure"));
        }
        let mut locks = None;
        history.iter().for_each(|event| RequestedLocks::note_in(&mut locks, &event.kind));
        match locks {
            None => Ok(Self { started, start_at }),
            Some(locks) => Err(RewindRefusal::HeldLocks(locks.held())),
        }
    }

    /// The start of the execution `execution`, which goes on where this one failed. Actions with numbers below
    /// `kept_below` belong to both. Whoever rewound the parent is the new one's parent.
    pub(super) fn successor(
        &self,
        execution: ExecutionId,
        kept_below: i32,
        rewind: &TaskMessage,
    ) -> ExecutionStarted {
        let mut started = self.started.clone();
        started.predecessors.push(Predecessor { execution: started.execution, kept_below });
        started.execution = execution;
        if let EventKind::ExecutionRewound { child: Some(child), .. } = &rewind.event.kind
            && child.parent.is_some()
        {
            started.parent.clone_from(&child.parent);
        }
        started
    }

    /// The turn that puts `events` in the place of this execution's history. They begin with the start that
    /// [`Failed::successor`] gave, and end with `ExecutionRewound`. `unwanted` are asks without an answer that nobody waits
    /// for: they are left as they are.
    pub(super) fn install(
        &self,
        instance: &InstanceId,
        events: Vec<HistoryEvent>,
        started: &ExecutionStarted,
        unwanted: &BTreeSet<i32>,
    ) -> Turn {
        let (mut now, mut reason) = (Timestamp::default(), Default::default());
        for event in &events {
            match &event.kind {
                EventKind::OrchestratorStarted => now = event.timestamp,
                EventKind::ExecutionRewound { reason: given, .. } => reason = given.clone(),
                _ => {}
            }
        }
        let mut turn =
            Turn { execution: Some(started.execution), version: started.version.clone(), ..Turn::default() };
        for (id, at) in unanswered(&events) {
            let wanted = !unwanted.contains(&id);
            match &events[at].kind {
                EventKind::TaskScheduled { .. } if !wanted => turn.cancelled_activities.push(id),
                EventKind::TimerCreated { .. } if !wanted => turn.cancelled_timers.push(id),
                EventKind::EntityOperationCalled(operation) if wanted => {
                    let call = ActionKind::CallEntity(operation.clone());
                    turn.messages.extend(entity_message(call, instance, started.execution, now));
                }
                EventKind::SubOrchestrationInstanceCreated(created) => {
                    let child = child_again(instance, started, id, created);
                    let kind =
                        EventKind::ExecutionRewound { reason: reason.clone(), child: Some(Box::new(child)) };
                    turn.messages.push(TaskMessage {
                        instance: created.instance.clone(),
                        execution: None,
                        event: HistoryEvent::message(now, kind),
                        origin: Origin::Local,
                    });
                }
                _ => {}
            }
        }
        turn.events = events;
        turn
    }
}

/// How a child of a rewound execution begins, should it be gone. What was sent to the one that is gone is not for it,
/// so it is another execution.
fn child_again(
    instance: &InstanceId,
    started: &ExecutionStarted,
    id: i32,
    created: &SubOrchestrationCreated,
) -> ExecutionStarted {
    let parent = ParentInstance {
        instance: instance.clone(),
        execution: started.execution,
        task_scheduled_id: id,
        name: started.name.clone(),
    };
    let execution = started.execution.derive("child", id);
    child_start(started, SubOrchestrationCreated { execution, ..created.clone() }, Some(parent))
}

/// The turn that puts a history which was rewritten in another process in the place of that of a failed execution, which
/// is `failed`. `rewind` is the message that asked for it. The history's `ExecutionStarted` names the new execution, and
/// its last event is the `ExecutionRewound`; what else the start says is taken from the old one. Nobody has run the code
/// over it: so a message goes to the instance itself, for a turn in which that is done.
///
/// # Errors
/// When the execution cannot be rewound, or not to that.
pub fn rewound_elsewhere(
    instance: &InstanceId,
    failed: &[HistoryEvent],
    rewind: &TaskMessage,
    mut rewritten: Vec<HistoryEvent>,
) -> Result<Turn, RewindRefusal> {
    let failed = Failed::of(failed)?;
    let mut marks = rewritten.iter().rev().filter(|event| event.kind != EventKind::OrchestratorCompleted);
    let Some(HistoryEvent { timestamp: now, kind: EventKind::ExecutionRewound { reason, .. }, .. }) =
        marks.next()
    else {
        return Err(RewindRefusal::Malformed("it does not end with ExecutionRewound"));
    };
    let (now, kind) = (*now, EventKind::ExecutionRewound { reason: reason.clone(), child: None });
    if rewritten.iter().any(|event| is_end(&event.kind)) {
        return Err(RewindRefusal::Malformed("it has an end"));
    }
    let kept_below = rewritten.iter().map(|event| event.event_id).max().unwrap_or(-1).saturating_add(1);
    let start_of = |event: &HistoryEvent| match &event.kind {
        EventKind::ExecutionStarted(started) => Some(started.execution),
        _ => None,
    };
    let starts: Vec<_> =
        rewritten.iter().enumerate().filter_map(|(at, event)| Some((at, start_of(event)?))).collect();
    let (at, execution) = match starts[..] {
        [(at, execution)] if at < 2 => (at, execution),
        _ => return Err(RewindRefusal::Malformed("it does not begin with its one ExecutionStarted")),
    };
    if failed.started.answers_to(execution, Some(i32::MIN)) {
        return Err(RewindRefusal::Malformed("its execution has no new id"));
    }
    let started = failed.successor(execution, kept_below, rewind);
    rewritten[at].kind = EventKind::ExecutionStarted(Box::new(started.clone()));
    if rewritten.last().is_some_and(|last| last.kind != EventKind::OrchestratorCompleted) {
        rewritten.push(HistoryEvent::message(now, EventKind::OrchestratorCompleted));
    }
    let mut turn = failed.install(instance, rewritten, &started, &BTreeSet::new());
    turn.messages.push(TaskMessage {
        instance: instance.clone(),
        execution: Some(execution),
        event: HistoryEvent::message(now, kind),
        origin: Origin::Local,
    });
    Ok(turn)
}

/// What a history has asked for and has no answer to: the places of the events, by their ids.
pub(crate) fn unanswered(history: &[HistoryEvent]) -> BTreeMap<i32, usize> {
    let (mut open, mut requests) = (BTreeMap::new(), BTreeMap::new());
    for (at, event) in history.iter().enumerate() {
        let id = event.event_id;
        match &event.kind {
            EventKind::TaskScheduled { .. } | EventKind::TimerCreated { .. } => drop(open.insert(id, at)),
            EventKind::SubOrchestrationInstanceCreated(created) if !created.detached => {
                open.insert(id, at);
            }
            EventKind::EntityOperationCalled(operation) => {
                requests.insert(&operation.request_id, id);
                open.insert(id, at);
            }
            kind => {
                let answered = answered_id(kind).or_else(|| {
                    let (EventKind::EntityOperationCompleted { request_id, .. }
                    | EventKind::EntityOperationFailed { request_id, .. }) = kind
                    else {
                        return None;
                    };
                    requests.get(request_id).copied()
                });
                answered.and_then(|id| open.remove(&id));
            }
        }
    }
    open
}

/// The action that an event answers, where it says so.
fn answered_id(kind: &EventKind) -> Option<i32> {
    match kind {
        EventKind::TaskCompleted { task_scheduled_id, .. }
        | EventKind::TaskFailed { task_scheduled_id, .. }
        | EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, .. }
        | EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, .. } => Some(*task_scheduled_id),
        EventKind::TimerFired { timer_id, .. } => Some(*timer_id),
        _ => None,
    }
}

/// Whether an event says that something failed which can be done again.
pub(super) fn is_failure(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::TaskFailed { .. }
            | EventKind::SubOrchestrationInstanceFailed { .. }
            | EventKind::EntityOperationFailed { .. }
    )
}

pub(super) fn is_end(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ExecutionCompleted { .. } | EventKind::ContinueAsNew { .. })
}

fn is_failed_end(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ExecutionCompleted { status: OrchestrationStatus::Failed, .. })
}

/// A rewind came to an instance with that parent which has not failed. If another instance's child was meant, and this is
/// not that child, whoever awaits it is told.
pub(super) fn refuse_rewind(
    instance: &InstanceId,
    parent: Option<&ParentInstance>,
    event: &HistoryEvent,
) -> Option<TaskMessage> {
    let EventKind::ExecutionRewound { child: Some(child), .. } = &event.kind else { return None };
    if is_same_child(parent, child) { None } else { refuse_start(instance, child, event.timestamp) }
}

/// Whether an instance with that parent is the child that `start` would begin, or one of its executions.
pub(crate) fn is_same_child(parent: Option<&ParentInstance>, start: &ExecutionStarted) -> bool {
    match (parent, &start.parent) {
        (Some(one), Some(other)) => {
            one.instance == other.instance && one.task_scheduled_id == other.task_scheduled_id
        }
        _ => false,
    }
}

/// The execution that was rewound, if `events` are those of a turn that did so.
pub(crate) fn rewound_execution(events: &[HistoryEvent]) -> Option<ExecutionId> {
    events.iter().take(2).find_map(|event| match &event.kind {
        EventKind::ExecutionStarted(started) => started.predecessors.last().map(|last| last.execution),
        _ => None,
    })
}

/// How many of a turn's events, the first ones, come from a failed execution that it rewound.
pub(crate) fn taken_over(events: &[HistoryEvent]) -> usize {
    if rewound_execution(events).is_none() {
        return 0;
    }
    let rewound = events.iter().rposition(|event| matches!(event.kind, EventKind::ExecutionRewound { .. }));
    // The mark of the turn stands before it.
    rewound.map_or(0, |at| at.saturating_sub(1))
}

impl Turn {
    /// The events that are new. Those of a turn that rewinds a failed execution come after those that it keeps.
    pub fn new_events(&self) -> &[HistoryEvent] {
        &self.events[taken_over(&self.events)..]
    }

    /// The events of a failed execution that the turn keeps, when it rewinds one.
    pub fn kept_events(&self) -> &[HistoryEvent] {
        &self.events[..taken_over(&self.events)]
    }
}
