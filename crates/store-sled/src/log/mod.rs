//! The commit log.
//!
//! The records of one append, for whatever partitions, are one *batch*: written together, acknowledged together, cut
//! into pieces that fit into a value of sled. A piece is put into a *slot*, a row of a tree whose shape never changes
//! (`slots`), because growing a tree would write everything three times. The slots are in no particular order, so the
//! place of every record is kept in memory (`index`) and found again at opening by looking at all slots.
//!
//! Pieces of a batch are written in order and sled keeps a prefix of what it was given, so a crash can only leave
//! the last batch incomplete. It was never acknowledged, and is removed at opening. Truncation notes the position
//! first and then empties the slots of batches without live records, the first piece last: it says what was in them.

mod batch;
mod index;
mod slots;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use steadfast_core::{PartitionId, Position};
use steadfast_store::{LogRecord, StoreError};

use self::index::{Found, Index};
use self::slots::{Piece, Slots};
use crate::database::Database;
use crate::error::{corrupt, from_sled};
use crate::tree::Tree;
use crate::witness::Witness;

/// Records of one batch, so that its list of contents fits into the first piece.
const RECORDS_PER_BATCH_MAX: usize = 1024;

/// The largest record. Lengths are kept in 32 bits.
const RECORD_BYTES_MAX: usize = 1 << 30;

/// How many places of records are copied out of the index at a time while reading.
const PLACES_AT_A_TIME: usize = 256;

/// How far each partition's log was truncated: partition u16 BE -> position u64, number of the next batch u64, both BE.
const MARKS: &str = "marks";

pub(crate) struct CommitLog {
    database: Arc<Database>,
    slots: Slots,
    marks: Tree,
    index: Mutex<Index>,
    /// Held for the whole of an append, so that batches reach sled in order.
    appending: Mutex<()>,
    witness: Witness,
}

impl CommitLog {
    /// Opens the log: finds all records, and removes what a crash left of a batch that was never acknowledged.
    pub(crate) fn open(database: Arc<Database>, witness: Witness) -> Result<Self, StoreError> {
        let marks = database.tree(MARKS)?;
        let slots = Slots::open(&database)?;
        let (truncated, next_batch) = read_marks(&marks)?;
        let mut index = Index::new(truncated, next_batch);
        let mut batches: BTreeMap<u64, Vec<(u32, slots::Head)>> = BTreeMap::new();
        let mut contents: BTreeMap<u64, Vec<batch::Entry>> = BTreeMap::new();
        slots.scan(|slot, piece| {
            match piece {
                None => index.free_slot(slot),
                Some(Piece { head, payload }) => {
                    if head.piece == 0 {
                        contents.insert(head.batch, batch::read_contents(payload)?);
                    }
                    batches.entry(head.batch).or_default().push((slot, head));
                }
            }
            Ok(())
        })?;
        let last = batches.last_key_value().map(|(number, _)| *number);
        for (number, mut pieces) in batches {
            pieces.sort_unstable_by_key(|(_, head)| head.piece);
            let entries = contents.remove(&number);
            let complete = is_complete(&pieces);
            let slots_of_it: Vec<u32> = pieces.iter().map(|(slot, _)| *slot).collect();
            match entries {
                Some(entries) if complete && index.any_live(&entries) => {
                    index.add_batch(number, slots_of_it, &entries);
                }
                // Truncated, or torn.
                Some(entries) if !index.any_live(&entries) || Some(number) == last => {
                    for slot in slots_of_it.into_iter().rev() {
                        slots.clear(slot)?;
                        index.free_slot(slot);
                    }
                    index.skip_batch(number);
                }
                _ => return Err(corrupt("the log", format!("pieces of batch {number} are missing"))),
            }
        }
        witness.check("log", index.next_batch())?;
        Ok(Self { database, slots, marks, index: Mutex::new(index), appending: Mutex::new(()), witness })
    }

    /// Whether no record was ever appended, as far as can be seen.
    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.index.lock().is_empty()
    }

    /// Appends records and makes them durable.
    pub(crate) fn append(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        let _appending = self.appending.lock();
        self.index.lock().check_order(records)?;
        if records.iter().any(|record| record.bytes.len() > RECORD_BYTES_MAX) {
            let problem = format!("a record is larger than {RECORD_BYTES_MAX} bytes");
            return Err(StoreError::Io { doing: "appending to the log", problem });
        }
        for records in records.chunks(RECORDS_PER_BATCH_MAX) {
            self.append_batch(records)?;
        }
        self.make_durable()?;
        // Only appends, of which there is one at a time, make this number grow.
        let next_batch = self.index.lock().next_batch();
        self.witness.advance(next_batch)
    }

    fn append_batch(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        let (payload_bytes, entries) = batch::lay_out(records);
        let pieces = slots::pieces_for(payload_bytes);
        let (number, slots) = self.take_slots(pieces as usize)?;
        let mut payload = batch::Payload::new(records, &entries);
        for (piece, slot) in (0..pieces).zip(&slots) {
            let head = slots::Head { batch: number, piece, pieces };
            self.slots.write(*slot, head, |value| payload.fill(value))?;
        }
        self.index.lock().add_batch(number, slots, &entries);
        Ok(())
    }

    fn take_slots(&self, count: usize) -> Result<(u64, Vec<u32>), StoreError> {
        loop {
            let first_new = match self.index.lock().take_slots(count) {
                Ok(taken) => return Ok(taken),
                Err(first_new) => first_new,
            };
            // Only one append at a time gets here, and nothing else adds slots.
            let added = self.slots.add(first_new, count)?;
            self.index.lock().add_slots(added);
        }
    }

    /// Whether making it durable has failed.
    pub(crate) fn sync_failed(&self) -> bool {
        self.database.sync_failed()
    }

    /// Makes everything written to the log durable.
    pub(crate) fn make_durable(&self) -> Result<(), StoreError> {
        self.database.make_durable()
    }

    /// Hands out the records of a partition after `after`, in order.
    pub(crate) fn read(
        &self,
        partition: PartitionId,
        after: Position,
        visit: &mut dyn FnMut(Position, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut last = after;
        loop {
            let places = self.index.lock().places_after(partition, last, PLACES_AT_A_TIME);
            if places.is_empty() {
                return Ok(());
            }
            for place in places {
                if place.position != last.next() {
                    let problem =
                        format!("record {} is missing before record {}", last.next(), place.position);
                    return Err(corrupt(format!("the log of {partition}"), problem));
                }
                let bytes = self.read_record(partition, &place)?;
                visit(place.position, bytes)?;
                last = place.position;
            }
        }
    }

    fn read_record(&self, partition: PartitionId, place: &Found) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::with_capacity(place.len);
        let mut offset = place.offset;
        while bytes.len() < place.len {
            let (piece, within) = (offset / slots::PAYLOAD_BYTES, offset % slots::PAYLOAD_BYTES);
            let missing = || {
                let problem = format!("piece {piece} of batch {} is missing", place.batch);
                corrupt(format!("record {} of {partition}", place.position), problem)
            };
            let slot = place.slots.get(piece).ok_or_else(missing)?;
            let value = self.slots.read(*slot)?.ok_or_else(missing)?;
            let found = slots::parse(&value).ok_or_else(missing)?;
            if found.head.batch != place.batch || found.head.piece as usize != piece {
                return Err(missing());
            }
            let rest = found.payload.get(within..).filter(|rest| !rest.is_empty()).ok_or_else(missing)?;
            let taken = rest.len().min(place.len - bytes.len());
            bytes.extend_from_slice(&rest[..taken]);
            offset += taken;
        }
        Ok(bytes)
    }

    /// Forgets the records of a partition up to `upto`.
    pub(crate) fn truncate(&self, partition: PartitionId, upto: Position) -> Result<(), StoreError> {
        let dead = {
            let mut index = self.index.lock();
            if !index.advance_mark(partition, upto) {
                return Ok(());
            }
            let key = partition.0.to_be_bytes();
            let value = [upto.0.to_be_bytes(), index.next_batch().to_be_bytes()].concat();
            self.marks.insert(key, value).map_err(|error| from_sled("truncating the log", &error))?;
            index.remove_upto(partition, upto)
        };
        for slots in dead {
            for slot in slots.iter().rev() {
                self.slots.clear(*slot)?;
            }
            self.index.lock().free_slots(&slots);
        }
        Ok(())
    }
}

fn is_complete(pieces: &[(u32, slots::Head)]) -> bool {
    let in_order = pieces.iter().enumerate().all(|(number, (_, head))| head.piece as usize == number);
    in_order && pieces.first().is_some_and(|(_, head)| head.pieces as usize == pieces.len())
}

/// Reads how far each partition was truncated, and the number of the next batch at the last truncation.
fn read_marks(marks: &Tree) -> Result<(BTreeMap<PartitionId, Position>, u64), StoreError> {
    let mut truncated = BTreeMap::new();
    let mut next_batch = 0;
    for row in marks.iter() {
        let (key, value) = row.map_err(|error| from_sled("reading the log", &error))?;
        let (Ok(partition), Ok(numbers)) = (<[u8; 2]>::try_from(&*key), <[u8; 16]>::try_from(&*value)) else {
            return Err(corrupt("the log's marks", "a row has the wrong length"));
        };
        let numbers = u128::from_be_bytes(numbers);
        truncated.insert(PartitionId(u16::from_be_bytes(partition)), Position((numbers >> 64) as u64));
        next_batch = next_batch.max(numbers as u64);
    }
    Ok((truncated, next_batch))
}
