//! Failures as data: what is written into histories when user code fails.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// The longest chain of causes that is kept, the failure itself included. What lies deeper is dropped: each level of
/// nested sub-orchestrations adds a link, and a chain must never grow until it cannot be read back.
pub const MAX_CHAIN: usize = 64;

/// The greatest size of a failure that user code leaves in a history, in bytes: all messages, stack traces and types of
/// its chain together. What is beyond is cut off.
pub const MAX_FAILURE_BYTES: usize = 64 << 10;

/// The greatest size of a reason (of a termination, suspension, ...), in bytes. What is beyond is cut off.
pub const MAX_REASON_BYTES: usize = 8 << 10;

/// What stands where a text was cut off.
const CUT: &str = " [cut off]";

/// A failure as it is stored in a history and handed to whoever awaits the failed work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Link>", into = "Vec<Link>")]
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
    /// What else is known of it, by name. The runtime uses [`LAST_HEARTBEAT`].
    pub properties: BTreeMap<SmolStr, SmolStr>,
}

/// The property that holds the last heartbeat's detail, as JSON, of an activity that failed.
pub const LAST_HEARTBEAT: &str = "steadfast.lastHeartbeat";

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
    /// An operation that an orchestration called failed and the orchestration did not handle it.
    pub const ENTITY_OPERATION_FAILED: &str = "EntityOperationFailed";
    /// No entity is registered under the name asked for.
    pub const ENTITY_NOT_REGISTERED: &str = "EntityNotRegistered";
    /// The entity has no operation of that name.
    pub const ENTITY_OPERATION_NOT_FOUND: &str = "EntityOperationNotFound";
    /// An orchestration does within a critical section what must not be done there; the message says what.
    pub const CRITICAL_SECTION_MISUSED: &str = "CriticalSectionMisused";
    /// The id of an entity cannot be used.
    pub const INVALID_ENTITY_ID: &str = "InvalidEntityId";
    /// A payload is larger than the hub allows.
    pub const PAYLOAD_TOO_LARGE: &str = "PayloadTooLarge";
    /// A payload is not the JSON that the receiving type expects, or a value has no JSON form.
    pub const INVALID_PAYLOAD: &str = "InvalidPayload";
    /// A wait ended without what it waited for.
    pub const TIMED_OUT: &str = "TimedOut";
    /// An attempt at an activity took longer than its start-to-close timeout allows.
    pub const ACTIVITY_TIMED_OUT: &str = "ActivityTimedOut";
    /// An activity gave no heartbeat for longer than its heartbeat timeout allows.
    pub const HEARTBEAT_TIMED_OUT: &str = "HeartbeatTimedOut";
    /// The execution's history has reached the greatest length or size that the hub allows.
    pub const HISTORY_TOO_LONG: &str = "HistoryTooLong";
    /// An instance with this id exists and has not ended.
    pub const ALREADY_EXISTS: &str = "AlreadyExists";
    /// A child orchestration that failed could not be rewound together with its parent.
    pub const NOT_REWOUND: &str = "NotRewound";
    /// The child orchestration or the instance was terminated.
    pub const TERMINATED: &str = "Terminated";
    /// Tags are too many, too large or reserved.
    pub const INVALID_TAGS: &str = "InvalidTags";
    /// A worker does not take instances of this version.
    pub const VERSION_MISMATCH: &str = "VersionMismatch";
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
            properties: BTreeMap::new(),
        }
    }

    /// The same failure with a property.
    pub fn with_property(mut self, name: impl Into<SmolStr>, value: impl Into<SmolStr>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&SmolStr> {
        self.properties.get(name)
    }

    /// The same failure, marked so that no retry policy tries again.
    pub fn non_retriable(mut self) -> Self {
        self.non_retriable = true;
        self
    }

    /// The same failure with a cause. Of a chain of more than [`MAX_CHAIN`] causes the deepest are dropped.
    pub fn caused_by(mut self, cause: FailureDetails) -> Self {
        self.cause = Some(Box::new(cause));
        let mut last = &mut self;
        for _ in 1..MAX_CHAIN {
            let Some(cause) = last.cause.as_deref_mut() else { return self };
            last = cause;
        }
        last.cause = None;
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

    /// The same failure in at most about [`MAX_FAILURE_BYTES`]: outer failures keep their texts before inner ones.
    pub fn bounded(mut self) -> Self {
        let mut left = MAX_FAILURE_BYTES;
        let mut next = Some(&mut self);
        while let Some(failure) = next {
            if left == 0 {
                // Only its links count then; there are few.
                failure.stack_trace = None;
            }
            if failure.error_type.len() > left {
                failure.error_type = bounded_text(&failure.error_type, left).into();
            }
            left = left.saturating_sub(failure.error_type.len());
            bound_string(&mut failure.message, &mut left);
            if let Some(trace) = &mut failure.stack_trace {
                bound_string(trace, &mut left);
            }
            next = failure.cause.as_deref_mut();
        }
        self
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
        let sources = std::iter::successors(error.source(), |error| error.source());
        let link = |error_type: &str, error: &dyn std::error::Error| Self::new(error_type, error.to_string());
        let mut chain = vec![link(error_type, error)];
        chain.extend(sources.take(MAX_CHAIN - 1).map(|source| link(kinds::MESSAGE, source)));
        Self::from_chain(chain)
    }

    /// Puts links together, the outermost first; no recursion, however many there are.
    fn from_chain(mut links: Vec<Self>) -> Self {
        links.truncate(MAX_CHAIN);
        let chain =
            links.into_iter().rev().reduce(|cause, failure| Self { cause: Some(Box::new(cause)), ..failure });
        chain.unwrap_or_else(|| Self::new(kinds::MESSAGE, "a failure without content was read"))
    }
}

fn bound_string(text: &mut String, left: &mut usize) {
    if text.len() > *left {
        *text = bounded_text(text, *left);
        *left = 0;
    } else {
        *left -= text.len();
    }
}

/// The beginning of a text that is longer than `max` bytes, with a note that it was cut off.
fn bounded_text(text: &str, max: usize) -> String {
    let mut cut = text[..text.floor_char_boundary(max)].to_owned();
    cut.push_str(CUT);
    cut
}

/// A reason in at most about [`MAX_REASON_BYTES`].
///
/// ```
/// use steadfast_core::failure::{MAX_REASON_BYTES, bounded_reason};
/// assert_eq!(bounded_reason("lunch"), "lunch");
/// assert!(bounded_reason(&"x".repeat(1 << 20)).len() <= MAX_REASON_BYTES + 16);
/// ```
pub fn bounded_reason(reason: &str) -> SmolStr {
    match reason.len() > MAX_REASON_BYTES {
        true => bounded_text(reason, MAX_REASON_BYTES).into(),
        false => reason.into(),
    }
}

/// One failure of a chain, as it is encoded: a chain is a list, so that reading one needs no recursion.
#[derive(Serialize, Deserialize)]
struct Link {
    error_type: SmolStr,
    message: String,
    stack_trace: Option<String>,
    non_retriable: bool,
    properties: BTreeMap<SmolStr, SmolStr>,
}

impl From<FailureDetails> for Vec<Link> {
    fn from(failure: FailureDetails) -> Self {
        let mut links = Self::new();
        let mut next = Some(Box::new(failure));
        while let Some(failure) = next {
            let FailureDetails { error_type, message, stack_trace, cause, non_retriable, properties } =
                *failure;
            links.push(Link { error_type, message, stack_trace, non_retriable, properties });
            next = cause;
        }
        links
    }
}

impl From<Vec<Link>> for FailureDetails {
    fn from(links: Vec<Link>) -> Self {
        let links = links.into_iter().map(|link| Self {
            error_type: link.error_type,
            message: link.message,
            stack_trace: link.stack_trace,
            cause: None,
            non_retriable: link.non_retriable,
            properties: link.properties,
        });
        Self::from_chain(links.collect())
    }
}

impl fmt::Display for FailureDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn chains_are_cut_at_their_greatest_length_and_survive_encoding() {
        let mut failure = FailureDetails::new("innermost", "0");
        for level in 0..10 * MAX_CHAIN {
            failure = FailureDetails::new(format!("level {level}"), "x").caused_by(failure);
        }
        assert_eq!(failure.chain().count(), MAX_CHAIN);
        assert_eq!(codec::decode_all::<FailureDetails>(&codec::encode_to_vec(&failure)).unwrap(), failure);
    }

    #[test]
    fn texts_of_a_failure_are_bounded_and_outer_ones_come_first() {
        let long = |letter: &str| letter.repeat(MAX_FAILURE_BYTES);
        let inner =
            FailureDetails { stack_trace: Some(long("t")), ..FailureDetails::new("inner", long("i")) };
        let failure = FailureDetails::new("outer", format!("é{}", long("o"))).caused_by(inner).bounded();
        let bytes = codec::encode_to_vec(&failure).len();
        assert!((MAX_FAILURE_BYTES..MAX_FAILURE_BYTES + 100).contains(&bytes), "{bytes}");
        assert!(
            failure.message.ends_with(CUT)
                && failure.is_caused_by(&failure.cause.as_ref().unwrap().error_type)
        );
        let small = FailureDetails::new("a", "b").caused_by(FailureDetails::new("c", "d"));
        assert_eq!(small.clone().bounded(), small);
    }

    #[test]
    fn a_chain_of_a_million_links_in_damaged_bytes_is_read_without_recursion() {
        let mut bytes = codec::encode_to_vec(&1_000_000u64);
        for _ in 0..1_000_000 {
            bytes.extend_from_slice(&[0; 5]);
        }
        assert_eq!(codec::decode_all::<FailureDetails>(&bytes).unwrap().chain().count(), MAX_CHAIN);
    }
}
