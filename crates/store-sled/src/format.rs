//! The small text file that says which format the folder has and how many partitions the hub has.
//!
//! It is written last when a hub is created: a folder without it never held anything that was acknowledged.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use steadfast_store::StoreError;

use crate::database::sync_path;
use crate::error::{corrupt, from_io};

/// The format that this version reads and writes. Any change of what is stored, or how, gets a new number.
pub(crate) const FORMAT: u32 = 3;

const FILE: &str = "hub";
const TITLE: &str = "steadfast hub";

/// Reads the number of partitions; none when the hub hasn't been created.
pub(crate) fn read(folder: &Path) -> Result<Option<u16>, StoreError> {
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged(&path)),
        Err(error) => return Err(from_io("reading the hub's description", &path, &error)),
    };
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(damaged(&path));
    }
    let found: u32 = number(lines.next(), "format ").ok_or_else(|| damaged(&path))?;
    if found != FORMAT {
        return Err(StoreError::WrongFormat { path: folder.to_owned(), found, expected: FORMAT });
    }
    number(lines.next(), "partitions ").map(Some).ok_or_else(|| damaged(&path))
}

fn number<T: std::str::FromStr>(line: Option<&str>, name: &str) -> Option<T> {
    line?.strip_prefix(name)?.parse().ok()
}

fn damaged(path: &Path) -> StoreError {
    corrupt(path.display().to_string(), "it doesn't describe a hub")
}

/// Writes the description, durably and all at once.
pub(crate) fn write(folder: &Path, partitions: u16) -> Result<(), StoreError> {
    let path = folder.join(FILE);
    let draft = folder.join("hub.new");
    let text = format!("{TITLE}\nformat {FORMAT}\npartitions {partitions}\n");
    fs::File::create(&draft)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&draft, &path))
        .map_err(|error| from_io("writing the hub's description", &path, &error))?;
    sync_path(folder)
}
