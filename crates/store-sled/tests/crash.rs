//! The process is killed while it appends, materialises and truncates: nothing acknowledged is lost.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use steadfast_core::{
    InstanceFacts, InstanceFilter, InstanceId, OrchestrationStatus, PartitionId, Position, Timestamp,
};
use steadfast_store::{
    Detail, HistoryChange, InstanceChange, InstanceWrite, LogRecord, Materialisation, PayloadWrite, RowWrite,
    Store, StoreError,
};
use steadfast_store_sled::{SledOptions, SledStore};

const PARTITIONS: u16 = 2;

/// Names the folder that the test binary, run as a child, works in until it is killed.
const CHILD: &str = "STEADFAST_TEST_CRASH";

/// The history of the only instance of a partition grows by one event with every record.
const EVENT: usize = 900;

fn open(folder: &Path) -> SledStore {
    SledStore::open(folder, SledOptions { partitions: Some(PARTITIONS), ..SledOptions::default() }).unwrap()
}

fn size_of(position: u64) -> usize {
    if position.is_multiple_of(5) { 300_000 } else { 700 }
}

fn record(partition: u16, position: u64) -> LogRecord {
    let bytes = vec![(position ^ u64::from(partition)) as u8; size_of(position)].into();
    LogRecord { partition: PartitionId(partition), position: Position(position), bytes }
}

fn instance(partition: u16) -> InstanceId {
    InstanceId::from_trusted(format!("instance-{partition}"))
}

fn history(from: u64, to: u64) -> Vec<u8> {
    (from..to).flat_map(|event| [event as u8; EVENT]).collect()
}

/// A payload that stays for a few materialisations.
fn payload(upto: u64) -> PayloadWrite {
    let name = upto / 8;
    let len = 20_000 + 500 * (name as usize % 100);
    PayloadWrite::new(0, name.into(), len, move || Ok(vec![name as u8; len].into()))
}

/// Materialises everything up to a position, replacing the history now and then as a new execution does.
fn materialise(store: &SledStore, partition: u16, upto: u64) -> Result<(), StoreError> {
    let stored = store.load_instance(&instance(partition))?.map_or(0, |found| found.reflects.0);
    let history = if upto.is_multiple_of(3) {
        HistoryChange::Replace(history(0, upto).into())
    } else {
        HistoryChange::Append { at: stored, bytes: history(stored, upto).into() }
    };
    let change = InstanceChange::Put {
        payloads: vec![payload(upto)],
        state: vec![upto as u8; 10 + 1000 * (upto as usize % 100)].into(),
        history,
        history_events: upto,
        fresh: false,
        ended: upto.is_multiple_of(7),
        facts: InstanceFacts::new("orchestration", OrchestrationStatus::Running, Timestamp::default()),
    };
    let instances = vec![InstanceWrite { instance: instance(partition), reflects: Position(upto), change }];
    let rows = vec![RowWrite { key: b"row".to_vec(), value: Some(upto.to_be_bytes().repeat(upto as usize)) }];
    store.materialise(PartitionId(partition), &Materialisation { upto: Position(upto), instances, rows })
}

/// Checks everything; returns the last position of every partition.
fn check(store: &SledStore, acknowledged: u64) -> Vec<u64> {
    let check = |partition: u16| {
        let snapshot = store.load_partition(PartitionId(partition)).unwrap();
        let mut last = snapshot.upto.0;
        store
            .read_log(PartitionId(partition), snapshot.upto, &mut |position, bytes| {
                assert!(bytes == record(partition, position.0).bytes[..], "record {position} differs");
                last = position.0;
                Ok(())
            })
            .unwrap();
        assert!(last >= acknowledged, "{acknowledged} was acknowledged, {last} is left");
        if let Some(found) = store.load_instance(&instance(partition)).unwrap() {
            let reflects = found.reflects.0;
            assert!(reflects >= snapshot.upto.0 && reflects <= last);
            assert_eq!(found.state, vec![reflects as u8; 10 + 1000 * (reflects as usize % 100)]);
            assert!(found.payloads == [(0, payload(reflects).bytes().unwrap().to_vec())]);
            assert!(store.load_history(&instance(partition)).unwrap() == history(0, reflects));
            let found = store.find_instances(&InstanceFilter::default(), None, 100, Detail::State).unwrap();
            assert!(found.instances.iter().any(|found| found.instance == instance(partition)));
        } else {
            assert_eq!(snapshot.upto, Position::ZERO);
        }
        for (_, value) in snapshot.rows {
            let upto = value.first_chunk().map_or(0, |upto| u64::from_be_bytes(*upto));
            assert!(upto >= snapshot.upto.0 && value == upto.to_be_bytes().repeat(upto as usize));
        }
        last
    };
    (0..PARTITIONS).map(check).collect()
}

/// Works until it is killed, and prints what is durable.
#[test]
fn child_works_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let store = open(Path::new(&folder));
    let lasts = check(&store, 0);
    let mut next = lasts.iter().max().copied().unwrap_or(0);
    // A partition whose record was lost with the append that the crash interrupted gets it now.
    for (partition, last) in (0..PARTITIONS).zip(&lasts) {
        for position in last + 1..=next {
            store.append(&[record(partition, position)]).unwrap();
        }
    }
    thread::scope(|scope| {
        let (handed_over, taken) = std::sync::mpsc::sync_channel::<u64>(1000);
        let store = &store;
        scope.spawn(move || {
            while let Ok(mut upto) = taken.recv() {
                while let Ok(later) = taken.try_recv() {
                    upto = later;
                }
                for partition in 0..PARTITIONS {
                    materialise(store, partition, upto).unwrap();
                    store.truncate_log(PartitionId(partition), Position(upto.saturating_sub(3))).unwrap();
                }
            }
        });
        loop {
            next += 1;
            store.append(&[record(0, next), record(1, next)]).unwrap();
            println!("durable {next}");
            handed_over.send(next).unwrap();
        }
    });
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_works_until_it_is_killed", "--nocapture"])
        .env(CHILD, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn what_was_acknowledged_survives_being_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..12_u64 {
        let mut child = start(folder.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut appends = 0;
        let number = |line: &str| line.split_once("durable ").and_then(|(_, number)| number.parse().ok());
        while appends < 5 + round * 7 {
            let line = lines.next().expect("the child ended by itself").unwrap();
            if let Some(durable) = number(&line) {
                acknowledged = durable;
                appends += 1;
            }
        }
        // At some point of whatever it is doing.
        thread::sleep(Duration::from_micros(round * 331));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            acknowledged = number(&line).unwrap_or(acknowledged);
        }
        check(&open(folder.path()), acknowledged);
    }
    assert!(acknowledged > 12 * 5);
}
