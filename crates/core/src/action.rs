//! Actions: what one turn of user code asks for.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::entity::{EntityLockRequest, EntityOperation, EntityUnlock};
use crate::event::{ActivityOptions, EventAddress, EventKind, SubOrchestrationCreated};
use crate::failure::FailureDetails;
use crate::ids::InstanceId;
use crate::payload::Payload;
use crate::time::Timestamp;

/// One request of an orchestration, numbered in the order in which the code made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrchestratorAction {
    /// The number: the event id of the event that confirms it.
    pub id: i32,
    /// What is asked for.
    pub kind: ActionKind,
}

/// What an action asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionKind {
    /// Run an activity.
    ScheduleTask {
        /// The activity's name.
        name: SmolStr,
        /// Its version, empty for none.
        version: SmolStr,
        /// Its input.
        input: Payload,
        /// What else is asked for; none when nothing is.
        options: Option<Box<ActivityOptions>>,
    },
    /// Wake the orchestration at a moment.
    CreateTimer {
        /// The moment.
        fire_at: Timestamp,
    },
    /// Start another orchestration.
    CreateSubOrchestration(Box<SubOrchestrationCreated>),
    /// Send an event to another instance.
    SendEvent {
        /// The receiver.
        instance: InstanceId,
        /// The event's name.
        name: SmolStr,
        /// Its payload.
        input: Payload,
        /// The only execution, or version, of the receiver that it is for; none when it is for all.
        address: Option<Box<EventAddress>>,
    },
    /// End this execution.
    Complete(Completion),
    /// Signal an entity.
    SignalEntity(Box<EntityOperation>),
    /// Call an entity.
    CallEntity(Box<EntityOperation>),
    /// Ask for entities' locks.
    LockEntities(Box<EntityLockRequest>),
    /// Give an entity's lock back.
    UnlockEntity(Box<EntityUnlock>),
}

/// How an execution ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Completion {
    /// It returned.
    Completed(Payload),
    /// It failed.
    Failed(Box<FailureDetails>),
    /// It was terminated, with a reason.
    Terminated(SmolStr),
    /// It goes on as a new execution.
    ContinueAsNew {
        /// Input of the next execution.
        input: Payload,
        /// Its version; the same as before when absent.
        version: Option<SmolStr>,
        /// Whether events that nobody consumed go along.
        preserve_events: bool,
        /// Whether the next execution begins a trace of its own.
        new_trace: bool,
    },
}

impl ActionKind {
    /// The event that records this action, for the kinds that replay must confirm one by one.
    pub(crate) fn scheduled_event(&self) -> Option<EventKind> {
        Some(match self {
            Self::ScheduleTask { name, version, input, options } => EventKind::TaskScheduled {
                name: name.clone(),
                version: version.clone(),
                input: input.clone(),
                options: options.clone(),
            },
            Self::CreateTimer { fire_at } => EventKind::TimerCreated { fire_at: *fire_at },
            Self::CreateSubOrchestration(created) => {
                EventKind::SubOrchestrationInstanceCreated(created.clone())
            }
            Self::SendEvent { instance, name, input, .. } => {
                EventKind::EventSent { instance: instance.clone(), name: name.clone(), input: input.clone() }
            }
            Self::Complete(_) => return None,
            Self::SignalEntity(operation) => EventKind::EntityOperationSignaled(operation.clone()),
            Self::CallEntity(operation) => EventKind::EntityOperationCalled(operation.clone()),
            Self::LockEntities(request) => EventKind::EntityLockRequested(request.clone()),
            Self::UnlockEntity(unlock) => EventKind::EntityUnlockSent(unlock.clone()),
        })
    }
}
