//! Between the kernel's values and the store's bytes: what a capture writes, what a stored instance says, and how a
//! partition is rebuilt. A store knows none of it; whoever drives partitions over a store goes through here.

use std::borrow::Cow;
use std::sync::Arc;

use steadfast_core::codec::{self, DecodeError};
use steadfast_core::partition::{
    Capture, CapturedChange, CapturedInstance, HistoryPiece, LoadedInstance, Partition, PartitionOptions,
    RecoveredInstance, RecoveryError, RecoverySource, SessionSource,
};
use steadfast_core::{
    HistoryEvent, InstanceFacts, InstanceFilter, InstanceId, InstanceKind, InstanceState,
    OrchestrationStatus, Payload, Position, Timestamp,
};

use crate::{
    Detail, HistoryChange, InstanceChange, InstanceWrite, Materialisation, PayloadWrite, RowWrite, Store,
    StoreError, StoredInstance,
};

/// From this size on, in bytes, an input or output is stored apart from the state: it is written once and not whenever something
/// else of its instance has changed, and a list that does not show it does not read it.
const APART_FROM: usize = 8 << 10;

/// The same for an instance that is first written when it has ended: its state will not be written again, and beside its history
/// a payload that both have is stored once.
const APART_FROM_ENDED: usize = 16 << 10;

/// The slots of payloads that are apart.
const INPUT: u8 = 0;
const OUTPUT: u8 = 1;

impl From<RecoveryError> for StoreError {
    fn from(error: RecoveryError) -> Self {
        Self::Corrupt { place: error.place, problem: error.source.to_string() }
    }
}

/// What a capture writes.
pub fn materialisation(capture: &Capture) -> Materialisation {
    let mut buffer = Vec::new();
    let writes = capture.sorted().map(|captured| instance_write(captured, capture.upto, &mut buffer));
    let instances = writes.collect();
    let rows = capture.rows.iter().map(|row| RowWrite { key: row.key.clone(), value: row.value.clone() });
    Materialisation { upto: capture.upto, instances, rows: rows.collect() }
}

fn instance_write(captured: &CapturedInstance, reflects: Position, buffer: &mut Vec<u8>) -> InstanceWrite {
    buffer.clear();
    let change = match &captured.change {
        CapturedChange::Deleted => InstanceChange::Delete,
        CapturedChange::Put { state, replace, at, history, fresh } => InstanceChange::Put {
            payloads: payloads_apart(state, *fresh),
            state: {
                without_payloads_apart(state, *fresh).encode(buffer);
                Arc::from(&buffer[..])
            },
            history: if *replace {
                HistoryChange::Replace(history.clone())
            } else {
                HistoryChange::Append { at: *at, bytes: history.clone() }
            },
            history_events: state.history_events,
            fresh: *fresh,
            ended: state.status.is_terminal(),
            facts: InstanceFacts::from(&**state),
        },
    };
    InstanceWrite { instance: captured.instance.clone(), reflects, change }
}

fn apart_from(state: &InstanceState, fresh: bool) -> usize {
    if fresh && state.status.is_terminal() { APART_FROM_ENDED } else { APART_FROM }
}

/// The long payloads of a state. An execution has one input and ends once; should one ever end again, its output has another name.
fn payloads_apart(state: &InstanceState, fresh: bool) -> Vec<PayloadWrite> {
    let execution = state.execution.uuid().as_u128();
    let ended = state.completed_at.map_or(0, Timestamp::as_micros) as u64;
    let end = u128::from(state.history_events) << 64 | u128::from(ended);
    let input = Some((INPUT, execution, &state.input));
    let output = state.output.as_ref().map(|output| (OUTPUT, execution ^ end, output));
    let from = apart_from(state, fresh);
    let apart = input.into_iter().chain(output).filter(|(_, _, payload)| payload.len() >= from);
    apart
        .map(|(slot, name, payload)| {
            let payload = payload.clone();
            PayloadWrite::new(slot, name, payload.len(), move || Ok(codec::encode_to_vec(&payload).into()))
        })
        .collect()
}

fn without_payloads_apart(state: &InstanceState, fresh: bool) -> Cow<'_, InstanceState> {
    let from = apart_from(state, fresh);
    let mut state = Cow::Borrowed(state);
    if state.input.len() >= from {
        state.to_mut().input = Payload::null();
    }
    if state.output.as_ref().is_some_and(|output| output.len() >= from) {
        state.to_mut().output = None;
    }
    state
}

/// The state of a stored instance, with the payloads that were read with it.
///
/// # Errors
/// [`StoreError::Corrupt`] when its bytes are not a state, or those of a payload are not one.
pub fn instance_state(stored: &StoredInstance) -> Result<InstanceState, StoreError> {
    let damaged = |error: DecodeError| corrupt("state", &stored.instance, &error.problem);
    let mut state = InstanceState::decode(&stored.state).map_err(damaged)?;
    for (slot, payload) in &stored.payloads {
        let payload = codec::decode_all(payload).map_err(damaged)?;
        match *slot {
            INPUT => state.input = payload,
            OUTPUT => state.output = Some(payload),
            _ => return Err(corrupt("state", &stored.instance, "it has a payload of an unknown kind")),
        }
    }
    Ok(state)
}

/// All stored instances, orchestrations and entities, in id order: for reports and tests of few of them.
///
/// # Errors
/// Those of the store.
pub fn stored_instances(store: &dyn Store) -> Result<Vec<StoredInstance>, StoreError> {
    const PAGE: usize = 1000;
    let everything = InstanceFilter { kind: InstanceKind::All, ..InstanceFilter::default() };
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let found = store.find_instances(&everything, after.as_ref(), PAGE, Detail::State)?;
        all.extend(found.instances);
        match found.upto {
            Some(upto) => after = Some(upto),
            None => return Ok(all),
        }
    }
}

/// Reads an instance, and its history if a session made anew has to replay it.
///
/// # Errors
/// Those of the store, and [`StoreError::Corrupt`] when the state cannot be read.
pub fn load_instance(store: &dyn Store, instance: &InstanceId) -> Result<Option<LoadedInstance>, StoreError> {
    load(store, instance, OrchestrationStatus::needs_replay)
}

/// Reads an instance with its history, also if it has ended: what rewinding it needs.
///
/// # Errors
/// Those of [`load_instance`].
pub fn load_ended(store: &dyn Store, instance: &InstanceId) -> Result<Option<LoadedInstance>, StoreError> {
    load(store, instance, |_| true)
}

fn load(
    store: &dyn Store,
    instance: &InstanceId,
    needs_history: impl FnOnce(OrchestrationStatus) -> bool,
) -> Result<Option<LoadedInstance>, StoreError> {
    let Some(stored) = store.load_instance(instance)? else { return Ok(None) };
    let state = instance_state(&stored)?;
    // After the state: should a materialisation come between, there are only more events than the state counts.
    let replayed = state.entity.is_none() && needs_history(state.status);
    let history = if replayed { store.load_history(instance)? } else { Vec::new() };
    Ok(Some(LoadedInstance { state, history }))
}

/// The events of a history: those of `stored` that come before the first of `pieces`, and then those of `pieces`.
///
/// # Errors
/// [`StoreError::Corrupt`] when bytes are not events, or events are missing.
pub fn history_events(
    instance: &InstanceId,
    stored: &[u8],
    pieces: &[HistoryPiece],
) -> Result<Vec<HistoryEvent>, StoreError> {
    let stored_events = pieces.first().map(|piece| piece.at);
    join_history(instance, stored, stored_events, pieces)
}

/// The events that a session for a turn has to replay, or that are to be rewound.
///
/// # Errors
/// [`StoreError::Corrupt`] when bytes are not events, or events are missing.
pub fn replayed_events(
    instance: &InstanceId,
    source: &SessionSource,
) -> Result<Vec<HistoryEvent>, StoreError> {
    match source {
        SessionSource::Resident | SessionSource::New | SessionSource::Entity(_) => Ok(Vec::new()),
        SessionSource::Replay { stored, stored_events, pieces, .. }
        | SessionSource::Rewind { stored, stored_events, pieces } => {
            join_history(instance, stored, Some(*stored_events), pieces)
        }
    }
}

fn join_history(
    instance: &InstanceId,
    mut stored: &[u8],
    stored_events: Option<u64>,
    pieces: &[HistoryPiece],
) -> Result<Vec<HistoryEvent>, StoreError> {
    let damaged = |error: DecodeError| corrupt("history", instance, &error.problem);
    let mut events: Vec<HistoryEvent> = Vec::new();
    while !stored.is_empty() && stored_events.is_none_or(|count| (events.len() as u64) < count) {
        events.push(codec::decode(&mut stored).map_err(damaged)?);
    }
    let check = |found: usize, expected: u64| match found as u64 == expected {
        true => Ok(()),
        false => Err(corrupt("history", instance, &format!("{found} events come before number {expected}"))),
    };
    if let Some(count) = stored_events {
        check(events.len(), count)?;
    }
    for piece in pieces {
        check(events.len(), piece.at)?;
        events.extend(codec::decode_many::<HistoryEvent>(&piece.bytes).map_err(damaged)?);
    }
    Ok(events)
}

/// Rebuilds a partition: its rows, then the records that they do not reflect, then everything that is not known to be
/// done is asked for again. [`Store::recover`] comes first when the store failed before.
///
/// # Errors
/// Those of the store, and [`StoreError::Corrupt`] when a row, a record or a state cannot be read.
pub fn recover_partition(store: &dyn Store, options: PartitionOptions) -> Result<Partition, StoreError> {
    let id = options.id;
    let snapshot = store.load_partition(id)?;
    let mut partition = Partition::restore(options, snapshot.upto, snapshot.rows)?;
    let mut instances = StoredInstances(store);
    store.read_log(id, snapshot.upto, &mut |position, bytes| {
        partition.replay_record(position, &bytes, &mut instances)
    })?;
    partition.resume();
    Ok(partition)
}

struct StoredInstances<'a>(&'a dyn Store);

impl RecoverySource for StoredInstances<'_> {
    type Error = StoreError;

    fn instance(&mut self, instance: &InstanceId) -> Result<Option<RecoveredInstance>, StoreError> {
        let Some(stored) = self.0.load_instance(instance)? else { return Ok(None) };
        Ok(Some(RecoveredInstance { state: instance_state(&stored)?, reflects: stored.reflects }))
    }
}

fn corrupt(what: &str, instance: &InstanceId, problem: &str) -> StoreError {
    StoreError::Corrupt { place: format!("the {what} of instance '{instance}'"), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use steadfast_core::PartitionId;
    use steadfast_core::entity::EntityState;

    use super::*;
    use crate::MemoryStore;

    fn long(text: &str) -> Payload {
        Payload::from_json(format!("\"{}\"", text.repeat(APART_FROM)))
    }

    fn running() -> InstanceState {
        let at = Timestamp::from_micros(5);
        let state = InstanceState::entity(InstanceId::from_trusted("a"), EntityState::default(), at);
        let execution = state.execution.derive("test", 1);
        InstanceState { execution, input: long("input"), entity: None, ..state }
    }

    fn completed(state: &InstanceState, at: i64, output: &str) -> InstanceState {
        InstanceState {
            status: OrchestrationStatus::Completed,
            completed_at: Some(Timestamp::from_micros(at)),
            output: Some(long(output)),
            ..state.clone()
        }
    }

    fn write(store: &MemoryStore, state: &InstanceState, fresh: bool) -> StoredInstance {
        let change = CapturedChange::Put {
            state: Arc::new(state.clone()),
            replace: true,
            at: 0,
            history: Arc::from([]),
            fresh,
        };
        let captured = CapturedInstance { instance: state.instance.clone(), change };
        let instances = vec![instance_write(&captured, Position(1), &mut Vec::new())];
        let batch = Materialisation { upto: Position(1), instances, rows: Vec::new() };
        store.materialise(PartitionId(0), &batch).unwrap();
        let stored = store.load_instance(&state.instance).unwrap().unwrap();
        assert_eq!(instance_state(&stored).unwrap(), *state);
        stored
    }

    #[track_caller]
    fn assert_comes_back(store: &MemoryStore, state: &InstanceState) {
        let stored = write(store, state, false);
        assert!(stored.state.len() < 1000, "the payloads are not apart");
        let outline = StoredInstance { payloads: Vec::new(), ..stored };
        let expected = InstanceState { input: Payload::null(), output: None, ..state.clone() };
        assert_eq!(instance_state(&outline).unwrap(), expected);
    }

    #[test]
    fn long_payloads_are_apart_from_the_state_and_come_back_with_it() {
        let store = MemoryStore::new(1);
        assert_comes_back(&store, &running());
        assert_comes_back(&store, &completed(&running(), 9, "output"));
    }

    #[test]
    fn what_is_written_once_keeps_its_payloads_unless_they_are_long_for_a_list() {
        let output = Payload::from_json(format!("\"{}\"", "o".repeat(APART_FROM)));
        let apart = |state: &InstanceState, fresh| write(&MemoryStore::new(1), state, fresh).payloads.len();
        let ended = completed(&running(), 9, "output");
        assert_eq!((apart(&ended, true), apart(&ended, false)), (2, 2));
        let ended = InstanceState { output: Some(output.clone()), ..ended };
        assert_eq!((apart(&ended, true), apart(&ended, false)), (1, 2));
        let begun = InstanceState { input: output, ..running() };
        assert_eq!((apart(&begun, true), apart(&begun, false)), (1, 1));
    }

    #[test]
    fn another_execution_or_another_end_has_payloads_of_its_own() {
        let store = MemoryStore::new(1);
        assert_comes_back(&store, &completed(&running(), 9, "output"));
        // Executions end once; nothing here relies on it.
        assert_comes_back(&store, &completed(&running(), 10, "output again"));
        let next = running().execution.derive("test", 2);
        let next = InstanceState { execution: next, input: long("next input"), ..running() };
        assert_comes_back(&store, &next);
        assert_comes_back(&store, &completed(&next, 10, "next output"));
    }
}
