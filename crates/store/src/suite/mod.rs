//! What every store must do, as plain functions, and a macro that makes a test of each.
//!
//! ```
//! # mod tests {
//! use std::sync::Arc;
//! use steadfast_store::{MemoryStore, Store, store_behaviour_suite, suite::Harness};
//!
//! struct InMemory(MemoryStore);
//!
//! impl Harness for InMemory {
//!     fn store(&self) -> Arc<dyn Store> {
//!         Arc::new(self.0.clone())
//!     }
//!     fn reopen(&mut self) {
//!         self.0 = self.0.reopen();
//!     }
//! }
//!
//! store_behaviour_suite!(InMemory(MemoryStore::new(4)));
//! # }
//! ```

mod find;
mod instances;
mod log;
mod payloads;
mod rows;

use std::sync::Arc;

use steadfast_core::{
    InstanceFacts, InstanceFilter, InstanceId, InstanceKind, OrchestrationStatus, PartitionId, Position,
    Timestamp,
};

pub use self::find::*;
pub use self::instances::*;
pub use self::log::*;
pub use self::payloads::*;
pub use self::rows::*;

use crate::{
    HistoryChange, InstanceChange, InstanceWrite, LogRecord, Materialisation, PayloadWrite, Store,
    StoreError, StoredInstance,
};

/// What a behaviour says: an error of the store that it didn't expect, or a panic.
pub type Outcome = Result<(), StoreError>;

/// How the suite gets at a store of four partitions, empty at first.
pub trait Harness {
    /// The store. Whoever gets it gives it up again before [`Harness::reopen`].
    fn store(&self) -> Arc<dyn Store>;

    /// Closes the store in an orderly way, and opens it again.
    fn reopen(&mut self);
}

/// Makes a test of every behaviour. The argument is an expression that makes a new [`Harness`](crate::suite::Harness).
#[macro_export]
macro_rules! store_behaviour_suite {
    ($harness:expr) => {
        $crate::store_behaviour_suite! { @each $harness;
            appended_records_are_read_back_in_order
            one_append_serves_several_partitions
            records_of_any_size_are_read_back
            one_append_takes_thousands_of_records
            reading_begins_after_a_position
            the_error_of_a_visitor_ends_the_reading
            truncated_records_are_gone
            truncation_spares_other_partitions
            truncating_again_or_too_far_is_harmless
            the_log_goes_on_through_truncations_and_reopenings
            a_gap_in_the_log_is_corrupt
            metrics_count_what_is_appended
            metrics_count_what_is_materialised
            several_threads_use_the_store_at_once
            recovery_without_an_error_does_nothing
            an_empty_store_is_empty
            everything_survives_reopening
            a_history_grows_piece_by_piece
            a_replaced_history_leaves_nothing_of_the_old
            histories_of_several_mebibytes_are_read_back
            states_grow_large_and_shrink_again
            an_ended_instance_can_still_grow
            an_ended_instance_can_be_replaced
            a_deleted_instance_leaves_nothing
            materialising_twice_is_as_good_as_once
            a_repetition_that_knows_more_is_taken
            a_history_with_a_gap_is_corrupt
            ids_that_begin_alike_stay_apart
            ids_may_be_any_text
            instances_are_found_in_order
            instances_are_found_page_by_page
            instances_are_found_by_each_of_their_facts
            instances_are_found_by_what_they_are_now
            thousands_of_instances_are_found_with_any_ids
            many_and_long_tags_are_found
            what_is_found_is_as_detailed_as_asked_for
            found_or_not_survives_reopening
            what_stays_is_found_while_others_change
            readers_see_an_instance_before_or_after_a_write
            payloads_are_those_of_the_last_write
            a_payload_with_a_known_name_may_be_written_or_not
            payloads_of_instances_stay_apart
            rows_are_put_and_removed
            rows_come_in_key_order
            rows_of_partitions_stay_apart
            rows_of_any_size_are_read_back
            the_position_is_kept
        }
    };
    (@each $harness:expr; $($behaviour:ident)*) => {
        $(
            #[test]
            fn $behaviour() -> $crate::suite::Outcome {
                $crate::suite::$behaviour(&mut $harness)
            }
        )*
    };
}

/// Partition 0, which most behaviours use.
const P0: PartitionId = PartitionId(0);

fn id(text: &str) -> InstanceId {
    InstanceId::from_trusted(text)
}

fn record(partition: PartitionId, position: u64, bytes: impl Into<Arc<[u8]>>) -> LogRecord {
    LogRecord { partition, position: Position(position), bytes: bytes.into() }
}

/// Bytes that differ from place to place and from seed to seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    bytes.take(len).collect()
}

fn read_log(
    store: &dyn Store,
    partition: PartitionId,
    after: u64,
) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let mut records = Vec::new();
    store.read_log(partition, Position(after), &mut |position, bytes| {
        records.push((position.0, bytes));
        Ok(())
    })?;
    Ok(records)
}

fn positions(store: &dyn Store, partition: PartitionId, after: u64) -> Result<Vec<u64>, StoreError> {
    Ok(read_log(store, partition, after)?.into_iter().map(|(position, _)| position).collect())
}

/// A write of one instance, with the parts that a test cares about.
struct Put<'a> {
    id: &'a str,
    reflects: u64,
    state: Vec<u8>,
    payloads: Vec<PayloadWrite>,
    history: HistoryChange,
    events: u64,
    fresh: bool,
    ended: bool,
    facts: InstanceFacts,
}

impl<'a> Put<'a> {
    fn append(id: &'a str, at: u64, bytes: impl Into<Arc<[u8]>>, events: u64) -> Self {
        let history = HistoryChange::Append { at, bytes: bytes.into() };
        let facts = facts(OrchestrationStatus::Running);
        let state = b"state".to_vec();
        Self {
            id,
            reflects: events,
            state,
            payloads: Vec::new(),
            history,
            events,
            fresh: false,
            ended: false,
            facts,
        }
    }

    fn replace(id: &'a str, bytes: impl Into<Arc<[u8]>>, events: u64) -> Self {
        Self { history: HistoryChange::Replace(bytes.into()), ..Self::append(id, 0, Vec::new(), events) }
    }

    fn fresh(self) -> Self {
        Self { fresh: true, ..self }
    }

    fn ended(self) -> Self {
        Self { ended: true, ..self }
    }

    fn facts(self, facts: InstanceFacts) -> Self {
        Self { facts, ..self }
    }

    fn state(self, state: impl Into<Vec<u8>>) -> Self {
        Self { state: state.into(), ..self }
    }

    fn payload(mut self, slot: u8, name: u128, bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        self.payloads.push(PayloadWrite::new(slot, name, bytes.len(), move || Ok(bytes.clone())));
        self
    }

    fn reflects(self, reflects: u64) -> Self {
        Self { reflects, ..self }
    }

    fn into_write(self) -> InstanceWrite {
        InstanceWrite {
            instance: id(self.id),
            reflects: Position(self.reflects),
            change: InstanceChange::Put {
                state: self.state.into(),
                payloads: self.payloads,
                history: self.history,
                history_events: self.events,
                fresh: self.fresh,
                ended: self.ended,
                facts: self.facts,
            },
        }
    }
}

fn write_instances(store: &dyn Store, mut writes: Vec<InstanceWrite>) -> Outcome {
    writes.sort_by(|a, b| a.instance.cmp(&b.instance));
    store.materialise(P0, &Materialisation { upto: Position(1), instances: writes, rows: Vec::new() })
}

fn put(store: &dyn Store, put: Put<'_>) -> Outcome {
    write_instances(store, vec![put.into_write()])
}

fn delete(store: &dyn Store, text: &str) -> Outcome {
    let write = InstanceWrite { instance: id(text), reflects: Position(1), change: InstanceChange::Delete };
    write_instances(store, vec![write])
}

#[track_caller]
fn assert_instance(store: &dyn Store, text: &str, state: &[u8], history: &[u8]) -> Outcome {
    let found = store.load_instance(&id(text))?;
    assert!(found.is_some(), "instance {text:?} is missing");
    assert!(found.is_some_and(|found| found.state == state), "instance {text:?} has another state");
    assert!(store.load_history(&id(text))? == history, "instance {text:?} has another history");
    Ok(())
}

#[track_caller]
fn assert_no_instance(store: &dyn Store, text: &str) -> Outcome {
    assert_eq!(store.load_instance(&id(text))?, None);
    assert_eq!(store.load_history(&id(text))?, Vec::<u8>::new());
    Ok(())
}

/// The facts of an instance that a test says nothing else of.
fn facts(status: OrchestrationStatus) -> InstanceFacts {
    InstanceFacts::new("orchestration", status, Timestamp::from_micros(1))
}

/// All instances, of either kind, with ids that begin alike.
fn of_prefix(prefix: &str) -> InstanceFilter {
    InstanceFilter { id_prefix: prefix.to_owned(), kind: InstanceKind::All, ..InstanceFilter::default() }
}

fn ids(found: &[StoredInstance]) -> Vec<&str> {
    found.iter().map(|found| found.instance.as_str()).collect()
}

#[track_caller]
fn assert_corrupt<T>(result: Result<T, StoreError>) {
    let error = result.err();
    assert!(matches!(error, Some(StoreError::Corrupt { .. })), "expected Corrupt, found {error:?}");
}
