//! A group: the summaries of neighbouring blocks, in one value, so that a search passes over a block in some ten
//! nanoseconds instead of a step through a tree of sled.
//!
//! For each block: length u16 of its key, the key, length u16 of its summary, the summary. Numbers are big-endian. The
//! keys are in order, and none is before that of the group.

use steadfast_store::StoreError;

use crate::database::VALUE_BYTES_MAX;
use crate::error::corrupt;

/// A group has so many blocks, and about so many bytes, at most: a settlement writes it anew as a whole.
pub(super) const GROUP_BLOCKS: usize = 32;
const GROUP_BYTES: usize = VALUE_BYTES_MAX - (4 << 10);

/// A block within a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// The first id that belongs to it.
    pub(super) key: &'a [u8],
    pub(super) summary: &'a [u8],
}

/// The blocks of a group, in order.
pub(super) struct Members<'a> {
    rest: &'a [u8],
}

impl<'a> Members<'a> {
    pub(super) const fn new(group: &'a [u8]) -> Self {
        Self { rest: group }
    }

    /// The next one; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Member<'a>>, StoreError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let member = self.read();
        member
            .map(Some)
            .ok_or_else(|| corrupt("the directory of instances", "a group is not what was written"))
    }

    fn read(&mut self) -> Option<Member<'a>> {
        let key = take_text(&mut self.rest)?;
        let summary = take_text(&mut self.rest)?;
        Some(Member { key, summary })
    }

    /// The key of the next one.
    pub(super) fn peek_key(&self) -> Option<&'a [u8]> {
        take_text(&mut &*self.rest)
    }
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (text, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *rest = after;
    Some(text)
}

/// Blocks as groups: the number of blocks in each, and its bytes. `growing` says that what comes later is behind them,
/// so that all but the last one can be full.
pub(super) fn encode(members: &[(Vec<u8>, Vec<u8>)], growing: bool) -> Vec<(usize, Vec<u8>)> {
    let share = match members.len().div_ceil(GROUP_BLOCKS) {
        groups if growing || groups == 0 => GROUP_BLOCKS,
        groups => members.len().div_ceil(groups),
    };
    let mut groups = Vec::new();
    let (mut count, mut bytes) = (0, Vec::new());
    for (key, summary) in members {
        if count == share || count > 0 && bytes.len() + key.len() + summary.len() + 4 > GROUP_BYTES {
            groups.push((std::mem::take(&mut count), std::mem::take(&mut bytes)));
        }
        for text in [key, summary] {
            bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
            bytes.extend_from_slice(text);
        }
        count += 1;
    }
    if count > 0 {
        groups.push((count, bytes));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_read_back_and_damaged_ones_are_refused() {
        let members: Vec<_> =
            (0..100_u8).map(|number| (vec![number; usize::from(number)], vec![7; 700])).collect();
        for growing in [true, false] {
            let groups = encode(&members, growing);
            assert_eq!(groups.iter().map(|(count, _)| count).sum::<usize>(), 100);
            let mut expected = members.iter();
            for (count, bytes) in groups {
                assert!(count <= GROUP_BLOCKS && bytes.len() <= VALUE_BYTES_MAX);
                let mut read = Members::new(&bytes);
                for _ in 0..count {
                    let (key, summary) = expected.next().unwrap();
                    assert_eq!(read.peek_key(), Some(&key[..]));
                    assert_eq!(read.next().unwrap(), Some(Member { key, summary }));
                }
                assert_eq!((read.peek_key(), read.next().unwrap()), (None, None));
                let mut cut = Members::new(&bytes[..bytes.len() - 1]);
                let read: Result<Vec<_>, _> =
                    std::iter::from_fn(|| cut.next().transpose()).take(100).collect();
                assert!(read.is_err());
            }
        }
    }
}
