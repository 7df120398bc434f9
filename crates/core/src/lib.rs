//! The vocabulary and the pure kernel of Steadfast.
//!
//! Everything here is synchronous and deterministic: no files, sockets, threads, clocks or randomness. Time and ids
//! enter as inputs; what is to be done leaves as values. It must not know how records are stored, who runs
//! activities, or that actors exist.

// First, because what it defines is a macro.
#[macro_use]
pub mod log;

mod action;
pub mod codec;
mod compression;
pub mod dispatch;
pub mod entity;
mod error;
mod event;
pub mod failure;
pub mod history_json;
mod ids;
mod message;
pub mod model;
pub mod partition;
mod payload;
mod query;
mod reuse;
pub mod scaling;
mod state;
mod tags;
mod time;
mod trace;
pub mod turn;
mod version;

pub use action::{ActionKind, Completion, OrchestratorAction};
pub use entity::EntityId;
pub use error::{Error, Result, TaskError, TaskKind};
pub use event::{
    ActivityOptions, CarriedEvent, EventAddress, EventKind, EventVersions, ExecutionStarted, HistoryEvent,
    NO_EVENT_ID, ParentInstance, Predecessor, SubOrchestrationCreated, Tags, TraceContext, VersionedEvent,
};
pub use failure::FailureDetails;
pub use ids::{
    ExecutionId, InstanceId, InstanceMap, InvalidInstanceId, KnownHash, MAX_INSTANCE_ID_BYTES, PartitionId,
    Position,
};
pub use message::{ActivityId, DelayedKey, Origin, TaskMessage, TimerKey};
pub use payload::Payload;
pub use query::{InstanceCounts, InstanceFacts, InstanceFilter, InstanceKind, TimeRange};
pub use reuse::{IdReuse, OnExisting};
pub use state::{InstanceState, OrchestrationStatus};
pub use tags::{InvalidTags, MAX_TAGS, MAX_TAGS_BYTES, check_tags};
pub use time::Timestamp;
pub use version::{VersionFailure, VersionMatch, VersionMismatch, VersionOptions, compare_versions};
