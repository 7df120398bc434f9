//! A store behind a codec does what every store does, and what it stores can be read only through that codec.
#![cfg(feature = "suite")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast_core::{InstanceFacts, InstanceId, OrchestrationStatus, PartitionId, Position, Timestamp};
use steadfast_store::suite::Harness;
use steadfast_store::{
    CodecFailure, CodedStore, HistoryChange, InstanceChange, InstanceWrite, LogRecord, Materialisation,
    MemoryStore, PayloadWrite, RowWrite, StorageCodec, Store, StoreError, bridge, store_behaviour_suite,
};

/// Encodes the same bytes differently each time, as an encryption does, and notices another key.
struct Scrambled {
    key: u8,
    nonce: AtomicU64,
}

impl Scrambled {
    fn new(key: u8) -> Arc<Self> {
        Arc::new(Self { key, nonce: AtomicU64::new(1) })
    }

    fn mask(bytes: &[u8], nonce: u64) -> Vec<u8> {
        let mut state = nonce;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        bytes.iter().map(|byte| byte ^ next()).collect()
    }
}

impl StorageCodec for Scrambled {
    fn encode(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecFailure> {
        let nonce = self.nonce.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mut coded = vec![self.key];
        coded.extend(nonce.to_le_bytes());
        coded.extend(Self::mask(bytes, nonce));
        Ok(coded)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecFailure> {
        let Some((head, coded)) = bytes.split_first_chunk::<9>() else { return Err("too short".into()) };
        if head[0] != self.key {
            return Err(format!("key {} is not known", head[0]).into());
        }
        let nonce = head[1..].try_into().map(u64::from_le_bytes)?;
        Ok(Self::mask(coded, nonce))
    }
}

struct Coded(MemoryStore);

impl Harness for Coded {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(CodedStore::new(Arc::new(self.0.clone()), Scrambled::new(7)))
    }

    fn reopen(&mut self) {
        self.0 = self.0.reopen();
    }
}

store_behaviour_suite!(Coded(MemoryStore::new(4)));

const PARTITION: PartitionId = PartitionId(0);

fn instance() -> InstanceId {
    InstanceId::from_trusted("a")
}

/// Writes something of every kind.
fn fill(store: &dyn Store) {
    let record = |position| LogRecord { partition: PARTITION, position, bytes: Arc::from(&b"plaintext"[..]) };
    store.append(&[record(Position(1)), record(Position(2))]).unwrap();
    let change = InstanceChange::Put {
        payloads: vec![PayloadWrite::new(0, 1, 9, || Ok(Arc::from(&b"plaintext"[..])))],
        state: Arc::from(&b"plaintext"[..]),
        history: HistoryChange::Replace(Arc::from(&b"plaintext"[..])),
        history_events: 1,
        fresh: true,
        ended: false,
        facts: InstanceFacts::new("orchestration", OrchestrationStatus::Running, Timestamp::default()),
    };
    let rows = vec![RowWrite { key: b"k".to_vec(), value: Some(b"plaintext".to_vec()) }];
    let instances = vec![InstanceWrite { instance: instance(), reflects: Position(1), change }];
    store.materialise(PARTITION, &Materialisation { upto: Position(1), instances, rows }).unwrap();
}

/// Everything that a store gives back, or the first error.
fn read_everything(store: &dyn Store) -> Vec<Result<Vec<u8>, StoreError>> {
    let mut log = Ok(Vec::new());
    let read = store.read_log(PARTITION, Position(1), &mut |_, bytes| {
        log = Ok(bytes);
        Ok(())
    });
    vec![
        read.and(log),
        store.load_partition(PARTITION).map(|snapshot| snapshot.rows[0].1.clone()),
        store.load_instance(&instance()).map(|found| found.unwrap().state),
        store.load_instance(&instance()).map(|found| found.unwrap().payloads[0].1.clone()),
        store.load_history(&instance()),
        bridge::stored_instances(store).map(|found| found[0].state.clone()),
        bridge::stored_instances(store).map(|found| found[0].payloads[0].1.clone()),
    ]
}

#[test]
fn nothing_within_is_readable_and_everything_is_through_the_codec() {
    let inner = MemoryStore::new(1);
    let store = CodedStore::new(Arc::new(inner.clone()), Scrambled::new(7));
    fill(&store);
    for stored in read_everything(&inner) {
        let stored = stored.unwrap();
        assert!(stored.len() > b"plaintext".len());
        assert!(!stored.windows(5).any(|window| b"plaintext".windows(5).any(|clear| clear == window)));
    }
    for read in read_everything(&store) {
        assert_eq!(read.unwrap(), b"plaintext");
    }
}

#[test]
fn another_key_or_a_store_without_codec_is_a_typed_error_everywhere() {
    let coded = MemoryStore::new(1);
    fill(&CodedStore::new(Arc::new(coded.clone()), Scrambled::new(7)));
    let plain = MemoryStore::new(1);
    fill(&plain);
    for (inner, word) in [(coded, "key 7"), (plain, "without a codec")] {
        for read in read_everything(&CodedStore::new(Arc::new(inner), Scrambled::new(8))) {
            let Err(StoreError::Corrupt { problem, .. }) = read else { panic!("{read:?}") };
            assert!(problem.contains(word), "{problem}");
        }
    }
}

#[test]
fn a_codec_that_fails_writes_nothing() {
    struct Broken;
    impl StorageCodec for Broken {
        fn encode(&self, _bytes: &[u8]) -> Result<Vec<u8>, CodecFailure> {
            Err("the key store does not answer".into())
        }
        fn decode(&self, _bytes: &[u8]) -> Result<Vec<u8>, CodecFailure> {
            Err("the key store does not answer".into())
        }
    }
    let inner = MemoryStore::new(1);
    let store = CodedStore::new(Arc::new(inner.clone()), Arc::new(Broken));
    let record = LogRecord { partition: PARTITION, position: Position(1), bytes: Arc::from(&b"x"[..]) };
    let error = store.append(&[record]).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("does not answer"), "{error}");
    assert_eq!(inner.metrics().log_records, 0);
}
