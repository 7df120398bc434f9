//! One sled database: opening it, and making it durable.
//!
//! Two facts of sled 0.34 decide the settings. First, a leaf of its tree holds up to 16 values (a few more for a
//! moment), and whenever a leaf is consolidated or split it is written anew as a whole; what is larger than a quarter
//! of a segment then goes to a file of its own, which is never synchronised. So it isn't enough to keep single values
//! small: [`SEGMENT_BYTES`] must be more than four times the largest leaf. Second, its flush on Linux is a
//! `sync_file_range`, so [`Database::make_durable`] adds an `fdatasync`.
//!
//! The second has a consequence that goes beyond what is not durable yet. sled takes for safe what it has flushed: it writes again
//! to a segment whose pages are all somewhere else, flushed, and when it opens a file after a crash it looks for gaps only in the
//! last segments. With many flushed and not synchronised segments a loss of power can take the pages that were moved, but not
//! what was written over their old places, or leave a gap that sled passes over; and either damages what was durable. sled writes
//! again to a segment when three others have been filled since, and finds a gap in the last but one. So a database
//! synchronises its file whenever a good part of a segment was written, see [`Syncer::note_written`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use steadfast_store::StoreError;

use crate::error::{catch_panic, corrupt, from_io, from_sled};
use crate::options::DataSync;
use crate::syncer::Syncer;
use crate::tree::Tree;

/// The unit in which sled allocates its file. Its quarter, 1 MiB, must exceed the largest leaf: about 20 values of
/// at most [`VALUE_BYTES_MAX`] in the instance store, 7 of 64 KiB in the log (see `log::slots`).
pub(crate) const SEGMENT_BYTES: usize = 4 << 20;

/// The largest value in a tree of the instance store.
pub(crate) const VALUE_BYTES_MAX: usize = 32 << 10;

/// When sled wrote more than so many times a part for it, the next parts are smaller. What it writes depends on which pages it has to
/// write anew or to move, and large pages come together.
const WRITTEN_FOR_A_PART_MAX: usize = 4;

/// How often opening is tried again when the threads of a previous sled of this process still hold its file.
const LOCK_RETRIES: u32 = 100;
const LOCK_RETRY_AFTER: Duration = Duration::from_millis(20);

/// How a database is used.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// How much memory its cache of pages may take.
    pub(crate) cache_bytes: u64,
    /// With about so many bytes handed to sled, at most, they are written to the file.
    pub(crate) part_bytes: usize,
}

#[cfg(test)]
impl Usage {
    /// For what tests write.
    pub(crate) const SMALL: Self = Self { cache_bytes: 16 << 20, part_bytes: 64 << 10 };
}

/// An open sled database, and who synchronises its file.
pub(crate) struct Database {
    db: sled::Db,
    syncer: Syncer,
    part_bytes_max: usize,
    /// How large a part is at present.
    part_bytes: AtomicUsize,
    /// Something was written since it was last made durable.
    dirty: AtomicBool,
    /// Held while it is made durable: whoever finds nothing left to do must not be done before that is.
    making_durable: Mutex<()>,
    /// Writing to the file failed.
    flush_failed: AtomicBool,
    /// How much was handed to sled since it last wrote to the file, roughly.
    unwritten: AtomicUsize,
}

impl Database {
    /// Opens the database in a folder, or creates it. The folder is held by our own lock, so that nobody else has it.
    pub(crate) fn open(
        folder: &Path,
        usage: Usage,
        data_sync: Arc<dyn DataSync>,
    ) -> Result<Arc<Self>, StoreError> {
        fs::create_dir_all(folder).map_err(|error| from_io("creating a folder", folder, &error))?;
        let db = catch_panic("opening the database", || open_sled(folder, usage.cache_bytes))?;
        let path = folder.join("db");
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|error| from_io("opening the database", &path, &error))?;
        let syncer = Syncer::start(file, data_sync);
        let syncer = syncer.map_err(|error| from_io("opening the database", &path, &error))?;
        Ok(Arc::new(Self {
            db,
            syncer,
            part_bytes_max: usage.part_bytes,
            part_bytes: AtomicUsize::new(usage.part_bytes),
            dirty: AtomicBool::new(true),
            making_durable: Mutex::new(()),
            flush_failed: AtomicBool::new(false),
            unwritten: AtomicUsize::new(0),
        }))
    }

    /// A tree of the database.
    pub(crate) fn tree(self: &Arc<Self>, name: &str) -> Result<Tree, StoreError> {
        let tree = catch_panic("opening a tree", || {
            self.db.open_tree(name).map_err(|error| from_sled("opening a tree", &error))
        });
        Ok(Tree::new(tree?, self.clone()))
    }

    /// Makes everything written so far durable.
    pub(crate) fn make_durable(&self) -> Result<(), StoreError> {
        const DOING: &str = "making data durable";
        let _making_durable = self.making_durable.lock();
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let result = self.flush().and_then(|_| Ok(self.syncer.sync()?));
        if result.is_err() {
            self.dirty.store(true, Ordering::Release);
        }
        result.map_err(|error| from_sled(DOING, &error))
    }

    /// Whether the operating system may take something for written that isn't, see [`rewrite`].
    pub(crate) fn sync_failed(&self) -> bool {
        self.flush_failed.load(Ordering::Acquire) || self.syncer.has_failed()
    }

    /// Takes note that something was changed, for which sled will write about so many bytes. What has gathered is written when
    /// it is a part, since sled itself would let it become a whole segment, and what is appended to the log meanwhile, in the
    /// other database, would wait for the disk behind all of that.
    pub(crate) fn note_change(&self, bytes: usize) -> sled::Result<()> {
        // After the change: should it be durable already, then it is made so once more.
        self.dirty.store(true, Ordering::Release);
        let unwritten = self.unwritten.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unwritten < self.part_bytes.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.unwritten.store(0, Ordering::Relaxed);
        let written = self.flush()?;
        let wanted = self.part_bytes_max * WRITTEN_FOR_A_PART_MAX;
        let fitting = unwritten.saturating_mul(wanted) / written.max(1);
        self.part_bytes.store(fitting.clamp(1, self.part_bytes_max), Ordering::Relaxed);
        Ok(self.syncer.note_written(written)?)
    }

    /// Lets sled write what it was handed; says how many bytes that were.
    fn flush(&self) -> sled::Result<usize> {
        let result = self.db.flush();
        self.flush_failed.fetch_or(result.is_err(), Ordering::AcqRel);
        result
    }
}

fn open_sled(folder: &Path, cache_bytes: u64) -> Result<sled::Db, StoreError> {
    let mut retries = 0;
    loop {
        let config = sled::Config::new()
            .path(folder)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None);
        match config.open() {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                if retries == LOCK_RETRIES {
                    return Err(StoreError::Locked { path: folder.to_owned() });
                }
                retries += 1;
                thread::sleep(LOCK_RETRY_AFTER);
            }
            Err(error) => return Err(sort_open_error(folder, &error)),
        }
    }
}

/// sled reports some damage (to its `conf` file, or a read beyond the end) as an ordinary error.
fn sort_open_error(folder: &Path, error: &sled::Error) -> StoreError {
    let damage = match error {
        sled::Error::Io(error) => {
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
        }
        sled::Error::Unsupported(_) | sled::Error::ReportableBug(_) | sled::Error::CollectionNotFound(_) => {
            true
        }
        sled::Error::Corruption { .. } => true,
    };
    if damage {
        return corrupt(folder.display().to_string(), format!("sled cannot open it: {error}"));
    }
    from_sled("opening the database", error)
}

/// Whether a folder holds the file of a database.
pub(crate) fn exists(folder: &Path) -> bool {
    folder.join("db").exists()
}

/// Makes the entries of a new database's folder durable, and the settings that sled keeps beside its file.
pub(crate) fn sync_folder_of(folder: &Path) -> Result<(), StoreError> {
    sync_path(&folder.join("conf"))?;
    sync_path(folder)
}

/// Synchronises a file, or the entries of a folder.
pub(crate) fn sync_path(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| from_io("making a folder durable", path, &error))
}

/// Writes the file of a closed database over itself. After a failed synchronisation the operating system takes the
/// affected pages for written, and a further synchronisation would not try again; this makes it.
pub(crate) fn rewrite(folder: &Path, data_sync: &dyn DataSync) -> Result<(), StoreError> {
    let path: PathBuf = folder.join("db");
    rewrite_file(&path, data_sync).map_err(|error| from_io("writing the database again", &path, &error))
}

fn rewrite_file(path: &Path, data_sync: &dyn DataSync) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            return data_sync.sync(&file);
        }
        file.write_all_at(&buffer[..read], offset)?;
        offset += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{OnceLock, Weak};

    use super::*;

    /// Looks whether somebody else would wait for the synchronisation that it is asked for.
    #[derive(Default)]
    struct Looks {
        database: OnceLock<Weak<Database>>,
        alone: AtomicBool,
    }

    impl DataSync for Looks {
        fn sync(&self, file: &File) -> io::Result<()> {
            if let Some(database) = self.database.get().and_then(Weak::upgrade) {
                self.alone.store(database.making_durable.try_lock().is_none(), Ordering::SeqCst);
            }
            file.sync_data()
        }
    }

    #[test]
    fn whoever_finds_everything_being_made_durable_waits_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let looks = Arc::new(Looks::default());
        let database = Database::open(folder.path(), Usage::SMALL, looks.clone()).unwrap();
        looks.database.set(Arc::downgrade(&database)).unwrap();
        database.tree("tree").unwrap().insert("key", "value").unwrap();
        database.make_durable().unwrap();
        assert!(looks.alone.load(Ordering::SeqCst));
    }
}
