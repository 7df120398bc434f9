//! What can be wrong with a message from outside.

use steadfast_core::InvalidInstanceId;

/// A message of the protocol that cannot be understood. Whoever sent it gets `INVALID_ARGUMENT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field without which the message means nothing.
    #[error("{message} lacks '{field}'")]
    Missing {
        /// The message's name.
        message: &'static str,
        /// The field's, or the oneof's.
        field: &'static str,
    },
    /// A number that stands for nothing.
    #[error("{value} is no value of '{field}'")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: i32,
    },
    /// A value that is known and cannot stand where it stands.
    #[error("{what} is not possible here")]
    Impossible {
        /// What it is.
        what: &'static str,
    },
    /// An id that cannot be used.
    #[error(transparent)]
    InvalidInstanceId(#[from] InvalidInstanceId),
    /// An id of a new instance or of an entity that is longer than other servers of the protocol allow.
    #[error("the id '{start}...' has a length of {length} characters, and at most {max} are possible")]
    IdTooLong {
        /// How it begins.
        start: String,
        /// How long it is.
        length: usize,
        /// What is allowed.
        max: usize,
    },
    /// A name, a version or another short text that is longer than any that means something.
    #[error("'{field}' has a length of {length} bytes, and at most {max} are possible")]
    TextTooLong {
        /// The field.
        field: &'static str,
        /// How long it is.
        length: usize,
        /// What is allowed.
        max: usize,
    },
    /// A number that is less than nothing.
    #[error("'{field}' is {value}, and must not be negative")]
    Negative {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: i32,
    },
    /// A token that no page came with.
    #[error("'{field}' is not one that a page came with; begin with the first page again")]
    InvalidToken {
        /// The field.
        field: &'static str,
    },
    /// Not an execution id.
    #[error("'{field}' is not an execution id, which has 32 hexadecimal digits")]
    InvalidExecutionId {
        /// The field.
        field: &'static str,
    },
    /// A timestamp that is none.
    #[error("'{field}' is no moment between the years 1 and 9999")]
    InvalidTimestamp {
        /// The field.
        field: &'static str,
    },
}

/// The content of a field that has to be there.
pub(super) fn need<T>(value: Option<T>, message: &'static str, field: &'static str) -> Result<T, WireError> {
    value.ok_or(WireError::Missing { message, field })
}
