//! The row of an instance: what is known of it, its state unless that is large, and its history if it is short and
//! not expected to grow.
//!
//! flags u8, reflects u64, events u64, generation u32, state version u32, length of the history u32, history (if it
//! is in the row), the payloads that are apart from the state (if there are any: their number u16, and slot u8, name u128
//! and length u64 of each), then the state, or its length u64 (if it is elsewhere). Numbers are big-endian.
//!
//! Up to format 4 there were no payloads apart, and behind the length of a state elsewhere there could be its outline, which is
//! the state without its payloads.

use steadfast_core::Position;

use crate::database::VALUE_BYTES_MAX;

const HISTORY_INLINE: u8 = 1;
const STATE_ELSEWHERE: u8 = 2;
const OUTLINE: u8 = 4;
const PAYLOADS: u8 = 8;
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
    pub(super) payloads: Payloads<'a>,
    pub(super) state: State<'a>,
}

/// The payloads that are apart from the state, as they are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Payloads<'a>(&'a [u8]);

const PAYLOAD_BYTES: usize = 1 + 16 + 8;

/// Where a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PayloadPlace {
    pub(super) slot: u8,
    pub(super) name: u128,
    /// So long.
    pub(super) len: usize,
}

impl<'a> Payloads<'a> {
    /// Encodes places into a buffer.
    pub(super) fn new(places: &[PayloadPlace], buffer: &'a mut Vec<u8>) -> Self {
        for PayloadPlace { slot, name, len } in places {
            buffer.push(*slot);
            buffer.extend_from_slice(&name.to_be_bytes());
            buffer.extend_from_slice(&(*len as u64).to_be_bytes());
        }
        Self(buffer)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = PayloadPlace> {
        let (places, _) = self.0.as_chunks::<PAYLOAD_BYTES>();
        places.iter().map(|place| {
            let [slot, rest @ ..] = place;
            let (name, len) = (rest.first_chunk().copied(), rest.last_chunk().copied());
            PayloadPlace {
                slot: *slot,
                name: u128::from_be_bytes(name.unwrap_or_default()),
                len: u64::from_be_bytes(len.unwrap_or_default()) as usize,
            }
        })
    }

    fn encoded_bytes(self) -> usize {
        if self.0.is_empty() { 0 } else { 2 + self.0.len() }
    }
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
        /// What can be read of it here: only in a row that an earlier version wrote.
        outline: Option<&'a [u8]>,
    },
}

/// Whether a state and a history of these lengths fit into one row with payloads.
pub(super) fn fits(state_bytes: usize, history_bytes: usize, payloads: Payloads<'_>) -> bool {
    let room = VALUE_BYTES_MAX - HEAD_BYTES;
    state_bytes.saturating_add(history_bytes).saturating_add(payloads.encoded_bytes()) <= room
}

/// How long a row is when it is encoded.
pub(super) fn encoded_bytes(row: &Row<'_>) -> usize {
    let state_bytes = match row.state {
        State::Here(state) => state.len(),
        State::Elsewhere { .. } => 8,
    };
    HEAD_BYTES + row.history.unwrap_or_default().len() + row.payloads.encoded_bytes() + state_bytes
}

/// Encodes a row.
pub(super) fn encode(row: &Row<'_>) -> Vec<u8> {
    let history = row.history.unwrap_or_default();
    let mut flags = 0;
    if row.history.is_some() {
        flags |= HISTORY_INLINE;
    }
    if !row.payloads.0.is_empty() {
        flags |= PAYLOADS;
    }
    if matches!(row.state, State::Elsewhere { .. }) {
        flags |= STATE_ELSEWHERE;
    }
    let mut value = Vec::with_capacity(encoded_bytes(row));
    value.push(flags);
    value.extend_from_slice(&row.head.reflects.0.to_be_bytes());
    value.extend_from_slice(&row.head.events.to_be_bytes());
    value.extend_from_slice(&row.head.generation.to_be_bytes());
    value.extend_from_slice(&row.head.state_version.to_be_bytes());
    value.extend_from_slice(&(history.len() as u32).to_be_bytes());
    value.extend_from_slice(history);
    if !row.payloads.0.is_empty() {
        let count = (row.payloads.0.len() / PAYLOAD_BYTES) as u16;
        value.extend_from_slice(&count.to_be_bytes());
        value.extend_from_slice(row.payloads.0);
    }
    match row.state {
        State::Here(state) => value.extend_from_slice(state),
        State::Elsewhere { len, .. } => value.extend_from_slice(&(len as u64).to_be_bytes()),
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
    let (history, mut rest) = value.split_at_checked(history_len)?;
    let history = (flags & HISTORY_INLINE != 0).then_some(history);
    let mut payloads = Payloads::default();
    if flags & PAYLOADS != 0 {
        let count = usize::from(u16::from_be_bytes(take(&mut rest)?));
        let (places, after) = rest.split_at_checked(count * PAYLOAD_BYTES)?;
        (payloads, rest) = (Payloads(places), after);
    }
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
    let known = HISTORY_INLINE | STATE_ELSEWHERE | OUTLINE | PAYLOADS;
    (flags & !known == 0).then_some(Row { head, history, payloads, state })
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
        let names = [7, u128::MAX].into_iter().cycle();
        // One in every slot.
        let places: Vec<_> =
            (0..=u8::MAX).zip(names).map(|(slot, name)| PayloadPlace { slot, name, len: 100_000 }).collect();
        let mut buffer = Vec::new();
        let payloads = Payloads::new(&places, &mut buffer);
        assert!(payloads.iter().eq(places));
        for history in [None, Some(&b""[..]), Some(&b"history"[..])] {
            for payloads in [Payloads::default(), payloads] {
                for state in [
                    State::Here(b""),
                    State::Here(b"state"),
                    State::Elsewhere { len: 100_000, outline: None },
                ] {
                    let row = Row { head, history, payloads, state };
                    let value = encode(&row);
                    assert_eq!(value.len(), encoded_bytes(&row));
                    assert_eq!(decode(&value), Some(row));
                    assert_eq!(decode(&value[..HEAD_BYTES - 1]), None);
                }
            }
        }
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0xff; 100]), None);
    }

    #[test]
    fn the_outline_in_a_row_of_format_4_is_read() {
        let head = Head { reflects: Position(7), events: 3, generation: 1, state_version: 2 };
        let (history, payloads) = (None, Payloads::default());
        let row = Row { head, history, payloads, state: State::Elsewhere { len: 100_000, outline: None } };
        let mut value = encode(&row);
        value[0] |= OUTLINE;
        value.extend_from_slice(b"outline");
        let state = State::Elsewhere { len: 100_000, outline: Some(&b"outline"[..]) };
        assert_eq!(decode(&value), Some(Row { state, ..row }));
    }
}
