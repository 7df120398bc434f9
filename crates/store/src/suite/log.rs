//! Behaviours of the commit log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use steadfast_core::{PartitionId, Position};

use super::{
    Harness, Outcome, P0, Put, assert_corrupt, assert_instance, noise, positions, put, read_log, record,
};
use crate::{LogRecord, PartitionSnapshot, StoreError, bridge};

/// What was appended is read back, in order, before and after reopening.
pub fn appended_records_are_read_back_in_order(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    store.append(&[record(P0, 1, *b"one"), record(P0, 2, *b"two")])?;
    store.append(&[record(P0, 3, *b"three")])?;
    let expected = [(1, b"one".to_vec()), (2, b"two".to_vec()), (3, b"three".to_vec())];
    assert_eq!(read_log(&*store, P0, 0)?, expected);
    drop(store);
    harness.reopen();
    assert_eq!(read_log(&*harness.store(), P0, 0)?, expected);
    Ok(())
}

/// One append holds records of several partitions, each with positions of its own.
pub fn one_append_serves_several_partitions(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let at = |partition, position| record(PartitionId(partition), position, noise(position, 10));
    store.append(&[at(3, 1), at(0, 1), at(3, 2), at(1, 1), at(0, 2), at(3, 3)])?;
    store.append(&[at(1, 2), at(3, 4)])?;
    drop(store);
    harness.reopen();
    let store = harness.store();
    let found = [0, 1, 2, 3].map(|partition| positions(&*store, PartitionId(partition), 0));
    let [zero, one, two, three] = found;
    assert_eq!((zero?, one?, two?, three?), (vec![1, 2], vec![1, 2], vec![], vec![1, 2, 3, 4]));
    Ok(())
}

/// Records may be empty, and may be several MiB, next to one another.
pub fn records_of_any_size_are_read_back(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let sizes = [0, 1, 65_000, 65_535, 65_536, 65_537, 131_072, 1 << 20, 0, 5_000_000, 3];
    let records = sizes.iter().zip(1..).map(|(size, position)| record(P0, position, noise(position, *size)));
    let records: Vec<LogRecord> = records.collect();
    store.append(&records[..8])?;
    store.append(&records[8..])?;
    drop(store);
    harness.reopen();
    let found = read_log(&*harness.store(), P0, 0)?;
    assert_eq!(found.len(), records.len());
    for ((position, bytes), record) in found.iter().zip(&records) {
        assert!(*position == record.position.0 && bytes[..] == record.bytes[..], "record {position} differs");
    }
    Ok(())
}

/// There is no limit to the records of one append.
pub fn one_append_takes_thousands_of_records(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let records: Vec<_> = (1..=5000).map(|position| record(P0, position, noise(position, 20))).collect();
    store.append(&records)?;
    drop(store);
    harness.reopen();
    let found = read_log(&*harness.store(), P0, 0)?;
    assert!(found.iter().map(|(_, bytes)| &bytes[..]).eq(records.iter().map(|record| &record.bytes[..])));
    Ok(())
}

/// Reading begins with the record after the given one.
pub fn reading_begins_after_a_position(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    store.append(&[record(P0, 1, *b"a"), record(P0, 2, *b"b"), record(P0, 3, *b"c")])?;
    assert_eq!(positions(&*store, P0, 1)?, [2, 3]);
    assert!(positions(&*store, P0, 3)?.is_empty());
    assert!(positions(&*store, P0, 9)?.is_empty());
    Ok(())
}

/// What the visitor returns ends the reading and is returned.
pub fn the_error_of_a_visitor_ends_the_reading(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    store.append(&[record(P0, 1, *b"a"), record(P0, 2, *b"b")])?;
    let mut visited = 0;
    let result = store.read_log(P0, Position::ZERO, &mut |_, _| {
        visited += 1;
        Err(StoreError::Full)
    });
    assert!(matches!(result, Err(StoreError::Full)));
    assert_eq!(visited, 1);
    Ok(())
}

/// Truncated records are gone, now and after reopening, and the log goes on after them.
pub fn truncated_records_are_gone(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let records: Vec<_> = (1..=10).map(|position| record(P0, position, noise(position, 100_000))).collect();
    store.append(&records)?;
    store.truncate_log(P0, Position(6))?;
    assert_eq!(positions(&*store, P0, 6)?, [7, 8, 9, 10]);
    assert_corrupt(positions(&*store, P0, 3));
    drop(store);
    harness.reopen();
    let store = harness.store();
    assert_eq!(positions(&*store, P0, 6)?, [7, 8, 9, 10]);
    assert_corrupt(positions(&*store, P0, 5));
    store.truncate_log(P0, Position(10))?;
    assert!(positions(&*store, P0, 10)?.is_empty());
    store.append(&[record(P0, 11, *b"more")])?;
    drop(store);
    harness.reopen();
    assert_eq!(positions(&*harness.store(), P0, 10)?, [11]);
    Ok(())
}

/// Truncating one partition's log leaves the others alone, though their records were appended together.
pub fn truncation_spares_other_partitions(harness: &mut dyn Harness) -> Outcome {
    let other = PartitionId(1);
    let store = harness.store();
    for position in 1..=20 {
        store.append(&[record(P0, position, noise(1, 500)), record(other, position, noise(2, 500))])?;
    }
    store.truncate_log(P0, Position(20))?;
    store.truncate_log(other, Position(5))?;
    drop(store);
    harness.reopen();
    let store = harness.store();
    assert!(positions(&*store, P0, 20)?.is_empty());
    assert_eq!(positions(&*store, other, 5)?, (6..=20).collect::<Vec<_>>());
    Ok(())
}

/// Truncating what is truncated, and what was never appended, does nothing.
pub fn truncating_again_or_too_far_is_harmless(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    store.truncate_log(P0, Position::ZERO)?;
    store.append(&[record(P0, 1, *b"a"), record(P0, 2, *b"b")])?;
    store.truncate_log(P0, Position(1))?;
    store.truncate_log(P0, Position(1))?;
    store.truncate_log(P0, Position::ZERO)?;
    assert_eq!(positions(&*store, P0, 1)?, [2]);
    Ok(())
}

/// A long run of appends and truncations, reopened now and then, never loses or revives a record.
pub fn the_log_goes_on_through_truncations_and_reopenings(harness: &mut dyn Harness) -> Outcome {
    let partitions = [PartitionId(0), PartitionId(1), PartitionId(2)];
    for round in 0..6_u64 {
        let store = harness.store();
        for step in 1..=50 {
            let position = round * 50 + step;
            let size = if position % 7 == 0 { 150_000 } else { 300 };
            store.append(&partitions.map(|partition| record(partition, position, noise(position, size))))?;
            for partition in partitions {
                let behind = 5 + u64::from(partition.0) * 20;
                if position > behind && position % 3 == 0 {
                    store.truncate_log(partition, Position(position - behind))?;
                }
            }
        }
        drop(store);
        harness.reopen();
        let store = harness.store();
        let (last, truncated) = ((round + 1) * 50, (round + 1) * 50 / 3 * 3);
        for partition in partitions {
            let after = truncated.saturating_sub(5 + u64::from(partition.0) * 20);
            let found = read_log(&*store, partition, after)?;
            assert_eq!(found.len() as u64, last - after);
            for (position, bytes) in found {
                let size = if position % 7 == 0 { 150_000 } else { 300 };
                assert!(bytes == noise(position, size), "record {position} differs");
            }
        }
    }
    Ok(())
}

/// A record that doesn't follow the last one is refused, or found missing when the log is read.
pub fn a_gap_in_the_log_is_corrupt(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    store.append(&[record(P0, 1, *b"a")])?;
    let result = store.append(&[record(P0, 3, *b"c")]).and_then(|()| positions(&*store, P0, 0).map(drop));
    assert_corrupt(result);
    Ok(())
}

/// The counters count records, their bytes, and that they were made durable.
pub fn metrics_count_what_is_appended(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let before = store.metrics();
    store.append(&[record(P0, 1, noise(1, 100)), record(P0, 2, noise(2, 50))])?;
    store.append(&[record(P0, 3, noise(3, 7))])?;
    let after = store.metrics();
    assert_eq!(after.log_records - before.log_records, 3);
    assert_eq!(after.log_bytes - before.log_bytes, 157);
    assert!(after.log_syncs >= before.log_syncs + 2);
    Ok(())
}

/// One thread appends, one materialises and truncates, one reads.
pub fn several_threads_use_the_store_at_once(harness: &mut dyn Harness) -> Outcome {
    const LAST: u64 = 200;
    let store = harness.store();
    let appended = Arc::new(AtomicU64::new(0));
    thread::scope(|scope| {
        let appending = scope.spawn(|| {
            for position in 1..=LAST {
                store.append(&[record(P0, position, noise(position, 2000))])?;
                appended.store(position, Ordering::Release);
            }
            Ok::<_, StoreError>(())
        });
        let materialising = scope.spawn(|| {
            let mut done = 0;
            while done < LAST {
                let upto = appended.load(Ordering::Acquire);
                if upto > done {
                    put(&*store, Put::append("i", done, noise(upto, 100), upto))?;
                    store.truncate_log(P0, Position(upto))?;
                    done = upto;
                }
                thread::yield_now();
            }
            Ok::<_, StoreError>(())
        });
        let reading = scope.spawn(|| {
            while appended.load(Ordering::Acquire) < LAST {
                store.load_history(&super::id("i"))?;
                store.load_partition(P0)?;
            }
            Ok::<_, StoreError>(())
        });
        for thread in [appending, materialising, reading] {
            match thread.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, StoreError>(())
    })?;
    assert!(positions(&*store, P0, LAST)?.is_empty());
    drop(store);
    harness.reopen();
    assert!(positions(&*harness.store(), P0, LAST)?.is_empty());
    Ok(())
}

/// Recovery without an error changes nothing, and the store goes on.
pub fn recovery_without_an_error_does_nothing(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    store.append(&[record(P0, 1, *b"a")])?;
    put(&*store, Put::append("i", 0, *b"history", 1))?;
    store.recover()?;
    store.append(&[record(P0, 2, *b"b")])?;
    assert_eq!(positions(&*store, P0, 0)?, [1, 2]);
    assert_instance(&*store, "i", b"state", b"history")
}

/// An empty store has its partitions, and nothing in them.
pub fn an_empty_store_is_empty(harness: &mut dyn Harness) -> Outcome {
    for _ in 0..2 {
        let store = harness.store();
        assert_eq!(store.info().partitions, 4);
        for partition in 0..4 {
            assert!(positions(&*store, PartitionId(partition), 0)?.is_empty());
            assert_eq!(store.load_partition(PartitionId(partition))?, PartitionSnapshot::default());
        }
        assert_eq!(bridge::stored_instances(&*store)?, []);
        super::assert_no_instance(&*store, "nobody")?;
        store.flush()?;
        drop(store);
        harness.reopen();
    }
    Ok(())
}
