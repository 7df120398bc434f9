//! A pack: the rows of a few instances that were written together, in one value.
//!
//! One after the other, in id order: length of the id u16, length of the row u32 (both big-endian), id, row.

use std::ops::Range;

const ENTRY_HEAD_BYTES: usize = 2 + 4;

/// What an entry of these lengths takes.
pub(super) fn entry_bytes(id_bytes: usize, row_bytes: usize) -> usize {
    ENTRY_HEAD_BYTES + id_bytes + row_bytes
}

/// Appends an entry. Ids and rows are far shorter than their lengths allow.
pub(super) fn push(pack: &mut Vec<u8>, id: &str, row: &[u8]) {
    pack.extend_from_slice(&(id.len() as u16).to_be_bytes());
    pack.extend_from_slice(&(row.len() as u32).to_be_bytes());
    pack.extend_from_slice(id.as_bytes());
    pack.extend_from_slice(row);
}

/// The entries of a pack; one that is damaged is the last one, and an error.
pub(super) fn entries(pack: &[u8]) -> Entries<'_> {
    Entries { pack, at: 0 }
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) id: &'a [u8],
    /// Where its row is in the pack.
    pub(super) row: Range<usize>,
    /// Where it is itself.
    pub(super) whole: Range<usize>,
}

/// A pack is not one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// See [`entries`].
pub(super) struct Entries<'a> {
    pack: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.pack.get(self.at..).filter(|rest| !rest.is_empty())?;
        let entry = parse(rest, self.at);
        self.at = entry.as_ref().map_or(self.pack.len(), |entry| entry.whole.end);
        Some(entry.ok_or(Damaged))
    }
}

fn parse(rest: &[u8], at: usize) -> Option<Entry<'_>> {
    let (id_bytes, tail) = rest.split_first_chunk()?;
    let (row_bytes, tail) = tail.split_first_chunk()?;
    let (id, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*id_bytes)))?;
    let row_bytes = u32::from_be_bytes(*row_bytes) as usize;
    let row = at + ENTRY_HEAD_BYTES + id.len();
    let end = row.checked_add(row_bytes).filter(|_| row_bytes <= tail.len())?;
    Some(Entry { id, row: row..end, whole: at..end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_beginnings_of_a_pack_are_noticed() {
        let rows = [("a", &b"first"[..]), ("b", b""), ("cc", b"third")];
        let mut pack = Vec::new();
        let mut ends = vec![0];
        for (id, row) in rows {
            push(&mut pack, id, row);
            ends.push(pack.len());
            assert_eq!(pack.len(), ends[ends.len() - 2] + entry_bytes(id.len(), row.len()));
        }
        let read: Vec<_> = entries(&pack).map(|entry| entry.unwrap()).collect();
        let read: Vec<_> = read.into_iter().map(|entry| (entry.id, &pack[entry.row])).collect();
        assert_eq!(read, rows.map(|(id, row)| (id.as_bytes(), row)));
        for len in 0..pack.len() {
            let cut = entries(&pack[..len]).last().transpose();
            assert_eq!(cut.is_err(), !ends.contains(&len), "{len}");
        }
    }
}
