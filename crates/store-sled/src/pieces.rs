//! Byte strings of any length, kept in rows of at most [`VALUE_BYTES_MAX`].
//!
//! A byte string has a name, chosen by whoever keeps it; its pieces are the rows `name, number u32 BE`. How long the
//! whole is must be known to whoever reads it, so a missing piece is noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast_store::StoreError;

use crate::database::{Database, VALUE_BYTES_MAX};
use crate::error::from_sled;
use crate::tree::Tree;

const TREE: &str = "pieces";

/// From this length on a value has leaves of its own. The keys of a shorter one stand beside the values of others, and each
/// change more is a part of writing those again.
const KEYS_FIRST_FROM: usize = 16 * VALUE_BYTES_MAX;

/// Opens the tree of pieces.
pub(crate) fn open(database: &Arc<Database>) -> Result<Pieces, StoreError> {
    Ok(Pieces { tree: database.tree(TREE)?, removed: AtomicU64::new(0) })
}

/// The tree of pieces.
pub(crate) struct Pieces {
    tree: Tree,
    removed: AtomicU64,
}

impl Pieces {
    /// Writes a byte string, over any other of that name, which nobody must be reading.
    pub(crate) fn write(&self, name: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        // An empty one has one empty piece, so that it is found.
        let pieces = || (0_u32..).zip(bytes.chunks(VALUE_BYTES_MAX).chain(bytes.is_empty().then_some(bytes)));
        if bytes.len() >= KEYS_FIRST_FROM {
            // With each eighth new key a leaf of sled's tree splits, and all values in it are written again. So the keys come
            // first, without their values.
            pieces().try_for_each(|(number, _)| self.put(name, number, &[]))?;
        }
        pieces().try_for_each(|(number, piece)| self.put(name, number, piece))
    }

    fn put(&self, name: &[u8], number: u32, piece: &[u8]) -> Result<(), StoreError> {
        let mut key = Vec::with_capacity(name.len() + 4);
        key.extend_from_slice(name);
        key.extend_from_slice(&number.to_be_bytes());
        self.tree.insert(key, piece).map_err(|error| from_sled("writing pieces", &error))?;
        Ok(())
    }

    /// Appends a byte string to `to`; false when a piece is missing.
    pub(crate) fn read(&self, name: &[u8], len: usize, to: &mut Vec<u8>) -> Result<bool, StoreError> {
        let end = to.len() + len;
        let mut key = name.to_vec();
        for number in 0_u32.. {
            if to.len() >= end {
                break;
            }
            key.truncate(name.len());
            key.extend_from_slice(&number.to_be_bytes());
            match self.tree.get(&key).map_err(|error| from_sled("reading pieces", &error))? {
                Some(piece) if !piece.is_empty() => to.extend_from_slice(&piece),
                _ => return Ok(false),
            }
        }
        Ok(to.len() == end)
    }

    /// The first key from `from` on that begins with `prefix`.
    pub(crate) fn first_from(&self, prefix: &[u8], from: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        match self.tree.range(from..).next() {
            Some(row) => {
                let (key, _) = row.map_err(|error| from_sled("reading pieces", &error))?;
                Ok(Some(key).filter(|key| key.starts_with(prefix)))
            }
            None => Ok(None),
        }
    }

    /// Removes all pieces from `from` on, up to but not including `to`, whose names begin with `prefix`.
    pub(crate) fn remove_range(
        &self,
        prefix: &[u8],
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let is_in = |key: &[u8]| key.starts_with(prefix) && to.is_none_or(|to| key < to);
        self.remove(from, is_in, |_| true)
    }

    /// Removes all pieces whose names begin with `prefix`, except those of some byte strings.
    pub(crate) fn remove_all_but(&self, prefix: &[u8], kept: &[Vec<u8>]) -> Result<(), StoreError> {
        let is_kept = |key: &[u8]| kept.iter().any(|name| key.starts_with(name));
        self.remove(prefix, |key| key.starts_with(prefix), |key| !is_kept(key))
    }

    /// Removes pieces from `from` on, as long as they are in a range, of those in it some.
    fn remove(
        &self,
        from: &[u8],
        is_in: impl Fn(&[u8]) -> bool,
        is_meant: impl Fn(&[u8]) -> bool,
    ) -> Result<(), StoreError> {
        for row in self.tree.range(from..) {
            let (key, _) = row.map_err(|error| from_sled("reading pieces", &error))?;
            if !is_in(&key) {
                break;
            }
            if is_meant(&key) {
                self.tree.remove(key).map_err(|error| from_sled("removing pieces", &error))?;
                self.removed.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// How many pieces were removed since this was asked last.
    pub(crate) fn take_removed(&self) -> u64 {
        self.removed.swap(0, Ordering::Relaxed)
    }

    /// Removes all pieces whose names begin with `prefix`.
    pub(crate) fn remove_all(&self, prefix: &[u8]) -> Result<(), StoreError> {
        self.remove_range(prefix, prefix, None)
    }
}
