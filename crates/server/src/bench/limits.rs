//! Two limits to compare with: the kernel without anything around it, and the disk without anything around it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use steadfast_core::model::{Register, Registry};
use steadfast_core::partition::{Effect, Partition, PartitionOptions, Token, Work};
use steadfast_core::turn::Session;
use steadfast_core::{
    EventKind, ExecutionId, ExecutionStarted, HistoryEvent, InstanceId, Origin, PartitionId, Payload,
    Position, Result, TaskMessage, Timestamp,
};
use steadfast_engine::HubBuilder;
use steadfast_store::{LogRecord, Store, StoreError, StoreLayer};
use steadfast_store_sled::{SledOptions, SledStore};

use super::report::{Measured, Progress};
use super::{BenchArguments, load, on_runtime, scenario};

/// How many instances each kernel thread has under way.
const KERNEL_CONCURRENCY: u64 = 500;

/// `hello` on bare threads, one for each partition: turns, checkpoints and record encoding, and nothing else.
pub(super) fn kernel(instances: u64, partitions: u16, progress: &Progress) -> Measured {
    let mut registry = Registry::default();
    if let Err(error) = scenario::hello().register(&mut registry) {
        unreachable!("an empty registry refused a name: {error}");
    }
    let registry = Arc::new(registry);
    let share = instances.div_ceil(u64::from(partitions));
    let began = Instant::now();
    let bytes: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..partitions)
            .map(|id| {
                let registry = registry.clone();
                scope.spawn(move || KernelDriver::new(id, registry).run(share, progress))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    let instances = share * u64::from(partitions);
    let mut measured = Measured::new(instances, 3 * instances, began.elapsed(), Vec::new());
    measured.log_bytes = bytes;
    measured
}

struct KernelDriver {
    id: u16,
    registry: Arc<Registry>,
    machine: Partition,
    sessions: HashMap<InstanceId, Session>,
    started: u64,
    ended: u64,
    bytes: u64,
    now: i64,
}

impl KernelDriver {
    fn new(id: u16, registry: Arc<Registry>) -> Self {
        // One partition of one: the thread is given instances of its own, whatever their hash.
        let options = PartitionOptions::new(PartitionId(0), 1);
        let machine = match Partition::restore(options, Position::ZERO, []) {
            Ok(machine) => machine,
            Err(error) => unreachable!("no rows cannot be damaged: {error}"),
        };
        Self { id, registry, machine, sessions: HashMap::new(), started: 0, ended: 0, bytes: 0, now: 1 << 50 }
    }

    fn run(mut self, instances: u64, progress: &Progress) -> u64 {
        while self.ended < instances {
            while self.started < instances && self.started - self.ended < KERNEL_CONCURRENCY {
                self.start();
            }
            while let Some(work) = self.machine.next_work() {
                self.perform(work);
            }
            let commit = self.machine.commit();
            if let Some(record) = commit.record {
                self.bytes += record.bytes.len() as u64;
                self.machine.on_durable(record.position);
            }
            for effect in commit.effects {
                self.take_effect(effect, progress);
            }
        }
        self.bytes
    }

    fn start(&mut self) {
        self.started += 1;
        self.now += 1;
        self.machine.set_now(Timestamp::from_micros(self.now));
        let number = (u128::from(self.id) << 64) | u128::from(self.started);
        let uuid = ExecutionId::new(uuid::Uuid::from_u128(number));
        let instance = InstanceId::from_trusted(uuid.to_string());
        let started = ExecutionStarted::new("hello".into(), "".into(), Payload::null(), uuid);
        let kind = EventKind::ExecutionStarted(Box::new(started));
        let event = HistoryEvent::message(Timestamp::from_micros(self.now), kind);
        let message = TaskMessage { instance, execution: Some(uuid), event, origin: Origin::Client };
        self.machine.submit(Token(self.started), message, true);
    }

    fn perform(&mut self, work: Work) {
        match work {
            Work::Load(instance) | Work::LoadEnded(instance) => self.machine.on_loaded(&instance, None),
            Work::Evict(instance) => {
                self.sessions.remove(&instance);
            }
            Work::Turn(request) => {
                let session = self.sessions.entry(request.instance.clone()).or_insert_with(|| {
                    Session::new(self.registry.clone(), request.instance.clone(), usize::MAX)
                });
                let turn = session.turn(request.batch, request.now);
                self.machine.on_turn(&request.instance, turn);
            }
        }
    }

    fn take_effect(&mut self, effect: Effect, progress: &Progress) {
        match effect {
            Effect::Dispatch(task) => {
                let greeting =
                    task.input.decode::<String>().map(|city| scenario::greet(&city)).unwrap_or_default();
                let outcome = Payload::encode(&greeting).unwrap_or(Payload::null());
                self.machine.complete_activity(task.id, Ok(outcome));
            }
            Effect::Ended(..) => {
                self.ended += 1;
                progress.advance();
            }
            // What would be written is dropped, so that memory stays bounded as it does in the real thing.
            Effect::Materialise(capture) => self.machine.on_materialised(capture.upto),
            _ => {}
        }
    }
}

/// `hello` once on the real store, noting the size of each batch of records, then the same sizes into a plain file.
pub(super) fn raw(arguments: &BenchArguments, folder: &Path, progress: &Progress) -> Result<Measured> {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let (recorded, hub) = (sizes.clone(), folder.join("hub"));
    let open = move |partitions| {
        let inner = SledStore::open(hub, SledOptions { partitions, ..SledOptions::default() })?;
        Ok(Arc::new(SizeRecorder { inner, sizes: recorded }) as Arc<dyn Store>)
    };
    let builder = scenario::register(HubBuilder::new(open).partitions(arguments.partitions));
    on_runtime(load::run(arguments, builder, folder, &Arc::default(), progress))?;
    let sizes = sizes.lock().map(|sizes| sizes.clone()).unwrap_or_default();
    let path = folder.join("raw.log");
    let mut file = File::create(&path)?;
    let bytes = vec![7u8; sizes.iter().copied().max().unwrap_or(0)];
    let mut times: Vec<Duration> = Vec::with_capacity(sizes.len());
    let began = Instant::now();
    for size in &sizes {
        let began = Instant::now();
        file.write_all(&bytes[..*size])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    let elapsed = began.elapsed();
    std::fs::remove_file(path)?;
    let mut measured = Measured::new(arguments.instances, 3 * arguments.instances, elapsed, times);
    measured.log_bytes = sizes.iter().map(|size| *size as u64).sum();
    measured.log_syncs = sizes.len() as u64;
    Ok(measured)
}

/// The store on sled, noting how large each append is.
struct SizeRecorder {
    inner: SledStore,
    sizes: Arc<Mutex<Vec<usize>>>,
}

impl StoreLayer for SizeRecorder {
    fn inner(&self) -> &dyn Store {
        &self.inner
    }

    fn append(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        if let Ok(mut sizes) = self.sizes.lock() {
            sizes.push(records.iter().map(|record| record.bytes.len()).sum());
        }
        self.inner.append(records)
    }
}
