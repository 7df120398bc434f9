//! Behaviours of the partitions' rows and positions.

use steadfast_core::{PartitionId, Position};

use super::{Harness, Outcome, P0, noise};
use crate::{Materialisation, RowWrite, Store, StoreError};

type Row<'a> = (&'a [u8], Option<&'a [u8]>);

fn write_rows(store: &dyn Store, partition: PartitionId, upto: u64, rows: &[Row<'_>]) -> Outcome {
    let mut rows: Vec<RowWrite> = rows
        .iter()
        .map(|(key, value)| RowWrite { key: key.to_vec(), value: value.map(<[u8]>::to_vec) })
        .collect();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    store.materialise(partition, &Materialisation { upto: Position(upto), instances: Vec::new(), rows })
}

fn rows(store: &dyn Store, partition: PartitionId) -> Result<String, StoreError> {
    let snapshot = store.load_partition(partition)?;
    let texts = snapshot
        .rows
        .iter()
        .map(|(key, value)| format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
    Ok(texts.collect::<Vec<_>>().join(" "))
}

/// Rows are put, put again and removed; removing what isn't there does nothing.
pub fn rows_are_put_and_removed(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    write_rows(&*store, P0, 1, &[(b"a", Some(b"1")), (b"b", Some(b"2")), (b"c", Some(b""))])?;
    write_rows(&*store, P0, 2, &[(b"a", None), (b"b", Some(b"3")), (b"x", None)])?;
    assert_eq!(rows(&*store, P0)?, "b=3 c=");
    drop(store);
    harness.reopen();
    assert_eq!(rows(&*harness.store(), P0)?, "b=3 c=");
    Ok(())
}

/// Rows come in the order of their keys as bytes, whatever these are.
pub fn rows_come_in_key_order(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let long = [7; 1024];
    let mut keys: Vec<&[u8]> =
        vec![b"", b"\0", b"\0\0", b"\x01", b"a", b"a\0", b"ab", b"b", b"\xff", b"\xff\xff", &long];
    let written: Vec<Row<'_>> = keys.iter().rev().map(|key| (*key, Some(&b"value"[..]))).collect();
    write_rows(&*store, P0, 1, &written)?;
    keys.sort_unstable();
    let snapshot = store.load_partition(P0)?;
    assert!(snapshot.rows.iter().map(|(key, _)| &key[..]).eq(keys));
    Ok(())
}

/// The same key means something else in another partition.
pub fn rows_of_partitions_stay_apart(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    for partition in 0..4 {
        let value = partition.to_string();
        write_rows(&*store, PartitionId(partition), 1, &[(b"a", Some(value.as_bytes()))])?;
    }
    write_rows(&*store, PartitionId(2), 2, &[(b"a", None)])?;
    for (partition, expected) in ["a=0", "a=1", "", "a=3"].into_iter().enumerate() {
        assert_eq!(rows(&*store, PartitionId(partition as u16))?, expected);
    }
    Ok(())
}

/// A row's value may be of several MiB, shrink, grow and go.
pub fn rows_of_any_size_are_read_back(harness: &mut dyn Harness) -> Outcome {
    let sizes = [10, 32_767, 32_768, 100_000, 3_000_000, 70_000, 5, 80_000];
    for (size, upto) in sizes.into_iter().zip(1..) {
        let store = harness.store();
        let value = noise(upto, size);
        write_rows(&*store, P0, upto, &[(b"a", Some(&value)), (b"ab", Some(b"small"))])?;
        drop(store);
        harness.reopen();
        let found = harness.store().load_partition(P0)?.rows;
        assert!(found == [(b"a".to_vec(), value), (b"ab".to_vec(), b"small".to_vec())]);
    }
    let store = harness.store();
    write_rows(&*store, P0, 99, &[(b"a", None)])?;
    assert_eq!(rows(&*store, P0)?, "ab=small");
    write_rows(&*store, P0, 100, &[(b"a", Some(&noise(100, 90_000)))])?;
    assert!(store.load_partition(P0)?.rows.iter().any(|(_, value)| *value == noise(100, 90_000)));
    Ok(())
}

/// Each partition's position is that of its last materialisation.
pub fn the_position_is_kept(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    write_rows(&*store, P0, 7, &[])?;
    write_rows(&*store, PartitionId(3), 300, &[])?;
    write_rows(&*store, P0, 12, &[])?;
    drop(store);
    harness.reopen();
    let store = harness.store();
    let upto = |partition| store.load_partition(PartitionId(partition)).map(|snapshot| snapshot.upto.0);
    assert_eq!((upto(0)?, upto(1)?, upto(3)?), (12, 0, 300));
    Ok(())
}
