//! What the process does until the power goes, and what must be left of it. Everything follows from numbers, so what an
//! instance holds after a materialisation is known without asking the process.
//!
//! As in a hub, one thread appends the records of all partitions, and meanwhile another materialises, one partition after
//! the other.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;

use steadfast_core::{
    InstanceFacts, InstanceFilter, InstanceId, OrchestrationStatus, PartitionId, Position, Timestamp,
};
use steadfast_store::{
    Detail, HistoryChange, InstanceChange, InstanceWrite, LogRecord, Materialisation, PayloadWrite, RowWrite,
    Store, StoreError,
};
use steadfast_store_sled::{SledOptions, SledStore};

use crate::random::Random;

const PARTITIONS: u16 = 2;

/// The file in which the process says how far it got.
pub(crate) const PROGRESS: &str = "progress";

/// Rounds of work: records are appended and materialised, in each partition.
pub(crate) const ROUNDS: u64 = 24;
const RECORDS_PER_ROUND: u64 = 3;

/// So many rounds may be appended before they are materialised.
const ROUNDS_AHEAD: usize = 1;

/// After so many rounds the log is truncated, and what was materialised made durable.
const ROUNDS_PER_TRUNCATION: u64 = 3;

/// Instances of a partition that live on, of which some change in every round.
const LASTING: u64 = 750;
const CHANGED_PER_ROUND: u64 = 150;

/// Instances that begin and end in a round, and after how many rounds they are deleted.
const SHORT_PER_ROUND: u64 = 750;
const KEPT_ROUNDS: u64 = 6;

/// How far a partition got: what was appended, in which round it is, and up to which round all is durable.
#[derive(Debug, Clone, Copy, Default)]
struct PartitionProgress {
    appended: u64,
    round: u64,
    durable_round: u64,
}

/// How far the process got.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress([PartitionProgress; PARTITIONS as usize]);

impl Progress {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let numbers = self.0.iter().flat_map(|it| [it.appended, it.round, it.durable_round]);
        numbers.flat_map(u64::to_be_bytes).collect()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let number = |nth: usize| u64::from_be_bytes(bytes[nth * 8..][..8].try_into().unwrap());
        Self(std::array::from_fn(|partition| PartitionProgress {
            appended: number(partition * 3),
            round: number(partition * 3 + 1),
            durable_round: number(partition * 3 + 2),
        }))
    }
}

/// Where the threads say how far they got.
struct Report {
    progress: Mutex<Progress>,
    file: File,
}

impl Report {
    fn note(&self, partition: PartitionId, note: impl FnOnce(&mut PartitionProgress)) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut progress.0[usize::from(partition.0)]);
        self.file.write_all_at(&progress.to_bytes(), 0).unwrap();
    }
}

pub(crate) fn open(folder: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(folder, SledOptions { partitions: Some(PARTITIONS), ..SledOptions::default() })
}

fn partitions() -> impl Iterator<Item = PartitionId> {
    (0..PARTITIONS).map(PartitionId)
}

fn random(partition: PartitionId, number: u64) -> Random {
    Random(number ^ u64::from(partition.0) << 48)
}

fn record(partition: PartitionId, position: u64) -> LogRecord {
    let len = match (position + 7 * u64::from(partition.0)) % 20 {
        0 => 3_000_000,
        5 | 10 | 15 => 400_000,
        _ => 2_000,
    };
    let bytes = random(partition, position).bytes(len).into();
    LogRecord { partition, position: Position(position), bytes }
}

fn position(round: u64) -> Position {
    Position(round * RECORDS_PER_ROUND)
}

/// What an instance is written as in a round; the state of a few is large.
fn state(id: &InstanceId, round: u64) -> Vec<u8> {
    let number = id.as_str().bytes().fold(round, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    let mut random = Random(number);
    let len = if random.below(60) == 0 { 100_000 } else { 200 + random.below(1500) as usize };
    random.bytes(len)
}

/// The payload that some instances have, apart from their states: it is another one every few rounds.
fn payload(id: &InstanceId, round: u64) -> Option<PayloadWrite> {
    let name = id.as_str().bytes().fold(round / 8, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    let len = 20_000 + (name % 60_000) as usize;
    let payload = PayloadWrite::new(0, name.into(), len, move || Ok(Random(name).bytes(len).into()));
    name.is_multiple_of(40).then_some(payload)
}

/// An id that begins like this and belongs to the partition: a store keeps neighbours of one partition together.
fn id(partition: PartitionId, text: &str) -> InstanceId {
    let ids = (0..).map(|number: u32| InstanceId::from_trusted(format!("{text}-{number}")));
    ids.into_iter().find(|id| id.partition(PARTITIONS) == partition).unwrap()
}

/// The instances of a partition that a round changes; those that it deletes have no state. In order.
fn changes(partition: PartitionId, round: u64) -> BTreeMap<InstanceId, Option<Vec<u8>>> {
    let mut random = random(partition, round);
    let lasting = (0..CHANGED_PER_ROUND).map(|_| format!("lasting-{:05}", random.below(LASTING)));
    let mut changes: BTreeMap<_, _> = lasting
        .map(|text| id(partition, &text))
        .map(|id| {
            let state = state(&id, round);
            // One of ten is deleted, and comes again some day.
            (id, Some(state).filter(|state| state[0] % 10 != 0))
        })
        .collect();
    let short = |born: u64| (0..SHORT_PER_ROUND).map(move |nth| (Random(nth ^ born << 32).next(), born));
    let id = |(name, born)| id(partition, &format!("short-{name:016x}-{born}"));
    changes.extend(short(round).map(id).map(|id| (id.clone(), Some(state(&id, round)))));
    if round > KEPT_ROUNDS {
        changes.extend(short(round - KEPT_ROUNDS).map(id).map(|id| (id, None)));
    }
    changes
}

fn write(
    (instance, state): (InstanceId, Option<Vec<u8>>),
    round: u64,
    is_stored: impl Fn(&InstanceId) -> bool,
) -> InstanceWrite {
    let short = instance.as_str().starts_with("short");
    let change = match state {
        None => InstanceChange::Delete,
        Some(state) => InstanceChange::Put {
            history: HistoryChange::Replace(state[..state.len() / 2].into()),
            state: state.into(),
            payloads: payload(&instance, round).into_iter().collect(),
            history_events: 1,
            fresh: short && !is_stored(&instance),
            ended: short,
            facts: InstanceFacts::new("orchestration", OrchestrationStatus::Running, Timestamp::default()),
        },
    };
    InstanceWrite { instance, reflects: position(round), change }
}

fn rows(partition: PartitionId, round: u64) -> Vec<RowWrite> {
    let value = random(partition, round).bytes(60_000 + 1000 * round as usize);
    vec![RowWrite { key: b"row".to_vec(), value: Some(value) }]
}

/// Does so many rounds of each partition after what the store holds of it.
pub(crate) fn work(store: &SledStore, folder: &Path, rounds: u64) {
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(PROGRESS)).unwrap();
    let mut progress = Progress::default();
    for (partition, it) in partitions().zip(&mut progress.0) {
        let upto = store.load_partition(partition).unwrap().upto;
        (it.appended, it.round) = (upto.0, upto.0 / RECORDS_PER_ROUND);
        it.durable_round = it.round;
        store
            .read_log(partition, upto, &mut |position, _| {
                it.appended = position.0;
                Ok(())
            })
            .unwrap();
    }
    let report = Report { progress: Mutex::new(progress), file };
    let (appended, to_materialise) = sync_channel(ROUNDS_AHEAD);
    thread::scope(|scope| {
        scope.spawn(|| {
            for nth in 1..=rounds {
                append_round(store, &report, progress, nth);
                appended.send(nth).unwrap();
            }
            drop(appended);
        });
        for nth in to_materialise {
            for (partition, begun) in partitions().zip(progress.0) {
                // Of the first round since it was opened some may have been written already.
                materialise_round(store, &report, partition, begun.round + nth, nth == 1);
            }
        }
    });
}

/// Appends what is missing of the `nth` round of each partition since the process began, records of all of them at a time.
fn append_round(store: &SledStore, report: &Report, begun: Progress, nth: u64) {
    let missing = |(partition, begun): (PartitionId, PartitionProgress)| {
        let before = begun.appended.max(position(begun.round + nth - 1).0);
        (before + 1..=position(begun.round + nth).0).map(move |position| record(partition, position))
    };
    let mut missing: Vec<_> = partitions().zip(begun.0).map(missing).collect();
    loop {
        let records: Vec<_> = missing.iter_mut().filter_map(Iterator::next).collect();
        if records.is_empty() {
            break;
        }
        store.append(&records).unwrap();
        for record in records {
            report.note(record.partition, |it| it.appended = record.position.0);
        }
    }
}

fn materialise_round(store: &SledStore, report: &Report, partition: PartitionId, round: u64, repeated: bool) {
    report.note(partition, |it| it.round = round);
    let is_stored = |id: &InstanceId| repeated && store.load_instance(id).unwrap().is_some();
    let instances = changes(partition, round).into_iter().map(|change| write(change, round, is_stored));
    let instances = instances.collect();
    let batch = Materialisation { upto: position(round), instances, rows: rows(partition, round) };
    store.materialise(partition, &batch).unwrap();
    if round.is_multiple_of(ROUNDS_PER_TRUNCATION) {
        store.truncate_log(partition, position(round)).unwrap();
        report.note(partition, |it| it.durable_round = round);
    }
}

/// What an instance may be: written in a round with a state, or deleted in it.
type Allowed = Vec<(u64, Option<Vec<u8>>)>;

/// Checks that everything durable is there, and nothing but what was written.
pub(crate) fn check(store: &SledStore, progress: Progress) -> Result<(), String> {
    let found = InstanceFilter::default();
    let mut listed: Vec<InstanceId> = Vec::new();
    let mut after = None;
    loop {
        let page = store.find_instances(&found, after.as_ref(), usize::MAX >> 1, Detail::Outline);
        let page = page.map_err(|error| error.to_string())?;
        listed.extend(page.instances.into_iter().map(|found| found.instance));
        let Some(upto) = page.upto else { break };
        after = Some(upto);
    }
    for (partition, progress) in partitions().zip(progress.0) {
        check_partition(store, partition, progress, &listed)
            .map_err(|problem| format!("{partition}: {problem}"))?;
    }
    Ok(())
}

fn check_partition(
    store: &SledStore,
    partition: PartitionId,
    progress: PartitionProgress,
    listed: &[InstanceId],
) -> Result<(), String> {
    let failed = |error: StoreError| error.to_string();
    let snapshot = store.load_partition(partition).map_err(failed)?;
    let first = snapshot.upto.0 / RECORDS_PER_ROUND;
    if first < progress.durable_round {
        return Err(format!("round {} was durable, the store is at {first}", progress.durable_round));
    }
    let mut last = snapshot.upto.0;
    let read = store.read_log(partition, snapshot.upto, &mut |position, bytes| {
        assert!(bytes == record(partition, position.0).bytes[..], "record {position} differs");
        last = position.0;
        Ok(())
    });
    read.map_err(failed)?;
    if last < progress.appended {
        return Err(format!("record {} was durable, {last} is the last", progress.appended));
    }
    for row in &snapshot.rows {
        let mut later = (first..=progress.round).flat_map(|round| rows(partition, round));
        if later.all(|written| written.value.as_ref() != Some(&row.1)) {
            return Err("the row is of no round".to_owned());
        }
    }
    // What may be there of each instance: what the last round up to `first` left, and what later ones wrote.
    let mut allowed: BTreeMap<InstanceId, Allowed> = BTreeMap::new();
    for round in 1..=progress.round {
        for (id, state) in changes(partition, round) {
            let of_it = allowed.entry(id).or_insert_with(|| vec![(0, None)]);
            if round <= first {
                of_it.clear();
            }
            of_it.push((round, state));
        }
    }
    for (id, allowed) in allowed {
        let found = store.load_instance(&id).map_err(failed)?;
        let Some(found) = found else {
            if allowed.iter().any(|(_, state)| state.is_none()) {
                continue;
            }
            return Err(format!("{id} is gone; it was written in rounds {:?}", rounds_of(&allowed)));
        };
        let written = |(round, state): &&(u64, Option<Vec<u8>>)| {
            found.reflects == position(*round) && state.as_ref() == Some(&found.state)
        };
        let Some((round, Some(state))) = allowed.iter().find(written) else {
            return Err(format!("{id} reflects {}, not one of {:?}", found.reflects, rounds_of(&allowed)));
        };
        let payload = payload(&id, *round);
        let payload = payload.map(|payload| (payload.slot(), payload.bytes().unwrap().to_vec()));
        if !payload.iter().eq(&found.payloads) {
            return Err(format!("the payload of {id} is another one"));
        }
        if store.load_history(&id).map_err(failed)? != state[..state.len() / 2] {
            return Err(format!("the history of {id} is another one"));
        }
        // The directory is written before the rest, so it may know already of a deletion that is not done.
        let goes = allowed.iter().any(|(round, state)| *round > first && state.is_none());
        if !goes && listed.binary_search(&id).is_err() {
            return Err(format!("{id} is there, and not found by a search"));
        }
    }
    Ok(())
}

fn rounds_of(allowed: &Allowed) -> Vec<u64> {
    allowed.iter().map(|(round, _)| *round).collect()
}
