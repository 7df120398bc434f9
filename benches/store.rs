//! The store on sled alone: appending to the log, materialising, and reading an instance that is not in memory.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use steadfast::store::{SledOptions, SledStore, Store};
use steadfast::{
    ActivityContext, ActivityName, Error, HistoryEvent, InstanceId, OrchestrationContext,
    OrchestrationDefinition, OrchestrationStatus, Register, Registry, StartOptions, TaskHub, Timestamp,
    activity, orchestration,
};
use steadfast_core::turn::Session;
use steadfast_core::{InstanceFacts, PartitionId, Position, codec};
use steadfast_store::{HistoryChange, InstanceChange, InstanceWrite, LogRecord, Materialisation, bridge};
use tokio::runtime::Runtime;

const P0: PartitionId = PartitionId(0);

/// How many appends there are between two truncations of the log, which are not timed.
const LIVE: u64 = 1000;

/// Instances in one materialisation.
const BATCH: u64 = 1000;

fn open(folder: &Path) -> SledStore {
    let options = SledOptions { partitions: Some(1), ..SledOptions::default() };
    SledStore::open(folder, options).expect("a new store opens")
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.sampling_mode(SamplingMode::Flat).sample_size(20).measurement_time(Duration::from_secs(5));
    // Group commits of one record, as of a lone instance, and of those that a busy hub makes.
    for (name, records, size) in
        [("one_of_1_kib", 1, 1 << 10), ("one_of_64_kib", 1, 64 << 10), ("16_of_4_kib", 16, 4 << 10)]
    {
        append_records(&mut group, name, records, size);
    }
    group.throughput(Throughput::Bytes(1 << 10));
    group.bench_function("limit_1_kib_in_a_plain_file", |bencher| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut file = File::create(folder.path().join("plain")).expect("a new file");
        bencher.iter(|| {
            file.write_all(&[7; 1 << 10]).expect("the disk has room");
            file.sync_data().expect("the disk syncs");
        });
    });
    group.finish();
}

fn append_records(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, records: u64, size: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open(folder.path());
    let bytes: Arc<[u8]> = vec![7; size as usize].into();
    let mut last = 0;
    group.throughput(Throughput::Bytes(records * size));
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|appends| {
            let mut spent = Duration::ZERO;
            for append in 0..appends {
                let record =
                    |number| LogRecord { partition: P0, position: Position(number), bytes: bytes.clone() };
                let batch: Vec<_> = (last + 1..=last + records).map(record).collect();
                last += records;
                let began = Instant::now();
                store.append(&batch).expect("the disk has room");
                spent += began.elapsed();
                if append % LIVE == 0 {
                    store.truncate_log(P0, Position(last)).expect("the log is truncated");
                }
            }
            spent
        });
    });
}

/// A thousand finished instances of the size of a `hello`, made durable; in the order of their ids, as those that the
/// runtime makes come, and scattered.
fn materialise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("materialise");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Elements(BATCH));
    for (name, scatter) in [("ids_in_order", 1), ("ids_in_no_order", 0x9e37_79b9_7f4a_7c15_u64)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = open(folder.path());
        let mut next = 1;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|batches| {
                let mut spent = Duration::ZERO;
                for _ in 0..batches {
                    let batch = finished(next, scatter);
                    next += BATCH;
                    let began = Instant::now();
                    store.materialise(P0, &batch).expect("the disk has room");
                    store.truncate_log(P0, batch.upto).expect("the log is truncated");
                    spent += began.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

fn finished(first: u64, scatter: u64) -> Materialisation {
    let facts = InstanceFacts::new("hello", OrchestrationStatus::Completed, Timestamp::default());
    let write = |number: u64| InstanceWrite {
        instance: InstanceId::from_trusted(format!("{:016x}", number.wrapping_mul(scatter))),
        reflects: Position(first),
        change: InstanceChange::Put {
            state: vec![1; 150].into(),
            payloads: Vec::new(),
            history: HistoryChange::Append { at: 0, bytes: vec![2; 250].into() },
            history_events: 14,
            fresh: true,
            ended: true,
            facts: facts.clone(),
        },
    };
    let mut instances: Vec<_> = (first..first + BATCH).map(write).collect();
    instances.sort_by(|a, b| a.instance.cmp(&b.instance));
    Materialisation { upto: Position(first), instances, rows: Vec::new() }
}

const STEP: ActivityName<u64, u64> = ActivityName::new("step");

/// So many steps, and then a long wait.
fn patient() -> OrchestrationDefinition<u64, u64> {
    orchestration("patient", |ctx: OrchestrationContext, steps: u64| async move {
        for step in 0..steps {
            ctx.call(STEP, step).await?;
        }
        ctx.set_custom_status(&"waiting")?;
        Ok::<_, Error>(ctx.wait_for_event::<u64>("go").await?)
    })
}

/// A store with instances that wait after so many steps, materialised; and their ids.
fn waiting(folder: &Path, instances: u64, steps: u64) -> (SledStore, Vec<InstanceId>) {
    let ids: Vec<_> =
        (0..instances).map(|number| InstanceId::from_trusted(format!("patient-{number:06}"))).collect();
    let runtime = Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let step = activity("step", |_: ActivityContext, number: u64| async move { Ok::<_, Error>(number) });
        let hub = TaskHub::builder(folder).partitions(2).register(step).register(patient());
        let hub = hub.start().await.expect("a new hub starts");
        let client = hub.client();
        for id in &ids {
            let options = StartOptions { instance_id: Some(id.to_string()), ..StartOptions::default() };
            client.start_with(patient().handle(), steps, options).await.expect("the hub runs");
        }
        // A stop writes everything to the instance store; before, all must have come to their wait.
        for id in &ids {
            while client.state(id.as_str()).await.expect("it exists").custom_status.is_none() {
                tokio::task::yield_now().await;
            }
        }
        hub.stop().await.expect("the hub stops");
    });
    let store = SledStore::open(folder, SledOptions::default()).expect("the store opens again");
    (store, ids)
}

/// What it takes to have an instance in memory that is only in the store: reading it, decoding its history, replaying
/// it. The store's pages are in memory.
fn cold_load(criterion: &mut Criterion) {
    let mut registry = Registry::default();
    patient().register(&mut registry).expect("the registry is empty");
    let registry = Arc::new(registry);
    let mut group = criterion.benchmark_group("cold_load");
    for (name, instances, steps) in [("10_steps", 1000, 10), ("1000_steps", 20, 1000)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (store, ids) = waiting(folder.path(), instances, steps);
        let mut ids = ids.iter().cycle();
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let id = ids.next().expect("there are ids");
                let loaded =
                    bridge::load_instance(&store, id).expect("the store reads").expect("it is there");
                let history: Vec<HistoryEvent> = codec::decode_many(&loaded.history).expect("it was written");
                let mut session = Session::new(registry.clone(), id.clone(), 1 << 20);
                session.replay(black_box(&history)).expect("the orchestration is registered");
                session
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append, materialise, cold_load);
criterion_main!(benches);
