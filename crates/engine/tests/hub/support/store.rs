//! A store in memory whose calls can be held back.

use std::sync::Arc;

use parking_lot::Mutex;
use steadfast_core::{InstanceId, PartitionId, Position};
use steadfast_engine::HubBuilder;
use steadfast_store::{
    HubInfo, LogRecord, Materialisation, MemoryStore, Operation, PartitionSnapshot, Store, StoreError,
    StoreMetrics, StoredInstance,
};

use super::{Counter, Gate};

/// Hands every call to a [`MemoryStore`], at once or when a gate is opened.
#[derive(Clone)]
pub(crate) struct GatedStore {
    pub(crate) memory: MemoryStore,
    /// Before an append.
    pub(crate) append: Gate,
    /// Before a materialisation.
    pub(crate) materialise: Gate,
    /// After an instance was read, before it is handed out.
    pub(crate) loaded: Gate,
    /// Before the store is put back into working order.
    pub(crate) recover: Gate,
    /// The call that panics next.
    pub(crate) panics: Arc<Mutex<Option<Operation>>>,
    pub(crate) materialisations: Counter,
    /// The partition that cannot be materialised.
    pub(crate) refused: Arc<Mutex<Option<PartitionId>>>,
}

impl GatedStore {
    pub(crate) fn new(partitions: u16) -> Self {
        Self {
            memory: MemoryStore::new(partitions),
            append: Gate::default(),
            materialise: Gate::default(),
            loaded: Gate::default(),
            recover: Gate::default(),
            materialisations: Counter::default(),
            refused: Arc::default(),
            panics: Arc::default(),
        }
    }

    pub(crate) fn hub(&self) -> HubBuilder {
        let store = self.clone();
        HubBuilder::new(move |_| Ok(Arc::new(store)))
    }
}

impl GatedStore {
    fn panic_in(&self, operation: Operation) {
        let due = self.panics.lock().take_if(|due| *due == operation).is_some();
        assert!(!due, "the store panics in {operation:?}");
    }
}

impl Store for GatedStore {
    fn info(&self) -> HubInfo {
        self.memory.info()
    }

    fn append(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        self.append.pass();
        self.panic_in(Operation::Append);
        self.memory.append(records)
    }

    fn read_log(
        &self,
        partition: PartitionId,
        after: Position,
        visit: &mut dyn FnMut(Position, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.memory.read_log(partition, after, visit)
    }

    fn materialise(&self, partition: PartitionId, batch: &Materialisation) -> Result<(), StoreError> {
        self.materialise.pass();
        self.panic_in(Operation::Materialise);
        if *self.refused.lock() == Some(partition) {
            let problem = "this partition is refused".to_owned();
            return Err(StoreError::Io { doing: "running a test", problem });
        }
        let done = self.memory.materialise(partition, batch);
        self.materialisations.add();
        done
    }

    fn truncate_log(&self, partition: PartitionId, upto: Position) -> Result<(), StoreError> {
        self.memory.truncate_log(partition, upto)
    }

    fn load_partition(&self, partition: PartitionId) -> Result<PartitionSnapshot, StoreError> {
        self.memory.load_partition(partition)
    }

    fn load_instance(&self, instance: &InstanceId) -> Result<Option<StoredInstance>, StoreError> {
        self.panic_in(Operation::Load);
        let loaded = self.memory.load_instance(instance);
        self.loaded.pass();
        loaded
    }

    fn load_history(&self, instance: &InstanceId) -> Result<Vec<u8>, StoreError> {
        self.memory.load_history(instance)
    }

    fn scan_instances(
        &self,
        prefix: &str,
        after: Option<&InstanceId>,
        limit: usize,
    ) -> Result<Vec<StoredInstance>, StoreError> {
        self.memory.scan_instances(prefix, after, limit)
    }

    fn recover(&self) -> Result<(), StoreError> {
        self.recover.pass();
        self.memory.recover()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.memory.flush()
    }

    fn metrics(&self) -> StoreMetrics {
        self.memory.metrics()
    }
}
