//! The names under which large or growing things are kept as pieces. All numbers are big-endian.
//!
//! Texts and keys of any content are preceded by their length, so that what belongs to one of them is one range and
//! never touches that of another.

use steadfast_core::{InstanceId, PartitionId};

const HISTORY: u8 = b'h';
const STATE: u8 = b's';
const PAYLOAD: u8 = b'p';
const INSTANCE: u8 = b'i';
const ROW: u8 = b'r';

/// Everything of an instance: `i`, length of the id u16, id.
pub(crate) fn instance(id: &InstanceId) -> Vec<u8> {
    let text = id.as_str().as_bytes();
    let mut name = Vec::with_capacity(text.len() + 20);
    name.push(INSTANCE);
    name.extend_from_slice(&(text.len() as u16).to_be_bytes());
    name.extend_from_slice(text);
    name
}

/// All histories of an instance: `h` after its name.
pub(crate) fn histories(id: &InstanceId) -> Vec<u8> {
    let mut name = instance(id);
    name.push(HISTORY);
    name
}

/// One history of an instance: then its generation u32.
pub(crate) fn history(id: &InstanceId, generation: u32) -> Vec<u8> {
    let mut name = histories(id);
    name.extend_from_slice(&generation.to_be_bytes());
    name
}

/// One part of a history: then the numbers of its first event and of the one after its last, u64 each, and its length
/// in bytes u32. It needs no further description.
pub(crate) fn part(id: &InstanceId, generation: u32, part: Part) -> Vec<u8> {
    let mut name = part_from(id, generation, part.at);
    name.extend_from_slice(&part.end.to_be_bytes());
    name.extend_from_slice(&part.len.to_be_bytes());
    name
}

/// Where the parts of a history that begin with an event begin.
pub(crate) fn part_from(id: &InstanceId, generation: u32, at: u64) -> Vec<u8> {
    let mut name = history(id, generation);
    name.extend_from_slice(&at.to_be_bytes());
    name
}

/// A run of events that was written at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// The number of the first event.
    pub(crate) at: u64,
    /// The number after that of the last event.
    pub(crate) end: u64,
    /// How many bytes.
    pub(crate) len: u32,
}

/// Reads a part's description back from the key of one of its pieces, given the name of the history.
pub(crate) fn parse_part(history: &[u8], key: &[u8]) -> Option<Part> {
    let rest = key.strip_prefix(history)?;
    let (at, rest) = rest.split_first_chunk()?;
    let (end, rest) = rest.split_first_chunk()?;
    let (len, _) = rest.split_first_chunk()?;
    Some(Part { at: u64::from_be_bytes(*at), end: u64::from_be_bytes(*end), len: u32::from_be_bytes(*len) })
}

/// All large states of an instance: `s` after its name.
pub(crate) fn states(id: &InstanceId) -> Vec<u8> {
    let mut name = instance(id);
    name.push(STATE);
    name
}

/// A large state of an instance: then its version u32.
pub(crate) fn state(id: &InstanceId, version: u32) -> Vec<u8> {
    let mut name = states(id);
    name.extend_from_slice(&version.to_be_bytes());
    name
}

/// All payloads of an instance that are apart from its state: `p` after its name.
pub(crate) fn payloads(id: &InstanceId) -> Vec<u8> {
    let mut name = instance(id);
    name.push(PAYLOAD);
    name
}

/// A payload of an instance: then its slot u8 and its name u128.
pub(crate) fn payload(id: &InstanceId, slot: u8, payload: u128) -> Vec<u8> {
    let mut name = payloads(id);
    name.push(slot);
    name.extend_from_slice(&payload.to_be_bytes());
    name
}

/// All large values of a row: `r`, partition u16, length of the key u16, key.
pub(crate) fn row_values(partition: PartitionId, key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len() + 16);
    name.push(ROW);
    name.extend_from_slice(&partition.0.to_be_bytes());
    name.extend_from_slice(&(key.len() as u16).to_be_bytes());
    name.extend_from_slice(key);
    name
}

/// A large value of a row: then its version u32.
pub(crate) fn row_value(partition: PartitionId, key: &[u8], version: u32) -> Vec<u8> {
    let mut name = row_values(partition, key);
    name.extend_from_slice(&version.to_be_bytes());
    name
}

/// A row in the tree of rows: partition u16, key.
pub(crate) fn row(partition: PartitionId, key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len() + 2);
    name.extend_from_slice(&partition.0.to_be_bytes());
    name.extend_from_slice(key);
    name
}
