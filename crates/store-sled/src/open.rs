//! Opening a folder, or making it a hub.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;

use steadfast_store::StoreError;

use crate::cleaning::Cleaning;
use crate::database::{self, Database, Usage};
use crate::directory::{self, Directory};
use crate::error::{corrupt, from_io};
use crate::format::{self, Description};
use crate::instances::{self, Instances};
use crate::log::CommitLog;
use crate::options::SledOptions;
use crate::pieces::{self, Pieces};
use crate::rows::{self, Rows};
use crate::witness::Witness;

/// The databases and what is in them.
pub(crate) struct Files {
    pub(crate) log: CommitLog,
    pub(crate) data: Arc<Database>,
    pub(crate) directory: Directory,
    pub(crate) instances: Instances,
    pub(crate) pieces: Pieces,
    pub(crate) rows: Rows,
    /// Of the instance store. The log needs none: its pages are all replaced again and again.
    pub(crate) cleaning: Cleaning,
    witness: Witness,
}

impl Files {
    /// Makes everything materialised so far durable.
    pub(crate) fn make_data_durable(&self) -> Result<(), StoreError> {
        let count = self.rows.count();
        self.data.make_durable()?;
        self.witness.advance(count)
    }
}

/// The folders of the two databases within that of the hub.
pub(crate) const LOG: &str = "log";
pub(crate) const DATA: &str = "data";

/// The log is read only when it is opened, so it needs little memory.
const LOG_CACHE_PART: u64 = 4;

/// In how large parts the databases are written. Few appends are as large as the log's.
const DATA_PART_BYTES: usize = 128 << 10;
const LOG_PART_BYTES: usize = 512 << 10;

const PARTITIONS_DEFAULT: u16 = 4;

/// Takes the folder for this process. The lock lasts as long as the file is open.
pub(crate) fn lock(folder: &Path) -> Result<File, StoreError> {
    fs::create_dir_all(folder).map_err(|error| from_io("creating the hub's folder", folder, &error))?;
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| from_io("locking the hub's folder", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(from_io("locking the hub's folder", &path, &error)),
    }
}

/// Opens the hub in a locked folder, or creates it; says how many partitions it has.
pub(crate) fn open_or_create(folder: &Path, options: &SledOptions) -> Result<(Files, u16), StoreError> {
    if let Some(Description { partitions: found, outdated }) = format::read(folder)? {
        if let Some(asked) = options.partitions.filter(|asked| *asked != found) {
            return Err(StoreError::PartitionCount { found, asked });
        }
        let files = reopen(folder, options, found)?;
        if outdated {
            format::write(folder, found)?;
        }
        return Ok((files, found));
    }
    let partitions = options.partitions.unwrap_or(PARTITIONS_DEFAULT);
    if partitions == 0 {
        let problem = "a hub has at least one partition".to_owned();
        return Err(StoreError::Io { doing: "creating the hub", problem });
    }
    let files = open_files(folder, options, partitions)?;
    if !(files.log.is_empty() && files.rows.is_empty() && files.instances.is_empty()) {
        let problem = "it holds data, but the file \"hub\", which describes them, is missing";
        return Err(corrupt(folder.display().to_string(), problem));
    }
    files.make_data_durable()?;
    database::sync_folder_of(&folder.join(LOG))?;
    database::sync_folder_of(&folder.join(DATA))?;
    if let Some(parent) = folder.canonicalize().ok().as_deref().and_then(Path::parent) {
        database::sync_path(parent)?;
    }
    format::write(folder, partitions)?;
    Ok((files, partitions))
}

/// Opens the databases of a hub that exists.
pub(crate) fn reopen(folder: &Path, options: &SledOptions, partitions: u16) -> Result<Files, StoreError> {
    for name in [LOG, DATA] {
        if !database::exists(&folder.join(name)) {
            return Err(corrupt(folder.display().to_string(), format!("the database {name:?} is missing")));
        }
    }
    open_files(folder, options, partitions)
}

fn open_files(folder: &Path, options: &SledOptions, partitions: u16) -> Result<Files, StoreError> {
    let log_cache_bytes = options.cache_bytes / LOG_CACHE_PART;
    let open = |name, usage| Database::open(&folder.join(name), usage, Arc::clone(&options.data_sync));
    let data_cache_bytes = options.cache_bytes - log_cache_bytes;
    let data = open(DATA, Usage { cache_bytes: data_cache_bytes, part_bytes: DATA_PART_BYTES })?;
    let log = open(LOG, Usage { cache_bytes: log_cache_bytes, part_bytes: LOG_PART_BYTES })?;
    let log = CommitLog::open(log, Witness::open(&folder.join("log.count"))?)?;
    let rows = rows::open(&data)?;
    let witness = Witness::open(&folder.join("data.count"))?;
    witness.check(DATA, rows.count())?;
    // What is in the log now will be acted upon, so it must not get lost any more.
    log.make_durable()?;
    let (directory, instances) = (directory::open(&data)?, instances::open(&data, partitions)?);
    let (pieces, cleaning) = (pieces::open(&data)?, Cleaning::open(&data)?);
    Ok(Files { log, directory, instances, pieces, rows, cleaning, data, witness })
}
