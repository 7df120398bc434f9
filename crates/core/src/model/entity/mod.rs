//! Entities as code sees them: how they are written, what they are given, and how others ask them for something.

mod batch;
mod call;
mod context;
mod definition;
mod locks;
mod middleware;
mod orchestration;
mod spans;

pub use batch::{
    BatchFuture, BatchOperation, EntityAction, EntityBatch, EntityBatchResult, EntityFn, FreshIds,
};
pub use call::{EntityCall, IntoEntityId};
pub use context::{EntityContext, EntityStartOptions};
pub use definition::{EntityDefinition, EntityFuture, entity};
pub use locks::{CriticalSection, LockFuture};
pub use middleware::{EntityBatchCall, EntityBatchFuture, EntityMiddleware, EntityNext};

pub(crate) use locks::EntityLinks;
pub(crate) use middleware::cut_short;
