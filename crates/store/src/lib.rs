//! The contract between the runtime and what keeps its data, an in-memory implementation of it, and the behaviour
//! suite that every implementation runs (feature `suite`).
//!
//! A store keeps two things for each partition: a *commit log* of records, to which the critical path only appends,
//! and the *instance store*, into which the materialiser moves what the log says, in the background. A store knows
//! nothing of events: states, histories, rows and records are bytes to it.

pub mod bridge;
mod coded;
mod error;
mod layer;
mod memory;
mod payload;
#[cfg(feature = "suite")]
pub mod suite;

pub use coded::{CodecFailure, CodedStore, StorageCodec};
pub use error::StoreError;
pub use layer::StoreLayer;
pub use memory::{Fault, FaultPoint, MemoryStore, Operation, Survival};
pub use payload::PayloadWrite;

use std::sync::Arc;

use steadfast_core::{InstanceFacts, InstanceFilter, InstanceId, PartitionId, Position};

/// What a store says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubInfo {
    /// How many partitions the task hub has: chosen at creation, recorded, unchangeable.
    pub partitions: u16,
}

/// One record for a partition's commit log.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// Whose log.
    pub partition: PartitionId,
    /// Its place: exactly one more than the previous record of that partition.
    pub position: Position,
    /// The encoded record.
    pub bytes: Arc<[u8]>,
}

/// What one materialisation writes for one partition.
#[derive(Debug, Clone, Default)]
pub struct Materialisation {
    /// The position that the instance store reflects afterwards.
    pub upto: Position,
    /// Changed instances, sorted by id, each at most once.
    pub instances: Vec<InstanceWrite>,
    /// Changed rows of the partition, sorted by key, each at most once.
    pub rows: Vec<RowWrite>,
}

impl Materialisation {
    /// The bytes of states, histories and rows in it, and of payloads that a store may not have yet, before they are encoded.
    pub fn bytes(&self) -> u64 {
        let instances = self.instances.iter().map(InstanceWrite::bytes);
        let rows = self.rows.iter().map(|row| row.key.len() + row.value.as_ref().map_or(0, Vec::len));
        instances.chain(rows).map(|bytes| bytes as u64).sum()
    }
}

/// A change of one instance.
#[derive(Debug, Clone)]
pub struct InstanceWrite {
    /// The instance.
    pub instance: InstanceId,
    /// The log position that the instance reflects after this write.
    pub reflects: Position,
    /// The change.
    pub change: InstanceChange,
}

impl InstanceWrite {
    /// The bytes of its state and its history, and of the payloads apart from the state if a new execution brings them or one has
    /// ended with them: before they are encoded.
    pub fn bytes(&self) -> usize {
        match &self.change {
            InstanceChange::Put { state, payloads, history, fresh, ended, .. } => {
                let (HistoryChange::Append { bytes, .. } | HistoryChange::Replace(bytes)) = history;
                let may_be_new = *fresh || *ended || matches!(history, HistoryChange::Replace(_));
                let payloads = payloads.iter().filter(|_| may_be_new).map(PayloadWrite::text_bytes);
                state.len() + bytes.len() + payloads.sum::<usize>()
            }
            InstanceChange::Delete => 0,
        }
    }
}

/// How an instance changes.
#[derive(Debug, Clone)]
pub enum InstanceChange {
    /// Its state is replaced and its history grows or is replaced.
    Put {
        /// The encoded state, without the payloads that are apart from it.
        state: Arc<[u8]>,
        /// All payloads that are apart from the state. Others that were stored are removed.
        payloads: Vec<PayloadWrite>,
        /// How the history changes.
        history: HistoryChange,
        /// How many events the history has after this write.
        history_events: u64,
        /// Nothing was ever stored under this id, so no old value needs to be looked for; but an attempt to store it may have been
        /// interrupted by a crash.
        fresh: bool,
        /// The instance has ended: its history will probably not grow any more.
        ended: bool,
        /// What the instance is found by.
        facts: InstanceFacts,
    },
    /// It and its history are removed.
    Delete,
}

/// How a history changes.
#[derive(Debug, Clone)]
pub enum HistoryChange {
    /// `bytes` are the encoded events from number `at` (counted from 0) on; `at` is the number of events stored
    /// before. The bytes may be empty.
    Append {
        /// The number of the first event in `bytes`.
        at: u64,
        /// Encoded events.
        bytes: Arc<[u8]>,
    },
    /// Whatever was stored is dropped; these are the encoded events from number 0 on.
    Replace(Arc<[u8]>),
}

/// A change of one row of a partition: an unfinished activity, a timer, a message in the outbox and the like.
#[derive(Debug, Clone)]
pub struct RowWrite {
    /// The row's key within its partition, at most 1 KiB.
    pub key: Vec<u8>,
    /// Its new value, or none to remove it.
    pub value: Option<Vec<u8>>,
}

/// A stored instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredInstance {
    /// The instance.
    pub instance: InstanceId,
    /// The log position that it reflects.
    pub reflects: Position,
    /// The encoded state, without the payloads that are apart from it.
    pub state: Vec<u8>,
    /// These, by their slots, if they were asked for.
    pub payloads: Vec<(u8, Vec<u8>)>,
}

impl StoredInstance {
    /// The bytes of its state and its payloads.
    pub fn bytes(&self) -> usize {
        self.state.len() + self.payloads.iter().map(|(_, payload)| payload.len()).sum::<usize>()
    }
}

/// How much a search hands out of each instance that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detail {
    /// Its state without the payloads that are apart from it.
    Outline,
    /// Its state with all payloads.
    State,
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The instances, in id order, in as much detail as was asked for.
    pub instances: Vec<StoredInstance>,
    /// The search ended here, and goes on after this id; none when it came to the end.
    pub upto: Option<InstanceId>,
}

/// The partition's side of the instance store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionSnapshot {
    /// The position up to which the log has been materialised.
    pub upto: Position,
    /// All rows of the partition, in key order.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Counters of a store since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreMetrics {
    /// How many times data was made durable.
    pub log_syncs: u64,
    /// Bytes of records appended.
    pub log_bytes: u64,
    /// Records appended.
    pub log_records: u64,
    /// Instances written to the instance store; one that was deleted counts as well.
    pub materialised_instances: u64,
    /// Bytes handed in for the instance store, as [`Materialisation::bytes`] counts them, without what the store itself adds.
    pub materialised_bytes: u64,
}

/// Keeps the data of one task hub. All methods block; they are called from threads made for it, several at once.
///
/// A crash at any point leaves the effect of some prefix of the calls, and of a call that was under way either
/// nothing, or a part that the contract of that method names.
pub trait Store: Send + Sync + 'static {
    /// What was chosen when the hub was created.
    fn info(&self) -> HubInfo;

    /// Appends records and makes them durable, so that they survive power loss once this returns. Records of one
    /// partition are in order and without gaps, here and from call to call. After a crash within the call each
    /// partition's log holds a prefix of what was handed in for it.
    ///
    /// # Errors
    /// On any error the caller must take it that some, all or none of the records are in the log, must not append
    /// more, and recovers by reading the log again ([`Store::recover`] first).
    fn append(&self, records: &[LogRecord]) -> Result<(), StoreError>;

    /// Hands out the records of a partition after `after`, in order, one at a time.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a record is missing or incomplete, and whatever `visit` returns.
    fn read_log(
        &self,
        partition: PartitionId,
        after: Position,
        visit: &mut dyn FnMut(Position, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// Writes instances and rows, then the position. It need not be atomic: a crash in the middle leaves some writes
    /// done and the old position, each single instance's `reflects`, state and history agreeing with one another.
    /// It need not be durable before the next [`Store::append`] or [`Store::truncate_log`] is, but must not become
    /// durable after a truncation that follows it.
    ///
    /// # Errors
    /// Those of the storage; the materialisation may then be partly done and is repeated after recovery.
    fn materialise(&self, partition: PartitionId, batch: &Materialisation) -> Result<(), StoreError>;

    /// Forgets the records of a partition up to and including `upto`, which has been materialised.
    ///
    /// # Errors
    /// Those of the storage.
    fn truncate_log(&self, partition: PartitionId, upto: Position) -> Result<(), StoreError>;

    /// Reads the partition's position and rows.
    ///
    /// # Errors
    /// Those of the storage.
    fn load_partition(&self, partition: PartitionId) -> Result<PartitionSnapshot, StoreError>;

    /// Reads an instance with all payloads, without its history.
    ///
    /// # Errors
    /// Those of the storage.
    fn load_instance(&self, instance: &InstanceId) -> Result<Option<StoredInstance>, StoreError>;

    /// Reads the encoded events of an instance's history, all of them; empty when there is no such instance.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a piece is missing.
    fn load_history(&self, instance: &InstanceId) -> Result<Vec<u8>, StoreError>;

    /// Finds instances with ids greater than `after` that match the filter by the facts that were written with them, in
    /// id order, at most `limit`. None that is stored and matches for as long as the call lasts is left out; some that
    /// do not match may be among them, so the caller looks at their states. What lasts is short even among millions
    /// of instances: a store keeps what it takes to find them.
    ///
    /// # Errors
    /// Those of the storage.
    fn find_instances(
        &self,
        filter: &InstanceFilter,
        after: Option<&InstanceId>,
        limit: usize,
        detail: Detail,
    ) -> Result<Found, StoreError>;

    /// Puts the store back into working order after an error, as far as that is possible, before the partitions are
    /// rebuilt from it. Reopening files is the typical content. Without an error it does nothing.
    ///
    /// # Errors
    /// When the cause persists.
    fn recover(&self) -> Result<(), StoreError>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// Those of the storage.
    fn flush(&self) -> Result<(), StoreError>;

    /// Counters since it was opened.
    fn metrics(&self) -> StoreMetrics;
}
