use std::sync::Arc;

use steadfast_core::{InstanceFacts, InstanceFilter, InstanceId, OrchestrationStatus, Position, Timestamp};
use steadfast_store::{HistoryChange, InstanceChange};

use super::group::Members;
use super::wanted::Wanted;
use super::*;
use crate::database::Usage;
use crate::options::Fdatasync;

fn write(id: &str, name: Option<&str>) -> InstanceWrite {
    let change = name.map_or(InstanceChange::Delete, |name| InstanceChange::Put {
        payloads: Vec::new(),
        state: Arc::from([]),
        history: HistoryChange::Replace(Arc::from([])),
        history_events: 0,
        fresh: false,
        ended: true,
        facts: InstanceFacts::new(name, OrchestrationStatus::Completed, Timestamp::default()),
    });
    InstanceWrite { instance: InstanceId::from_trusted(id), reflects: Position(1), change }
}

fn scattered(number: u64) -> String {
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn note_all(directory: &Directory, name: Option<&str>, ids: impl Iterator<Item = String>) {
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    for batch in ids.chunks(5000) {
        let writes: Vec<_> = batch.iter().map(|id| write(id, name)).collect();
        directory.note(&writes).unwrap();
    }
}

fn named(name: &str) -> InstanceFilter {
    InstanceFilter { name: Some(name.into()), ..InstanceFilter::default() }
}

fn count(directory: &Directory, filter: &InstanceFilter) -> usize {
    let mut after = None;
    let mut count = 0;
    loop {
        let found = directory.find(filter, after.as_ref(), 1000).unwrap();
        assert!(found.is_sorted_by(|left, right| left < right));
        count += found.len();
        match found.last() {
            Some(last) if found.len() == 1000 => after = Some(last.clone()),
            _ => return count,
        }
    }
}

fn settle(directory: &Directory) {
    let mut writer = directory.writer.lock();
    // What settles already, and then the rest.
    directory.settle_some(&mut writer, usize::MAX).unwrap();
    begin_to_settle(directory, &mut writer);
    directory.settle_some(&mut writer, usize::MAX).unwrap();
}

fn begin_to_settle(directory: &Directory, writer: &mut Writer) {
    assert!(writer.settling.is_none());
    let all = directory.recent.write().begin_to_settle();
    writer.settling = Some(Settling::new(all, writer.next_piece));
}

#[test]
fn settled_entries_are_found_changed_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), Usage::SMALL, Arc::new(Fdatasync)).unwrap();
    let directory = open(&database).unwrap();
    note_all(&directory, Some("first"), (0..10_000).map(scattered));
    settle(&directory);
    assert_eq!((directory.recent.read().len(), directory.journal.len()), (0, 0));
    assert!(directory.blocks.len() >= 10_000 / BLOCK_ENTRIES);
    note_all(&directory, Some("second"), (0..10_000).step_by(4).map(scattered));
    note_all(&directory, None, (1..10_000).step_by(4).map(scattered));
    for _ in 0..2 {
        assert_eq!(count(&directory, &named("first")), 5000);
        assert_eq!(count(&directory, &named("second")), 2500);
        assert_eq!(count(&directory, &InstanceFilter::default()), 7500);
        settle(&directory);
    }
    let blocks = directory.blocks.len();
    note_all(&directory, None, (0..10_000).map(scattered));
    settle(&directory);
    assert_eq!(count(&directory, &InstanceFilter::default()), 0);
    assert!(blocks > 0 && directory.blocks.is_empty() && directory.groups.is_empty());
}

#[test]
fn a_settlement_that_is_interrupted_anywhere_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    for written in [0, 1, 3, 20, 45] {
        let path = folder.path().join(format!("{written}"));
        let database = Database::open(&path, Usage::SMALL, Arc::new(Fdatasync)).unwrap();
        let directory = open(&database).unwrap();
        note_all(&directory, Some("first"), (0..5000).map(scattered));
        settle(&directory);
        note_all(&directory, Some("second"), (2500..15_000).map(scattered));
        // So many entries are settled, others come, the journal stays, and the process dies.
        let mut writer = directory.writer.lock();
        begin_to_settle(&directory, &mut writer);
        directory.settle_some(&mut writer, written * 300).unwrap();
        drop(writer);
        note_all(&directory, Some("third"), (2000..3000).map(scattered));
        assert_eq!(count(&directory, &named("second")), 12_000);
        drop(directory);
        let directory = open(&database).unwrap();
        for _ in 0..2 {
            assert_eq!(count(&directory, &named("first")), 2000);
            assert_eq!(count(&directory, &named("second")), 12_000);
            assert_eq!(count(&directory, &named("third")), 1000);
            settle(&directory);
        }
    }
}

#[test]
fn many_entries_settle_a_part_at_a_time_and_are_found_all_the_while() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), Usage::SMALL, Arc::new(Fdatasync)).unwrap();
    let directory = open(&database).unwrap();
    let mut settled_at_once = 0;
    for nth in 0..100_u64 {
        let before = directory.blocks.len();
        note_all(&directory, Some("any"), (nth * 1000..(nth + 1) * 1000).map(scattered));
        settled_at_once = settled_at_once.max(directory.blocks.len() - before);
        assert!(directory.recent.read().len() <= RECENT_ENTRIES_MAX + RECENT_ENTRIES_MAX / 2);
        if nth % 10 == 9 {
            assert_eq!(count(&directory, &named("any")) as u64, (nth + 1) * 1000);
        }
    }
    assert!(directory.blocks.len() > 200 && settled_at_once < 50, "{settled_at_once} at once");
    drop(directory);
    assert_eq!(count(&open(&database).unwrap(), &named("any")), 100_000);
}

/// A tree as it is now, to be put back.
fn copy(tree: &sled::Tree) -> Vec<(sled::IVec, sled::IVec)> {
    tree.iter().map(Result::unwrap).collect()
}

#[test]
fn a_settlement_that_was_written_halfway_says_nothing_twice_and_loses_nothing() {
    // The writes are made in the order of new blocks, groups from the last one on, blocks that were there before. Each state
    // in between is one that a crash can leave.
    let folder = tempfile::tempdir().unwrap();
    let others = || (100_000..120_000).map(scattered);
    for (nth, groups_written) in [0, 1, 2, 5, usize::MAX].into_iter().enumerate() {
        let path = folder.path().join(format!("{nth}"));
        let database = Database::open(&path, Usage::SMALL, Arc::new(Fdatasync)).unwrap();
        let directory = open(&database).unwrap();
        note_all(&directory, Some("first"), (0..20_000).map(scattered));
        settle(&directory);
        let (blocks, groups) = (copy(&directory.blocks), copy(&directory.groups));
        note_all(&directory, Some("first"), others());
        settle(&directory);
        // Blocks that were there before are what they were, and only some groups are new.
        for (key, block) in &blocks {
            directory.blocks.insert(key, block).unwrap();
        }
        for (key, _) in copy(&directory.groups).iter().rev().skip(groups_written) {
            match groups.iter().find(|(old, _)| old == key) {
                Some((_, group)) => directory.groups.insert(key, group).unwrap(),
                None => directory.groups.remove(key).unwrap(),
            };
        }
        note_all(&directory, Some("first"), others());
        drop(directory);
        let directory = open(&database).unwrap();
        for _ in 0..2 {
            assert_eq!(count(&directory, &named("first")), 40_000, "{groups_written} groups were written");
            settle(&directory);
        }
        // What lies beyond the end of a block does not come back when the end moves.
        let mut last: Vec<_> = (0..20_000).map(scattered).chain(others()).collect();
        last.sort_unstable();
        let gone = last.split_off(700);
        note_all(&directory, None, gone.into_iter());
        settle(&directory);
        assert_eq!(count(&directory, &InstanceFilter::default()), 700);
        assert_eq!(directory.groups.len(), 1);
    }
}

#[test]
fn blocks_become_empty_in_any_order_and_fill_again() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), Usage::SMALL, Arc::new(Fdatasync)).unwrap();
    let directory = open(&database).unwrap();
    let mut all: Vec<_> = (0..30_000).map(scattered).collect();
    all.sort_unstable();
    note_all(&directory, Some("any"), all.iter().cloned());
    settle(&directory);
    let mut left = all.len();
    for part in [10_000..20_000, 0..5000, 20_000..30_000, 5000..10_000] {
        left -= part.len();
        note_all(&directory, None, all[part.clone()].iter().cloned());
        settle(&directory);
        assert_eq!(count(&directory, &InstanceFilter::default()), left);
        note_all(&directory, Some("again"), all[part.clone()].iter().step_by(2).cloned());
        settle(&directory);
        assert_eq!(count(&directory, &named("again")), part.len() / 2);
        note_all(&directory, None, all[part].iter().cloned());
        settle(&directory);
    }
    assert!(directory.groups.is_empty() && directory.blocks.is_empty());
}

#[test]
fn a_short_span_of_time_among_instances_with_any_ids_takes_few_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), Usage::SMALL, Arc::new(Fdatasync)).unwrap();
    let directory = open(&database).unwrap();
    let mut writes: Vec<_> = (0..20_000).map(|number| (scattered(number), number as i64)).collect();
    writes.sort_unstable();
    let writes: Vec<_> = writes
        .iter()
        .map(|(id, second)| {
            let mut write = write(id, Some("any"));
            if let InstanceChange::Put { facts, .. } = &mut write.change {
                facts.created_at = Timestamp::from_micros(*second * 1_000_000);
            }
            write
        })
        .collect();
    directory.note(&writes).unwrap();
    settle(&directory);
    let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
    let created = steadfast_core::TimeRange::between(at(7000), at(7010));
    let filter = InstanceFilter { created, ..InstanceFilter::default() };
    assert_eq!(count(&directory, &filter), 10);
    let wanted = Wanted::new(&filter);
    let (mut read, mut all) = (0, 0);
    for (_, group) in copy(&directory.groups) {
        let mut members = Members::new(&group);
        while let Some(member) = members.next().unwrap() {
            all += 1;
            read += usize::from(summary::may_match(member.summary, &wanted).unwrap());
        }
    }
    assert!(read <= 12 && all > 70, "{read} of {all} blocks are read");
}

#[test]
fn damaged_entries_are_a_typed_error() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), Usage::SMALL, Arc::new(Fdatasync)).unwrap();
    let directory = open(&database).unwrap();
    note_all(&directory, Some("first"), (0..100).map(scattered));
    settle(&directory);
    let intact: Vec<_> =
        [&directory.blocks, &directory.groups].map(|tree| tree.first().unwrap().unwrap()).into();
    for (tree, (key, value)) in [&directory.blocks, &directory.groups].into_iter().zip(&intact) {
        tree.insert(key, &value[..value.len() - 1]).unwrap();
        let found = directory.find(&InstanceFilter::default(), None, 1000);
        assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{found:?}");
        tree.insert(key, value).unwrap();
    }
    assert_eq!(count(&directory, &named("first")), 100);
    directory.journal.insert(7_u64.to_be_bytes(), vec![0xff; 30]).unwrap();
    assert!(matches!(open(&database).map(drop), Err(StoreError::Corrupt { .. })));
}
