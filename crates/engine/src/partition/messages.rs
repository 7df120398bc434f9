//! What a partition actor can be sent.

use std::sync::Arc;

use actix::Message;
use smol_str::SmolStr;
use steadfast_core::partition::{
    Accepted, HistoryPiece, LoadedInstance, Overlay, OverlayCursor, Poison, Rejection, Token,
};
use steadfast_core::{
    ActivityId, FailureDetails, IdReuse, InstanceCounts, InstanceFilter, InstanceId, InstanceState,
    PartitionId, Payload, Position, TaskMessage, Timestamp,
};
use steadfast_store::StoreError;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::instance::TurnOutcome;

/// Why a call to a partition has no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The partition does not take it.
    Rejected(Rejection),
    /// The store failed.
    Store(StoreError),
}

/// How the answer to a call gets back to the client.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, CallError>>;

/// A client call that changes something. The permit bounds how many are under way.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Submit {
    pub(crate) call: Call,
    pub(crate) answer: Answer<Accepted>,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What a client call changes.
pub(crate) enum Call {
    /// A message to an instance.
    Message {
        message: Box<TaskMessage>,
        /// Nobody can have used the instance id before.
        fresh_id: bool,
        /// Of a start: what it does if its id is in use.
        reuse: IdReuse,
        /// Gets the state when the instance ends, if the message is accepted.
        watch: Option<Answer<Option<Arc<InstanceState>>>>,
    },
    /// Remove an instance that has ended.
    Purge(InstanceId),
    /// End an instance without its code.
    End { instance: InstanceId, reason: SmolStr },
    /// Let an instance whose turns crashed take turns again.
    Release(InstanceId),
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitFor {
    /// Whatever the state is now.
    Nothing,
    /// The first turn.
    Start,
    /// The end.
    End,
}

/// Reads an instance's state once it is as wished; none if there is no such instance, unless it may come later.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Wait {
    pub(crate) instance: InstanceId,
    pub(crate) wait_for: WaitFor,
    /// Whether to wait also for an instance that does not exist yet.
    pub(crate) may_come: bool,
    pub(crate) answer: Answer<Option<Arc<InstanceState>>>,
}

/// Reads the part of an instance's history that is not in the instance store.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct HistoryRead {
    pub(crate) instance: InstanceId,
    pub(crate) answer: Answer<Vec<HistoryPiece>>,
}

/// Reads the instances that are not in the instance store as they are now, a part at a time.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OverlayRead {
    pub(crate) filter: Arc<InstanceFilter>,
    pub(crate) after: Option<InstanceId>,
    /// Where the part begins.
    pub(crate) cursor: OverlayCursor,
    /// The parts before it.
    pub(crate) overlay: Overlay,
    pub(crate) answer: Answer<Overlay>,
}

/// Reads how many instances there are.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CountsRead {
    pub(crate) answer: Answer<InstanceCounts>,
}

/// Reads which instances have crashed in their last turn.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PoisonRead {
    pub(crate) answer: Answer<Vec<(InstanceId, Poison)>>,
}

/// From the log writer.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Appended {
    pub(crate) position: Position,
    pub(crate) outcome: Result<(), StoreError>,
}

/// From the materialiser.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Materialised {
    pub(crate) upto: Position,
    pub(crate) outcome: Result<(), StoreError>,
}

/// From the loader, for a turn.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Loaded {
    pub(crate) instance: InstanceId,
    pub(crate) outcome: Result<Option<LoadedInstance>, StoreError>,
}

/// From the loader, for a client.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StateRead {
    pub(crate) token: Token,
    pub(crate) instance: InstanceId,
    pub(crate) outcome: Result<Option<InstanceState>, StoreError>,
}

/// From an instance actor.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct TurnDone {
    pub(super) instance: InstanceId,
    /// The actor's number.
    pub(super) actor: u64,
    pub(super) outcome: TurnOutcome,
}

/// From an instance actor: the kernel panicked, which is a bug, in a turn of this instance. What the turn had changed
/// cannot be trusted.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct TurnPanicked(pub(super) String);

/// From the dispatcher.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ActivityResults(pub(super) Vec<(ActivityId, Result<Payload, FailureDetails>)>);

/// From whoever runs activities: an attempt that has deadlines began.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct AttemptBegan {
    pub(super) id: ActivityId,
    pub(super) at: Timestamp,
}

/// From a running activity, now and then: how far it has come.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Heartbeat {
    pub(super) id: ActivityId,
    pub(super) detail: Payload,
}

/// A place has become free for activities of a name that has a limit.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PlaceFree;

/// Reads what is known of an instance's activities that have no result.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ActivitiesRead {
    pub(crate) instance: InstanceId,
    pub(crate) answer: Answer<Vec<super::attempts::ActivityProgress>>,
}

/// From another partition.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum PartitionMessage {
    /// Messages of its outbox, in order.
    Deliver(Vec<TaskMessage>),
    /// It has applied ours up to a number.
    Acknowledged { receiver: PartitionId, upto: u64 },
}

/// Another partition was rebuilt and wants everything that it has not acknowledged.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Resend(pub(crate) PartitionId);

/// Time has passed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Tick;

/// Finish what is under way, answer, and end. With a force, end at once, as in a crash.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop {
    pub(crate) forced: bool,
    pub(crate) done: oneshot::Sender<()>,
}
