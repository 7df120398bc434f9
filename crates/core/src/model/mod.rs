//! The programming model: what orchestration and activity code sees, and how code is found by name.

mod activity;
mod call;
mod context;
mod converter;
mod entity;
mod events;
mod facts;
mod handle;
mod middleware;
mod patch;
mod registry;
mod retry;
mod shared;
mod tasks;

pub use activity::{ActivityContext, ActivityLink, CancelReason, Cancelled};
pub use call::CallOptions;
pub use context::{ContinueAsNewOptions, OrchestrationContext, SubOrchestrationOptions};
pub use converter::{ConvertError, Converter, DataConverter, ReadValue};
pub use entity::{
    BatchFuture, BatchOperation, CriticalSection, EntityAction, EntityBatch, EntityBatchCall,
    EntityBatchFuture, EntityBatchResult, EntityCall, EntityContext, EntityDefinition, EntityFn,
    EntityFuture, EntityMiddleware, EntityNext, EntityStartOptions, FreshIds, IntoEntityId, LockFuture,
    entity,
};
pub use erased_serde;
pub use events::EventFuture;
pub use handle::{ActivityHandle, ActivityName, OrchestrationHandle, OrchestrationName};
pub use middleware::{
    ActivityCall, ActivityFuture, ActivityMiddleware, ActivityNext, Properties, TurnContext, TurnMiddleware,
    TurnOutcome,
};
pub use registry::{
    ActivityDefinition, ActivityFn, DuplicateRegistration, LocalFuture, OnNonDeterminism,
    OrchestrationDefinition, OrchestrationFn, Register, Registered, Registry, SendFuture, activity,
    orchestration,
};
pub use retry::RetryPolicy;
pub use tasks::{TaskFuture, TimerFuture};

pub(crate) use entity::cut_short;
pub(crate) use middleware::Middleware;
pub(crate) use shared::{ContextState, SharedContext};
pub(crate) use tasks::OpenKind;
