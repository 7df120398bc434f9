//! The small text file that says which format the folder has and how many partitions the hub has.
//!
//! It is written last when a hub is created: a folder without it never held anything that was acknowledged.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use steadfast_store::StoreError;

use crate::database::sync_path;
use crate::error::{corrupt, from_io};

/// The format that this version writes. Any change of what is stored, or how, gets a new number.
const FORMAT: u32 = 5;

/// The oldest format that can be read. Format 3 has no packs, and up to format 4 no payload is apart from its instance's state
/// and no row is compressed. Both are read as they are, so that a hub becomes one of format 5 by saying so.
const FORMAT_MIN: u32 = 3;

const FILE: &str = "hub";
const TITLE: &str = "steadfast hub";

/// What the file says.
pub(crate) struct Description {
    pub(crate) partitions: u16,
    /// It has to be written anew before anything else is written.
    pub(crate) outdated: bool,
}

/// Reads the description; none when the hub hasn't been created.
pub(crate) fn read(folder: &Path) -> Result<Option<Description>, StoreError> {
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
    if !(FORMAT_MIN..=FORMAT).contains(&found) {
        return Err(StoreError::WrongFormat { path: folder.to_owned(), found, expected: FORMAT });
    }
    let partitions = number(lines.next(), "partitions ").ok_or_else(|| damaged(&path))?;
    Ok(Some(Description { partitions, outdated: found != FORMAT }))
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
