//! Task messages: events on their way to an instance.

use serde::{Deserialize, Serialize};

use crate::event::HistoryEvent;
use crate::ids::{ExecutionId, InstanceId, PartitionId};
use crate::time::Timestamp;

/// An event addressed to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMessage {
    /// The addressee.
    pub instance: InstanceId,
    /// Only this execution of it; whichever is current when absent.
    pub execution: Option<ExecutionId>,
    /// What happened.
    pub event: HistoryEvent,
    /// Where it came from, which is what de-duplication goes by.
    pub origin: Origin,
}

/// Where a message came from. Settling an origin is part of the record that accepts or consumes the message, and a
/// message whose origin is settled already is a duplicate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A client; each call is a message of its own.
    Client,
    /// An instance of the same partition: produced and accepted in one record.
    Local,
    /// The result of an unfinished activity.
    Activity(ActivityId),
    /// A timer that was armed.
    Timer(TimerKey),
    /// Another partition's outbox.
    Remote {
        /// The sender.
        source: PartitionId,
        /// Its number for this receiver, counted from 1.
        sequence: u64,
    },
    /// A delayed signal whose time has come.
    Delayed(DelayedKey),
}

/// A signal of a partition that waits for its time, ordered by when it is due, and then by when it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DelayedKey {
    /// When it is due.
    pub due: Timestamp,
    /// The number under which it was accepted.
    pub sequence: u64,
}

/// An unfinished activity of a partition: unique for ever, and ordered by when it was scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActivityId(pub u64);

/// An armed timer of a partition, ordered by when it is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TimerKey {
    /// When it is due.
    pub fire_at: Timestamp,
    /// Whose it is.
    pub instance: InstanceId,
    /// Of which execution.
    pub execution: ExecutionId,
    /// The event id of its `TimerCreated`.
    pub timer_id: i32,
}
