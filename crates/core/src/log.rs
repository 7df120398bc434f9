//! The structured log: what is reported, under which id and name, at which level. The numbers and names are those of the
//! Durable Task Framework, so that what people know to look for is there.
//!
//! Some of its numbers report things that there are not here, and are left out:
//!
//! - 20 to 24, 26 to 28, 30 (dispatchers that fetch work items) and 65 to 67, 70 to 72 (renewals of their locks): a
//!   partition hands its work out by itself, and nothing is fetched, throttled or locked;
//! - 63, 64 (activities that are aborted, errors of their dispatcher): a result is kept, or the attempt is made again;
//! - 73, 74 (debug traces, completions with a warning asked for by a tag): the first says nothing of its own, and a
//!   subscriber filters better than a tag;
//! - 101 to 140 (Azure Storage's queues, tables and leases): what the store does is in the targets of the stores.
//!
//! Each is a `tracing` event of the target `steadfast` whose metadata has the name and the level, with the field
//! `event_id` and others that say whose it is. Without a subscriber one costs a look at a number in memory.

use tracing::Level;

/// An entry of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogId {
    /// The number, in the field `event_id`.
    pub id: u64,
    /// The name of the `tracing` event.
    pub name: &'static str,
    /// Its level.
    pub level: Level,
}

#[doc(hidden)]
pub use tracing::{Level as LogLevel, event as log_event_by_tracing};

macro_rules! log_table {
    ($d:tt $($name:ident = $id:literal $level:ident,)*) => {
        /// Everything that is reported, by number.
        pub const LOG_IDS: &[LogId] =
            &[$(LogId { id: $id, name: stringify!($name), level: Level::$level }),*];

        /// Reports something of the table in [`log`](crate::log), with fields as `tracing` takes them.
        #[macro_export]
        macro_rules! log_event {
            $(($name, $d($d fields:tt)*) => {
                $crate::log::log_event_by_tracing!(
                    name: stringify!($name),
                    target: "steadfast",
                    $crate::log::LogLevel::$level,
                    event_id = $id as u64,
                    $d($d fields)*
                )
            };)*
        }
    };
}

log_table! { $
    WorkerStarting = 10 INFO,
    WorkerStarted = 11 INFO,
    WorkerStopping = 12 INFO,
    WorkerStopped = 13 INFO,
    FetchWorkItemFailure = 25 ERROR,
    ProcessWorkItemFailed = 29 ERROR,
    SchedulingOrchestration = 40 INFO,
    RaisingEvent = 41 INFO,
    TerminatingInstance = 42 INFO,
    WaitingForInstance = 43 INFO,
    FetchingInstanceState = 44 INFO,
    FetchingInstanceHistory = 45 INFO,
    SchedulingActivity = 46 INFO,
    CreatingTimer = 47 INFO,
    SendingEvent = 48 INFO,
    OrchestrationCompleted = 49 INFO,
    ProcessingOrchestrationMessage = 50 DEBUG,
    OrchestrationExecuting = 51 INFO,
    OrchestrationExecuted = 52 INFO,
    OrchestrationAborted = 53 WARN,
    DiscardingMessage = 54 WARN,
    EntityBatchExecuting = 55 DEBUG,
    EntityBatchExecuted = 56 INFO,
    EntityLockAcquired = 57 INFO,
    EntityLockReleased = 58 INFO,
    TaskActivityStarting = 60 INFO,
    TaskActivityCompleted = 61 INFO,
    TaskActivityFailure = 62 INFO,
    SuspendingInstance = 68 INFO,
    ResumingInstance = 69 INFO,
    PurgeInstanceHistory = 141 INFO,
}
