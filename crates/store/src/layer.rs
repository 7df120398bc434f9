//! A store around another one.

use steadfast_core::{InstanceFilter, InstanceId, PartitionId, Position};

use crate::{
    Detail, Found, HubInfo, LogRecord, Materialisation, PartitionSnapshot, Store, StoreError, StoreMetrics,
    StoredInstance,
};

/// A store that hands every call to another one, but for those that it does itself: measuring, holding back, failing
/// on purpose. Whatever implements it is a [`Store`].
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use steadfast_store::{LogRecord, MemoryStore, Store, StoreError, StoreLayer};
///
/// struct CountingAppends {
///     inner: MemoryStore,
///     appends: AtomicU64,
/// }
///
/// impl StoreLayer for CountingAppends {
///     fn inner(&self) -> &dyn Store {
///         &self.inner
///     }
///
///     fn append(&self, records: &[LogRecord]) -> Result<(), StoreError> {
///         self.appends.fetch_add(1, Ordering::Relaxed);
///         self.inner.append(records)
///     }
/// }
///
/// let store = CountingAppends { inner: MemoryStore::new(4), appends: AtomicU64::new(0) };
/// let outermost: &dyn Store = &store;
/// outermost.append(&[]).unwrap();
/// assert_eq!(outermost.info().partitions, 4);
/// assert_eq!(store.appends.into_inner(), 1);
/// ```
#[expect(clippy::missing_errors_doc, reason = "what each method does, and its errors, is written at Store")]
pub trait StoreLayer: Send + Sync + 'static {
    /// The store within.
    fn inner(&self) -> &dyn Store;

    /// See [`Store::info`].
    fn info(&self) -> HubInfo {
        self.inner().info()
    }

    /// See [`Store::append`].
    fn append(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        self.inner().append(records)
    }

    /// See [`Store::read_log`].
    fn read_log(
        &self,
        partition: PartitionId,
        after: Position,
        visit: &mut dyn FnMut(Position, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.inner().read_log(partition, after, visit)
    }

    /// See [`Store::materialise`].
    fn materialise(&self, partition: PartitionId, batch: &Materialisation) -> Result<(), StoreError> {
        self.inner().materialise(partition, batch)
    }

    /// See [`Store::truncate_log`].
    fn truncate_log(&self, partition: PartitionId, upto: Position) -> Result<(), StoreError> {
        self.inner().truncate_log(partition, upto)
    }

    /// See [`Store::load_partition`].
    fn load_partition(&self, partition: PartitionId) -> Result<PartitionSnapshot, StoreError> {
        self.inner().load_partition(partition)
    }

    /// See [`Store::load_instance`].
    fn load_instance(&self, instance: &InstanceId) -> Result<Option<StoredInstance>, StoreError> {
        self.inner().load_instance(instance)
    }

    /// See [`Store::load_history`].
    fn load_history(&self, instance: &InstanceId) -> Result<Vec<u8>, StoreError> {
        self.inner().load_history(instance)
    }

    /// See [`Store::find_instances`].
    fn find_instances(
        &self,
        filter: &InstanceFilter,
        after: Option<&InstanceId>,
        limit: usize,
        detail: Detail,
    ) -> Result<Found, StoreError> {
        self.inner().find_instances(filter, after, limit, detail)
    }

    /// See [`Store::recover`].
    fn recover(&self) -> Result<(), StoreError> {
        self.inner().recover()
    }

    /// See [`Store::flush`].
    fn flush(&self) -> Result<(), StoreError> {
        self.inner().flush()
    }

    /// See [`Store::metrics`].
    fn metrics(&self) -> StoreMetrics {
        self.inner().metrics()
    }
}

impl<L: StoreLayer> Store for L {
    fn info(&self) -> HubInfo {
        StoreLayer::info(self)
    }

    fn append(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        StoreLayer::append(self, records)
    }

    fn read_log(
        &self,
        partition: PartitionId,
        after: Position,
        visit: &mut dyn FnMut(Position, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        StoreLayer::read_log(self, partition, after, visit)
    }

    fn materialise(&self, partition: PartitionId, batch: &Materialisation) -> Result<(), StoreError> {
        StoreLayer::materialise(self, partition, batch)
    }

    fn truncate_log(&self, partition: PartitionId, upto: Position) -> Result<(), StoreError> {
        StoreLayer::truncate_log(self, partition, upto)
    }

    fn load_partition(&self, partition: PartitionId) -> Result<PartitionSnapshot, StoreError> {
        StoreLayer::load_partition(self, partition)
    }

    fn load_instance(&self, instance: &InstanceId) -> Result<Option<StoredInstance>, StoreError> {
        StoreLayer::load_instance(self, instance)
    }

    fn load_history(&self, instance: &InstanceId) -> Result<Vec<u8>, StoreError> {
        StoreLayer::load_history(self, instance)
    }

    fn find_instances(
        &self,
        filter: &InstanceFilter,
        after: Option<&InstanceId>,
        limit: usize,
        detail: Detail,
    ) -> Result<Found, StoreError> {
        StoreLayer::find_instances(self, filter, after, limit, detail)
    }

    fn recover(&self) -> Result<(), StoreError> {
        StoreLayer::recover(self)
    }

    fn flush(&self) -> Result<(), StoreError> {
        StoreLayer::flush(self)
    }

    fn metrics(&self) -> StoreMetrics {
        StoreLayer::metrics(self)
    }
}
