//! History events: the facts that make up an instance's history. The vocabulary is the Durable Task Framework's.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::entity::{EntityLockRequest, EntityOperation, EntityUnlock};
use crate::failure::FailureDetails;
use crate::ids::{ExecutionId, InstanceId};
use crate::payload::Payload;
use crate::state::OrchestrationStatus;
use crate::time::Timestamp;

/// The event id of everything that no action caused.
pub const NO_EVENT_ID: i32 = -1;

/// Tags of an instance: ordered, so that equal tags encode equally.
pub type Tags = BTreeMap<SmolStr, SmolStr>;

/// One fact in a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// The id of the action that caused it, or [`NO_EVENT_ID`].
    pub event_id: i32,
    /// When it was made. The timestamps of `OrchestratorStarted` are the orchestration's clock.
    pub timestamp: Timestamp,
    /// What happened.
    pub kind: EventKind,
}

/// What an event says. Variants are only ever added at the end: their order is part of the record format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// The execution exists.
    ExecutionStarted(Box<ExecutionStarted>),
    /// The execution ended (not by continuing as new).
    ExecutionCompleted {
        /// Completed, Failed or Terminated.
        status: OrchestrationStatus,
        /// The result, if it completed.
        output: Option<Payload>,
        /// Why it failed.
        failure: Option<Box<FailureDetails>>,
    },
    /// Somebody asked to terminate the instance.
    ExecutionTerminated {
        /// The reason given.
        reason: SmolStr,
        /// Whether its unfinished sub-orchestrations are terminated too.
        recurse: bool,
    },
    /// The orchestration asked for an activity.
    TaskScheduled {
        /// The activity's name.
        name: SmolStr,
        /// Its version, empty for none.
        version: SmolStr,
        /// Its input.
        input: Payload,
        /// What else was asked for; none when nothing was.
        options: Option<Box<ActivityOptions>>,
    },
    /// An activity returned.
    TaskCompleted {
        /// The event id of its `TaskScheduled`.
        task_scheduled_id: i32,
        /// What it returned.
        result: Payload,
    },
    /// An activity failed.
    TaskFailed {
        /// The event id of its `TaskScheduled`.
        task_scheduled_id: i32,
        /// Why.
        failure: Box<FailureDetails>,
    },
    /// The orchestration asked for a sub-orchestration.
    SubOrchestrationInstanceCreated(Box<SubOrchestrationCreated>),
    /// A sub-orchestration completed.
    SubOrchestrationInstanceCompleted {
        /// The event id of its `SubOrchestrationInstanceCreated`.
        task_scheduled_id: i32,
        /// What it returned.
        result: Payload,
    },
    /// A sub-orchestration failed or was terminated.
    SubOrchestrationInstanceFailed {
        /// The event id of its `SubOrchestrationInstanceCreated`.
        task_scheduled_id: i32,
        /// Why.
        failure: Box<FailureDetails>,
    },
    /// The orchestration asked for a timer.
    TimerCreated {
        /// When it is due.
        fire_at: Timestamp,
    },
    /// A timer is due.
    TimerFired {
        /// The event id of its `TimerCreated`.
        timer_id: i32,
        /// When it was due.
        fire_at: Timestamp,
    },
    /// A turn began; its timestamp is the orchestration's current time until the next one.
    OrchestratorStarted,
    /// A turn ended.
    OrchestratorCompleted,
    /// The orchestration sent an event to another instance.
    EventSent {
        /// The receiver.
        instance: InstanceId,
        /// The event's name.
        name: SmolStr,
        /// Its payload.
        input: Payload,
    },
    /// An external event arrived.
    EventRaised {
        /// The event's name.
        name: SmolStr,
        /// Its payload.
        input: Payload,
        /// The trace that it belongs to.
        trace: Option<Box<TraceContext>>,
    },
    /// The execution ended and the instance goes on with a new one.
    ContinueAsNew {
        /// Input of the next execution.
        input: Payload,
    },
    /// Free text, for tools.
    GenericEvent {
        /// The text.
        data: SmolStr,
    },
    /// Nothing is emitted until the instance is resumed.
    ExecutionSuspended {
        /// The reason given.
        reason: SmolStr,
    },
    /// The instance goes on.
    ExecutionResumed {
        /// The reason given.
        reason: SmolStr,
    },
    /// An entity was sent an operation that nobody waits for.
    EntityOperationSignaled(Box<EntityOperation>),
    /// An entity was asked for an operation.
    EntityOperationCalled(Box<EntityOperation>),
    /// An operation that was called succeeded.
    EntityOperationCompleted {
        /// That of its `EntityOperationCalled`.
        request_id: SmolStr,
        /// What it returned.
        output: Payload,
    },
    /// An operation that was called failed.
    EntityOperationFailed {
        /// That of its `EntityOperationCalled`.
        request_id: SmolStr,
        /// Why.
        failure: Box<FailureDetails>,
    },
    /// The orchestration asked for entities' locks.
    EntityLockRequested(Box<EntityLockRequest>),
    /// It has them.
    EntityLockGranted {
        /// That of its `EntityLockRequested`.
        critical_section: SmolStr,
    },
    /// The orchestration gave a lock back.
    EntityUnlockSent(Box<EntityUnlock>),
    /// A failed instance goes on from before its failure, as a new execution.
    ExecutionRewound {
        /// The reason given.
        reason: SmolStr,
        /// In the message to a sub-orchestration of a rewound instance: how it is started, should it be gone. Absent in
        /// histories.
        child: Option<Box<ExecutionStarted>>,
    },
    /// The code took the changed path at a patch; see [`crate::model::OrchestrationContext::patched`].
    PatchApplied {
        /// The patch's id.
        id: SmolStr,
    },
    /// An external event arrived that says more than `EventRaised` does: which version its sender has, or which version of
    /// the instance it is for.
    VersionedEventRaised(Box<VersionedEvent>),
}

/// The content of `VersionedEventRaised`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionedEvent {
    /// The event's name.
    pub name: SmolStr,
    /// Its payload.
    pub input: Payload,
    /// The trace that it belongs to.
    pub trace: Option<Box<TraceContext>>,
    /// What it says beyond that.
    pub versions: EventVersions,
}

/// The versions that an event speaks of. Few events do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventVersions {
    /// That of the orchestration that sent it; empty for a client, or if there is none.
    pub sender: SmolStr,
    /// The only version of the instance that it is for; for all when absent.
    pub receiver: Option<SmolStr>,
}

impl EventVersions {
    /// Whether the event is for an instance of that version, which has to be just the same text.
    pub fn is_for(&self, version: &str) -> bool {
        self.receiver.as_ref().is_none_or(|wanted| wanted == version)
    }
}

/// To which execution of an instance, or to which version, an event is sent. The instance is always known by its id; an
/// event that finds another execution or version there is discarded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventAddress {
    /// Only to this execution; to whichever is current when absent.
    pub execution: Option<ExecutionId>,
    /// Only if the instance has this version.
    pub version: Option<SmolStr>,
}

/// The content of `ExecutionStarted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionStarted {
    /// The orchestration's name.
    pub name: SmolStr,
    /// Its version, empty for none.
    pub version: SmolStr,
    /// Its input.
    pub input: Payload,
    /// The execution that begins.
    pub execution: ExecutionId,
    /// Who awaits the result, if anybody.
    pub parent: Option<ParentInstance>,
    /// Tags given at the start, or inherited.
    pub tags: Tags,
    /// Not to begin before this moment.
    pub scheduled_start: Option<Timestamp>,
    /// How many executions came before it by continue-as-new.
    pub generation: u32,
    /// External events that the previous execution had not consumed, in order of arrival.
    pub carried_events: Vec<CarriedEvent>,
    /// The trace that it belongs to.
    pub trace: Option<Box<TraceContext>>,
    /// The version is its parent's: it counts only if the orchestration can be run with it.
    pub version_inherited: bool,
    /// How many instances had this id before it, as far as is known: what the Durable Task Framework calls generation.
    pub incarnation: u32,
    /// When the instance was created, if that was with an earlier execution.
    pub created_at: Option<Timestamp>,
    /// The executions that were rewound into this one, the first one first.
    pub predecessors: Vec<Predecessor>,
}

/// An execution that failed and was rewound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its id. Ids that are derived from the execution's id are derived from that of the first one.
    pub execution: ExecutionId,
    /// Its actions with smaller numbers are also those of the new execution; so their late results count.
    pub kept_below: i32,
}

/// What was asked of an activity beyond name, version and input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityOptions {
    /// Tags that the activity can read.
    pub tags: Tags,
    /// Among waiting activities those with a greater priority begin first.
    pub priority: i32,
    /// How long one attempt may take from its beginning; then it has failed.
    pub start_to_close: Option<Duration>,
    /// How long it may take between two heartbeats; then it has failed.
    pub heartbeat: Option<Duration>,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// The last heartbeat of the attempt before this one, if that is known.
    pub last_heartbeat: Option<Payload>,
}

/// A W3C trace context, as it travels with messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The `traceparent` header.
    pub parent: SmolStr,
    /// The `tracestate` header, empty for none.
    pub state: SmolStr,
}

/// An external event handed from one execution to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedEvent {
    /// The event's name.
    pub name: SmolStr,
    /// Its payload.
    pub input: Payload,
    /// When it arrived.
    pub timestamp: Timestamp,
    /// The trace that it belongs to.
    pub trace: Option<Box<TraceContext>>,
    /// The versions that it speaks of. Only in memory: those that have any travel as messages.
    #[serde(skip)]
    pub versions: Option<Box<EventVersions>>,
}

/// The content of `SubOrchestrationInstanceCreated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubOrchestrationCreated {
    /// The orchestration's name.
    pub name: SmolStr,
    /// Its version, empty for none.
    pub version: SmolStr,
    /// The child's instance id.
    pub instance: InstanceId,
    /// The child's execution.
    pub execution: ExecutionId,
    /// Its input.
    pub input: Payload,
    /// Nobody awaits it.
    pub detached: bool,
    /// Tags given to the child beside those that it inherits.
    pub tags: Tags,
    /// The trace that it belongs to.
    pub trace: Option<Box<TraceContext>>,
}

/// Who started a sub-orchestration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentInstance {
    /// The parent's id.
    pub instance: InstanceId,
    /// The parent's execution; a result for another one is discarded.
    pub execution: ExecutionId,
    /// The event id of the parent's `SubOrchestrationInstanceCreated`.
    pub task_scheduled_id: i32,
    /// The name of the parent's orchestration.
    pub name: SmolStr,
}

impl ExecutionStarted {
    /// The start of an execution that nobody awaits, without anything optional.
    pub fn new(name: SmolStr, version: SmolStr, input: Payload, execution: ExecutionId) -> Self {
        Self {
            name,
            version,
            input,
            execution,
            parent: None,
            tags: Tags::new(),
            scheduled_start: None,
            generation: 0,
            carried_events: Vec::new(),
            trace: None,
            version_inherited: false,
            incarnation: 0,
            created_at: None,
            predecessors: Vec::new(),
        }
    }

    /// The execution from whose id other ids are derived: the first one, also after a rewind.
    pub fn root_execution(&self) -> ExecutionId {
        self.predecessors.first().map_or(self.execution, |first| first.execution)
    }

    /// Whether a message for `wanted` that answers action `id` (or none) is for this execution.
    pub(crate) fn answers_to(&self, wanted: ExecutionId, id: Option<i32>) -> bool {
        let inherited =
            |before: &Predecessor| before.execution == wanted && id.is_some_and(|id| id < before.kept_below);
        wanted == self.execution || self.predecessors.iter().any(inherited)
    }
}

impl HistoryEvent {
    /// An event that no action caused.
    pub fn message(timestamp: Timestamp, kind: EventKind) -> Self {
        Self { event_id: NO_EVENT_ID, timestamp, kind }
    }
}

impl CarriedEvent {
    /// The external event of a message; none if it is something else.
    pub(crate) fn of(event: &HistoryEvent) -> Option<Self> {
        let timestamp = event.timestamp;
        Some(match &event.kind {
            EventKind::EventRaised { name, input, trace } => Self {
                name: name.clone(),
                input: input.clone(),
                timestamp,
                trace: trace.clone(),
                versions: None,
            },
            EventKind::VersionedEventRaised(raised) => Self {
                name: raised.name.clone(),
                input: raised.input.clone(),
                timestamp,
                trace: raised.trace.clone(),
                versions: Some(Box::new(raised.versions.clone())),
            },
            _ => return None,
        })
    }

    /// Whether it is for an instance of that version.
    pub(crate) fn is_for(&self, version: &str) -> bool {
        self.versions.as_ref().is_none_or(|versions| versions.is_for(version))
    }

    /// The event as it arrived.
    pub(crate) fn into_event(self) -> HistoryEvent {
        let Self { name, input, timestamp, trace, versions } = self;
        HistoryEvent::message(timestamp, EventKind::raised(name, input, trace, versions.map(|it| *it)))
    }
}

impl EventKind {
    /// An external event, in the form that what it says needs.
    pub fn raised(
        name: SmolStr,
        input: Payload,
        trace: Option<Box<TraceContext>>,
        versions: Option<EventVersions>,
    ) -> Self {
        match versions.filter(|versions| *versions != EventVersions::default()) {
            None => Self::EventRaised { name, input, trace },
            Some(versions) => {
                Self::VersionedEventRaised(Box::new(VersionedEvent { name, input, trace, versions }))
            }
        }
    }

    /// The only version of an instance that an external event is for, if it says so.
    pub(crate) fn wanted_version(&self) -> Option<&SmolStr> {
        match self {
            Self::VersionedEventRaised(raised) => raised.versions.receiver.as_ref(),
            _ => None,
        }
    }

    /// The event type's name in the Durable Task vocabulary.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::ExecutionStarted(_) => "ExecutionStarted",
            Self::ExecutionCompleted { .. } => "ExecutionCompleted",
            Self::ExecutionTerminated { .. } => "ExecutionTerminated",
            Self::TaskScheduled { .. } => "TaskScheduled",
            Self::TaskCompleted { .. } => "TaskCompleted",
            Self::TaskFailed { .. } => "TaskFailed",
            Self::SubOrchestrationInstanceCreated(_) => "SubOrchestrationInstanceCreated",
            Self::SubOrchestrationInstanceCompleted { .. } => "SubOrchestrationInstanceCompleted",
            Self::SubOrchestrationInstanceFailed { .. } => "SubOrchestrationInstanceFailed",
            Self::TimerCreated { .. } => "TimerCreated",
            Self::TimerFired { .. } => "TimerFired",
            Self::OrchestratorStarted => "OrchestratorStarted",
            Self::OrchestratorCompleted => "OrchestratorCompleted",
            Self::EventSent { .. } => "EventSent",
            Self::EventRaised { .. } | Self::VersionedEventRaised(_) => "EventRaised",
            Self::ContinueAsNew { .. } => "ContinueAsNew",
            Self::GenericEvent { .. } => "GenericEvent",
            Self::ExecutionSuspended { .. } => "ExecutionSuspended",
            Self::ExecutionResumed { .. } => "ExecutionResumed",
            Self::EntityOperationSignaled(_) => "EntityOperationSignaled",
            Self::EntityOperationCalled(_) => "EntityOperationCalled",
            Self::EntityOperationCompleted { .. } => "EntityOperationCompleted",
            Self::EntityOperationFailed { .. } => "EntityOperationFailed",
            Self::EntityLockRequested(_) => "EntityLockRequested",
            Self::EntityLockGranted { .. } => "EntityLockGranted",
            Self::EntityUnlockSent(_) => "EntityUnlockSent",
            Self::ExecutionRewound { .. } => "ExecutionRewound",
            Self::PatchApplied { .. } => "PatchApplied",
        }
    }
}
