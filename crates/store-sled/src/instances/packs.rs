//! Rows of instances that were new and had ended when they were written, many in one value of sled.
//!
//! Most instances are written once, when they have ended, together with others whose ids are close; and what sled does for a
//! value costs far more than the bytes in it. So neighbours of one materialisation share a value, a *pack*. Its key is the first
//! id that it had.
//!
//! Packs of a partition never overlap: all ids in one come before the key of the next. So the pack that may hold an id is the
//! last one whose key is not greater. What would overlap, or has no neighbours, is not packed: ids in no order mostly are not.
//! A pack never gains anything. An instance in it that changes gets a row of its own, which counts instead of the
//! packed one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use steadfast_core::{InstanceId, PartitionId};
use steadfast_store::StoreError;

use super::pack::{self, Damaged};
use crate::database::Database;
use crate::error::{corrupt, from_sled};
use crate::tree::Tree;

/// partition u16 BE, id -> pack.
const TREE: &str = "packs";

/// A pack takes so many bytes at most. Reading one instance that is not in memory reads a leaf of sled's tree, sixteen packs.
const PACK_BYTES_MAX: usize = 4 << 10;

const READING: &str = "reading a pack";

/// Opens the tree of packs of a hub with so many partitions.
pub(super) fn open(database: &Arc<Database>, partitions: u16) -> Result<Packs, StoreError> {
    Ok(Packs { tree: database.tree(TREE)?, partitions, greatest: Mutex::default() })
}

/// The tree of packs.
pub(super) struct Packs {
    tree: Tree,
    partitions: u16,
    /// No id in a pack of the partition is greater, once it is known. With ids in the order of time what is new is greater than
    /// this, so that nothing has to be looked up.
    greatest: Mutex<HashMap<PartitionId, Vec<u8>>>,
}

/// Where the row of an instance is within a pack.
pub(super) struct Packed {
    pub(super) pack: sled::IVec,
    pub(super) row: Range<usize>,
}

/// An instance that can be packed, with its row.
pub(super) type Candidate<'a> = (&'a InstanceId, Vec<u8>);

/// Whether a row is short enough to share a pack with others.
pub(super) fn fits(id: &InstanceId, row_bytes: usize) -> bool {
    pack::entry_bytes(id.as_str().len(), row_bytes) <= PACK_BYTES_MAX / 2
}

impl Packs {
    pub(super) fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// The packed row of an instance.
    pub(super) fn get(&self, id: &InstanceId) -> Result<Option<Packed>, StoreError> {
        let Some((_, pack)) = self.last_upto(&self.key(id))? else { return Ok(None) };
        let mut row = None;
        for entry in pack::entries(&pack) {
            let entry = entry.map_err(|Damaged| damaged(id))?;
            if entry.id >= id.as_str().as_bytes() {
                row = (entry.id == id.as_str().as_bytes()).then_some(entry.row);
                break;
            }
        }
        Ok(row.map(|row| Packed { pack, row }))
    }

    /// Packs new instances, which come in id order, and gives each of those that can't be packed to `write_alone`.
    pub(super) fn write(
        &self,
        candidates: &[Candidate<'_>],
        mut write_alone: impl FnMut(&Candidate<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut rest = candidates;
        while !rest.is_empty() {
            let (together, others) = rest.split_at(self.neighbours(rest));
            rest = others;
            if let [first, .., last] = together
                && !self.overlaps(first.0, last.0)?
            {
                let bytes = together.iter().map(|(id, row)| pack::entry_bytes(id.as_str().len(), row.len()));
                let mut value = Vec::with_capacity(bytes.sum());
                for (id, row) in together {
                    pack::push(&mut value, id.as_str(), row);
                }
                self.put(self.key(first.0), value)?;
            } else {
                together.iter().try_for_each(&mut write_alone)?;
            }
        }
        Ok(())
    }

    /// Removes instances, which come in id order. Those that are not packed are left alone. Says how many packs were removed, or
    /// written again.
    pub(super) fn remove(&self, ids: &[&InstanceId]) -> Result<u64, StoreError> {
        let mut rest = ids;
        let mut changed = 0;
        while let [first, others @ ..] = rest {
            let Some((key, old)) = self.last_upto(&self.key(first))? else {
                rest = others;
                continue;
            };
            let partition = first.partition(self.partitions);
            let mut kept = Vec::with_capacity(old.len());
            for entry in pack::entries(&old) {
                let entry = entry.map_err(|Damaged| damaged(first))?;
                // Those that would be here if they were packed.
                while let [next, after @ ..] = rest
                    && next.as_str().as_bytes() < entry.id
                    && next.partition(self.partitions) == partition
                {
                    rest = after;
                }
                match rest {
                    [next, after @ ..] if next.as_str().as_bytes() == entry.id => rest = after,
                    _ => kept.extend_from_slice(&old[entry.whole]),
                }
            }
            changed += u64::from(kept.len() < old.len());
            if kept.is_empty() {
                self.tree.remove(key).map_err(|error| from_sled("removing a pack", &error))?;
            } else if kept.len() < old.len() {
                self.put(key.to_vec(), kept)?;
            }
            if rest.len() > others.len() {
                // It comes after all that are in the pack.
                rest = others;
            }
        }
        Ok(changed)
    }

    /// How many of the candidates, from the first on, go into one pack.
    fn neighbours(&self, candidates: &[Candidate<'_>]) -> usize {
        let Some((first, _)) = candidates.first() else { return 0 };
        let partition = first.partition(self.partitions);
        let mut bytes = 0;
        let fitting = candidates.iter().take_while(|(id, row)| {
            bytes += pack::entry_bytes(id.as_str().len(), row.len());
            bytes <= PACK_BYTES_MAX && id.partition(self.partitions) == partition
        });
        fitting.count().max(1)
    }

    /// Whether a pack from `first` to `last` would touch another one. If not, it is taken to be written.
    fn overlaps(&self, first: &InstanceId, last: &InstanceId) -> Result<bool, StoreError> {
        let partition = first.partition(self.partitions);
        let mut known = self.greatest.lock();
        let greatest = match known.entry(partition) {
            Entry::Occupied(greatest) => greatest.into_mut(),
            Entry::Vacant(unknown) => {
                let last_pack = self.tree.scan_prefix(partition.0.to_be_bytes()).next_back().transpose();
                let last_pack = last_pack.map_err(|error| from_sled(READING, &error))?;
                let greatest = last_pack.map(|(_, pack)| last_id(&pack).ok_or_else(|| damaged(last)));
                unknown.insert(greatest.transpose()?.unwrap_or_default())
            }
        };
        if *first.as_str().as_bytes() <= **greatest
            && let Some((_, before)) = self.last_upto(&self.key(last))?
        {
            let before = last_id(&before).ok_or_else(|| damaged(last))?;
            if *before >= *first.as_str().as_bytes() {
                return Ok(true);
            }
        }
        if *last.as_str().as_bytes() > **greatest {
            greatest.clear();
            greatest.extend_from_slice(last.as_str().as_bytes());
        }
        Ok(false)
    }

    /// The last pack of the key's partition whose key is not greater.
    fn last_upto(&self, key: &[u8]) -> Result<Option<(sled::IVec, sled::IVec)>, StoreError> {
        let last = self.tree.range(&key[..2]..=key).next_back().transpose();
        last.map_err(|error| from_sled(READING, &error))
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.tree.insert(key, value).map_err(|error| from_sled("writing a pack", &error))?;
        Ok(())
    }

    fn key(&self, id: &InstanceId) -> Vec<u8> {
        let PartitionId(partition) = id.partition(self.partitions);
        let mut key = Vec::with_capacity(2 + id.as_str().len());
        key.extend_from_slice(&partition.to_be_bytes());
        key.extend_from_slice(id.as_str().as_bytes());
        key
    }
}

/// The greatest id in a pack; none if it is damaged.
fn last_id(pack: &[u8]) -> Option<Vec<u8>> {
    let last = pack::entries(pack).last()?.ok()?;
    Some(last.id.to_vec())
}

fn damaged(id: &InstanceId) -> StoreError {
    corrupt(format!("the pack around instance {id}"), "it is damaged")
}

#[cfg(test)]
impl Packs {
    /// How many packs there are.
    pub(super) fn count(&self) -> usize {
        self.tree.len()
    }

    /// Panics when packs overlap, or one is not in order.
    pub(super) fn check_order(&self) {
        let mut last: Option<(u16, Vec<u8>)> = None;
        for pack in self.tree.iter() {
            let (key, pack) = pack.unwrap();
            let partition = u16::from_be_bytes([key[0], key[1]]);
            assert!(last.as_ref().is_none_or(|last| (last.0, &last.1[..]) < (partition, &key[2..])));
            let mut before = &key[2..];
            for (nth, entry) in
                pack::entries(&pack).map(|entry| entry.map_err(|Damaged| key.clone())).enumerate()
            {
                let entry = entry.unwrap();
                assert!(if nth == 0 { before <= entry.id } else { before < entry.id });
                before = entry.id;
            }
            last = Some((partition, before.to_vec()));
        }
    }
}
