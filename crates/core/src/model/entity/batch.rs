//! The seam between the runtime and an entity's code: a batch of operations goes in, results and a state come out.
//! Whoever runs entities elsewhere, or around other code, does it here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::middleware::EntityBatchFuture;
use crate::entity::{EntityCaller, EntityId, EntityOperation};
use crate::event::{Tags, TraceContext};
use crate::failure::FailureDetails;
use crate::ids::{ExecutionId, InstanceId};
use crate::model::converter::Converter;
use crate::model::middleware::Properties;
use crate::payload::Payload;
use crate::time::Timestamp;

/// Gives an id that nobody has, each time. The kernel has no randomness of its own.
pub type FreshIds = Arc<dyn Fn() -> ExecutionId + Send + Sync>;

/// A batch under way. It may wait for something real.
pub type BatchFuture = EntityBatchFuture<'static>;

/// An entity's code with its types erased.
pub type EntityFn = Arc<dyn Fn(EntityBatch) -> BatchFuture + Send + Sync>;

/// Operations for one entity, to be run one after the other.
#[derive(Clone)]
pub struct EntityBatch {
    /// The entity.
    pub entity: EntityId,
    /// What its code kept, if it exists.
    pub state: Option<Payload>,
    /// The operations, in order.
    pub operations: Vec<BatchOperation>,
    /// When the turn began.
    pub now: Timestamp,
    /// The largest payload, in bytes: of a result, of an input for others, and of the state.
    pub max_payload_bytes: usize,
    /// For the orchestrations that are started.
    pub fresh_ids: FreshIds,
    /// What middleware put in.
    pub properties: Properties,
    /// How values become payloads in this hub.
    pub converter: Converter,
}

/// One operation of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOperation {
    /// Its name, whose case does not matter.
    pub operation: SmolStr,
    /// Its input.
    pub input: Payload,
    /// Identifies a call; other SDKs want it back.
    pub request_id: SmolStr,
    /// Who asked; none for a client.
    pub caller: Option<EntityCaller>,
    /// Nobody waits for the result.
    pub is_signal: bool,
    /// When it was to be delivered, if that was said.
    pub scheduled_time: Option<Timestamp>,
    /// The trace that it belongs to.
    pub trace: Option<Box<TraceContext>>,
}

/// What came of a batch. An operation that failed has left no trace in the state or among the actions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EntityBatchResult {
    /// One for each operation, in order.
    pub results: Vec<Result<Payload, FailureDetails>>,
    /// What the operations asked for, in order.
    pub actions: Vec<EntityAction>,
    /// What is kept from now on; none when the entity is to be gone.
    pub state: Option<Payload>,
}

/// What an entity's code asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntityAction {
    /// Signal an entity.
    Signal {
        /// Which one.
        target: EntityId,
        /// The operation.
        operation: Box<EntityOperation>,
    },
    /// Start an orchestration that nobody awaits. An id that is in use by one that has not ended starts nothing.
    Start {
        /// Its instance id.
        instance: InstanceId,
        /// The orchestration's name.
        name: SmolStr,
        /// Its version, empty for the greatest that is registered.
        version: SmolStr,
        /// Its input.
        input: Payload,
        /// Its tags.
        tags: Tags,
        /// Not to begin before this moment.
        scheduled_start: Option<Timestamp>,
        /// The trace that it belongs to.
        trace: Option<Box<TraceContext>>,
    },
}
