//! The directory: finds instances by what was written of them, in the order of their ids.
//!
//! An insertion into a tree of sled costs several microseconds, so there is none for each instance. The entries of a
//! materialisation go, packed, to a journal, and stay in memory until there are many. Then they are *settled*, a part with
//! each further materialisation: merged into blocks of neighbouring ids, each with a summary. The summaries of neighbouring blocks are kept together, as a
//! group. A search looks at what is in memory, goes through the groups, passes over the blocks whose summary says that
//! nothing in them is wanted, and reads the others. So a page takes a few milliseconds at most, however rare or frequent
//! what it shows is.
//!
//! What is in memory counts more than what is in blocks, and journal and memory hold the same until all of it is in
//! blocks: a settlement that a crash interrupts begins anew. A block exists when its group says so; it ends where the next
//! one begins, and what it holds beyond that is void. The same goes for groups and the blocks that they name.
//!
//! The directory is written before the instances, so it may be ahead of them, for what a materialisation writes that is
//! under way or that a crash interrupted: of those instances the partition answers from its memory.

mod entry;
mod group;
mod recent;
mod search;
mod settle;
mod summary;
mod wanted;

use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use steadfast_store::{InstanceWrite, StoreError};

use self::entry::{Decoder, Encoder, Item, Listed};
use self::recent::Recent;
use self::settle::Settling;
use crate::database::{Database, VALUE_BYTES_MAX};
use crate::error::{corrupt, from_sled};
use crate::tree::Tree;

/// number of the piece u64 BE -> list of entries, see `entry`.
const JOURNAL: &str = "directory-journal";
/// first id -> list of entries.
const BLOCKS: &str = "directory-blocks";
/// first id -> blocks and their summaries, see `group`.
const GROUPS: &str = "directory-groups";

/// A block holds so many entries and a little more than so many bytes at most. Smaller ones mean more summaries to pass
/// over, larger ones more entries to read for one that is rare.
const BLOCK_ENTRIES: usize = 256;
const BLOCK_BYTES: usize = VALUE_BYTES_MAX - (8 << 10);

/// With so many entries in memory (some 150 bytes each), or so many pieces in the journal, they begin to be settled.
const RECENT_ENTRIES_MAX: usize = 64 << 10;
const JOURNAL_PIECES_MAX: usize = 4 << 10;

/// So many times as many entries are settled as come in, and no fewer at once than these. So what settles is in its blocks long
/// before there are as many others, and no materialisation takes much longer than the rest.
const SETTLED_FOR_EACH: usize = 3;
const SETTLED_AT_LEAST: usize = 256;

const READING: &str = "reading the directory";
const WRITING: &str = "writing the directory";

/// The directory.
pub(crate) struct Directory {
    journal: Tree,
    blocks: Tree,
    groups: Tree,
    /// Held while searching, and exclusively while entries move or blocks change.
    recent: RwLock<Recent>,
    writer: Mutex<Writer>,
}

/// What whoever writes knows. It is held from the beginning of a write to its end.
struct Writer {
    /// The first piece of the journal that counts, and the next one.
    first_piece: u64,
    next_piece: u64,
    settling: Option<Settling>,
}

/// Opens the directory.
pub(crate) fn open(database: &Arc<Database>) -> Result<Directory, StoreError> {
    let journal = database.tree(JOURNAL)?;
    let mut recent = Recent::default();
    let mut writer = Writer { first_piece: 0, next_piece: 0, settling: None };
    for (nth, piece) in journal.iter().enumerate() {
        let (key, value) = piece.map_err(|error| from_sled(READING, &error))?;
        let number = <[u8; 8]>::try_from(&*key).map(u64::from_be_bytes);
        let number = number.map_err(|_| corrupt("the directory's journal", "a key has the wrong length"))?;
        if nth == 0 {
            writer.first_piece = number;
        }
        writer.next_piece = number.saturating_add(1);
        recent.push(read_items(&value)?);
    }
    Ok(Directory {
        journal,
        blocks: database.tree(BLOCKS)?,
        groups: database.tree(GROUPS)?,
        recent: RwLock::new(recent),
        writer: Mutex::new(writer),
    })
}

/// Where a group is among the others.
struct Place {
    /// Its key: the first id that belongs to it, or nothing.
    key: sled::IVec,
    /// What stands there, if there is such a group.
    group: Option<sled::IVec>,
    /// Where the next one begins.
    next: Option<sled::IVec>,
}

impl Directory {
    /// Notes what a materialisation writes, which is sorted by id.
    pub(crate) fn note(&self, writes: &[InstanceWrite]) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        let run: Vec<Item> = writes.iter().map(entry::item).collect();
        let mut writer = self.writer.lock();
        self.write_journal(&mut writer, &run)?;
        let mut recent = self.recent.read().clone();
        recent.push(run);
        let full = recent.len() >= RECENT_ENTRIES_MAX
            || writer.next_piece - writer.first_piece >= JOURNAL_PIECES_MAX as u64;
        if full && writer.settling.is_none() {
            writer.settling = Some(Settling::new(recent.begin_to_settle(), writer.next_piece));
        }
        *self.recent.write() = recent;
        self.settle_some(&mut writer, (SETTLED_FOR_EACH * writes.len()).max(SETTLED_AT_LEAST))
    }

    fn write_journal(&self, writer: &mut Writer, run: &[Item]) -> Result<(), StoreError> {
        let mut encoder = Encoder::default();
        let mut items = run.iter().peekable();
        while let Some((id, entry)) = items.next() {
            encoder.push(id.as_str().as_bytes(), entry.as_ref());
            if encoder.bytes.len() >= BLOCK_BYTES || items.peek().is_none() {
                let bytes = std::mem::take(&mut encoder).bytes;
                let inserted = self.journal.insert(writer.next_piece.to_be_bytes(), bytes);
                inserted.map_err(|error| from_sled(WRITING, &error))?;
                writer.next_piece += 1;
            }
        }
        Ok(())
    }

    /// Where the group is to which an id belongs.
    fn place_of(&self, id: &[u8]) -> Result<Place, StoreError> {
        let reading = |error| from_sled(READING, &error);
        let found = self.groups.range(..=id).next_back().transpose().map_err(reading)?;
        let (key, group) = found.map_or_else(Default::default, |(key, group)| (key, Some(group)));
        let behind = (Bound::Excluded(&key[..]), Bound::Unbounded);
        // Without a group that begins before it, an id belongs before the first one.
        let mut next = match group {
            Some(_) => self.groups.range::<&[u8], _>(behind),
            None => self.groups.iter(),
        };
        let next = next.next().transpose().map_err(reading)?;
        Ok(Place { key, group, next: next.map(|(key, _)| key) })
    }

    /// Hands out the entries of a block that come before `end`, until `visit` wants no more.
    fn visit_block(
        &self,
        key: &[u8],
        end: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], Listed<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let block = self.blocks.get(key).map_err(|error| from_sled(READING, &error))?;
        let damaged = |problem| corrupt("the directory of instances", problem);
        let block = block.ok_or_else(|| damaged("a block is missing"))?;
        let mut decoder = Decoder::new(&block);
        while let Some((id, entry)) = decoder.next()? {
            if !is_before(id, end) {
                break;
            }
            let entry = entry.ok_or_else(|| damaged("a block holds an instance that is gone"))?;
            if !visit(id, entry)? {
                break;
            }
        }
        Ok(())
    }
}

fn read_items(bytes: &[u8]) -> Result<Vec<Item>, StoreError> {
    let mut items = Vec::new();
    let mut decoder = Decoder::new(bytes);
    while let Some((id, entry)) = decoder.next()? {
        items.push((entry::id_of(id)?, entry.map(|entry| entry.to_entry())));
    }
    if !items.is_sorted_by(|(left, _), (right, _)| left < right) {
        return Err(corrupt("the directory's journal", "its entries are not in order"));
    }
    Ok(items)
}

fn is_before(id: &[u8], end: Option<&[u8]>) -> bool {
    end.is_none_or(|end| id < end)
}

#[cfg(test)]
mod tests;
