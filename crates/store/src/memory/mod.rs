//! A store in memory, with faults and crashes that a test scripts.
//!
//! What the store does to its data is a sequence of single *steps*: one record written, one instance written, one row
//! written, one record removed, one synchronisation, and so on. A crash can be placed before any step
//! ([`MemoryStore::crash_at`]); whatever survives it is a prefix of the writes, at least those that were synchronised
//! ([`Survival`]). So a test runs once undisturbed, asks for [`MemoryStore::steps`], and then runs once for each step:
//!
//! ```
//! # use steadfast_core::{PartitionId, Position};
//! # use steadfast_store::{LogRecord, MemoryStore, Store, Survival};
//! let work = |store: &MemoryStore| {
//!     let bytes = b"hello".as_slice().into();
//!     store.append(&[LogRecord { partition: PartitionId(0), position: Position(1), bytes }])
//! };
//! let undisturbed = MemoryStore::new(1);
//! work(&undisturbed).unwrap();
//! assert_eq!(undisturbed.steps(), 2); // the record is written; it is synchronised
//!
//! for step in 0..undisturbed.steps() {
//!     let store = MemoryStore::new(1);
//!     store.crash_at(step);
//!     assert!(work(&store).is_err());
//!     let survivor = store.crash_image(Survival::Synced);
//!     survivor.read_log(PartitionId(0), Position::ZERO, &mut |_, _| unreachable!("nothing was durable")).unwrap();
//! }
//! ```

mod disk;
mod faults;

use std::sync::Arc;

use parking_lot::Mutex;
use steadfast_core::{InstanceFilter, InstanceId, PartitionId, Position};

pub use self::faults::{Fault, FaultPoint, Operation, Survival};

use self::disk::{Disk, Write};
use self::faults::Faults;
use crate::{
    Detail, Found, HubInfo, InstanceChange, LogRecord, Materialisation, PartitionSnapshot, PayloadWrite,
    Store, StoreError, StoreMetrics, StoredInstance,
};

/// A store that keeps everything in memory. It is a handle: clones share the data, so a test can hand one to the
/// runtime and keep another to script faults with.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Mutex<Inner>>,
}

struct Inner {
    partitions: u16,
    /// What a reader sees.
    current: Disk,
    /// What survives a crash for certain.
    synced: Disk,
    /// The writes that lead from `synced` to `current`.
    unsynced: Vec<Write>,
    faults: Faults,
    /// An append failed, and [`Store::recover`] wasn't called since.
    must_recover: bool,
    metrics: StoreMetrics,
}

impl MemoryStore {
    /// An empty store for a hub with so many partitions.
    pub fn new(partitions: u16) -> Self {
        Self::from_disk(partitions, Disk::default())
    }

    fn from_disk(partitions: u16, disk: Disk) -> Self {
        let inner = Inner {
            partitions,
            current: disk.clone(),
            synced: disk,
            unsynced: Vec::new(),
            faults: Faults::default(),
            must_recover: false,
            metrics: StoreMetrics::default(),
        };
        Self { shared: Arc::new(Mutex::new(inner)) }
    }

    /// Scripts an error. Several can be scripted; each happens once.
    pub fn fail(&self, fault: Fault) {
        self.shared.lock().faults.add(fault);
    }

    /// How many steps the store has performed, which is how many crash points a run has passed.
    pub fn steps(&self) -> u64 {
        self.shared.lock().faults.steps()
    }

    /// Makes the store crash instead of performing step number `step` (counted from 0 since it was made): that call
    /// and all later ones fail.
    pub fn crash_at(&self, step: u64) {
        self.shared.lock().faults.crash_at(step);
    }

    /// Makes the store crash now: all later calls fail.
    pub fn crash(&self) {
        self.shared.lock().faults.crash();
    }

    /// Whether it has crashed.
    pub fn has_crashed(&self) -> bool {
        self.shared.lock().faults.has_crashed()
    }

    /// How many writes would be lost by a crash now, if nothing but what was synchronised survived.
    pub fn unsynced_writes(&self) -> usize {
        self.shared.lock().unsynced.len()
    }

    /// A new store, without faults, that holds what is left after a crash. This store stays as it is, so that one
    /// crash can be looked at with several survivals.
    pub fn crash_image(&self, survival: Survival) -> Self {
        let inner = self.shared.lock();
        let count = match survival {
            Survival::Synced => 0,
            Survival::Written => inner.unsynced.len(),
            Survival::FirstWrites(count) => count.min(inner.unsynced.len()),
        };
        let mut disk = inner.synced.clone();
        for write in &inner.unsynced[..count] {
            disk.apply(write);
        }
        Self::from_disk(inner.partitions, disk)
    }

    /// A new store, without faults, that holds what this one does, as after a clean stop and start.
    pub fn reopen(&self) -> Self {
        self.crash_image(Survival::Written)
    }
}

impl Inner {
    fn write(&mut self, write: Write) -> Result<(), StoreError> {
        self.faults.step()?;
        self.current.apply(&write);
        self.unsynced.push(write);
        self.faults.written()
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.faults.begin(Operation::Sync)?;
        self.faults.step()?;
        for write in self.unsynced.drain(..) {
            self.synced.apply(&write);
        }
        self.metrics.log_syncs += 1;
        self.faults.end(Operation::Sync)
    }

    fn append(&mut self, records: &[LogRecord]) -> Result<(), StoreError> {
        self.faults.begin(Operation::Append)?;
        for record in records {
            self.current.check_next(record)?;
            self.write(Write::Record(record.clone()))?;
        }
        self.sync()?;
        self.metrics.log_records += records.len() as u64;
        self.metrics.log_bytes += records.iter().map(|record| record.bytes.len() as u64).sum::<u64>();
        self.faults.end(Operation::Append)
    }

    fn materialise(&mut self, partition: PartitionId, batch: &Materialisation) -> Result<(), StoreError> {
        self.faults.begin(Operation::Materialise)?;
        for instance in &batch.instances {
            self.current.check_history(instance)?;
            let payloads = match &instance.change {
                InstanceChange::Put { payloads, .. } => payloads.as_slice(),
                InstanceChange::Delete => &[],
            };
            let bytes = |it: &PayloadWrite| it.bytes().map(|bytes| (it.slot(), it.name(), bytes));
            let payloads = payloads.iter().map(bytes).collect::<Result<_, _>>()?;
            self.write(Write::Instance(Box::new(instance.clone()), payloads))?;
        }
        for row in &batch.rows {
            self.write(Write::Row(partition, row.clone()))?;
        }
        self.write(Write::Upto(partition, batch.upto))?;
        self.metrics.materialised_instances += batch.instances.len() as u64;
        self.metrics.materialised_bytes += batch.bytes();
        self.faults.end(Operation::Materialise)
    }

    fn truncate_log(&mut self, partition: PartitionId, upto: Position) -> Result<(), StoreError> {
        self.faults.begin(Operation::Truncate)?;
        for position in self.current.positions_upto(partition, upto) {
            self.write(Write::Truncated(partition, position))?;
        }
        self.faults.end(Operation::Truncate)
    }

    fn load<T>(&mut self, read: impl FnOnce(&Disk) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.faults.begin(Operation::Load)?;
        let value = read(&self.current)?;
        self.faults.end(Operation::Load)?;
        Ok(value)
    }
}

impl Store for MemoryStore {
    fn info(&self) -> HubInfo {
        HubInfo { partitions: self.shared.lock().partitions }
    }

    fn append(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        let mut inner = self.shared.lock();
        if inner.must_recover {
            let problem = "an append failed before; recover first".to_owned();
            return Err(StoreError::Io { doing: "appending to the log", problem });
        }
        let result = inner.append(records);
        inner.must_recover = result.is_err();
        result
    }

    fn read_log(
        &self,
        partition: PartitionId,
        after: Position,
        visit: &mut dyn FnMut(Position, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let records = self.shared.lock().load(|disk| Ok(disk.records_after(partition, after)))?;
        let mut expected = after.next();
        for (position, bytes) in records {
            if position != expected {
                return Err(StoreError::Corrupt {
                    place: format!("log of {partition}"),
                    problem: format!("record {expected} is missing before record {position}"),
                });
            }
            expected = position.next();
            visit(position, bytes.to_vec())?;
        }
        Ok(())
    }

    fn materialise(&self, partition: PartitionId, batch: &Materialisation) -> Result<(), StoreError> {
        self.shared.lock().materialise(partition, batch)
    }

    fn truncate_log(&self, partition: PartitionId, upto: Position) -> Result<(), StoreError> {
        self.shared.lock().truncate_log(partition, upto)
    }

    fn load_partition(&self, partition: PartitionId) -> Result<PartitionSnapshot, StoreError> {
        self.shared.lock().load(|disk| Ok(disk.snapshot(partition)))
    }

    fn load_instance(&self, instance: &InstanceId) -> Result<Option<StoredInstance>, StoreError> {
        self.shared.lock().load(|disk| Ok(disk.instance(instance)))
    }

    fn load_history(&self, instance: &InstanceId) -> Result<Vec<u8>, StoreError> {
        self.shared.lock().load(|disk| Ok(disk.history(instance)))
    }

    fn find_instances(
        &self,
        filter: &InstanceFilter,
        after: Option<&InstanceId>,
        limit: usize,
        detail: Detail,
    ) -> Result<Found, StoreError> {
        self.shared.lock().load(|disk| Ok(disk.find(filter, after, limit, detail)))
    }

    fn recover(&self) -> Result<(), StoreError> {
        let mut inner = self.shared.lock();
        inner.faults.check_crashed()?;
        if inner.must_recover {
            // What the log holds now will be acted upon, so it must not get lost any more.
            inner.sync()?;
            inner.must_recover = false;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.shared.lock().sync()
    }

    fn metrics(&self) -> StoreMetrics {
        self.shared.lock().metrics
    }
}

#[cfg(test)]
mod tests;
