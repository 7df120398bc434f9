//! Durable orchestrations in Rust.

pub use steadfast_core::model::{
    ActivityContext, ActivityDefinition, ActivityHandle, ActivityName, ContinueAsNewOptions,
    DuplicateRegistration, EventFuture, OrchestrationContext, OrchestrationDefinition, OrchestrationHandle,
    OrchestrationName, Register, Registry, RetryPolicy, SubOrchestrationOptions, TaskFuture, TimerFuture,
    activity, orchestration,
};
pub use steadfast_core::{
    Error, EventKind, ExecutionId, ExecutionStarted, FailureDetails, HistoryEvent, InstanceId, InstanceState,
    InvalidInstanceId, OrchestrationStatus, ParentInstance, Payload, Result, SubOrchestrationCreated, Tags,
    TaskError, TaskKind, Timestamp, failure,
};
pub use steadfast_macros::{activity, orchestration};

/// What most programs need, to be imported whole.
pub mod prelude {
    pub use crate::{
        ActivityContext, ActivityHandle, Error, InstanceId, OrchestrationContext, OrchestrationHandle,
        OrchestrationStatus, Register, Result, RetryPolicy, SubOrchestrationOptions, TaskError, Timestamp,
        activity, orchestration,
    };
}

/// What the attributes name. Not for use by hand, and not part of the promise of stability.
#[doc(hidden)]
pub mod __private {
    pub use smol_str::SmolStr;
    pub use steadfast_core::model::{
        ActivityHandle, DuplicateRegistration, OrchestrationHandle, Register, Registry, activity,
        orchestration,
    };

    /// The type of a `Result`'s success, also when the result goes by an alias.
    #[diagnostic::on_unimplemented(
        message = "an activity or orchestration returns a `Result`, and `{Self}` is none",
        label = "not a `Result`",
        note = "write `-> Result<{Self}>`"
    )]
    pub trait Outcome {
        /// What it holds on success.
        type Ok;
    }

    impl<T, E> Outcome for Result<T, E> {
        type Ok = T;
    }
}
