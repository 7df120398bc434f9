//! The row of an instance: what is known of it, its state unless that is large, and its history if it is short and
//! not expected to grow.
//!
//! flags u8, reflects u64, events u64, generation u32, state version u32, length of the history u32, history (if it
//! is in the row), then the state, or its length u64 (if it is elsewhere) and its outline (if it has one). Numbers are
//! big-endian.

use steadfast_core::Position;

use crate::database::VALUE_BYTES_MAX;

const HISTORY_INLINE: u8 = 1;
const STATE_ELSEWHERE: u8 = 2;
const OUTLINE: u8 = 4;
const HEAD_BYTES: usize = 1 + 8 + 8 + 4 + 4 + 4;

/// The fixed part of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) reflects: Position,
    /// How many events the history has.
    pub(super) events: u64,
    /// Which of the instance's histories is the right one.
    pub(super) generation: u32,
    /// Which of its large states is the right one, if it has one.
    pub(super) state_version: u32,
}

/// A row, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub(super) head: Head,
    /// The history, if it is in the row.
    pub(super) history: Option<&'a [u8]>,
    pub(super) state: State<'a>,
}

/// Where the state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State<'a> {
    /// In the row.
    Here(&'a [u8]),
    /// Among the pieces.
    Elsewhere {
        /// So long.
        len: usize,
        /// What can be read of it here.
        outline: Option<&'a [u8]>,
    },
}

/// Whether a state and a history of these lengths fit into one row.
pub(super) fn fits(state_bytes: usize, history_bytes: usize) -> bool {
    state_bytes.saturating_add(history_bytes) <= VALUE_BYTES_MAX - HEAD_BYTES
}

/// How long a row is when it is encoded.
pub(super) fn encoded_bytes(row: &Row<'_>) -> usize {
    let state_bytes = match row.state {
        State::Here(state) => state.len(),
        State::Elsewhere { outline, .. } => 8 + outline.map_or(0, <[u8]>::len),
    };
    HEAD_BYTES + row.history.unwrap_or_default().len() + state_bytes
}

/// Encodes a row.
pub(super) fn encode(row: &Row<'_>) -> Vec<u8> {
    let history = row.history.unwrap_or_default();
    let mut flags = 0;
    if row.history.is_some() {
        flags |= HISTORY_INLINE;
    }
    match row.state {
        State::Here(_) => {}
        State::Elsewhere { outline: None, .. } => flags |= STATE_ELSEWHERE,
        State::Elsewhere { outline: Some(_), .. } => flags |= STATE_ELSEWHERE | OUTLINE,
    }
    let mut value = Vec::with_capacity(encoded_bytes(row));
    value.push(flags);
    value.extend_from_slice(&row.head.reflects.0.to_be_bytes());
    value.extend_from_slice(&row.head.events.to_be_bytes());
    value.extend_from_slice(&row.head.generation.to_be_bytes());
    value.extend_from_slice(&row.head.state_version.to_be_bytes());
    value.extend_from_slice(&(history.len() as u32).to_be_bytes());
    value.extend_from_slice(history);
    match row.state {
        State::Here(state) => value.extend_from_slice(state),
        State::Elsewhere { len, outline } => {
            value.extend_from_slice(&(len as u64).to_be_bytes());
            value.extend_from_slice(outline.unwrap_or_default());
        }
    }
    value
}

/// Decodes a row; none when it can't be one.
pub(super) fn decode(mut value: &[u8]) -> Option<Row<'_>> {
    let [flags] = take(&mut value)?;
    let head = Head {
        reflects: Position(u64::from_be_bytes(take(&mut value)?)),
        events: u64::from_be_bytes(take(&mut value)?),
        generation: u32::from_be_bytes(take(&mut value)?),
        state_version: u32::from_be_bytes(take(&mut value)?),
    };
    let history_len = u32::from_be_bytes(take(&mut value)?) as usize;
    let (history, rest) = value.split_at_checked(history_len)?;
    let history = (flags & HISTORY_INLINE != 0).then_some(history);
    let state = if flags & STATE_ELSEWHERE == 0 {
        State::Here(rest)
    } else {
        let (len, rest) = rest.split_first_chunk()?;
        let len = usize::try_from(u64::from_be_bytes(*len)).ok()?;
        let outline = (flags & OUTLINE != 0).then_some(rest);
        if outline.is_none() && !rest.is_empty() {
            return None;
        }
        State::Elsewhere { len, outline }
    };
    (flags & !(HISTORY_INLINE | STATE_ELSEWHERE | OUTLINE) == 0).then_some(Row { head, history, state })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_kind_read_back_and_their_beginnings_are_refused() {
        let head = Head { reflects: Position(7), events: 3, generation: 1, state_version: 2 };
        for history in [None, Some(&b""[..]), Some(&b"history"[..])] {
            for state in [
                State::Here(b""),
                State::Here(b"state"),
                State::Elsewhere { len: 100_000, outline: None },
                State::Elsewhere { len: 100_000, outline: Some(b"outline") },
            ] {
                let row = Row { head, history, state };
                let value = encode(&row);
                assert_eq!(decode(&value), Some(row));
                assert_eq!(decode(&value[..HEAD_BYTES - 1]), None);
            }
        }
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0xff; 100]), None);
    }
}
