//! Slots: rows that are made once, empty, and then filled and emptied again and again.
//!
//! A leaf of sled's tree takes 16 keys and is written anew when it splits. With two more keys that stay empty after
//! each slot's, a leaf holds at most 6 slots and never splits after it was made. What is left is the consolidation
//! after ten changes, when on average a few slots are filled: 1.3 bytes are written for one byte of records, against
//! 3 to 5 for rows that are added at the end and removed at the beginning.

use std::sync::Arc;

use steadfast_store::StoreError;

use crate::database::Database;
use crate::error::{corrupt, from_sled};
use crate::tree::Tree;

/// slot u32 BE, place u8 (0; 1 and 2 stay empty) -> a piece, or nothing.
const TREE: &str = "slots";

/// Keys per slot, all but the first of them without value for ever.
const KEYS_PER_SLOT: u8 = 3;

/// Slots are made so many at a time.
const SLOTS_AT_A_TIME: usize = 256;

/// batch u64, piece u32, pieces u32, all big-endian.
const HEAD_BYTES: usize = 16;

/// The bytes of a batch that one piece holds; only the last piece of a batch holds fewer.
pub(super) const PAYLOAD_BYTES: usize = (64 << 10) - HEAD_BYTES;

/// What a slot's value begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The number of the batch; later ones are greater.
    pub(super) batch: u64,
    /// Which piece of the batch this is, counted from 0.
    pub(super) piece: u32,
    /// How many the batch has.
    pub(super) pieces: u32,
}

/// The content of a slot.
pub(super) struct Piece<'a> {
    pub(super) head: Head,
    pub(super) payload: &'a [u8],
}

/// How many pieces so many bytes need.
pub(super) fn pieces_for(payload_bytes: usize) -> u32 {
    u32::try_from(payload_bytes.div_ceil(PAYLOAD_BYTES)).unwrap_or(u32::MAX)
}

/// Takes the value of a slot apart.
pub(super) fn parse(value: &[u8]) -> Option<Piece<'_>> {
    let (batch, rest) = value.split_first_chunk()?;
    let (piece, rest) = rest.split_first_chunk()?;
    let (pieces, payload) = rest.split_first_chunk()?;
    let (batch, piece, pieces) =
        (u64::from_be_bytes(*batch), u32::from_be_bytes(*piece), u32::from_be_bytes(*pieces));
    Some(Piece { head: Head { batch, piece, pieces }, payload })
}

fn key(slot: u32, place: u8) -> [u8; 5] {
    let [a, b, c, d] = slot.to_be_bytes();
    [a, b, c, d, place]
}

/// The tree of slots.
pub(super) struct Slots {
    tree: Tree,
}

impl Slots {
    pub(super) fn open(database: &Arc<Database>) -> Result<Self, StoreError> {
        Ok(Self { tree: database.tree(TREE)? })
    }

    /// Shows every slot, empty or not.
    pub(super) fn scan(
        &self,
        mut visit: impl FnMut(u32, Option<Piece<'_>>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for row in self.tree.iter() {
            let (key, value) = row.map_err(|error| from_sled("reading the log", &error))?;
            let Ok([a, b, c, d, place]) = <[u8; 5]>::try_from(&*key) else {
                return Err(corrupt("the log", "a slot's key has the wrong length"));
            };
            let slot = u32::from_be_bytes([a, b, c, d]);
            if value.is_empty() {
                if place == 0 {
                    visit(slot, None)?;
                }
                continue;
            }
            let piece = parse(&value).ok_or_else(|| corrupt(format!("slot {slot}"), "it is too short"))?;
            visit(slot, Some(piece))?;
        }
        Ok(())
    }

    /// Makes slots, at least `count`, from number `first` on; says which.
    pub(super) fn add(&self, first: u32, count: usize) -> Result<std::ops::Range<u32>, StoreError> {
        let count = u32::try_from(count.next_multiple_of(SLOTS_AT_A_TIME)).unwrap_or(u32::MAX);
        let added = first..first.saturating_add(count);
        for slot in added.clone() {
            for place in 0..KEYS_PER_SLOT {
                self.put(key(slot, place), Vec::new())?;
            }
        }
        Ok(added)
    }

    /// Fills a slot; `fill` appends the payload to the value.
    pub(super) fn write(
        &self,
        slot: u32,
        head: Head,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), StoreError> {
        let mut value = Vec::with_capacity(HEAD_BYTES + 1024);
        value.extend_from_slice(&head.batch.to_be_bytes());
        value.extend_from_slice(&head.piece.to_be_bytes());
        value.extend_from_slice(&head.pieces.to_be_bytes());
        fill(&mut value);
        self.put(key(slot, 0), value)
    }

    /// Empties a slot.
    pub(super) fn clear(&self, slot: u32) -> Result<(), StoreError> {
        self.put(key(slot, 0), Vec::new())
    }

    /// The value of a slot; none when it is empty.
    pub(super) fn read(&self, slot: u32) -> Result<Option<sled::IVec>, StoreError> {
        let value = self.tree.get(key(slot, 0)).map_err(|error| from_sled("reading the log", &error))?;
        Ok(value.filter(|value| !value.is_empty()))
    }

    fn put(&self, key: [u8; 5], value: Vec<u8>) -> Result<(), StoreError> {
        self.tree.insert(key, value).map_err(|error| from_sled("writing the log", &error))?;
        Ok(())
    }
}
