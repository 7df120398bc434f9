//! The store as a whole.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use steadfast_core::{InstanceFilter, InstanceId, PartitionId, Position};
use steadfast_store::{
    Detail, Found, HubInfo, LogRecord, Materialisation, PartitionSnapshot, Store, StoreError, StoreMetrics,
    StoredInstance,
};

use crate::database;
use crate::error::catch_panic;
use crate::open::{self, DATA, Files, LOG};
use crate::options::SledOptions;
use crate::space::Space;

/// A search ends early when the states that it found take more bytes than this.
const FOUND_BYTES_MAX: usize = 32 << 20;

/// A store in a folder, on sled.
pub struct SledStore {
    folder: PathBuf,
    options: SledOptions,
    partitions: u16,
    /// None after a recovery that failed.
    files: RwLock<Option<Files>>,
    space: Space,
    /// Something went wrong, so the files must be opened again.
    failed: AtomicBool,
    /// That database's file must be written again before it is opened, see [`database::rewrite`].
    unsynced_log: AtomicBool,
    unsynced_data: AtomicBool,
    /// There was no space when something was to be written.
    full: AtomicBool,
    metrics: Metrics,
    /// Keeps others out. Declared last, so that it is given up last.
    _lock: File,
}

#[derive(Default)]
struct Metrics {
    syncs: AtomicU64,
    bytes: AtomicU64,
    records: AtomicU64,
    materialised_instances: AtomicU64,
    materialised_bytes: AtomicU64,
}

impl SledStore {
    /// Opens the hub in a folder, or creates it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when it is open already, [`StoreError::WrongFormat`], [`StoreError::PartitionCount`] and
    /// [`StoreError::Corrupt`] when it can't be opened, [`StoreError::Full`] and [`StoreError::Io`] from the system.
    pub fn open(folder: impl AsRef<Path>, options: SledOptions) -> Result<Self, StoreError> {
        let folder = folder.as_ref().to_owned();
        let lock = open::lock(&folder)?;
        let (files, partitions) = catch_panic("opening the hub", || open::open_or_create(&folder, &options))?;
        let space = Space::new(folder.clone(), options.reserve_bytes, options.space_probe.clone());
        Ok(Self {
            folder,
            options,
            partitions,
            files: RwLock::new(Some(files)),
            space,
            failed: AtomicBool::new(false),
            unsynced_log: AtomicBool::new(false),
            unsynced_data: AtomicBool::new(false),
            full: AtomicBool::new(false),
            metrics: Metrics::default(),
            _lock: lock,
        })
    }

    /// Runs something on the files, unless they have failed before.
    fn with<T>(
        &self,
        doing: &'static str,
        run: impl FnOnce(&Files) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A visitor of the log may call the store again while somebody waits to recover it.
        let files = self.files.read_recursive();
        match &*files {
            Some(files) if !self.failed.load(Ordering::Acquire) => catch_panic(doing, || run(files)),
            _ => {
                Err(StoreError::Io { doing, problem: "the store failed before; recover it first".to_owned() })
            }
        }
    }

    /// Runs something that writes; after an error nothing runs any more until recovery.
    fn writing(
        &self,
        doing: &'static str,
        run: impl FnOnce(&Files) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let result = self.with(doing, run);
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }

    fn note_full(&self, checked: Result<(), StoreError>) -> Result<(), StoreError> {
        self.full.store(matches!(checked, Err(StoreError::Full)), Ordering::Release);
        checked
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut files = self.files.write();
        if let Some(files) = &*files {
            self.unsynced_log.fetch_or(files.log.sync_failed(), Ordering::AcqRel);
            self.unsynced_data.fetch_or(files.data.sync_failed(), Ordering::AcqRel);
        }
        // sled holds a lock on its file until the last handle is gone.
        *files = None;
        *files = Some(catch_panic("opening the hub again", || {
            for (name, unsynced) in [(LOG, &self.unsynced_log), (DATA, &self.unsynced_data)] {
                if unsynced.load(Ordering::Acquire) {
                    database::rewrite(&self.folder.join(name), &*self.options.data_sync)?;
                    unsynced.store(false, Ordering::Release);
                }
            }
            open::reopen(&self.folder, &self.options, self.partitions)
        })?);
        self.failed.store(false, Ordering::Release);
        Ok(())
    }
}

impl Store for SledStore {
    fn info(&self) -> HubInfo {
        HubInfo { partitions: self.partitions }
    }

    fn append(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        let bytes = records.iter().map(|record| record.bytes.len() as u64).sum();
        self.note_full(self.space.check_append(bytes))?;
        self.writing("appending to the log", |files| files.log.append(records))?;
        self.metrics.syncs.fetch_add(1, Ordering::Relaxed);
        self.metrics.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.records.fetch_add(records.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn read_log(
        &self,
        partition: PartitionId,
        after: Position,
        visit: &mut dyn FnMut(Position, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.with("reading the log", |files| files.log.read(partition, after, visit))
    }

    fn materialise(&self, partition: PartitionId, batch: &Materialisation) -> Result<(), StoreError> {
        let bytes = batch.bytes();
        self.note_full(self.space.check_materialisation(bytes))?;
        self.writing("materialising", |files| {
            // First the directory: an instance that a crash leaves written reflects its records already, so the next
            // materialisation does not write it again, nor what the directory says of it.
            files.directory.note(&batch.instances)?;
            files.instances.write(&files.pieces, &batch.instances)?;
            files.cleaning.note_removals(files.instances.take_removed() + files.pieces.take_removed())?;
            for row in &batch.rows {
                files.rows.write(&files.pieces, partition, row)?;
            }
            files.rows.write_position(partition, batch.upto)
        })?;
        self.metrics.materialised_instances.fetch_add(batch.instances.len() as u64, Ordering::Relaxed);
        self.metrics.materialised_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn truncate_log(&self, partition: PartitionId, upto: Position) -> Result<(), StoreError> {
        self.writing("truncating the log", |files| {
            files.make_data_durable()?;
            files.log.truncate(partition, upto)
        })
    }

    fn load_partition(&self, partition: PartitionId) -> Result<PartitionSnapshot, StoreError> {
        self.with("reading a partition", |files| files.rows.load(&files.pieces, partition))
    }

    fn load_instance(&self, instance: &InstanceId) -> Result<Option<StoredInstance>, StoreError> {
        self.with("reading an instance", |files| files.instances.load(&files.pieces, instance, Detail::State))
    }

    fn load_history(&self, instance: &InstanceId) -> Result<Vec<u8>, StoreError> {
        self.with("reading a history", |files| files.instances.load_history(&files.pieces, instance))
    }

    fn find_instances(
        &self,
        filter: &InstanceFilter,
        after: Option<&InstanceId>,
        limit: usize,
        detail: Detail,
    ) -> Result<Found, StoreError> {
        self.with("searching instances", |files| {
            let ids = files.directory.find(filter, after, limit)?;
            let mut found = Found { instances: Vec::with_capacity(ids.len()), upto: ids.last().cloned() };
            // A page that is not full is the last one.
            found.upto.take_if(|_| ids.len() < limit);
            let mut bytes = 0;
            for id in ids {
                // One that is deleted at this moment is in the directory and not among the instances.
                let stored = files.instances.load(&files.pieces, &id, detail)?;
                let Some(stored) = stored else { continue };
                bytes += stored.bytes();
                found.instances.push(stored);
                if bytes > FOUND_BYTES_MAX {
                    found.upto = Some(id);
                    break;
                }
            }
            Ok(found)
        })
    }

    fn recover(&self) -> Result<(), StoreError> {
        if self.full.load(Ordering::Acquire) {
            self.note_full(self.space.check_append(0))?;
        }
        if self.failed.load(Ordering::Acquire) {
            self.reopen()?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.writing("making data durable", |files| {
            files.make_data_durable()?;
            files.log.make_durable()
        })?;
        self.metrics.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn metrics(&self) -> StoreMetrics {
        StoreMetrics {
            log_syncs: self.metrics.syncs.load(Ordering::Relaxed),
            log_bytes: self.metrics.bytes.load(Ordering::Relaxed),
            log_records: self.metrics.records.load(Ordering::Relaxed),
            materialised_instances: self.metrics.materialised_instances.load(Ordering::Relaxed),
            materialised_bytes: self.metrics.materialised_bytes.load(Ordering::Relaxed),
        }
    }
}
