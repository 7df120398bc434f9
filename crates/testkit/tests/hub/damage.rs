//! Invariant I8: whatever bytes are in the store, recovery answers with a typed error or goes on; it never panics.

use std::sync::Arc;

use steadfast_core::partition::{Partition, PartitionOptions, Work};
use steadfast_core::{InstanceId, PartitionId, Position};
use steadfast_store::{
    MemoryStore, PartitionSnapshot, Store, StoreError, StoreLayer, StoredInstance, Survival, bridge,
};
use steadfast_testkit::SimulationOptions;

use crate::scenarios::{SCENARIOS, hub};

/// Changes bytes on their way out of the store.
type Tamper = Arc<dyn Fn(&str, &mut Vec<u8>) + Send + Sync>;

struct Tampered {
    store: MemoryStore,
    tamper: Tamper,
}

impl StoreLayer for Tampered {
    fn inner(&self) -> &dyn Store {
        &self.store
    }

    fn read_log(
        &self,
        partition: PartitionId,
        after: Position,
        visit: &mut dyn FnMut(Position, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.store.read_log(partition, after, &mut |position, mut bytes| {
            (self.tamper)(&format!("record {position}"), &mut bytes);
            visit(position, bytes)
        })
    }

    fn load_partition(&self, partition: PartitionId) -> Result<PartitionSnapshot, StoreError> {
        let mut snapshot = self.store.load_partition(partition)?;
        for (at, (key, value)) in snapshot.rows.iter_mut().enumerate() {
            (self.tamper)(&format!("key {at}"), key);
            (self.tamper)(&format!("value {at}"), value);
        }
        Ok(snapshot)
    }

    fn load_instance(&self, instance: &InstanceId) -> Result<Option<StoredInstance>, StoreError> {
        let mut stored = self.store.load_instance(instance)?;
        if let Some(stored) = &mut stored {
            (self.tamper)(&format!("state {instance}"), &mut stored.state);
        }
        Ok(stored)
    }

    fn load_history(&self, instance: &InstanceId) -> Result<Vec<u8>, StoreError> {
        let mut history = self.store.load_history(instance)?;
        (self.tamper)(&format!("history {instance}"), &mut history);
        Ok(history)
    }
}

fn flip<const BITS: u8>(bytes: &mut [u8]) {
    bytes[0] ^= BITS;
}

/// The greatest number in the record encoding, if it fits.
fn huge_number(bytes: &mut [u8]) {
    bytes.iter_mut().take(9).for_each(|byte| *byte = 0xff);
    bytes[0] = 253;
}

/// The greatest number in a key.
fn all_ones(bytes: &mut [u8]) {
    bytes.iter_mut().take(8).for_each(|byte| *byte = 0xff);
}

/// Everything that recovery and the first loads read of a store.
fn read_all(store: &dyn Store) -> Result<Partition, StoreError> {
    let mut partition = bridge::recover_partition(store, PartitionOptions::new(PartitionId(0), 2))?;
    while let Some(work) = partition.next_work() {
        match work {
            Work::Load(instance) => {
                let loaded = bridge::load_instance(store, &instance)?;
                partition.on_loaded(&instance, loaded);
            }
            Work::LoadEnded(instance) => {
                let loaded = bridge::load_ended(store, &instance)?;
                partition.on_loaded(&instance, loaded);
            }
            Work::Turn(request) => drop(bridge::replayed_events(&request.instance, &request.session)?),
            Work::Evict(_) => {}
        }
    }
    partition.tick();
    partition.want_materialisation();
    partition.commit();
    Ok(partition)
}

/// What is stored in the middle of the scenarios: as records, and as rows and instances.
fn images() -> Vec<MemoryStore> {
    let mut images = Vec::new();
    for (_, plan) in SCENARIOS {
        for materialise_every in [0, 2] {
            let mut hub = hub(
                *plan,
                SimulationOptions { partitions: 2, materialise_every, ..SimulationOptions::default() },
            );
            while hub.run_steps(40) {
                images.push(hub.store().crash_image(Survival::Written));
            }
        }
    }
    images
}

/// The names and lengths of all pieces that reading a store reads.
fn pieces(store: &MemoryStore) -> Vec<(String, usize)> {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = seen.clone();
    let tamper: Tamper = Arc::new(move |piece, bytes| {
        sink.lock().unwrap().push((piece.to_owned(), bytes.len()));
    });
    read_all(&Tampered { store: store.clone(), tamper }).unwrap();
    std::mem::take(&mut seen.lock().unwrap())
}

#[test]
fn a_changed_byte_anywhere_gives_a_typed_error_or_none_and_never_a_panic() {
    let (mut errors, mut changes) = (0, 0);
    for (nth, image) in images().iter().enumerate() {
        for (piece, len) in pieces(image) {
            // Every byte of some pieces; some bytes of every piece.
            let stride = if nth % 7 == 0 && len < 400 { 1 } else { 1 + len / 4 };
            for at in (0..len).step_by(stride) {
                for damage in [flip::<0x01>, flip::<0x80>, flip::<0xff>, huge_number, all_ones] {
                    let name = piece.clone();
                    let tamper: Tamper = Arc::new(move |piece, bytes| {
                        if piece == name {
                            damage(&mut bytes[at..]);
                        }
                    });
                    let result = read_all(&Tampered { store: image.clone(), tamper });
                    changes += 1;
                    if let Err(error) = result {
                        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
                        errors += 1;
                    }
                }
            }
        }
    }
    assert!(errors > changes / 4, "damage is mostly noticed: {errors} of {changes}");
}

#[test]
fn a_piece_that_is_cut_off_is_an_error_that_names_the_place() {
    for image in images().iter().step_by(3) {
        for (piece, len) in pieces(image) {
            for keep in [0, len / 2, len.saturating_sub(1)] {
                let name = piece.clone();
                let tamper: Tamper = Arc::new(move |piece, bytes| {
                    if piece == name {
                        bytes.truncate(keep);
                    }
                });
                let result = read_all(&Tampered { store: image.clone(), tamper });
                let whole = keep == len || piece.starts_with("history") && keep == 0;
                match result {
                    Err(StoreError::Corrupt { place, .. }) => assert!(!place.is_empty()),
                    Err(error) => panic!("{piece}: {error}"),
                    // A key that is shorter may be another key; a record that ends after an entry is a shorter record.
                    Ok(_) => assert!(
                        whole || piece.starts_with("key") || piece.starts_with("record"),
                        "{piece} {keep}/{len}"
                    ),
                }
            }
        }
    }
}
