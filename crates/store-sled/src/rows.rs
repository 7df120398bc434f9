//! The rows of the partitions, and the position that each partition's side of the instance store reflects.
//!
//! A value is preceded by a byte that says where it is: 0 and the value, or 1, version u32 and length u64 (big-endian)
//! of a large value that is kept as pieces. Pieces are written before the row and removed after it.

use std::sync::Arc;

use parking_lot::Mutex;
use steadfast_core::{PartitionId, Position};
use steadfast_store::{PartitionSnapshot, RowWrite, StoreError};

use crate::database::{Database, VALUE_BYTES_MAX};
use crate::error::{corrupt, from_sled};
use crate::keys;
use crate::pieces::Pieces;
use crate::tree::Tree;

/// partition u16 BE, key -> value.
const ROWS: &str = "rows";

/// partition u16 BE -> position u64 BE, and under another key the number of materialisations so far, u64 BE.
const POSITIONS: &str = "positions";
const COUNT: &[u8] = b"count";

const HERE: u8 = 0;
const ELSEWHERE: u8 = 1;

/// Opens the trees of rows.
pub(crate) fn open(database: &Arc<Database>) -> Result<Rows, StoreError> {
    let positions = database.tree(POSITIONS)?;
    let count = positions.get(COUNT).map_err(|error| from_sled("reading the number of writes", &error))?;
    let count = match count.as_deref().map(<[u8; 8]>::try_from) {
        None => 0,
        Some(Ok(count)) => u64::from_be_bytes(count),
        Some(Err(_)) => return Err(corrupt("the number of writes", "it has the wrong length")),
    };
    Ok(Rows { rows: database.tree(ROWS)?, positions, count: Mutex::new(count) })
}

/// The trees of rows and positions.
pub(crate) struct Rows {
    rows: Tree,
    positions: Tree,
    /// How many materialisations there were, as it stands in the tree.
    count: Mutex<u64>,
}

/// A large value of a row.
struct Large {
    version: u32,
    len: usize,
}

impl Rows {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.positions.is_empty()
    }

    /// Writes or removes a row.
    pub(crate) fn write(
        &self,
        pieces: &Pieces,
        partition: PartitionId,
        row: &RowWrite,
    ) -> Result<(), StoreError> {
        const DOING: &str = "writing a row";
        let key = keys::row(partition, &row.key);
        let values = keys::row_values(partition, &row.key);
        let Some(value) = &row.value else {
            let old = self.rows.remove(key).map_err(|error| from_sled(DOING, &error))?;
            // Without an old row there may be leftovers of a removal that a crash interrupted.
            return match old {
                Some(old) if large(&old).is_none() => Ok(()),
                _ => pieces.remove_all(&values),
            };
        };
        if value.len() < VALUE_BYTES_MAX {
            let mut encoded = Vec::with_capacity(1 + value.len());
            encoded.push(HERE);
            encoded.extend_from_slice(value);
            let old = self.rows.insert(key, encoded).map_err(|error| from_sled(DOING, &error))?;
            return match old.as_deref().and_then(large) {
                Some(_) => pieces.remove_all(&values),
                None => Ok(()),
            };
        }
        let old = self.rows.get(&key).map_err(|error| from_sled(DOING, &error))?;
        let version = old.as_deref().and_then(large).map_or(0, |old| old.version.wrapping_add(1));
        let name = keys::row_value(partition, &row.key, version);
        pieces.write(&name, value)?;
        let mut encoded = vec![ELSEWHERE];
        encoded.extend_from_slice(&version.to_be_bytes());
        encoded.extend_from_slice(&(value.len() as u64).to_be_bytes());
        self.rows.insert(key, encoded).map_err(|error| from_sled(DOING, &error))?;
        pieces.remove_range(&values, &values, Some(&name))
    }

    /// Writes the position. Everything that it covers has been written.
    pub(crate) fn write_position(&self, partition: PartitionId, upto: Position) -> Result<(), StoreError> {
        let (key, value) = (partition.0.to_be_bytes(), upto.0.to_be_bytes());
        self.positions.insert(key, &value).map_err(|error| from_sled("writing a position", &error))?;
        let mut count = self.count.lock();
        let value = (*count + 1).to_be_bytes();
        self.positions.insert(COUNT, &value).map_err(|error| from_sled("writing a position", &error))?;
        *count += 1;
        Ok(())
    }

    /// How many materialisations there were.
    pub(crate) fn count(&self) -> u64 {
        *self.count.lock()
    }

    /// Reads the position and all rows of a partition.
    pub(crate) fn load(
        &self,
        pieces: &Pieces,
        partition: PartitionId,
    ) -> Result<PartitionSnapshot, StoreError> {
        const DOING: &str = "reading a partition";
        let prefix = partition.0.to_be_bytes();
        let position = self.positions.get(prefix).map_err(|error| from_sled(DOING, &error))?;
        let upto = match position.as_deref().map(<[u8; 8]>::try_from) {
            None => Position::ZERO,
            Some(Ok(position)) => Position(u64::from_be_bytes(position)),
            Some(Err(_)) => {
                return Err(corrupt(format!("the position of {partition}"), "it has the wrong length"));
            }
        };
        let mut rows = Vec::new();
        for row in self.rows.scan_prefix(prefix) {
            let (key, value) = row.map_err(|error| from_sled(DOING, &error))?;
            let key = key[prefix.len()..].to_vec();
            let value = read_value(pieces, partition, &key, &value)?;
            rows.push((key, value));
        }
        Ok(PartitionSnapshot { upto, rows })
    }
}

fn read_value(
    pieces: &Pieces,
    partition: PartitionId,
    key: &[u8],
    value: &[u8],
) -> Result<Vec<u8>, StoreError> {
    if let Some((&HERE, value)) = value.split_first() {
        return Ok(value.to_vec());
    }
    let damaged =
        || corrupt(format!("row {} of {partition}", key.escape_ascii()), "its value is damaged or missing");
    let Large { version, len } = large(value).ok_or_else(damaged)?;
    let mut bytes = Vec::new();
    if !pieces.read(&keys::row_value(partition, key, version), len, &mut bytes)? {
        return Err(damaged());
    }
    Ok(bytes)
}

fn large(value: &[u8]) -> Option<Large> {
    let (&ELSEWHERE, rest) = value.split_first()? else { return None };
    let (version, rest) = rest.split_first_chunk()?;
    let len = u64::from_be_bytes(<[u8; 8]>::try_from(rest).ok()?);
    Some(Large { version: u32::from_be_bytes(*version), len: usize::try_from(len).ok()? })
}
