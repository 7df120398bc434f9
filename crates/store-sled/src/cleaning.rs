//! Lets sled use the room again that was taken by what is removed.
//!
//! sled writes to a segment of its file again when none of its pages is left in it. Once half of a segment is free, the pages
//! in it are put into a queue, and whenever some page is replaced, one of the queue is moved to where sled is writing. A page is
//! replaced at every eleventh change to it. But most pages of a hub are changed a few times, then left alone for as long as
//! what has ended is kept, and then emptied; so more of them come into the queue than leave it, and the file grows from day to
//! day to many times the size of what is in it, full of segments in each of which a few pages are left. (sled has a thread that
//! moves pages now and then. It stops where a segment is done, so it moves too few, and it synchronises the file each time.)
//! So with what is removed here, a page of no importance is changed as often as it takes to be replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast_store::StoreError;

use crate::database::Database;
use crate::error::from_sled;
use crate::tree::Tree;

/// Holds one key, whose value means nothing.
const TREE: &str = "cleaning";
const KEY: &[u8] = b"change";

/// After so many changes to a page one of the queue has been moved.
const CHANGES_PER_MOVE: usize = 11;

/// A page is moved for every second value that is removed. Under a mixed load one for every fourth was enough in one run of two, and
/// one for each makes the file no smaller.
const REMOVALS_PER_MOVE: u64 = 2;

/// How large a page is that is moved, roughly.
const PAGE_BYTES: usize = 32 << 10;

/// Moves pages out of segments that are mostly free.
pub(crate) struct Cleaning {
    tree: Tree,
    removals: AtomicU64,
    changes: AtomicU64,
}

impl Cleaning {
    pub(crate) fn open(database: &Arc<Database>) -> Result<Self, StoreError> {
        let tree = database.tree(TREE)?;
        Ok(Self { tree, removals: AtomicU64::new(0), changes: AtomicU64::new(0) })
    }

    /// Takes note that so many values were removed, and moves the pages that are due, if any wait.
    pub(crate) fn note_removals(&self, count: u64) -> Result<(), StoreError> {
        let before = self.removals.fetch_add(count, Ordering::Relaxed);
        let due = (before + count) / REMOVALS_PER_MOVE - before / REMOVALS_PER_MOVE;
        (0..due).try_for_each(|_| self.move_page())
    }

    fn move_page(&self) -> Result<(), StoreError> {
        for _ in 0..CHANGES_PER_MOVE {
            // Writing what is there already would be no change.
            let value = self.changes.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            self.tree.insert(KEY, &value).map_err(|error| from_sled("making room", &error))?;
        }
        self.tree.note_moved(PAGE_BYTES).map_err(|error| from_sled("making room", &error))
    }
}
