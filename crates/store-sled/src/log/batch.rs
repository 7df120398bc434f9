//! A batch as bytes: first the list of its contents, then the bytes of its records, one after the other.
//!
//! The list is the number of records u32, and for each of them partition u16, position u64, length u32, big-endian.

use steadfast_core::{PartitionId, Position};
use steadfast_store::{LogRecord, StoreError};

use super::slots::PAYLOAD_BYTES;
use crate::error::corrupt;

const ENTRY_BYTES: usize = 14;

/// One record in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) partition: PartitionId,
    pub(super) position: Position,
    /// Where in the batch its bytes begin.
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// Finds the place of every record; returns the length of the whole, too.
pub(super) fn lay_out(records: &[LogRecord]) -> (usize, Vec<Entry>) {
    let mut offset = 4 + records.len() * ENTRY_BYTES;
    let entries = records.iter().map(|record| {
        let len = record.bytes.len();
        let entry = Entry { partition: record.partition, position: record.position, offset, len };
        offset += len;
        entry
    });
    let entries = entries.collect();
    (offset, entries)
}

/// Hands out the bytes of a batch piece by piece.
pub(super) struct Payload<'a> {
    list: Vec<u8>,
    records: &'a [LogRecord],
    /// Which part is next: 0 is the list, the others are records.
    part: usize,
    /// How much of that part has been handed out.
    done: usize,
}

impl<'a> Payload<'a> {
    pub(super) fn new(records: &'a [LogRecord], entries: &[Entry]) -> Self {
        let mut list = Vec::with_capacity(4 + entries.len() * ENTRY_BYTES);
        list.extend_from_slice(&(entries.len() as u32).to_be_bytes());
        for entry in entries {
            list.extend_from_slice(&entry.partition.0.to_be_bytes());
            list.extend_from_slice(&entry.position.0.to_be_bytes());
            list.extend_from_slice(&(entry.len as u32).to_be_bytes());
        }
        Self { list, records, part: 0, done: 0 }
    }

    /// Appends the next piece.
    pub(super) fn fill(&mut self, value: &mut Vec<u8>) {
        let mut room = PAYLOAD_BYTES;
        while room > 0 && self.part <= self.records.len() {
            let part = match self.part.checked_sub(1) {
                None => &self.list[..],
                Some(record) => &self.records[record].bytes[..],
            };
            let taken = room.min(part.len() - self.done);
            value.extend_from_slice(&part[self.done..self.done + taken]);
            room -= taken;
            self.done += taken;
            if self.done == part.len() {
                self.part += 1;
                self.done = 0;
            }
        }
    }
}

/// Reads the list of contents from the first piece of a batch.
pub(super) fn read_contents(mut piece: &[u8]) -> Result<Vec<Entry>, StoreError> {
    let damaged = || corrupt("the log", "the list of a batch's records is damaged");
    let count = u32::from_be_bytes(take(&mut piece).ok_or_else(damaged)?) as usize;
    if piece.len() / ENTRY_BYTES < count {
        return Err(damaged());
    }
    let mut offset = 4 + count * ENTRY_BYTES;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let partition = PartitionId(u16::from_be_bytes(take(&mut piece).ok_or_else(damaged)?));
        let position = Position(u64::from_be_bytes(take(&mut piece).ok_or_else(damaged)?));
        let len = u32::from_be_bytes(take(&mut piece).ok_or_else(damaged)?) as usize;
        entries.push(Entry { partition, position, offset, len });
        offset += len;
    }
    Ok(entries)
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
    fn a_batch_cut_into_pieces_reads_back() {
        let record = |partition: u16, position: u64, len: usize| LogRecord {
            partition: PartitionId(partition),
            position: Position(position),
            bytes: (0..len).map(|byte| byte as u8).collect(),
        };
        let records = [record(0, 7, 0), record(3, 1, 200_000), record(0, 8, 10)];
        let (len, entries) = lay_out(&records);
        let mut payload = Payload::new(&records, &entries);
        let pieces = (0..super::super::slots::pieces_for(len)).map(|_| {
            let mut piece = Vec::new();
            payload.fill(&mut piece);
            piece
        });
        let pieces: Vec<_> = pieces.collect();
        assert_eq!(pieces.len(), 4);
        assert_eq!(read_contents(&pieces[0]).unwrap(), entries);
        let whole = pieces.concat();
        assert_eq!(whole.len(), len);
        for (entry, record) in entries.iter().zip(&records) {
            assert_eq!(whole[entry.offset..entry.offset + entry.len], record.bytes[..]);
        }
    }

    #[test]
    fn a_damaged_list_is_an_error() {
        assert!(read_contents(&[]).is_err());
        assert!(read_contents(&u32::MAX.to_be_bytes()).is_err());
    }
}
