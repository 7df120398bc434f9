//! A store in memory whose calls can be held back.

use std::sync::Arc;

use parking_lot::Mutex;
use steadfast_core::{InstanceId, PartitionId};
use steadfast_engine::HubBuilder;
use steadfast_store::{
    LogRecord, Materialisation, MemoryStore, Operation, Store, StoreError, StoreLayer, StoredInstance,
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

impl StoreLayer for GatedStore {
    fn inner(&self) -> &dyn Store {
        &self.memory
    }

    fn append(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        self.append.pass();
        self.panic_in(Operation::Append);
        self.memory.append(records)
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

    fn load_instance(&self, instance: &InstanceId) -> Result<Option<StoredInstance>, StoreError> {
        self.panic_in(Operation::Load);
        let loaded = self.memory.load_instance(instance);
        self.loaded.pass();
        loaded
    }

    fn recover(&self) -> Result<(), StoreError> {
        self.recover.pass();
        self.memory.recover()
    }
}
