//! A witness that a database was once longer.
//!
//! When sled opens a file of which some part is damaged, it takes the damaged place for the end of its log, torn by a
//! crash, and silently forgets everything after it. So each database counts its writes, and after a synchronisation
//! the count goes to a small file beside it. That file isn't synchronised: all it needs to hold is a number that had
//! been reached for certain, and an old one is good enough. A database that comes back with a smaller count is damaged.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use steadfast_store::StoreError;

use crate::error::{corrupt, from_io};

/// The file. It holds a count, u64 BE, and its complement.
pub(crate) struct Witness {
    file: File,
}

impl Witness {
    /// Opens the file, or creates it with a count of 0.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        file.map(|file| Self { file }).map_err(|error| from_io("opening a witness", path, &error))
    }

    /// Fails when the database has seen fewer writes than were durable once.
    pub(crate) fn check(&self, name: &str, count: u64) -> Result<(), StoreError> {
        let seen = self.read();
        if count >= seen {
            return Ok(());
        }
        let problem = format!("it ends after write {count}, but {seen} had been made durable");
        Err(corrupt(format!("the database {name:?}"), problem))
    }

    /// The count; 0 when the file holds none, as after a crash soon after its creation.
    fn read(&self) -> u64 {
        let mut bytes = [0; 16];
        if self.file.read_exact_at(&mut bytes, 0).is_err() {
            return 0;
        }
        let both = u128::from_be_bytes(bytes);
        let (count, complement) = ((both >> 64) as u64, both as u64);
        if count == !complement { count } else { 0 }
    }

    /// Notes that so many writes are durable.
    pub(crate) fn advance(&self, count: u64) -> Result<(), StoreError> {
        let both = (u128::from(count) << 64) | u128::from(!count);
        let written = self.file.write_all_at(&both.to_be_bytes(), 0);
        written.map_err(|error| StoreError::from_io("writing a witness", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_lost_writes_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("witness");
        Witness::open(&path).unwrap().check("log", 0).unwrap();
        Witness::open(&path).unwrap().advance(7).unwrap();
        let witness = Witness::open(&path).unwrap();
        witness.check("log", 7).unwrap();
        witness.check("log", 8).unwrap();
        assert!(matches!(witness.check("log", 6), Err(StoreError::Corrupt { .. })));
        std::fs::write(&path, "no witness at all").unwrap();
        witness.check("log", 0).unwrap();
    }
}
