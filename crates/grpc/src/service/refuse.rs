//! What a client is told when its call did not do what it was asked for.

use std::error::Error;

use steadfast_engine::ClientError;
use tonic::{Code, Status};

use crate::convert::{WireError, name};

impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// The status of an error of the engine's client, with all that is known of its causes.
pub(super) fn refused(error: ClientError) -> Status {
    let code = match &error {
        ClientError::AlreadyExists { .. } => Code::AlreadyExists,
        ClientError::InstanceNotFound { .. } => Code::NotFound,
        ClientError::NotRunning { .. }
        | ClientError::NotEnded { .. }
        | ClientError::OtherVersion { .. }
        | ClientError::NotFailed { .. }
        | ClientError::NotRewound { .. } => Code::FailedPrecondition,
        ClientError::OtherExecution { .. } => Code::NotFound,
        ClientError::TooManyMessages { .. } => Code::ResourceExhausted,
        ClientError::UnknownOrchestration { .. }
        | ClientError::PayloadTooLarge { .. }
        | ClientError::InvalidPayload(_)
        | ClientError::InvalidTags(_)
        | ClientError::InvalidInstanceId(_) => Code::InvalidArgument,
        ClientError::TimedOut { .. } => Code::DeadlineExceeded,
        // Nothing was changed, so SDKs may try again, as they do with this code.
        ClientError::HubClosed | ClientError::Unavailable => Code::Unavailable,
        // It may have taken effect, so they may not.
        ClientError::Interrupted => Code::Aborted,
        _ => Code::Internal,
    };
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    Status::new(code, text)
}

/// The name of what a request asks for, which has to be there.
pub(super) fn needed_name(text: String, message: &'static str) -> Result<String, WireError> {
    match text.is_empty() {
        true => Err(WireError::Missing { message, field: "name" }),
        false => name(text, "name"),
    }
}
