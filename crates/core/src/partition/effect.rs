//! Effects: what the shell must do once a record is durable.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::materialise::Capture;
use crate::event::ActivityOptions;
use crate::ids::{ExecutionId, InstanceId, PartitionId};
use crate::message::{ActivityId, TaskMessage};
use crate::model::CancelReason;
use crate::payload::Payload;
use crate::state::{InstanceState, OrchestrationStatus};
use crate::turn::RewindRefusal;

/// A client call that waits for an answer; the shell chooses the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What a client call that was accepted did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// Its message is durable and will be consumed.
    Message,
    /// The instance is purged.
    Purged,
    /// A start: there is an instance with that id, and it stays as it is.
    Existing,
    /// The instance may take turns again.
    Released,
}

/// Why a client call was not accepted. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// A start: an instance with this id exists and has not ended.
    AlreadyExists(OrchestrationStatus),
    /// There is no instance with this id.
    NotFound,
    /// The instance has ended.
    Ended(OrchestrationStatus),
    /// A purge: the instance has not ended.
    NotEnded(OrchestrationStatus),
    /// A release: no turn of the instance has crashed.
    NotPoisoned,
    /// A rewind: the instance has not failed.
    NotFailed(OrchestrationStatus),
    /// A rewind: the instance has failed, and cannot be rewound.
    NotRewound(RewindRefusal),
    /// As many messages as may wait for the instance; it takes no more before it has consumed some.
    TooManyMessages(usize),
    /// What is stored of the instance cannot be read; says what is wrong with it.
    Damaged(String),
    /// An event was for another execution than the instance's.
    OtherExecution {
        /// The one asked for.
        wanted: ExecutionId,
        /// The one that there is.
        current: ExecutionId,
    },
    /// An event was for another version than the instance's, which is this one.
    OtherVersion(SmolStr),
}

/// An activity that is to be run. At least once: after a crash it is handed out again unless its result is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityTask {
    /// Identifies it within the partition.
    pub id: ActivityId,
    /// Who asked for it.
    pub instance: InstanceId,
    /// Which execution of it.
    pub execution: ExecutionId,
    /// The event id of its `TaskScheduled`.
    pub task_id: i32,
    /// The activity's name.
    pub name: SmolStr,
    /// The version asked for, empty for none; see [`crate::model::Registry::find_activity_for`].
    pub version: SmolStr,
    /// The version of the instance that asked for it, empty for none.
    pub instance_version: SmolStr,
    /// Its input.
    pub input: Payload,
    /// What else was asked for; none when nothing was.
    pub options: Option<Box<ActivityOptions>>,
    /// Nobody waits for its result any more; it is done all the same.
    pub cancelled: Option<CancelReason>,
}

/// Something to be done once the record that caused it is durable, in order.
#[derive(Debug)]
pub enum Effect {
    /// Answer a client call.
    Reply(Token, Result<Accepted, Rejection>),
    /// Answer a client's read of an instance's state.
    State(Token, Option<Arc<InstanceState>>),
    /// Answer a read whose content the shell kept: what it saw is durable now.
    Release(Token),
    /// Run an activity.
    Dispatch(Arc<ActivityTask>),
    /// Tell a running activity that nobody waits for its result any more.
    Cancel(ActivityId, CancelReason),
    /// Hand a message to another partition, in order for each receiver.
    Send(PartitionId, Box<TaskMessage>),
    /// Tell another partition that its messages up to a number are applied.
    Acknowledge(PartitionId, u64),
    /// An instance's first turn is done.
    Started(InstanceId),
    /// An instance has ended, or was purged (then there is no state).
    Ended(InstanceId, Option<Arc<InstanceState>>),
    /// Write changed instances and rows to the instance store, then call [`super::Partition::on_materialised`].
    Materialise(Arc<Capture>),
}
