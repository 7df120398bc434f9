//! Failures as data: what is written into histories when user code fails.

use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// A failure as it is stored in a history and handed to whoever awaits the failed work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureDetails {
    /// What kind of error it was: a Rust type name, or one of the constants of [`kinds`].
    pub error_type: SmolStr,
    /// The error's message.
    pub message: String,
    /// Where it happened, as text, if known.
    pub stack_trace: Option<String>,
    /// The failure that caused this one.
    pub cause: Option<Box<FailureDetails>>,
    /// Whether a retry policy must not try again.
    pub non_retriable: bool,
}

/// The error types that the runtime itself reports.
pub mod kinds {
    /// An activity called by an orchestration failed and the orchestration did not handle it.
    pub const ACTIVITY_FAILED: &str = "ActivityFailed";
    /// A sub-orchestration failed and its parent did not handle it.
    pub const SUB_ORCHESTRATION_FAILED: &str = "SubOrchestrationFailed";
    /// User code panicked.
    pub const PANIC: &str = "Panic";
    /// Replay asked for something else than the history says.
    pub const NON_DETERMINISM: &str = "NonDeterminism";
    /// An orchestration awaits something that is not durable.
    pub const NON_DURABLE_AWAIT: &str = "NonDurableAwait";
    /// No activity is registered under the name (and version) asked for.
    pub const ACTIVITY_NOT_REGISTERED: &str = "ActivityNotRegistered";
    /// No orchestration is registered under the name (and version) asked for.
    pub const ORCHESTRATION_NOT_REGISTERED: &str = "OrchestrationNotRegistered";
    /// A payload is larger than the hub allows.
    pub const PAYLOAD_TOO_LARGE: &str = "PayloadTooLarge";
    /// A payload is not the JSON that the receiving type expects, or a value has no JSON form.
    pub const INVALID_PAYLOAD: &str = "InvalidPayload";
    /// A wait ended without what it waited for.
    pub const TIMED_OUT: &str = "TimedOut";
    /// An instance with this id exists and has not ended.
    pub const ALREADY_EXISTS: &str = "AlreadyExists";
    /// The child orchestration or the instance was terminated.
    pub const TERMINATED: &str = "Terminated";
    /// A text given by the user without a type of its own.
    pub const MESSAGE: &str = "Error";
}

impl FailureDetails {
    /// A retriable failure without a cause.
    pub fn new(error_type: impl Into<SmolStr>, message: impl Into<String>) -> Self {
        Self {
            error_type: error_type.into(),
            message: message.into(),
            stack_trace: None,
            cause: None,
            non_retriable: false,
        }
    }

    /// The same failure, marked so that no retry policy tries again.
    pub fn non_retriable(mut self) -> Self {
        self.non_retriable = true;
        self
    }

    /// The same failure with a cause.
    pub fn caused_by(mut self, cause: FailureDetails) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    /// Whether this failure or one in its cause chain is of `error_type`.
    pub fn is_caused_by(&self, error_type: &str) -> bool {
        self.chain().any(|failure| failure.error_type == error_type)
    }

    /// This failure, its cause, the cause's cause and so on.
    pub fn chain(&self) -> impl Iterator<Item = &FailureDetails> {
        std::iter::successors(Some(self), |failure| failure.cause.as_deref())
    }

    /// A panic's payload as a failure.
    pub fn from_panic(payload: &(dyn std::any::Any + Send)) -> Self {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panicked with a value that is not text".to_owned());
        Self::new(kinds::PANIC, message)
    }

    /// An error and its sources as a failure; `error_type` names the outermost.
    pub fn from_std(error_type: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut failure = Self::new(error_type, error.to_string());
        if let Some(source) = error.source() {
            failure = failure.caused_by(Self::from_std(kinds::MESSAGE, source));
        }
        failure
    }
}

impl fmt::Display for FailureDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)
    }
}
