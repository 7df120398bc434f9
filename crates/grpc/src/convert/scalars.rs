//! Payloads, timestamps, ids, tags and trace contexts.

use std::collections::HashMap;

use serde::de::IgnoredAny;
use smol_str::SmolStr;
use steadfast_core::{ExecutionId, InstanceId, Payload, Tags, TimeRange, Timestamp, TraceContext};
use uuid::Uuid;

use super::error::WireError;
use crate::wire;

/// The longest id of an entity, or of an instance that a client starts, in characters: that of other servers of the
/// protocol. Ids of sub-orchestrations are made from their parents' and may be longer.
pub const MAX_ID_CHARACTERS: usize = 100;

/// The longest name of an orchestration, an event or an operation, and the longest version or request id, in bytes.
/// Payloads have a limit of their own.
pub const MAX_NAME_BYTES: usize = 1024;

/// The longest parent and state of a trace context, in bytes. What is longer belongs to no trace.
const MAX_TRACE_BYTES: usize = 1024;

/// The first second of the year 1 and the last one of the year 9999, the bounds of the protocol's timestamps.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// A value: absent is the same as a text without bytes, which is how some SDKs say "nothing".
pub fn payload(value: Option<String>) -> Payload {
    Payload::from_json(value.unwrap_or_default())
}

/// A value that may be absent; a text without bytes is a value.
pub fn optional_payload(value: Option<String>) -> Option<Payload> {
    value.map(Payload::from_json)
}

/// A value on its way out: absent when it has no text.
pub fn payload_to_wire(payload: &Payload) -> Option<String> {
    text_to_wire(payload.as_str())
}

/// A short text, such as a name, that may be empty.
///
/// # Errors
/// [`WireError::TextTooLong`] beyond [`MAX_NAME_BYTES`].
pub fn name(text: String, field: &'static str) -> Result<String, WireError> {
    let (length, max) = (text.len(), MAX_NAME_BYTES);
    if length > max { Err(WireError::TextTooLong { field, length, max }) } else { Ok(text) }
}

/// How many are wanted on a page at most; 0 when nothing is said.
///
/// # Errors
/// [`WireError::Negative`].
pub fn page_size(value: i32, field: &'static str) -> Result<usize, WireError> {
    usize::try_from(value).map_err(|_| WireError::Negative { field, value })
}

/// A text whose absence means nothing.
pub(super) fn text(value: Option<String>) -> SmolStr {
    value.map(SmolStr::from).unwrap_or_default()
}

pub(super) fn text_to_wire(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A reason, which is plain text in Rust and JSON in the protocol, where it may become an instance's result: JSON stays
/// as it is, other text becomes a JSON string.
pub(super) fn reason_to_wire(reason: &str) -> Option<String> {
    if reason.is_empty() {
        return None;
    }
    match serde_json::from_str::<IgnoredAny>(reason) {
        Ok(_) => Some(reason.to_owned()),
        Err(_) => Some(serde_json::Value::from(reason).to_string()),
    }
}

/// A moment; what is finer than microseconds is cut off.
///
/// # Errors
/// [`WireError::InvalidTimestamp`].
pub fn timestamp(value: prost_types::Timestamp, field: &'static str) -> Result<Timestamp, WireError> {
    convert_time(value, 0).ok_or(WireError::InvalidTimestamp { field })
}

/// A moment before which something must not happen; what is finer than microseconds is rounded up.
pub(super) fn due_time(value: prost_types::Timestamp, field: &'static str) -> Result<Timestamp, WireError> {
    convert_time(value, 999).ok_or(WireError::InvalidTimestamp { field })
}

/// A span of time, each end of which may be left out.
///
/// # Errors
/// [`WireError::InvalidTimestamp`].
pub fn time_range(
    (from, from_field): (Option<prost_types::Timestamp>, &'static str),
    (before, before_field): (Option<prost_types::Timestamp>, &'static str),
) -> Result<TimeRange, WireError> {
    Ok(TimeRange {
        from: from.map(|from| due_time(from, from_field)).transpose()?,
        before: before.map(|before| due_time(before, before_field)).transpose()?,
    })
}

fn convert_time(value: prost_types::Timestamp, round: i64) -> Option<Timestamp> {
    let valid = SECONDS.contains(&value.seconds) && (0..1_000_000_000).contains(&value.nanos);
    let micros = (i64::from(value.nanos) + round) / 1000;
    valid.then(|| Timestamp::from_micros(value.seconds * MICROS_PER_SECOND + micros))
}

/// A moment on its way out. Moments before the year 1 or after 9999 become the nearest one that the protocol knows.
pub fn timestamp_to_wire(time: Timestamp) -> prost_types::Timestamp {
    let (first, last) = (*SECONDS.start(), *SECONDS.end());
    let micros = time.as_micros();
    let micros = micros.clamp(first * MICROS_PER_SECOND, last * MICROS_PER_SECOND + MICROS_PER_SECOND - 1);
    let nanos = micros.rem_euclid(MICROS_PER_SECOND) * 1000;
    prost_types::Timestamp {
        seconds: micros.div_euclid(MICROS_PER_SECOND),
        nanos: i32::try_from(nanos).unwrap_or_default(),
    }
}

/// The id of an instance that a client starts; none when it is empty, and one is to be made.
///
/// # Errors
/// [`WireError::IdTooLong`] beyond [`MAX_ID_CHARACTERS`], [`WireError::InvalidInstanceId`].
pub fn new_instance_id(text: &str) -> Result<Option<InstanceId>, WireError> {
    check_length(text)?;
    if text.is_empty() { Ok(None) } else { Ok(Some(InstanceId::parse(text)?)) }
}

pub(super) fn check_length(id: &str) -> Result<(), WireError> {
    let length = id.chars().count();
    if length > MAX_ID_CHARACTERS {
        let start = id.chars().take(32).collect();
        return Err(WireError::IdTooLong { start, length, max: MAX_ID_CHARACTERS });
    }
    Ok(())
}

/// An execution id; none when it is absent or empty.
///
/// # Errors
/// [`WireError::InvalidExecutionId`].
pub fn execution_id(text: Option<&str>, field: &'static str) -> Result<Option<ExecutionId>, WireError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let uuid = Uuid::try_parse(text).map_err(|_| WireError::InvalidExecutionId { field })?;
    Ok(Some(ExecutionId::new(uuid)))
}

/// Tags.
pub fn tags(tags: HashMap<String, String>) -> Tags {
    tags.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

/// Tags on their way out.
pub fn tags_to_wire(tags: &Tags) -> HashMap<String, String> {
    tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// A trace context; none when it has no parent, or is larger than one can be: a trace is no reason to refuse what it
/// comes with.
pub fn trace(trace: Option<wire::TraceContext>) -> Option<TraceContext> {
    let wire::TraceContext { trace_parent, trace_state, .. } = trace?;
    let state_bytes = trace_state.as_ref().map_or(0, String::len);
    let usable = !trace_parent.is_empty() && trace_parent.len().max(state_bytes) <= MAX_TRACE_BYTES;
    usable.then(|| TraceContext { parent: trace_parent.into(), state: text(trace_state) })
}

/// A trace context on its way out, with the span's id that older SDKs read from a field of its own.
pub fn trace_to_wire(trace: &TraceContext) -> wire::TraceContext {
    wire::TraceContext {
        trace_parent: trace.parent.to_string(),
        span_id: trace.parent.split('-').nth(2).unwrap_or_default().to_owned(),
        trace_state: text_to_wire(&trace.state),
    }
}
