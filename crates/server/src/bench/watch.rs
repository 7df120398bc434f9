//! Watches a run from within: what took long at the store and at the disk, and when no thread got a processor. So a
//! stall can be put down to something.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use steadfast_core::{InstanceFilter, InstanceId, PartitionId, Position};
use steadfast_store::{
    Detail, Found, LogRecord, Materialisation, Store, StoreError, StoreLayer, StoreMetrics, StoredInstance,
};
use steadfast_store_sled::{DataSync, Fdatasync, SledOptions, SledStore};

/// What takes longer is noted.
const SLOW: Duration = Duration::from_millis(10);

/// How often the thread looks that does nothing but look whether it is let run.
const LOOK: Duration = Duration::from_millis(5);

/// Something that took long.
#[derive(Debug, Clone)]
pub(super) struct Slow {
    what: &'static str,
    began: Instant,
    took: Duration,
}

/// What is known of a run.
#[derive(Default)]
pub(super) struct Watch {
    slow: Mutex<Vec<Slow>>,
    histories_read: AtomicU64,
    store: Mutex<Option<Arc<dyn Store>>>,
}

impl Watch {
    /// Opens the store in `folder`, watched.
    pub(super) fn open(
        self: &Arc<Self>,
        folder: &Path,
        partitions: Option<u16>,
    ) -> Result<Arc<dyn Store>, StoreError> {
        let data_sync = Arc::new(WatchedSync(self.clone()));
        let inner = SledStore::open(folder, SledOptions { partitions, data_sync, ..SledOptions::default() })?;
        let store: Arc<dyn Store> = Arc::new(WatchedStore { inner, watch: self.clone() });
        *self.store.lock() = Some(store.clone());
        Ok(store)
    }

    /// What the store has counted, also when its hub has stopped; until it is let go of.
    pub(super) fn metrics(&self) -> StoreMetrics {
        self.store.lock().as_ref().map(|store| store.metrics()).unwrap_or_default()
    }

    /// How many histories were read from the store, which is when a session has to be made anew or somebody asks.
    pub(super) fn histories_read(&self) -> u64 {
        self.histories_read.load(Ordering::Relaxed)
    }

    /// Lets the store be closed.
    pub(super) fn release(&self) {
        *self.store.lock() = None;
    }

    /// What took long and was under way between two moments, the longest of each kind.
    pub(super) fn between(&self, from: Instant, to: Instant) -> Vec<String> {
        let mut longest: Vec<(&'static str, Duration)> = Vec::new();
        for slow in self.slow.lock().iter().filter(|slow| slow.began < to && slow.began + slow.took > from) {
            match longest.iter_mut().find(|(what, _)| *what == slow.what) {
                Some((_, took)) => *took = slow.took.max(*took),
                None => longest.push((slow.what, slow.took)),
            }
        }
        longest.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        longest.iter().map(|(what, took)| format!("{what} {} ms", took.as_millis())).collect()
    }

    fn time<T>(&self, what: &'static str, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        self.note(what, began, began.elapsed());
        done
    }

    fn note(&self, what: &'static str, began: Instant, took: Duration) {
        if took >= SLOW {
            self.slow.lock().push(Slow { what, began, took });
        }
    }
}

/// The store, watched.
struct WatchedStore {
    inner: SledStore,
    watch: Arc<Watch>,
}

impl StoreLayer for WatchedStore {
    fn inner(&self) -> &dyn Store {
        &self.inner
    }

    fn append(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        self.watch.time("append", || self.inner.append(records))
    }

    fn materialise(&self, partition: PartitionId, batch: &Materialisation) -> Result<(), StoreError> {
        self.watch.time("materialising", || self.inner.materialise(partition, batch))
    }

    fn truncate_log(&self, partition: PartitionId, upto: Position) -> Result<(), StoreError> {
        self.watch.time("making data durable and truncating", || self.inner.truncate_log(partition, upto))
    }

    fn load_instance(&self, instance: &InstanceId) -> Result<Option<StoredInstance>, StoreError> {
        self.watch.time("loading an instance", || self.inner.load_instance(instance))
    }

    fn load_history(&self, instance: &InstanceId) -> Result<Vec<u8>, StoreError> {
        self.watch.histories_read.fetch_add(1, Ordering::Relaxed);
        self.watch.time("loading a history", || self.inner.load_history(instance))
    }

    fn find_instances(
        &self,
        filter: &InstanceFilter,
        after: Option<&InstanceId>,
        limit: usize,
        detail: Detail,
    ) -> Result<Found, StoreError> {
        self.watch.time("a page of instances", || self.inner.find_instances(filter, after, limit, detail))
    }
}

/// fdatasync, watched.
struct WatchedSync(Arc<Watch>);

impl DataSync for WatchedSync {
    fn sync(&self, file: &File) -> io::Result<()> {
        self.0.time("fdatasync", || Fdatasync.sync(file))
    }
}

/// A thread that wakes up often, and notes when it was not let run in time; ends with this.
pub(super) struct ProcessorWatch {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ProcessorWatch {
    pub(super) fn start(watch: &Arc<Watch>) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let (watch, ends) = (watch.clone(), ending.clone());
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(LOOK);
                watch.note("no processor", began, began.elapsed().saturating_sub(LOOK));
            }
        });
        Self { ending, thread: Some(thread) }
    }
}

impl Drop for ProcessorWatch {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that only sleeps does not panic.
            let _ = thread.join();
        }
    }
}
