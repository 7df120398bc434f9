//! What goes wrong is a typed error, and goes right again once its cause is gone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use steadfast_core::{
    InstanceFacts, InstanceFilter, InstanceId, OrchestrationStatus, PartitionId, Position, Timestamp,
};
use steadfast_store::{
    Detail, HistoryChange, InstanceChange, InstanceWrite, LogRecord, Materialisation, RowWrite, Store,
    StoreError,
};
use steadfast_store_sled::{DataSync, SledOptions, SledStore, SpaceProbe};

const P0: PartitionId = PartitionId(0);

/// Names the folder that the test binary, run as a child, shall try to open.
const CHILD: &str = "STEADFAST_TEST_OPEN";

fn open(folder: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(folder, SledOptions::default())
}

fn open_error(folder: &Path) -> StoreError {
    open(folder).err().expect("opening should have failed")
}

fn record(position: u64, size: usize) -> LogRecord {
    LogRecord { partition: P0, position: Position(position), bytes: vec![position as u8; size].into() }
}

fn positions(store: &SledStore) -> Result<Vec<u64>, StoreError> {
    let mut positions = Vec::new();
    store.read_log(P0, Position::ZERO, &mut |position, bytes| {
        assert!(bytes.iter().all(|byte| *byte == position.0 as u8));
        positions.push(position.0);
        Ok(())
    })?;
    Ok(positions)
}

fn row(size: usize) -> Materialisation {
    let rows = vec![RowWrite { key: b"row".to_vec(), value: Some(vec![1; size]) }];
    Materialisation { upto: Position(1), instances: Vec::new(), rows }
}

/// Counts, and fails when told to.
#[derive(Default)]
struct CountedSync {
    count: AtomicU64,
    fails: AtomicBool,
}

impl DataSync for CountedSync {
    fn sync(&self, file: &File) -> io::Result<()> {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("scripted"));
        }
        file.sync_data()
    }
}

/// Says that there is as much space as it is told.
struct ScriptedSpace {
    free: AtomicU64,
    asked: AtomicU64,
}

impl ScriptedSpace {
    fn new(free: u64) -> Arc<Self> {
        Arc::new(Self { free: AtomicU64::new(free), asked: AtomicU64::new(0) })
    }
}

impl SpaceProbe for ScriptedSpace {
    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.free.load(Ordering::SeqCst))
    }
}

#[test]
fn every_append_is_synchronised_once() {
    let folder = tempfile::tempdir().unwrap();
    let sync = Arc::new(CountedSync::default());
    let data_sync: Arc<dyn DataSync> = sync.clone();
    let store = SledStore::open(folder.path(), SledOptions { data_sync, ..SledOptions::default() }).unwrap();
    let before = sync.count.load(Ordering::SeqCst);
    for position in 1..=10 {
        store.append(&[record(position, 100)]).unwrap();
        assert_eq!(sync.count.load(Ordering::SeqCst), before + position);
    }
    assert_eq!(store.metrics().log_syncs, 10);
    store.materialise(P0, &row(10)).unwrap();
    assert_eq!(sync.count.load(Ordering::SeqCst), before + 10, "a materialisation waits for nothing");
    store.truncate_log(P0, Position(1)).unwrap();
    assert_eq!(sync.count.load(Ordering::SeqCst), before + 11, "a truncation waits for the materialisation");
    store.truncate_log(P0, Position(2)).unwrap();
    assert_eq!(sync.count.load(Ordering::SeqCst), before + 11, "unless there was none");
}

#[test]
fn an_append_whose_synchronisation_fails_is_an_error_until_recovery() {
    let folder = tempfile::tempdir().unwrap();
    let sync = Arc::new(CountedSync::default());
    let data_sync: Arc<dyn DataSync> = sync.clone();
    let store = SledStore::open(folder.path(), SledOptions { data_sync, ..SledOptions::default() }).unwrap();
    store.append(&[record(1, 100)]).unwrap();
    sync.fails.store(true, Ordering::SeqCst);
    assert!(matches!(store.append(&[record(2, 100)]), Err(StoreError::Io { .. })));
    assert!(matches!(store.append(&[record(3, 100)]), Err(StoreError::Io { .. })));
    assert!(matches!(positions(&store), Err(StoreError::Io { .. })), "half-applied state is not shown");
    assert!(store.recover().is_err(), "the cause persists");
    assert!(store.recover().is_err());
    assert!(store.materialise(P0, &row(10)).is_err());
    sync.fails.store(false, Ordering::SeqCst);
    store.recover().unwrap();
    assert_eq!(positions(&store).unwrap(), [1, 2]);
    store.append(&[record(3, 100)]).unwrap();
    drop(store);
    assert_eq!(positions(&open(folder.path()).unwrap()).unwrap(), [1, 2, 3]);
}

#[test]
fn a_full_disk_stops_appends_before_sled_meets_it() {
    let folder = tempfile::tempdir().unwrap();
    let space = ScriptedSpace::new(1 << 40);
    let space_probe: Arc<dyn SpaceProbe> = space.clone();
    let options = SledOptions { space_probe, reserve_bytes: 1 << 20, ..SledOptions::default() };
    let store = SledStore::open(folder.path(), options).unwrap();
    for position in 1..=100 {
        store.append(&[record(position, 100)]).unwrap();
    }
    assert!(space.asked.load(Ordering::SeqCst) < 20, "it is not asked for every append");

    space.free.store((1 << 20) - 1, Ordering::SeqCst);
    let mut last = 100;
    let error = loop {
        match store.append(&[record(last + 1, 1 << 20)]) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full), "{error}");
    assert!(error.is_retryable());
    assert!(matches!(store.recover(), Err(StoreError::Full)));
    assert_eq!(positions(&store).unwrap().len() as u64, last, "reading goes on");
    store.materialise(P0, &row(1000)).unwrap();
    store.truncate_log(P0, Position(50)).unwrap();
    space.free.store((1 << 19) - 1, Ordering::SeqCst);
    assert!(matches!(store.append(&[record(last + 1, 10)]), Err(StoreError::Full)));
    assert!(matches!(store.materialise(P0, &row(1000)), Err(StoreError::Full)));

    space.free.store(1 << 40, Ordering::SeqCst);
    store.recover().unwrap();
    store.append(&[record(last + 1, 10)]).unwrap();
}

#[test]
fn a_hub_is_open_once_in_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    assert!(matches!(open_error(folder.path()), StoreError::Locked { path } if path == folder.path()));
    drop(store);
    open(folder.path()).unwrap();
}

#[test]
fn a_hub_is_open_in_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let locked_for_child = || {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "child_opens_a_hub"]).env(CHILD, folder.path()).stdout(Stdio::null());
        child.status().unwrap().success()
    };
    let store = open(folder.path()).unwrap();
    assert!(locked_for_child());
    drop(store);
    assert!(!locked_for_child());
}

/// What the test above runs in another process: passes when the hub is locked.
#[test]
fn child_opens_a_hub() {
    if let Some(folder) = std::env::var_os(CHILD) {
        assert!(matches!(open_error(Path::new(&folder)), StoreError::Locked { .. }));
    }
}

#[test]
fn another_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let hub = folder.path().join("hub");
    fs::write(&hub, fs::read_to_string(&hub).unwrap().replace("format 5", "format 2")).unwrap();
    let error = open_error(folder.path());
    assert!(matches!(error, StoreError::WrongFormat { found: 2, expected: 5, .. }), "{error}");
}

#[test]
fn a_hub_of_a_format_before_is_taken_over() {
    for before in ["format 3", "format 4"] {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()).unwrap());
        let hub = folder.path().join("hub");
        let written = fs::read_to_string(&hub).unwrap();
        fs::write(&hub, written.replace("format 5", before)).unwrap();
        drop(open(folder.path()).unwrap());
        assert_eq!(fs::read_to_string(&hub).unwrap(), written);
    }
}

#[test]
fn the_number_of_partitions_is_fixed_at_creation() {
    let folder = tempfile::tempdir().unwrap();
    let asking = |partitions| {
        SledStore::open(folder.path(), SledOptions { partitions, ..SledOptions::default() })
            .map(|store| store.info().partitions)
    };
    assert!(asking(Some(0)).is_err());
    assert_eq!(asking(Some(7)).unwrap(), 7);
    assert_eq!(asking(None).unwrap(), 7);
    assert_eq!(asking(Some(7)).unwrap(), 7);
    assert!(matches!(asking(Some(4)), Err(StoreError::PartitionCount { found: 7, asked: 4 })));
}

fn put(id: &str, size: usize) -> InstanceWrite {
    InstanceWrite {
        instance: InstanceId::from_trusted(id),
        reflects: Position(1),
        change: InstanceChange::Put {
            payloads: Vec::new(),
            state: vec![1; size].into(),
            history: HistoryChange::Append { at: 0, bytes: vec![2; size].into() },
            history_events: 10,
            fresh: true,
            ended: false,
            facts: InstanceFacts::new("orchestration", OrchestrationStatus::Running, Timestamp::default()),
        },
    }
}

fn filled(folder: &Path) {
    let store = open(folder).unwrap();
    for position in 1..=30 {
        store.append(&[record(position, 30_000)]).unwrap();
    }
    let instances = (0..50).map(|number| put(&format!("instance-{number:02}"), 20_000 + number)).collect();
    store.materialise(P0, &Materialisation { upto: Position(1), instances, rows: Vec::new() }).unwrap();
    store.flush().unwrap();
}

#[test]
fn missing_and_damaged_files_are_corrupt() {
    let damages: [fn(&Path); 6] = [
        |folder| fs::remove_file(folder.join("hub")).unwrap(),
        |folder| fs::write(folder.join("hub"), b"\xff\xfe").unwrap(),
        |folder| fs::write(folder.join("hub"), "steadfast hub\nformat one\n").unwrap(),
        |folder| fs::remove_dir_all(folder.join("log")).unwrap(),
        |folder| fs::remove_file(folder.join("data").join("db")).unwrap(),
        |folder| fs::write(folder.join("data").join("conf"), "what is this?").unwrap(),
    ];
    for damage in damages {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        damage(folder.path());
        let error = open_error(folder.path());
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }
}

/// Bytes are overwritten somewhere, in what sled will read at opening and in what it will read later. Either that is
/// noticed or they didn't matter.
#[test]
fn overwritten_bytes_never_lead_to_a_panic_or_to_silent_loss() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let mut noticed = 0;
    for (name, seed) in ["log", "data"].into_iter().flat_map(|name| (0..16_u64).map(move |seed| (name, seed)))
    {
        if seed == 8 {
            // From now on sled begins with a snapshot of its own, and reads most of the file only when asked.
            drop(open(folder.path()).unwrap());
        }
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        let path = copy.path().join(name).join("db");
        let file = File::options().write(true).open(&path).unwrap();
        let len = file.metadata().unwrap().len() - 700;
        let offset = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % len;
        file.write_all_at(&[0xa5; 700], if seed == 0 { 0 } else { offset }).unwrap();
        if let Err(error) = check_filled(copy.path()) {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{name} at {offset}: {error}");
            noticed += 1;
        }
    }
    assert!(noticed > 8, "{noticed}");
}

/// What is written of an instance before a materialisation fails is not written again: its records count as reflected.
/// So it must be found already.
#[test]
fn an_instance_that_an_interrupted_materialisation_wrote_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut damaged = put("b", 10);
    if let InstanceChange::Put { history, fresh, .. } = &mut damaged.change {
        *history = HistoryChange::Append { at: 7, bytes: vec![2; 10].into() };
        *fresh = false;
    }
    let batch =
        Materialisation { upto: Position(1), instances: vec![put("a", 10), damaged], rows: Vec::new() };
    assert!(matches!(store.materialise(P0, &batch), Err(StoreError::Corrupt { .. })));
    store.recover().unwrap();
    assert!(store.load_instance(&InstanceId::from_trusted("a")).unwrap().is_some());
    let found = store.find_instances(&InstanceFilter::default(), None, 10, Detail::State).unwrap();
    assert_eq!(found.instances.iter().map(|found| found.instance.as_str()).collect::<Vec<_>>(), ["a"]);
}

fn check_filled(folder: &Path) -> Result<(), StoreError> {
    let store = open(folder)?;
    assert_eq!(positions(&store)?, (1..=30).collect::<Vec<_>>());
    for number in 0..50 {
        let id = InstanceId::from_trusted(format!("instance-{number:02}"));
        let found = store.load_instance(&id)?.expect("an instance is missing");
        assert_eq!(found.state, vec![1; 20_000 + number]);
        assert_eq!(store.load_history(&id)?, vec![2; 20_000 + number]);
    }
    assert_eq!(store.load_partition(P0)?.upto, Position(1));
    assert_eq!(
        store.find_instances(&InstanceFilter::default(), None, 100, Detail::State)?.instances.len(),
        50
    );
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.metadata().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Opens the log's database as the store does, to damage it in ways that a crash or a bug would.
fn with_slots(folder: &Path, damage: impl FnOnce(&sled::Tree)) {
    let config = sled::Config::new().path(folder.join("log")).segment_size(4 << 20).flush_every_ms(None);
    // Threads of the sled that was closed a moment ago may still hold the file.
    let database = loop {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                std::thread::yield_now();
            }
            opened => break opened.unwrap(),
        }
    };
    damage(&database.open_tree("slots").unwrap());
    database.flush().unwrap();
}

/// The key of the slot that holds a piece of a batch.
fn slot_of(slots: &sled::Tree, batch: u64, piece: u32) -> sled::IVec {
    let head = [&batch.to_be_bytes()[..], &piece.to_be_bytes()[..]].concat();
    let found = slots.iter().find_map(|row| row.ok().filter(|(_, value)| value.starts_with(&head)));
    found.expect("there is no such piece").0
}

fn three_large_batches(folder: &Path) {
    let store = open(folder).unwrap();
    for position in 1..=3 {
        store.append(&[record(position, 200_000)]).unwrap();
    }
}

#[test]
fn the_torn_end_of_the_log_is_removed() {
    for missing in 1..4 {
        let folder = tempfile::tempdir().unwrap();
        three_large_batches(folder.path());
        with_slots(folder.path(), |slots| {
            for piece in missing..4 {
                slots.insert(slot_of(slots, 2, piece), Vec::new()).unwrap();
            }
        });
        let store = open(folder.path()).unwrap();
        assert_eq!(positions(&store).unwrap(), [1, 2]);
        store.append(&[record(3, 200_000), record(4, 10)]).unwrap();
        drop(store);
        assert_eq!(positions(&open(folder.path()).unwrap()).unwrap(), [1, 2, 3, 4]);
    }
}

#[test]
fn a_hole_in_the_log_is_corrupt() {
    for missing in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        three_large_batches(folder.path());
        with_slots(folder.path(), |slots| {
            slots.insert(slot_of(slots, 1, missing), Vec::new()).unwrap();
        });
        let error = open_error(folder.path());
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    three_large_batches(folder.path());
    with_slots(folder.path(), |slots| {
        for piece in 0..4 {
            slots.insert(slot_of(slots, 1, piece), Vec::new()).unwrap();
        }
    });
    let error = positions(&open(folder.path()).unwrap()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

/// sled puts what it finds too large into files that it never synchronises.
#[test]
fn nothing_goes_to_files_beside_the_databases() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    for round in 0..40 {
        let records: Vec<_> = (1..=16).map(|number| record(round * 16 + number, 65_000)).collect();
        store.append(&records).unwrap();
        if round % 4 == 3 {
            store.truncate_log(P0, Position(round * 16)).unwrap();
        }
        let mut batch = row(500_000);
        batch.instances = (0..20).map(|number| put(&format!("{round:02}-{number:02}"), 33_000)).collect();
        batch.rows.extend((0..40).map(|number| RowWrite {
            key: vec![b's', number, round as u8],
            value: Some(vec![round as u8; 32_767]),
        }));
        store.materialise(P0, &batch).unwrap();
        for name in ["log", "data"] {
            assert_eq!(fs::read_dir(folder.path().join(name).join("blobs")).unwrap().count(), 0);
        }
    }
}
