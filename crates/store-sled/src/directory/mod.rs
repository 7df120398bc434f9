//! The directory: finds instances by what was written of them, in the order of their ids.
//!
//! An insertion into a tree of sled costs several microseconds, so there is none for each instance. The entries of a
//! materialisation go, packed, to a journal, and stay in memory until there are many. Then they are *settled*: merged
//! into blocks of neighbouring ids, each with a summary. A search looks at what is in memory, passes over the blocks
//! whose summary says that nothing in them is wanted, and reads the others. So a block costs a microsecond to pass over
//! and some ten to read, and a page takes a few milliseconds however rare or frequent what it shows is.
//!
//! What is in memory counts more than what is in blocks, and journal and memory hold the same until all of it is in
//! blocks: a settlement that a crash interrupts begins anew. A block exists when its summary does; it ends where the next one
//! begins, and what it holds beyond that is void. When a block is divided, the last part is written first.
//!
//! The directory may be ahead of the instances, or behind them, only for what a materialisation under way writes: of
//! those instances the partition answers from its memory.

mod entry;
mod recent;
mod summary;
mod wanted;

use std::ops::Bound;

use parking_lot::{Mutex, RwLock};
use steadfast_core::{InstanceFilter, InstanceId};
use steadfast_store::{InstanceWrite, StoreError};

use self::entry::{Decoder, Encoder, Entry, Item};
use self::recent::Recent;
use self::wanted::{IdRange, Wanted};
use crate::database::{Database, VALUE_BYTES_MAX};
use crate::error::{corrupt, from_sled};

/// number of the piece u64 BE -> list of entries, see `entry`.
const JOURNAL: &str = "directory-journal";
/// first id -> list of entries.
const BLOCKS: &str = "directory-blocks";
/// first id -> summary, see `summary`.
const SUMMARIES: &str = "directory-summaries";

/// A block holds so many entries and a little more than so many bytes at most. Smaller ones mean more summaries to pass
/// over, larger ones more entries to read for one that is rare.
const BLOCK_ENTRIES: usize = 256;
const BLOCK_BYTES: usize = VALUE_BYTES_MAX - (8 << 10);

/// With so many entries in memory (some 150 bytes each), or so many pieces in the journal, they are settled.
const RECENT_ENTRIES_MAX: usize = 64 << 10;
const JOURNAL_PIECES_MAX: usize = 4 << 10;

/// A search waits while so many entries are moved, or so many blocks written, at most.
const ENTRIES_AT_ONCE: usize = 4096;
const BLOCKS_AT_ONCE: usize = 32;

const READING: &str = "reading the directory";
const WRITING: &str = "writing the directory";

/// The directory.
pub(crate) struct Directory {
    journal: sled::Tree,
    blocks: sled::Tree,
    summaries: sled::Tree,
    /// Held while searching, and exclusively while entries move or blocks change.
    recent: RwLock<Recent>,
    writer: Mutex<Writer>,
}

/// What whoever writes knows. It is held from the beginning of a write to its end.
struct Writer {
    /// The first piece of the journal that counts, and the next one.
    first_piece: u64,
    next_piece: u64,
}

/// Opens the directory.
pub(crate) fn open(database: &Database) -> Result<Directory, StoreError> {
    let journal = database.tree(JOURNAL)?;
    let mut recent = Recent::default();
    let mut writer = Writer { first_piece: 0, next_piece: 0 };
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
        summaries: database.tree(SUMMARIES)?,
        recent: RwLock::new(recent),
        writer: Mutex::new(writer),
    })
}

/// Where a block is among the others.
struct Place {
    /// Its key; the first id that belongs to it, or nothing.
    key: Vec<u8>,
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
        *self.recent.write() = recent;
        if full { self.settle(&mut writer) } else { Ok(()) }
    }

    fn write_journal(&self, writer: &mut Writer, run: &[Item]) -> Result<(), StoreError> {
        let mut encoder = Encoder::default();
        let mut items = run.iter().peekable();
        while let Some((id, entry)) = items.next() {
            encoder.push(id.as_str(), entry.as_ref());
            if encoder.bytes.len() >= BLOCK_BYTES || items.peek().is_none() {
                let bytes = std::mem::take(&mut encoder).bytes;
                let inserted = self.journal.insert(writer.next_piece.to_be_bytes(), bytes);
                inserted.map_err(|error| from_sled(WRITING, &error))?;
                writer.next_piece += 1;
            }
        }
        Ok(())
    }

    /// Moves all entries from memory into blocks.
    fn settle(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let all = self.recent.read().merged();
        let mut rest = &all[..];
        while !rest.is_empty() {
            let _exclusive = self.recent.write();
            let (mut blocks, mut entries) = (0, 0);
            while let Some((first, _)) = rest.first()
                && blocks < BLOCKS_AT_ONCE
                && entries < ENTRIES_AT_ONCE
            {
                let place = self.place_of(first.as_str().as_bytes())?;
                let mine = rest.partition_point(|(id, _)| is_before(id.as_str(), place.next.as_deref()));
                let (mine, others) = rest.split_at(mine.min(ENTRIES_AT_ONCE));
                self.change_block(&place, mine)?;
                blocks += 1;
                entries += mine.len();
                rest = others;
            }
        }
        *self.recent.write() = Recent::default();
        for piece in writer.first_piece..writer.next_piece {
            self.journal.remove(piece.to_be_bytes()).map_err(|error| from_sled(WRITING, &error))?;
        }
        writer.first_piece = writer.next_piece;
        Ok(())
    }

    /// Where the block is to which an id belongs.
    fn place_of(&self, id: &[u8]) -> Result<Place, StoreError> {
        let reading = |error| from_sled(READING, &error);
        let key = self.summaries.range(..=id).next_back().transpose().map_err(reading)?;
        let key = key.map_or_else(Vec::new, |(key, _)| key.to_vec());
        let behind = (Bound::Excluded(&key[..]), Bound::Unbounded);
        let next = self.summaries.range::<&[u8], _>(behind).next().transpose().map_err(reading)?;
        Ok(Place { key, next: next.map(|(key, _)| key) })
    }

    /// Merges changes into the block to which they belong, and divides it if it becomes too large.
    fn change_block(&self, place: &Place, changes: &[Item]) -> Result<(), StoreError> {
        let old = self.read_block(&place.key, place.next.as_deref())?;
        let merged = merge(&old, changes);
        if merged.is_empty() {
            self.summaries.remove(&place.key).map_err(|error| from_sled(WRITING, &error))?;
            self.blocks.remove(&place.key).map_err(|error| from_sled(WRITING, &error))?;
            return Ok(());
        }
        // Ids in time order only ever add to the last block: what they leave behind is full. Others leave room.
        let share = match place.next {
            None => BLOCK_ENTRIES,
            Some(_) => merged.len().div_ceil(merged.len().div_ceil(BLOCK_ENTRIES)),
        };
        let mut parts = Vec::new();
        let mut rest = &merged[..];
        while !rest.is_empty() {
            let mut encoder = Encoder::default();
            let mut count = 0;
            while let Some((id, entry)) = rest.get(count)
                && count < share
                && encoder.bytes.len() < BLOCK_BYTES
            {
                encoder.push(id, Some(entry));
                count += 1;
            }
            let (part, others) = rest.split_at(count);
            let key = if parts.is_empty() { &place.key[..] } else { part[0].0.as_bytes() };
            parts.push((key, encoder.bytes, summary::encode(part.iter().map(|(_, entry)| *entry))));
            rest = others;
        }
        for (key, block, summary) in parts.into_iter().rev() {
            self.blocks.insert(key, block).map_err(|error| from_sled(WRITING, &error))?;
            self.summaries.insert(key, summary).map_err(|error| from_sled(WRITING, &error))?;
        }
        Ok(())
    }

    /// The entries of a block, as far as they belong to it.
    fn read_block(&self, key: &[u8], next: Option<&[u8]>) -> Result<Vec<(String, Entry)>, StoreError> {
        let mut entries = Vec::new();
        self.visit_block(key, next, |id, entry| {
            entries.push((id.to_owned(), entry));
            true
        })?;
        Ok(entries)
    }

    /// Hands out the entries of a block, as far as they belong to it, until `visit` wants no more.
    fn visit_block(
        &self,
        key: &[u8],
        next: Option<&[u8]>,
        mut visit: impl FnMut(&str, Entry) -> bool,
    ) -> Result<(), StoreError> {
        let block = self.blocks.get(key).map_err(|error| from_sled(READING, &error))?;
        let Some(block) = block else { return Ok(()) };
        let mut decoder = Decoder::new(&block);
        while let Some((id, entry)) = decoder.next()? {
            if !is_before(id, next) {
                break;
            }
            let gone = || corrupt("the directory of instances", "a block holds an instance that is gone");
            if !visit(id, entry.ok_or_else(gone)?) {
                break;
            }
        }
        Ok(())
    }

    /// The first `limit` instances behind `after` that may match, by id. Fewer only when there are no more.
    pub(crate) fn find(
        &self,
        filter: &InstanceFilter,
        after: Option<&InstanceId>,
        limit: usize,
    ) -> Result<Vec<InstanceId>, StoreError> {
        let wanted = Wanted::new(filter);
        let recent = self.recent.read();
        let mut found = Vec::new();
        for range in wanted::id_ranges(filter, after) {
            let left = limit - found.len();
            if left == 0 {
                break;
            }
            let mut within = recent.search(&wanted, &range, left);
            // Behind these there is no need to look.
            let bound = within.get(left - 1).cloned();
            self.search_blocks(&recent, &wanted, &range, bound.as_ref(), left, &mut within)?;
            within.sort_unstable();
            within.truncate(left);
            found.append(&mut within);
        }
        Ok(found)
    }

    fn search_blocks(
        &self,
        recent: &Recent,
        wanted: &Wanted,
        range: &IdRange,
        bound: Option<&InstanceId>,
        limit: usize,
        found: &mut Vec<InstanceId>,
    ) -> Result<(), StoreError> {
        let reading = |error| from_sled(READING, &error);
        let bound = bound.map(InstanceId::as_str);
        let first = self.place_of(&range.from)?.key;
        let mut summaries = self.summaries.range(first..).peekable();
        let mut left = limit;
        while left > 0
            && let Some(row) = summaries.next()
        {
            let (key, summary) = row.map_err(reading)?;
            if range.ends_before(&key) || bound.is_some_and(|bound| bound.as_bytes() < &*key) {
                break;
            }
            if !summary::may_match(&summary, wanted)? {
                continue;
            }
            let next = match summaries.peek() {
                Some(Ok((next, _))) => Some(next.clone()),
                Some(Err(error)) => return Err(from_sled(READING, error)),
                None => None,
            };
            self.visit_block(&key, next.as_deref(), |id, entry| {
                if range.ends_before(id.as_bytes()) || bound.is_some_and(|bound| bound < id) {
                    return false;
                }
                if !range.begins_after(id.as_bytes()) && wanted.matches(&entry) && !recent.knows(id) {
                    found.push(InstanceId::from_trusted(id));
                    left -= 1;
                }
                left > 0
            })?;
        }
        Ok(())
    }
}

fn read_items(bytes: &[u8]) -> Result<Vec<Item>, StoreError> {
    let mut items = Vec::new();
    let mut decoder = Decoder::new(bytes);
    while let Some((id, entry)) = decoder.next()? {
        items.push((InstanceId::from_trusted(id), entry));
    }
    if !items.is_sorted_by(|(left, _), (right, _)| left < right) {
        return Err(corrupt("the directory's journal", "its entries are not in order"));
    }
    Ok(items)
}

fn is_before(id: &str, next: Option<&[u8]>) -> bool {
    next.is_none_or(|next| id.as_bytes() < next)
}

/// What is there after the changes. Both are sorted by id.
fn merge<'a>(old: &'a [(String, Entry)], changes: &'a [Item]) -> Vec<(&'a str, &'a Entry)> {
    let mut merged = Vec::with_capacity(old.len() + changes.len());
    let mut old = old.iter().peekable();
    for (id, entry) in changes {
        while let Some((kept, entry)) = old.next_if(|(kept, _)| &**kept < id.as_str()) {
            merged.push((&**kept, entry));
        }
        old.next_if(|(replaced, _)| **replaced == *id.as_str());
        merged.extend(entry.as_ref().map(|entry| (id.as_str(), entry)));
    }
    merged.extend(old.map(|(id, entry)| (&**id, entry)));
    merged
}

#[cfg(test)]
mod tests;
