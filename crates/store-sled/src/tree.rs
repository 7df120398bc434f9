//! A tree of a database: sled's, whose changes the database learns of.

use std::ops::Deref;
use std::sync::Arc;

use crate::database::Database;

/// What sled writes for a change beside key and value, roughly.
const CHANGE_BYTES: usize = 512;

/// A tree. It is read as sled's own.
pub(crate) struct Tree {
    tree: sled::Tree,
    database: Arc<Database>,
}

impl Tree {
    pub(crate) fn new(tree: sled::Tree, database: Arc<Database>) -> Self {
        Self { tree, database }
    }

    /// Writes a value, and returns the one that it replaces.
    pub(crate) fn insert(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<sled::IVec>,
    ) -> sled::Result<Option<sled::IVec>> {
        let (key_bytes, value) = (key.as_ref().len(), value.into());
        let value_bytes = value.len();
        let old = self.tree.insert(key, value)?;
        self.database.note_change(
            CHANGE_BYTES + key_bytes + value_bytes.max(old.as_ref().map_or(0, |old| old.len())),
        )?;
        Ok(old)
    }

    /// Removes a value, and returns it. A page is written anew after some changes, so a removal has its share of that, too.
    pub(crate) fn remove(&self, key: impl AsRef<[u8]>) -> sled::Result<Option<sled::IVec>> {
        let old = self.tree.remove(key)?;
        if let Some(old) = &old {
            self.database.note_change(CHANGE_BYTES + old.len())?;
        }
        Ok(old)
    }

    /// Takes note that sled writes so many bytes more than for what changes here.
    pub(crate) fn note_moved(&self, bytes: usize) -> sled::Result<()> {
        self.database.note_change(bytes)
    }
}

impl Deref for Tree {
    type Target = sled::Tree;

    fn deref(&self) -> &sled::Tree {
        &self.tree
    }
}
