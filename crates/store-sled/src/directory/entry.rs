//! What the directory keeps of an instance, and how a list of such entries becomes bytes.
//!
//! Names, versions and tags are only kept as hashes: whoever searches looks at the instance itself afterwards. So an
//! entry is small whatever the texts are.
//!
//! A list is a sequence of: length of what the id shares with the one before, length of the rest, the rest; a byte
//! with the status and flags; and, unless the instance is gone: created (since that of the entry before), updated and
//! completed (since created), hashes of name and version, number of tags, their hashes. Hashes are u32 little-endian,
//! other numbers variable-length, times zigzag.

use steadfast_core::{InstanceFacts, InstanceId};
use steadfast_store::{InstanceChange, InstanceWrite, StoreError};

use crate::error::corrupt;

/// With more tags than this an instance is found by any tag.
const TAGS_MAX: usize = 1000;

const GONE: u8 = 0xff;
const STATUS: u8 = 0x0f;
const COMPLETED: u8 = 0x10;
const TOO_MANY_TAGS: u8 = 0x20;

/// What is kept of an instance. Times are in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<T = Tagged> {
    /// The number of the status, below 16.
    pub(super) status: u8,
    pub(super) created: i64,
    pub(super) updated: i64,
    pub(super) completed: Option<i64>,
    pub(super) name: u32,
    pub(super) version: u32,
    pub(super) tags: T,
}

/// An entry within a list: a search looks at hundreds for one that it takes, so nothing is allocated for it.
pub(super) type Listed<'a> = Entry<ListedTags<'a>>;

/// The bytes of an id, and its entry in the list; nothing when the instance is gone.
type ListedItem<'id, 'list> = (&'id [u8], Option<Listed<'list>>);

/// The hashes of an instance's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tagged {
    Listed(Box<[u32]>),
    TooMany,
}

/// The same, as they stand in a list: little-endian, or none when there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListedTags<'a>(Option<&'a [[u8; 4]]>);

/// Tags of which can be told whether one is among them.
pub(super) trait Tags {
    /// Whether the instance may have the tag with this hash.
    fn may_hold(&self, hash: u32) -> bool;
}

impl Tags for Tagged {
    fn may_hold(&self, hash: u32) -> bool {
        match self {
            Self::Listed(hashes) => hashes.contains(&hash),
            Self::TooMany => true,
        }
    }
}

impl Tags for ListedTags<'_> {
    fn may_hold(&self, hash: u32) -> bool {
        self.0.is_none_or(|hashes| hashes.contains(&hash.to_le_bytes()))
    }
}

impl Listed<'_> {
    /// The same, on its own.
    pub(super) fn to_entry(&self) -> Entry {
        let Self { status, created, updated, completed, name, version, tags } = *self;
        let tags = match tags.0 {
            Some(hashes) => Tagged::Listed(hashes.iter().map(|hash| u32::from_le_bytes(*hash)).collect()),
            None => Tagged::TooMany,
        };
        Entry { status, created, updated, completed, name, version, tags }
    }
}

/// An instance and what is kept of it; nothing when it is gone.
pub(super) type Item = (InstanceId, Option<Entry>);

/// What a write makes of the directory's entry.
pub(super) fn item(write: &InstanceWrite) -> Item {
    let entry = match &write.change {
        InstanceChange::Put { facts, .. } => Some(entry(facts)),
        InstanceChange::Delete => None,
    };
    (write.instance.clone(), entry)
}

fn entry(facts: &InstanceFacts) -> Entry {
    let tags = if facts.tags.len() > TAGS_MAX {
        Tagged::TooMany
    } else {
        Tagged::Listed(facts.tags.iter().map(|(key, value)| tag_hash(key, value)).collect())
    };
    Entry {
        status: facts.status as u8,
        created: facts.created_at.as_micros(),
        updated: facts.updated_at.as_micros(),
        completed: facts.completed_at.map(|at| at.as_micros()),
        name: name_hash(&facts.name),
        version: version_hash(&facts.version),
        tags,
    }
}

pub(super) fn name_hash(name: &str) -> u32 {
    fnv1a(&[b"n", name.as_bytes()])
}

pub(super) fn version_hash(version: &str) -> u32 {
    fnv1a(&[b"v", version.as_bytes()])
}

pub(super) fn tag_hash(key: &str, value: &str) -> u32 {
    // No text holds this byte, so key and value cannot run into one another.
    fnv1a(&[b"t", key.as_bytes(), &[0xff], value.as_bytes()])
}

/// 32-bit FNV-1a. It is part of the format.
fn fnv1a(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Encodes a list, entry by entry.
#[derive(Default)]
pub(super) struct Encoder {
    pub(super) bytes: Vec<u8>,
    last_id: Vec<u8>,
    last_created: i64,
}

impl Encoder {
    pub(super) fn push(&mut self, id: &[u8], entry: Option<&Entry>) {
        let shared = id.iter().zip(&self.last_id).take_while(|(left, right)| left == right).count();
        put_number(&mut self.bytes, shared as u64);
        put_number(&mut self.bytes, (id.len() - shared) as u64);
        self.bytes.extend_from_slice(&id[shared..]);
        self.last_id.truncate(shared);
        self.last_id.extend_from_slice(&id[shared..]);
        let Some(entry) = entry else {
            self.bytes.push(GONE);
            return;
        };
        let mut flags = entry.status & STATUS;
        if entry.completed.is_some() {
            flags |= COMPLETED;
        }
        if entry.tags == Tagged::TooMany {
            flags |= TOO_MANY_TAGS;
        }
        self.bytes.push(flags);
        put_signed(&mut self.bytes, entry.created.wrapping_sub(self.last_created));
        put_signed(&mut self.bytes, entry.updated.wrapping_sub(entry.created));
        if let Some(completed) = entry.completed {
            put_signed(&mut self.bytes, completed.wrapping_sub(entry.created));
        }
        self.last_created = entry.created;
        self.bytes.extend_from_slice(&entry.name.to_le_bytes());
        self.bytes.extend_from_slice(&entry.version.to_le_bytes());
        if let Tagged::Listed(tags) = &entry.tags {
            put_number(&mut self.bytes, tags.len() as u64);
            tags.iter().for_each(|tag| self.bytes.extend_from_slice(&tag.to_le_bytes()));
        }
    }
}

/// Reads a list, entry by entry.
pub(super) struct Decoder<'a> {
    rest: &'a [u8],
    id: Vec<u8>,
    created: i64,
}

impl<'a> Decoder<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, id: Vec::new(), created: 0 }
    }

    /// The bytes of the next id, and its entry; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<ListedItem<'_, 'a>>, StoreError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let entry = self.read().ok_or_else(damaged)?;
        Ok(Some((&self.id, entry)))
    }

    fn read(&mut self) -> Option<Option<Listed<'a>>> {
        let rest = &mut self.rest;
        let shared = usize::try_from(take_number(rest)?).ok().filter(|shared| *shared <= self.id.len())?;
        let own = usize::try_from(take_number(rest)?).ok()?;
        let (tail, after) = rest.split_at_checked(own)?;
        *rest = after;
        self.id.truncate(shared);
        self.id.extend_from_slice(tail);
        let [flags] = take(rest)?;
        if flags == GONE {
            return Some(None);
        }
        if flags & !(STATUS | COMPLETED | TOO_MANY_TAGS) != 0 {
            return None;
        }
        self.created = self.created.wrapping_add(take_signed(rest)?);
        let updated = self.created.wrapping_add(take_signed(rest)?);
        let completed = match flags & COMPLETED {
            0 => None,
            _ => Some(self.created.wrapping_add(take_signed(rest)?)),
        };
        let name = u32::from_le_bytes(take(rest)?);
        let version = u32::from_le_bytes(take(rest)?);
        let tags = if flags & TOO_MANY_TAGS != 0 {
            None
        } else {
            let count = usize::try_from(take_number(rest)?).ok().filter(|count| *count <= TAGS_MAX)?;
            let (tags, after) = rest.split_at_checked(4 * count)?;
            *rest = after;
            Some(tags.as_chunks().0)
        };
        Some(Some(Entry {
            status: flags & STATUS,
            created: self.created,
            updated,
            completed,
            name,
            version,
            tags: ListedTags(tags),
        }))
    }
}

/// The id whose bytes stand in a list.
pub(super) fn id_of(bytes: &[u8]) -> Result<InstanceId, StoreError> {
    std::str::from_utf8(bytes).map(InstanceId::from_trusted).map_err(|_| damaged())
}

fn damaged() -> StoreError {
    corrupt("the directory of instances", "an entry is not what was written")
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_signed(bytes: &mut Vec<u8>, number: i64) {
    put_number(bytes, ((number << 1) ^ (number >> 63)) as u64);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_signed(bytes: &mut &[u8]) -> Option<i64> {
    let number = take_number(bytes)?;
    Some((number >> 1) as i64 ^ -((number & 1) as i64))
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
    fn entries_read_back_and_damaged_ones_are_refused_without_a_panic() {
        let plain = Entry {
            status: 3,
            created: 1_700_000_000_000_000,
            updated: i64::MAX,
            completed: None,
            name: 7,
            version: u32::MAX,
            tags: Tagged::Listed(Box::default()),
        };
        let items = [
            ("", Some(plain.clone())),
            ("order-1", Some(Entry { completed: Some(i64::MIN), ..plain.clone() })),
            ("order-2", None),
            ("order-20", Some(Entry { tags: Tagged::Listed([1, 2, 3].into()), ..plain.clone() })),
            ("z\u{e4}", Some(Entry { created: -5, tags: Tagged::TooMany, ..plain })),
        ];
        let mut encoder = Encoder::default();
        items.iter().for_each(|(id, entry)| encoder.push(id.as_bytes(), entry.as_ref()));
        let mut decoder = Decoder::new(&encoder.bytes);
        for (id, entry) in items {
            let (bytes, listed) = decoder.next().unwrap().unwrap();
            assert_eq!(id_of(bytes).unwrap().as_str(), id);
            assert_eq!(listed.map(|listed| listed.to_entry()), entry);
        }
        assert_eq!(decoder.next().unwrap(), None);
        for cut in 0..encoder.bytes.len() {
            let mut decoder = Decoder::new(&encoder.bytes[..cut]);
            while let Ok(Some(_)) = decoder.next() {}
            for value in [0, 0x7f, 0xff] {
                let mut bytes = encoder.bytes.clone();
                bytes[cut] = value;
                let mut decoder = Decoder::new(&bytes);
                while let Ok(Some(_)) = decoder.next() {}
            }
        }
    }
}
