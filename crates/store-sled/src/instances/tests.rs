use std::collections::BTreeMap;
use std::sync::Arc;

use steadfast_core::{InstanceFacts, OrchestrationStatus, PartitionId, Position, Timestamp};

use super::*;
use crate::database::Usage;
use crate::options::Fdatasync;

const PARTITIONS: u16 = 2;

struct Opened {
    _folder: tempfile::TempDir,
    instances: Instances,
    pieces: Pieces,
}

fn opened() -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), Usage::SMALL, Arc::new(Fdatasync)).unwrap();
    let (instances, pieces) = (open(&database, PARTITIONS).unwrap(), crate::pieces::open(&database).unwrap());
    Opened { _folder: folder, instances, pieces }
}

fn put(id: &str, state: &[u8], fresh: bool) -> InstanceWrite {
    let change = InstanceChange::Put {
        state: state.into(),
        payloads: Vec::new(),
        history: HistoryChange::Replace(Arc::from(*b"history")),
        history_events: 1,
        fresh,
        ended: true,
        facts: InstanceFacts::new("any", OrchestrationStatus::Completed, Timestamp::default()),
    };
    InstanceWrite { instance: InstanceId::from_trusted(id), reflects: Position(1), change }
}

fn delete(id: &str) -> InstanceWrite {
    let change = InstanceChange::Delete;
    InstanceWrite { instance: InstanceId::from_trusted(id), reflects: Position(2), change }
}

impl Opened {
    fn write(&self, writes: &[InstanceWrite]) {
        assert!(writes.is_sorted_by(|left, right| left.instance < right.instance));
        for partition in (0..PARTITIONS).map(PartitionId) {
            let mine = |write: &&InstanceWrite| write.instance.partition(PARTITIONS) == partition;
            let writes: Vec<_> = writes.iter().filter(mine).cloned().collect();
            self.instances.write(&self.pieces, &writes).unwrap();
        }
    }

    fn state(&self, id: &str) -> Option<Vec<u8>> {
        let id = InstanceId::from_trusted(id);
        let stored = self.instances.load(&self.pieces, &id, Detail::State).unwrap();
        let history = self.instances.load_history(&self.pieces, &id).unwrap();
        assert_eq!(history, if stored.is_some() { &b"history"[..] } else { b"" });
        stored.map(|stored| stored.state)
    }

    fn packed(&self, id: &str) -> bool {
        self.instances.packs.get(&InstanceId::from_trusted(id)).unwrap().is_some()
    }
}

impl Opened {
    /// Writes an instance with a payload of this name.
    fn write_with_payload(&self, id: &str, payload: (u128, &[u8]), fresh: bool) {
        let mut write = put(id, b"state", fresh);
        if let InstanceChange::Put { payloads, .. } = &mut write.change {
            let (name, bytes): (_, Arc<[u8]>) = (payload.0, payload.1.into());
            payloads.push(PayloadWrite::new(0, name, bytes.len(), move || Ok(bytes.clone())));
        }
        self.write(&[write]);
    }

    fn payload_keys(&self, id: &str) -> usize {
        let prefix = keys::payloads(&InstanceId::from_trusted(id));
        let next = |from: &[u8]| self.pieces.first_from(&prefix, from).unwrap();
        std::iter::successors(next(&prefix), |key| next(&[key, &b"\0"[..]].concat())).count()
    }
}

#[test]
fn a_payload_that_is_known_is_not_written_again_nor_read_for_an_outline() {
    let store = opened();
    let id = InstanceId::from_trusted("i");
    let load = |detail| store.instances.load(&store.pieces, &id, detail);
    let payload = vec![7; 1 << 20];
    store.write_with_payload("i", (1, &payload), true);
    assert_eq!(load(Detail::State).unwrap().unwrap().payloads, [(0, payload.clone())]);
    // Somebody takes it away: what is not written again stays away.
    store.pieces.remove_all(&keys::payloads(&id)).unwrap();
    store.write_with_payload("i", (1, &payload), false);
    assert_eq!(load(Detail::Outline).unwrap().unwrap().state, b"state");
    assert!(matches!(load(Detail::State), Err(StoreError::Corrupt { .. })));
    store.write_with_payload("i", (2, &payload), false);
    assert_eq!(load(Detail::State).unwrap().unwrap().payloads, [(0, payload)]);
}

#[test]
fn a_payload_that_is_known_is_not_even_encoded() {
    let store = opened();
    store.write_with_payload("i", (1, b"payload"), true);
    let mut write = put("i", b"again", false);
    if let InstanceChange::Put { payloads, .. } = &mut write.change {
        payloads.push(PayloadWrite::new(0, 1, 7, || unreachable!("the store has it")));
    }
    store.write(&[write]);
    let stored = store.instances.load(&store.pieces, &InstanceId::from_trusted("i"), Detail::State);
    let stored = stored.unwrap().unwrap();
    assert_eq!((stored.state, stored.payloads), (b"again".to_vec(), vec![(0, b"payload".to_vec())]));
}

/// Flags, position, events, generation, state version, history, and what comes behind it: a row as format 4 has it.
fn row_of_format_4(flags: u8, rest: &[u8]) -> Vec<u8> {
    let history = b"history";
    [&[flags], &[0; 7][..], &[1], &[0; 7], &[1], &[0; 4], &[0, 0, 0, 3], &[0, 0, 0, 7], history, rest]
        .concat()
}

#[test]
fn rows_of_format_4_are_read_and_written_over() {
    let large = vec![7; 100_000];
    let len = (large.len() as u64).to_be_bytes();
    // The history is in the row; the state as well, or elsewhere, without or with an outline.
    let rows = [
        (row_of_format_4(1, b"state"), &b"state"[..], &b"state"[..]),
        (row_of_format_4(1 | 2, &len), &large, &large),
        (row_of_format_4(1 | 2 | 4, &[&len, &b"outline"[..]].concat()), &large, b"outline"),
    ];
    for (row, state, outline) in rows {
        let store = opened();
        let id = InstanceId::from_trusted("i");
        store.pieces.write(&keys::state(&id, 3), &large).unwrap();
        store.instances.put(&id, &row).unwrap();
        let load = |detail| store.instances.load(&store.pieces, &id, detail).unwrap().unwrap();
        assert!(load(Detail::State).state == state && load(Detail::Outline).state == outline);
        assert_eq!(store.state("i").as_deref(), Some(state));
        store.write_with_payload("i", (1, b"payload"), false);
        assert_eq!(store.state("i").unwrap(), b"state");
        assert_eq!(load(Detail::State).payloads, [(0, b"payload".to_vec())]);
        store.write(&[delete("i")]);
        assert!(store.instances.is_empty());
    }
}

#[test]
fn payloads_that_nobody_speaks_of_are_removed() {
    let store = opened();
    let (id, payload) = (InstanceId::from_trusted("i"), vec![7; 100_000]);
    // What a crash left of a fresh instance.
    store.pieces.write(&keys::payload(&id, 0, 9), &payload).unwrap();
    store.pieces.write(&keys::payload(&InstanceId::from_trusted("i2"), 0, 9), &payload).unwrap();
    store.write_with_payload("i", (1, &payload), true);
    assert_eq!(store.payload_keys("i"), 4);
    store.write_with_payload("i", (2, &payload[..50_000]), false);
    assert_eq!(store.payload_keys("i"), 2);
    store.write(&[put("i", b"state", false)]);
    assert_eq!((store.payload_keys("i"), store.payload_keys("i2")), (0, 4));
}

#[test]
fn neighbours_share_packs_and_what_has_none_or_would_overlap_does_not() {
    let store = opened();
    let ids: Vec<_> = (0..400).map(|n| format!("i-{n:04}")).collect();
    let even: Vec<_> = ids.iter().step_by(2).map(|id| put(id, b"even", true)).collect();
    store.write(&even);
    let packed = ids.iter().filter(|id| store.packed(id)).count();
    assert!(packed >= 198, "{packed}");
    let packs = store.instances.packs.count();
    assert!((4..10).contains(&packs), "{packs}");
    let odd: Vec<_> = ids.iter().skip(1).step_by(2).map(|id| put(id, b"odd", true)).collect();
    store.write(&odd);
    assert!(store.instances.packs.count() <= packs + 2);
    let large = Random(1).bytes(3000);
    let others = [put("large", &large, true), put("large-too", &large, true), put("not ended", b"", false)];
    store.write(&others);
    assert!(others.iter().all(|write| !store.packed(write.instance.as_str())));
    for (n, id) in ids.iter().enumerate() {
        let expected = if n % 2 == 0 { &b"even"[..] } else { b"odd" };
        assert_eq!(store.state(id).as_deref(), Some(expected), "{id}");
    }
}

#[test]
fn what_was_packed_changes_and_goes_like_anything_else() {
    let store = opened();
    let ids: Vec<_> = (0..60).map(|n| format!("i-{n:04}")).collect();
    let all: Vec<_> = ids.iter().map(|id| put(id, b"first", true)).collect();
    store.write(&all);
    assert!(store.packed(&ids[7]));
    store.write(&[put(&ids[7], b"second", false)]);
    assert_eq!(store.state(&ids[7]).unwrap(), b"second");
    store.write(&[delete(&ids[0]), delete(&ids[7]), delete(&ids[59]), delete("i-9999")]);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(store.state(id).is_none(), [0, 7, 59].contains(&n), "{id}");
    }
    // The first of a pack comes again: it must not take the place of the others.
    store.write(&[put(&ids[0], b"again", true), put("i-0000a", b"new", true)]);
    assert_eq!(store.state(&ids[0]).unwrap(), b"again");
    assert_eq!(store.state(&ids[1]).unwrap(), b"first");
    assert_eq!(store.state("i-0000a").unwrap(), b"new");
}

/// A generator of its own keeps a failure reproducible without a dependency: xorshift64.
struct Random(u64);

impl Random {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn whatever_is_written_in_whatever_order_is_read_as_written_last_and_packs_never_overlap() {
    for seed in 1..=6 {
        let (store, mut random) = (opened(), Random(seed));
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for round in 0..120_u64 {
            // Close together like ids that are made in the order of time, or anywhere.
            let (from, span) = if random.below(2) == 0 { (round * 40, 60) } else { (0, 5000) };
            let mut batch = BTreeMap::new();
            for _ in 0..random.below(80) {
                let id = format!("{:05}", from + random.below(span));
                let known = model.contains_key(&id);
                if random.below(4) == 0 {
                    batch.insert(id.clone(), delete(&id));
                } else if !batch.contains_key(&id) {
                    let state = vec![round as u8; random.below(600) as usize];
                    batch.insert(id.clone(), put(&id, &state, !known));
                }
            }
            if random.below(10) == 0 {
                // Everything of a stretch goes, as a purge does it.
                let gone = model.range(format!("{from:05}")..).take(200).map(|(id, _)| id.clone());
                batch = gone.map(|id| (id.clone(), delete(&id))).collect();
            }
            for (id, write) in &batch {
                match &write.change {
                    InstanceChange::Put { state, .. } => model.insert(id.clone(), state.to_vec()),
                    InstanceChange::Delete => model.remove(id),
                };
            }
            store.write(&batch.into_values().collect::<Vec<_>>());
            store.instances.packs.check_order();
        }
        for n in 0..5000 {
            let id = format!("{n:05}");
            assert_eq!(store.state(&id), model.get(&id).cloned(), "seed {seed}, {id}");
        }
        println!("seed {seed}: {} packs of {}", store.instances.packs.count(), model.len());
        let all: Vec<_> = model.keys().map(|id| delete(id)).collect();
        store.write(&all);
        assert!(store.instances.is_empty(), "seed {seed} leaves something");
    }
}

#[test]
fn what_a_crash_left_of_a_fresh_instance_is_not_part_of_its_history() {
    let store = opened();
    let id = InstanceId::from_trusted("i");
    // Pieces come before the row, and the row was not written.
    write_part(&store.pieces, &id, 0, (0, 2), b"his").unwrap();
    let mut write = put("i", b"state", true);
    if let InstanceChange::Put { history_events, ended, .. } = &mut write.change {
        (*history_events, *ended) = (3, false);
    }
    store.write(&[write]);
    assert_eq!(store.state("i").unwrap(), b"state");
}

#[test]
fn what_is_said_several_times_is_stored_once_and_goes_on_like_anything_else() {
    let store = opened();
    let id = InstanceId::from_trusted("i");
    let text = Random(3).bytes(9000);
    let mut write = put("i", &text, true);
    let history = text.repeat(4);
    let set = |write: &mut InstanceWrite, change: HistoryChange, events| {
        let InstanceChange::Put { history, history_events, ended, .. } = &mut write.change else { return };
        (*history, *history_events, *ended) = (change, events, events == 4);
    };
    set(&mut write, HistoryChange::Append { at: 0, bytes: history.as_slice().into() }, 4);
    store.write(&[write]);
    assert!(store.instances.get(&id).unwrap().unwrap().len() < 10_000);
    assert!(store.pieces.first_from(&[], &[]).unwrap().is_none());
    let load = || {
        let stored = store.instances.load(&store.pieces, &id, Detail::State).unwrap().unwrap();
        (stored.state, store.instances.load_history(&store.pieces, &id).unwrap())
    };
    assert!(load() == (text, history.clone()));
    // It was rewound.
    let mut write = put("i", b"again", false);
    set(&mut write, HistoryChange::Append { at: 4, bytes: Arc::from(*b"more") }, 5);
    store.write(&[write]);
    assert!(load() == (b"again".to_vec(), [&history, &b"more"[..]].concat()));
    store.write(&[delete("i")]);
    assert!(store.instances.is_empty() && store.pieces.first_from(&[], &[]).unwrap().is_none());
}
