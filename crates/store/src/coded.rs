//! A store whose bytes go through a codec of the user's, such as encryption at rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast_core::{InstanceFilter, InstanceId, PartitionId, Position};

use crate::{
    Detail, Found, HistoryChange, InstanceChange, InstanceWrite, LogRecord, Materialisation,
    PartitionSnapshot, RowWrite, Store, StoreError, StoreLayer, StoreMetrics, StoredInstance,
};

/// What a codec may fail with.
pub type CodecFailure = Box<dyn std::error::Error + Send + Sync>;

/// Changes everything that a hub writes on its way to the store, and back: records, states, histories and rows, and with
/// them all payloads, messages and reasons. What a store needs to find things by stays readable: instance ids, the execution
/// ids of those with long payloads, and what instances can be queried by (of names, versions and tags the store on sled only keeps
/// short hashes).
///
/// The two methods are called from several threads at once. They may be random, such as an encryption with a fresh
/// nonce: nothing ever compares encoded bytes. A hub must be opened with a codec that decodes what was encoded before;
/// to change a key, let the codec write which one it used.
///
/// ```
/// use steadfast_store::{CodecFailure, StorageCodec};
///
/// /// Not an encryption, but it shows where one goes.
/// struct Reversed;
///
/// impl StorageCodec for Reversed {
///     fn encode(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecFailure> {
///         Ok(bytes.iter().rev().copied().collect())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecFailure> {
///         Ok(bytes.iter().rev().copied().collect())
///     }
/// }
/// ```
pub trait StorageCodec: Send + Sync + 'static {
    /// What is to be stored in place of `bytes`.
    ///
    /// # Errors
    /// Whatever prevents it. Nothing is written then, and the partition is rebuilt and tries again.
    fn encode(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecFailure>;

    /// What [`StorageCodec::encode`] was given.
    ///
    /// # Errors
    /// When the bytes are damaged or were encoded in a way that this codec does not know, such as another key.
    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecFailure>;
}

/// Stands in front of everything that went through a codec; nothing that the runtime encodes begins so.
const MARK: u8 = 0xff;

/// A store behind a codec.
pub struct CodedStore {
    inner: Arc<dyn Store>,
    codec: Arc<dyn StorageCodec>,
    /// Bytes of records before they were encoded.
    appended: AtomicU64,
    /// Bytes of states, payloads, histories and rows likewise.
    materialised: AtomicU64,
}

impl CodedStore {
    /// Puts `codec` in front of `inner`.
    pub fn new(inner: Arc<dyn Store>, codec: Arc<dyn StorageCodec>) -> Self {
        Self { inner, codec, appended: AtomicU64::new(0), materialised: AtomicU64::new(0) }
    }

    fn encode(&self, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
        encode(&*self.codec, bytes)
    }

    fn decode(&self, place: impl Fn() -> String, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
        match bytes.split_first() {
            Some((&MARK, coded)) => self.codec.decode(coded).map_err(|error| StoreError::Corrupt {
                place: place(),
                problem: format!("the hub's codec cannot read it: {error}"),
            }),
            _ => Err(StoreError::Corrupt {
                place: place(),
                problem: "it was written without a codec; open the hub without one".to_owned(),
            }),
        }
    }

    fn decode_state(&self, mut stored: StoredInstance) -> Result<StoredInstance, StoreError> {
        let place = || format!("the state of instance '{}'", stored.instance);
        stored.state = self.decode(place, &stored.state)?;
        for (_, payload) in &mut stored.payloads {
            *payload = self.decode(place, payload)?;
        }
        Ok(stored)
    }

    /// A piece of a history, with its length: pieces are stored one behind the other.
    fn encode_piece(&self, bytes: &[u8]) -> Result<Arc<[u8]>, StoreError> {
        if bytes.is_empty() {
            return Ok(Arc::from([]));
        }
        let coded = self.encode(bytes)?;
        let len = u32::try_from(coded.len()).map_err(|_| StoreError::Io {
            doing: "encoding what is to be stored",
            problem: format!("a piece of a history has {} bytes", coded.len()),
        })?;
        Ok([&len.to_le_bytes()[..], &coded].concat().into())
    }

    fn encode_instance(&self, write: &InstanceWrite) -> Result<InstanceWrite, StoreError> {
        let mut write = write.clone();
        if let InstanceChange::Put { state, payloads, history, .. } = &mut write.change {
            *state = self.encode(state)?.into();
            for payload in payloads {
                let codec = self.codec.clone();
                *payload = payload.then(move |bytes| Ok(encode(&*codec, bytes)?.into()));
            }
            match history {
                HistoryChange::Append { bytes, .. } | HistoryChange::Replace(bytes) => {
                    *bytes = self.encode_piece(bytes)?;
                }
            }
        }
        Ok(write)
    }
}

fn encode(codec: &dyn StorageCodec, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    let failed = |error: CodecFailure| StoreError::Io {
        doing: "encoding what is to be stored",
        problem: error.to_string(),
    };
    let mut coded = codec.encode(bytes).map_err(failed)?;
    coded.insert(0, MARK);
    Ok(coded)
}

impl StoreLayer for CodedStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn append(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        let encode = |record: &LogRecord| {
            Ok(LogRecord { bytes: self.encode(&record.bytes)?.into(), ..record.clone() })
        };
        self.inner.append(&records.iter().map(encode).collect::<Result<Vec<_>, StoreError>>()?)?;
        let bytes: usize = records.iter().map(|record| record.bytes.len()).sum();
        self.appended.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    fn read_log(
        &self,
        partition: PartitionId,
        after: Position,
        visit: &mut dyn FnMut(Position, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.inner.read_log(partition, after, &mut |position, bytes| {
            visit(position, self.decode(|| format!("record {position} of {partition}"), &bytes)?)
        })
    }

    fn materialise(&self, partition: PartitionId, batch: &Materialisation) -> Result<(), StoreError> {
        let encode_row = |row: &RowWrite| {
            let value = row.value.as_deref().map(|value| self.encode(value)).transpose()?;
            Ok(RowWrite { key: row.key.clone(), value })
        };
        let instances = batch.instances.iter().map(|write| self.encode_instance(write));
        let coded = Materialisation {
            upto: batch.upto,
            instances: instances.collect::<Result<_, StoreError>>()?,
            rows: batch.rows.iter().map(encode_row).collect::<Result<_, StoreError>>()?,
        };
        self.inner.materialise(partition, &coded)?;
        self.materialised.fetch_add(batch.bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn load_partition(&self, partition: PartitionId) -> Result<PartitionSnapshot, StoreError> {
        let mut snapshot = self.inner.load_partition(partition)?;
        for (_, value) in &mut snapshot.rows {
            *value = self.decode(|| format!("a row of {partition}"), value)?;
        }
        Ok(snapshot)
    }

    fn load_instance(&self, instance: &InstanceId) -> Result<Option<StoredInstance>, StoreError> {
        self.inner.load_instance(instance)?.map(|stored| self.decode_state(stored)).transpose()
    }

    fn load_history(&self, instance: &InstanceId) -> Result<Vec<u8>, StoreError> {
        let coded = self.inner.load_history(instance)?;
        let place = || format!("the history of instance '{instance}'");
        let mut history = Vec::with_capacity(coded.len());
        let mut rest = &coded[..];
        while !rest.is_empty() {
            let piece = rest.split_first_chunk().and_then(|(len, rest)| {
                rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)
            });
            let Some((piece, after)) = piece else {
                let problem = "a piece is cut off, or was written without a codec".to_owned();
                return Err(StoreError::Corrupt { place: place(), problem });
            };
            history.extend(self.decode(place, piece)?);
            rest = after;
        }
        Ok(history)
    }

    fn find_instances(
        &self,
        filter: &InstanceFilter,
        after: Option<&InstanceId>,
        limit: usize,
        detail: Detail,
    ) -> Result<Found, StoreError> {
        let mut found = self.inner.find_instances(filter, after, limit, detail)?;
        let decoded = found.instances.into_iter().map(|stored| self.decode_state(stored));
        found.instances = decoded.collect::<Result<_, _>>()?;
        Ok(found)
    }

    fn metrics(&self) -> StoreMetrics {
        StoreMetrics {
            log_bytes: self.appended.load(Ordering::Relaxed),
            materialised_bytes: self.materialised.load(Ordering::Relaxed),
            ..self.inner.metrics()
        }
    }
}
