//! Settling: what is in memory is merged into the blocks, a group at a time.
//!
//! What changes is worked out first; then a search waits while it is written. The order of the writes is such that a
//! crash at any point loses nothing: first blocks that are new, which nobody sees yet, then the groups, the last one
//! first, then the blocks that were there before, then the removal of those that are empty. What a summary says goes
//! ahead of its block, but only for instances of which the journal knows. A crash may leave new blocks that no group
//! names; they are written over when a block begins at the same id again.

use std::sync::Arc;

use steadfast_store::StoreError;

use super::entry::{Encoder, Entry, Item};
use super::group::{self, Members};
use super::recent::Run;
use super::{BLOCK_BYTES, BLOCK_ENTRIES, Directory, Place, READING, WRITING, Writer, is_before, summary};
use crate::error::from_sled;

/// So many entries are merged into a group at once: the work on more is done in several steps.
const ENTRIES_AT_ONCE: usize = 4096;

/// An id and what is kept of it, read from a block.
type Kept = (Vec<u8>, Entry);

/// How a group changes.
#[derive(Default)]
struct Change {
    /// The keys and summaries of its blocks from now on.
    members: Vec<(Vec<u8>, Vec<u8>)>,
    /// Blocks that begin where none began before, and blocks that are there already, with their new contents.
    new: Vec<(Vec<u8>, Vec<u8>)>,
    changed: Vec<(Vec<u8>, Vec<u8>)>,
    /// Blocks that lose what lies beyond their end, before the end moves.
    trimmed: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys of blocks that are empty.
    gone: Vec<Vec<u8>>,
    /// When nothing is left: the group before this one, which takes its place, without what lies beyond its end.
    before: Option<(sled::IVec, Vec<u8>)>,
}

/// Entries on their way from memory into blocks.
pub(super) struct Settling {
    all: Arc<Run>,
    /// How many of them are in blocks.
    done: usize,
    /// They are the contents of the journal up to here.
    upto_piece: u64,
}

impl Settling {
    pub(super) fn new(all: Arc<Run>, upto_piece: u64) -> Self {
        Self { all, done: 0, upto_piece }
    }
}

impl Directory {
    /// Moves some of the entries that settle into blocks, and those that come next to them.
    pub(super) fn settle_some(&self, writer: &mut Writer, count: usize) -> Result<(), StoreError> {
        let Some(Settling { all, done, upto_piece }) = &mut writer.settling else { return Ok(()) };
        let goal = done.saturating_add(count).min(all.len());
        while *done < goal {
            let rest = &all[*done..];
            let place = self.place_of(rest[0].0.as_str().as_bytes())?;
            let mine = before(rest, place.next.as_deref()).min(ENTRIES_AT_ONCE);
            self.change_group(&place, &rest[..mine])?;
            *done += mine;
        }
        if *done == all.len() {
            self.recent.write().settled();
            for piece in writer.first_piece..*upto_piece {
                self.journal.remove(piece.to_be_bytes()).map_err(|error| from_sled(WRITING, &error))?;
            }
            writer.first_piece = *upto_piece;
            writer.settling = None;
        }
        Ok(())
    }

    /// Merges changes into the group to which they belong.
    pub(super) fn change_group(&self, place: &Place, changes: &[Item]) -> Result<(), StoreError> {
        let change = self.work_out(place, changes)?;
        let groups = group::encode(&change.members, place.next.is_none());
        let writing = |error| from_sled(WRITING, &error);
        let _exclusive = self.recent.write();
        for (key, block) in change.trimmed.into_iter().chain(change.new) {
            self.blocks.insert(key, block).map_err(writing)?;
        }
        if let Some((key, group)) = change.before {
            self.groups.insert(key, group).map_err(writing)?;
        }
        let mut behind = change.members.len();
        for (nth, (count, group)) in groups.into_iter().enumerate().rev() {
            behind -= count;
            let key = if nth == 0 { &place.key[..] } else { &change.members[behind].0 };
            self.groups.insert(key, group).map_err(writing)?;
        }
        if change.members.is_empty() {
            self.groups.remove(&place.key).map_err(writing)?;
        }
        for (key, block) in change.changed {
            self.blocks.insert(key, block).map_err(writing)?;
        }
        change.gone.into_iter().try_for_each(|key| self.blocks.remove(key).map(drop).map_err(writing))
    }

    fn work_out(&self, place: &Place, changes: &[Item]) -> Result<Change, StoreError> {
        let mut change = Change::default();
        let mut members = Members::new(place.group.as_deref().unwrap_or_default());
        let next = place.next.as_deref();
        let first = members.peek_key().filter(|key| is_before(key, next)).or(next);
        let (ahead, mut rest) = changes.split_at(before(changes, first));
        if !ahead.is_empty() {
            // The first block was removed, or there is none yet.
            change.put(divide(&place.key, first, &[], ahead), &place.key, false);
        }
        while let Some(member) = members.next()?.filter(|member| is_before(member.key, next)) {
            let end = members.peek_key().filter(|key| is_before(key, next)).or(next);
            let (mine, others) = rest.split_at(before(rest, end));
            rest = others;
            if mine.is_empty() {
                change.members.push((member.key.to_vec(), member.summary.to_vec()));
                continue;
            }
            let parts = divide(member.key, end, &self.read_block(member.key, end)?, mine);
            if parts.is_empty() {
                change.gone.push(member.key.to_vec());
                if let Some((last, _)) = change.members.last() {
                    let trimmed = self.trimmed(last, member.key)?;
                    change.trim(trimmed);
                }
                continue;
            }
            change.put(parts, member.key, true);
        }
        if change.members.is_empty() && place.group.is_some() {
            self.widen_group_before(place, &mut change)?;
        }
        Ok(change)
    }

    /// A group goes: prepares the one before it to take its place.
    fn widen_group_before(&self, place: &Place, change: &mut Change) -> Result<(), StoreError> {
        let before = self.groups.range(..&*place.key).next_back();
        let before = before.transpose().map_err(|error| from_sled(READING, &error))?;
        let Some((key, group)) = before else { return Ok(()) };
        let mut kept = Vec::new();
        let mut members = Members::new(&group);
        while let Some(member) = members.next()?.filter(|member| is_before(member.key, Some(&place.key))) {
            kept.push((member.key.to_vec(), member.summary.to_vec()));
        }
        if let Some((last, _)) = kept.last() {
            change.trim(self.trimmed(last, &place.key)?);
        }
        change.before = group::encode(&kept, true).pop().map(|(_, group)| (key, group));
        Ok(())
    }

    /// A block without what lies beyond its end.
    fn trimmed(&self, key: &[u8], end: &[u8]) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let mut encoder = Encoder::default();
        self.visit_block(key, Some(end), |id, entry| {
            encoder.push(id, Some(&entry.to_entry()));
            Ok(true)
        })?;
        Ok((key.to_vec(), encoder.bytes))
    }

    /// The entries of a block, as far as they belong to it.
    fn read_block(&self, key: &[u8], end: Option<&[u8]>) -> Result<Vec<Kept>, StoreError> {
        let mut entries = Vec::with_capacity(BLOCK_ENTRIES);
        self.visit_block(key, end, |id, entry| {
            entries.push((id.to_vec(), entry.to_entry()));
            Ok(true)
        })?;
        Ok(entries)
    }
}

impl Change {
    /// Takes the parts of what was one block, the first of which has the key that it had.
    fn put(&mut self, parts: Vec<Part>, key: &[u8], there_before: bool) {
        for Part { key: own, block, summary } in parts {
            let list = if there_before && own == key { &mut self.changed } else { &mut self.new };
            list.push((own.clone(), block));
            self.members.push((own, summary));
        }
    }

    fn trim(&mut self, block: (Vec<u8>, Vec<u8>)) {
        // One that is written anyway holds nothing beyond its end.
        if !self.new.iter().chain(&self.changed).chain(&self.trimmed).any(|(key, _)| *key == block.0) {
            self.trimmed.push(block);
        }
    }
}

/// A block as it is written.
struct Part {
    key: Vec<u8>,
    block: Vec<u8>,
    summary: Vec<u8>,
}

/// How many of the changes come before `end`.
fn before(changes: &[Item], end: Option<&[u8]>) -> usize {
    changes.partition_point(|(id, _)| is_before(id.as_str().as_bytes(), end))
}

/// What a block that ends before `end` holds after the changes, divided if it is too much for one.
fn divide(key: &[u8], end: Option<&[u8]>, old: &[Kept], changes: &[Item]) -> Vec<Part> {
    let merged = merge(old, changes);
    // Ids in time order only ever add to the last block: what they leave behind is full. Others leave room.
    let share = match (end, merged.len().div_ceil(BLOCK_ENTRIES)) {
        (None, _) | (_, 0) => BLOCK_ENTRIES,
        (Some(_), parts) => merged.len().div_ceil(parts),
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
        parts.push(Part {
            key: if parts.is_empty() { key } else { part[0].0 }.to_vec(),
            block: encoder.bytes,
            summary: summary::encode(part.iter().map(|(_, entry)| *entry)),
        });
        rest = others;
    }
    parts
}

/// What is there after the changes. Both are sorted by id.
fn merge<'a>(old: &'a [Kept], changes: &'a [Item]) -> Vec<(&'a [u8], &'a Entry)> {
    let mut merged = Vec::with_capacity(old.len() + changes.len());
    let mut old = old.iter().peekable();
    for (id, entry) in changes {
        let id = id.as_str().as_bytes();
        while let Some((kept, entry)) = old.next_if(|(kept, _)| &**kept < id) {
            merged.push((&**kept, entry));
        }
        old.next_if(|(replaced, _)| replaced == id);
        merged.extend(entry.as_ref().map(|entry| (id, entry)));
    }
    merged.extend(old.map(|(id, entry)| (&**id, entry)));
    merged
}
