//! What the process does until the power goes, and what must be left of it. Everything follows from numbers, so what an
//! instance holds after a materialisation is known without asking the process.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use steadfast_core::{
    InstanceFacts, InstanceFilter, InstanceId, OrchestrationStatus, PartitionId, Position, Timestamp,
};
use steadfast_store::{
    Detail, HistoryChange, InstanceChange, InstanceWrite, LogRecord, Materialisation, RowWrite, Store,
    StoreError,
};
use steadfast_store_sled::{SledOptions, SledStore};

use crate::random::Random;

const P0: PartitionId = PartitionId(0);

/// The file in which the process says how far it got.
pub(crate) const PROGRESS: &str = "progress";

/// Rounds of work: records are appended and materialised.
pub(crate) const ROUNDS: u64 = 24;
const RECORDS_PER_ROUND: u64 = 3;

/// After so many rounds the log is truncated, and what was materialised made durable.
const ROUNDS_PER_TRUNCATION: u64 = 3;

/// Instances that live on, of which some change in every round.
const LASTING: u64 = 1500;
const CHANGED_PER_ROUND: u64 = 300;

/// Instances that begin and end in a round, and after how many rounds they are deleted.
const SHORT_PER_ROUND: u64 = 1500;
const KEPT_ROUNDS: u64 = 6;

/// How far the process got: what was appended, in which round it is, and up to which round all is durable.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    pub(crate) appended: u64,
    pub(crate) round: u64,
    pub(crate) durable_round: u64,
}

impl Progress {
    fn write(self, file: &File) {
        file.write_all_at(&self.to_bytes(), 0).unwrap();
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let numbers = [self.appended, self.round, self.durable_round];
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let number = |nth: usize| u64::from_be_bytes(bytes[nth * 8..][..8].try_into().unwrap());
        Self { appended: number(0), round: number(1), durable_round: number(2) }
    }
}

pub(crate) fn open(folder: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(folder, SledOptions { partitions: Some(1), ..SledOptions::default() })
}

fn record(position: u64) -> LogRecord {
    let len = match position % 20 {
        0 => 3_000_000,
        5 | 10 | 15 => 400_000,
        _ => 2_000,
    };
    let bytes = Random(position).bytes(len).into();
    LogRecord { partition: P0, position: Position(position), bytes }
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

/// The instances that a round changes; those that it deletes have no state. In order.
fn changes(round: u64) -> BTreeMap<InstanceId, Option<Vec<u8>>> {
    let mut random = Random(round);
    let lasting = (0..CHANGED_PER_ROUND).map(|_| format!("lasting-{:05}", random.below(LASTING)));
    let mut changes: BTreeMap<_, _> = lasting
        .map(InstanceId::from_trusted)
        .map(|id| {
            let state = state(&id, round);
            // One of ten is deleted, and comes again some day.
            (id, Some(state).filter(|state| state[0] % 10 != 0))
        })
        .collect();
    let short = |born: u64| (0..SHORT_PER_ROUND).map(move |nth| (Random(nth ^ born << 32).next(), born));
    let id = |(name, born)| InstanceId::from_trusted(format!("short-{name:016x}-{born}"));
    changes.extend(short(round).map(id).map(|id| (id.clone(), Some(state(&id, round)))));
    if round > KEPT_ROUNDS {
        changes.extend(short(round - KEPT_ROUNDS).map(id).map(|id| (id, None)));
    }
    changes
}

fn write((instance, state): (InstanceId, Option<Vec<u8>>), round: u64) -> InstanceWrite {
    let short = instance.as_str().starts_with("short");
    let change = match state {
        None => InstanceChange::Delete,
        Some(state) => InstanceChange::Put {
            history: HistoryChange::Replace(state[..state.len() / 2].into()),
            state: state.into(),
            outline: None,
            history_events: 1,
            fresh: short,
            ended: short,
            facts: InstanceFacts::new("orchestration", OrchestrationStatus::Running, Timestamp::default()),
        },
    };
    InstanceWrite { instance, reflects: position(round), change }
}

fn rows(round: u64) -> Vec<RowWrite> {
    let value = Random(round).bytes(60_000 + 1000 * round as usize);
    vec![RowWrite { key: b"row".to_vec(), value: Some(value) }]
}

/// Does all rounds that come after what the store holds.
pub(crate) fn work(store: &SledStore, folder: &Path, rounds: u64) {
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(PROGRESS)).unwrap();
    let last_round = store.load_partition(P0).unwrap().upto.0 / RECORDS_PER_ROUND;
    let mut appended = position(last_round).0;
    store
        .read_log(P0, Position(appended), &mut |position, _| {
            appended = position.0;
            Ok(())
        })
        .unwrap();
    let mut progress = Progress { appended, round: last_round, durable_round: last_round };
    for round in last_round + 1..=last_round + rounds {
        for position in progress.appended + 1..=position(round).0 {
            store.append(&[record(position)]).unwrap();
            progress.appended = position;
            progress.write(&file);
        }
        progress.round = round;
        progress.write(&file);
        let instances = changes(round).into_iter().map(|change| write(change, round)).collect();
        let batch = Materialisation { upto: position(round), instances, rows: rows(round) };
        store.materialise(P0, &batch).unwrap();
        if round.is_multiple_of(ROUNDS_PER_TRUNCATION) {
            store.truncate_log(P0, position(round)).unwrap();
            progress.durable_round = round;
            progress.write(&file);
        }
    }
}

/// What an instance may be: written in a round with a state, or deleted in it.
type Allowed = Vec<(u64, Option<Vec<u8>>)>;

/// Checks that everything durable is there, and nothing but what was written.
pub(crate) fn check(store: &SledStore, progress: Progress) -> Result<(), String> {
    let failed = |error: StoreError| error.to_string();
    let snapshot = store.load_partition(P0).map_err(failed)?;
    let first = snapshot.upto.0 / RECORDS_PER_ROUND;
    if first < progress.durable_round {
        return Err(format!("round {} was durable, the store is at {first}", progress.durable_round));
    }
    let mut last = snapshot.upto.0;
    let read = store.read_log(P0, snapshot.upto, &mut |position, bytes| {
        assert!(bytes == record(position.0).bytes[..], "record {position} differs");
        last = position.0;
        Ok(())
    });
    read.map_err(failed)?;
    if last < progress.appended {
        return Err(format!("record {} was durable, {last} is the last", progress.appended));
    }
    for row in &snapshot.rows {
        let mut later = (first..=progress.round).flat_map(rows);
        if later.all(|written| written.value.as_ref() != Some(&row.1)) {
            return Err("the row is of no round".to_owned());
        }
    }
    let found = store.find_instances(&InstanceFilter::default(), None, usize::MAX >> 1, Detail::Outline);
    let mut listed: Vec<InstanceId> = Vec::new();
    let mut page = found.map_err(failed)?;
    loop {
        listed.extend(page.instances.iter().map(|found| found.instance.clone()));
        let Some(upto) = page.upto else { break };
        page = store
            .find_instances(&InstanceFilter::default(), Some(&upto), usize::MAX >> 1, Detail::Outline)
            .map_err(failed)?;
    }
    // What may be there of each instance: what the last round up to `first` left, and what later ones wrote.
    let mut allowed: BTreeMap<InstanceId, Allowed> = BTreeMap::new();
    for round in 1..=progress.round {
        for (id, state) in changes(round) {
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
        let Some((_, Some(state))) = allowed.iter().find(written) else {
            return Err(format!("{id} reflects {}, not one of {:?}", found.reflects, rounds_of(&allowed)));
        };
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
