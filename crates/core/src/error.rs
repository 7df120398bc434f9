//! The error type of user code: anything that can become [`FailureDetails`].

use std::any::Any;
use std::fmt;

use smol_str::SmolStr;

use crate::failure::{FailureDetails, kinds};

/// What orchestrations, activities and programs return with `?`: any [`std::error::Error`] converts into it, and it
/// converts into the [`FailureDetails`] that a history keeps. Like other catch-all errors it does not itself
/// implement [`std::error::Error`].
///
/// ```
/// use steadfast_core::{Error, Result};
/// fn parse(text: &str) -> Result<u32> {
///     let number: u32 = text.parse()?;
///     if number == 0 {
///         return Err(Error::msg("zero is not a quantity").non_retriable());
///     }
///     Ok(number)
/// }
/// assert!(parse("x").unwrap_err().to_string().contains("invalid digit"));
/// assert!(parse("0").unwrap_err().details().non_retriable);
/// ```
pub struct Error(Box<FailureDetails>);

/// A result whose error is [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that is only a message.
    pub fn msg(message: impl Into<String>) -> Self {
        Self::new(kinds::MESSAGE, message)
    }

    /// An error with a type name of its own, for retry predicates and other languages to recognise.
    pub fn new(error_type: impl Into<SmolStr>, message: impl Into<String>) -> Self {
        Self(Box::new(FailureDetails::new(error_type, message)))
    }

    /// Marks the error so that no retry policy tries again.
    pub fn non_retriable(mut self) -> Self {
        self.0.non_retriable = true;
        self
    }

    /// The failure as data.
    pub fn details(&self) -> &FailureDetails {
        &self.0
    }

    /// Gives up the failure as data.
    pub fn into_details(self) -> FailureDetails {
        *self.0
    }
}

impl From<FailureDetails> for Error {
    fn from(details: FailureDetails) -> Self {
        Self(Box::new(details))
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        match (&error as &dyn Any).downcast_ref::<TaskError>() {
            Some(task) => Self(Box::new(task.to_failure())),
            None => Self(Box::new(FailureDetails::from_std(std::any::type_name::<E>(), &error))),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

/// Prints the whole chain, because this is what `main` prints when it returns an error.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        for cause in self.0.chain().skip(1) {
            write!(f, "\n  caused by {cause}")?;
        }
        Ok(())
    }
}

/// Which durable operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// An activity.
    Activity,
    /// A sub-orchestration.
    SubOrchestration,
    /// A wait for an external event.
    Event,
    /// An operation of an entity.
    Entity,
    /// The locks of a critical section.
    Lock,
}

/// A durable operation failed: what awaiting an activity, a sub-orchestration or an event gives on failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    /// Which kind of operation it was.
    pub kind: TaskKind,
    /// Name of the activity, orchestration or event.
    pub name: SmolStr,
    /// Id of the action in the history; −1 for events, which are not actions.
    pub id: i32,
    /// The failure itself.
    pub details: FailureDetails,
}

impl TaskError {
    /// Whether a retry policy may not try again.
    pub fn is_non_retriable(&self) -> bool {
        self.details.non_retriable
    }

    fn to_failure(&self) -> FailureDetails {
        let error_type = match self.kind {
            TaskKind::Activity => kinds::ACTIVITY_FAILED,
            TaskKind::SubOrchestration => kinds::SUB_ORCHESTRATION_FAILED,
            TaskKind::Entity => kinds::ENTITY_OPERATION_FAILED,
            TaskKind::Event | TaskKind::Lock => return self.details.clone(),
        };
        FailureDetails {
            non_retriable: self.details.non_retriable,
            ..FailureDetails::new(error_type, self.to_string()).caused_by(self.details.clone())
        }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, details, .. } = self;
        match self.kind {
            TaskKind::Activity => write!(f, "activity '{name}' (#{id}) failed: {}", details.message),
            TaskKind::SubOrchestration => {
                write!(f, "sub-orchestration '{name}' (#{id}) failed: {}", details.message)
            }
            TaskKind::Entity => write!(f, "entity operation '{name}' (#{id}) failed: {}", details.message),
            TaskKind::Lock => write!(f, "locking entities failed: {}", details.message),
            TaskKind::Event => write!(f, "waiting for event '{name}' failed: {}", details.message),
        }
    }
}

impl std::error::Error for TaskError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uncaught_task_error_keeps_the_original_failure_as_its_cause() {
        let original = FailureDetails::new("app::Declined", "card declined").non_retriable();
        let task = TaskError { kind: TaskKind::Activity, name: "charge".into(), id: 3, details: original };
        let details = Error::from(task).into_details();
        assert_eq!(details.error_type, kinds::ACTIVITY_FAILED);
        assert_eq!(details.message, "activity 'charge' (#3) failed: card declined");
        assert!(details.is_caused_by("app::Declined"));
        assert!(details.non_retriable);
    }

    #[test]
    fn sources_of_std_errors_become_the_cause_chain() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::num::ParseIntError);
        let error = Error::from(Outer("x".parse::<u8>().unwrap_err()));
        assert_eq!(error.details().chain().count(), 2);
        assert!(format!("{error:?}").contains("caused by"));
    }
}
