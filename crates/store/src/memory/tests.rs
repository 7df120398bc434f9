use steadfast_core::{InstanceFacts, OrchestrationStatus, Timestamp};

use super::*;
use crate::{HistoryChange, InstanceChange, InstanceWrite, RowWrite, bridge};

fn record(position: u64) -> LogRecord {
    let bytes = format!("record {position}").into_bytes().into();
    LogRecord { partition: PartitionId(0), position: Position(position), bytes }
}

fn positions(store: &MemoryStore) -> Vec<u64> {
    let mut positions = Vec::new();
    store
        .read_log(PartitionId(0), Position::ZERO, &mut |position, _| {
            positions.push(position.0);
            Ok(())
        })
        .unwrap();
    positions
}

fn io_error() -> StoreError {
    StoreError::Io { doing: "testing", problem: "scripted".to_owned() }
}

fn batch(upto: u64) -> Materialisation {
    let put = |id: &str| InstanceWrite {
        instance: InstanceId::from_trusted(id),
        reflects: Position(upto),
        change: InstanceChange::Put {
            payloads: Vec::new(),
            state: Arc::from(*b"state"),
            history: HistoryChange::Append { at: 0, bytes: Arc::from(*b"history") },
            history_events: 1,
            fresh: true,
            ended: false,
            facts: InstanceFacts::new("orchestration", OrchestrationStatus::Running, Timestamp::default()),
        },
    };
    Materialisation {
        upto: Position(upto),
        instances: vec![put("a"), put("b")],
        rows: vec![RowWrite { key: b"k".to_vec(), value: Some(b"v".to_vec()) }],
    }
}

#[test]
fn a_crash_between_writing_and_synchronising_leaves_any_prefix() {
    let store = MemoryStore::new(1);
    store.append(&[record(1)]).unwrap();
    store.crash_at(5);
    assert!(store.append(&[record(2), record(3), record(4)]).is_err());
    assert!(store.has_crashed());
    assert!(store.load_partition(PartitionId(0)).is_err());
    assert!(store.recover().is_err());
    assert_eq!(positions(&store.crash_image(Survival::Synced)), [1]);
    assert_eq!(positions(&store.crash_image(Survival::FirstWrites(2))), [1, 2, 3]);
    assert_eq!(positions(&store.crash_image(Survival::Written)), [1, 2, 3, 4]);
}

#[test]
fn a_crash_in_the_middle_of_an_append_leaves_a_prefix_of_its_records() {
    let store = MemoryStore::new(1);
    store.crash_at(2);
    assert!(store.append(&[record(1), record(2), record(3)]).is_err());
    assert_eq!(positions(&store.crash_image(Survival::Written)), [1, 2]);
}

#[test]
fn a_materialisation_stops_at_every_one_of_its_writes() {
    let undisturbed = MemoryStore::new(1);
    undisturbed.materialise(PartitionId(0), &batch(7)).unwrap();
    assert_eq!(undisturbed.steps(), 4);
    for step in 0..undisturbed.steps() {
        let store = MemoryStore::new(1);
        store.crash_at(step);
        assert!(store.materialise(PartitionId(0), &batch(7)).is_err());
        let survivor = store.crash_image(Survival::Written);
        let instances = bridge::stored_instances(&survivor).unwrap().len() as u64;
        let snapshot = survivor.load_partition(PartitionId(0)).unwrap();
        assert_eq!(instances, step.min(2));
        assert_eq!(snapshot.rows.len() as u64, step.saturating_sub(2));
        assert_eq!(snapshot.upto, Position::ZERO);
        assert!(bridge::stored_instances(&store.crash_image(Survival::Synced)).unwrap().is_empty());
    }
}

#[test]
fn a_synchronisation_makes_everything_before_it_durable() {
    let store = MemoryStore::new(1);
    store.materialise(PartitionId(0), &batch(0)).unwrap();
    assert_eq!(store.unsynced_writes(), 4);
    store.append(&[record(1)]).unwrap();
    store.crash();
    let survivor = store.crash_image(Survival::Synced);
    assert_eq!(bridge::stored_instances(&survivor).unwrap().len(), 2);
}

#[test]
fn the_nth_call_fails_once_before_or_after_its_effect() {
    let store = MemoryStore::new(1);
    let fault = |nth, point| Fault { operation: Operation::Append, nth, point, error: io_error() };
    store.fail(fault(2, FaultPoint::Before));
    store.fail(fault(4, FaultPoint::After));
    store.append(&[record(1)]).unwrap();
    assert!(matches!(store.append(&[record(2)]), Err(StoreError::Io { .. })));
    assert!(store.append(&[record(2)]).is_err(), "nothing is appended before recovery");
    store.recover().unwrap();
    assert_eq!(positions(&store), [1]);
    store.append(&[record(2)]).unwrap();
    assert!(store.append(&[record(3)]).is_err());
    store.recover().unwrap();
    assert_eq!(positions(&store.crash_image(Survival::Synced)), [1, 2, 3]);
    store.append(&[record(4)]).unwrap();
}

#[test]
fn a_failed_synchronisation_leaves_the_record_written_until_recovery_makes_it_durable() {
    let store = MemoryStore::new(1);
    let fault =
        Fault { operation: Operation::Sync, nth: 1, point: FaultPoint::Before, error: StoreError::Full };
    store.fail(fault);
    assert!(matches!(store.append(&[record(1)]), Err(StoreError::Full)));
    assert_eq!(positions(&store), [1]);
    assert_eq!(positions(&store.crash_image(Survival::Synced)), Vec::<u64>::new());
    store.recover().unwrap();
    assert_eq!(positions(&store.crash_image(Survival::Synced)), [1]);
}

#[test]
fn an_operation_fails_after_some_of_its_writes_and_can_be_repeated() {
    let store = MemoryStore::new(1);
    let point = FaultPoint::AfterWrites(2);
    store.fail(Fault { operation: Operation::Materialise, nth: 1, point, error: io_error() });
    assert!(store.materialise(PartitionId(0), &batch(7)).is_err());
    assert_eq!(bridge::stored_instances(&store).unwrap().len(), 2);
    assert_eq!(store.load_partition(PartitionId(0)).unwrap(), PartitionSnapshot::default());
    store.materialise(PartitionId(0), &batch(7)).unwrap();
    assert_eq!(store.load_partition(PartitionId(0)).unwrap().upto, Position(7));
    assert_eq!(store.load_history(&InstanceId::from_trusted("a")).unwrap(), b"history");
}

#[test]
fn reads_and_truncations_fail_as_scripted() {
    let store = MemoryStore::new(1);
    store.append(&[record(1), record(2)]).unwrap();
    let fault = |operation| Fault { operation, nth: 1, point: FaultPoint::Before, error: io_error() };
    store.fail(fault(Operation::Load));
    store.fail(fault(Operation::Truncate));
    assert!(store.load_instance(&InstanceId::from_trusted("a")).is_err());
    assert!(store.truncate_log(PartitionId(0), Position(1)).is_err());
    assert_eq!(positions(&store), [1, 2]);
}
