//! The instances: a row each, and pieces for histories that grow, for states that are large, and for payloads that are apart from
//! these.
//!
//! A row is written after the pieces it speaks of, and pieces that it spoke of before are removed after it. So a
//! crash leaves either the old row with all of its pieces or the new one, and pieces that nobody speaks of are
//! removed by the next write that changes what the row speaks of, or with the instance. A history that is replaced gets
//! a new generation for that reason, and a large state a new version. A payload has a name, under which it never changes:
//! one that the old row speaks of as well stays where it is.
//!
//! Long rows are compressed (`compressed`). Rows of instances that are new and have ended already are in packs, many in one value
//! (`packs`). One that changes after all gets a row of its own, which counts instead.

mod compressed;
mod pack;
mod packs;
mod row;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast_core::InstanceId;
use steadfast_store::{
    Detail, HistoryChange, InstanceChange, InstanceWrite, PayloadWrite, StoreError, StoredInstance,
};

use self::packs::{Packed, Packs};
use self::row::{Head, PayloadPlace, Payloads, Row, State};
use crate::database::{Database, VALUE_BYTES_MAX};
use crate::error::{corrupt, from_sled};
use crate::keys::{self, Part};
use crate::pieces::Pieces;
use crate::tree::Tree;

/// id -> row.
const TREE: &str = "instances";

const READING: &str = "reading an instance";

/// Opens the trees of instances of a hub with so many partitions.
pub(crate) fn open(database: &Arc<Database>, partitions: u16) -> Result<Instances, StoreError> {
    let packs = packs::open(database, partitions)?;
    Ok(Instances { tree: database.tree(TREE)?, packs, removed: AtomicU64::new(0) })
}

/// The trees of instances.
pub(crate) struct Instances {
    /// Rows of their own.
    tree: Tree,
    packs: Packs,
    removed: AtomicU64,
}

/// The row of an instance as it is stored.
enum Stored {
    Alone(sled::IVec),
    Packed(Packed),
}

impl Deref for Stored {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Alone(row) => row,
            Self::Packed(Packed { pack, row }) => &pack[row.clone()],
        }
    }
}

/// What a write does to the history.
struct Plan<'a> {
    /// What came before the new events and must be written again.
    kept: Option<Vec<u8>>,
    /// The number of the first new event.
    at: u64,
    /// The new events.
    bytes: &'a [u8],
    generation: u32,
    /// Histories of other generations, or leftovers of them, may exist.
    replaces: bool,
}

impl Instances {
    pub(crate) fn is_empty(&self) -> bool {
        self.tree.is_empty() && self.packs.is_empty()
    }

    /// How many values were removed since this was asked last, apart from pieces.
    pub(crate) fn take_removed(&self) -> u64 {
        self.removed.swap(0, Ordering::Relaxed)
    }

    /// Writes changes, which come in id order.
    pub(crate) fn write(&self, pieces: &Pieces, writes: &[InstanceWrite]) -> Result<(), StoreError> {
        let removed = writes.iter().filter(|write| matches!(write.change, InstanceChange::Delete));
        // From the packs first: should a crash come between, what is left is the newest.
        let packs = self.packs.remove(&removed.map(|write| &write.instance).collect::<Vec<_>>())?;
        self.removed.fetch_add(packs, Ordering::Relaxed);
        let mut candidates = Vec::new();
        for write in writes {
            match whole_row(write) {
                Some(row) if packs::fits(&write.instance, row.len()) => {
                    candidates.push((&write.instance, row));
                }
                Some(row) => self.put(&write.instance, &row)?,
                None => self.write_alone(pieces, write)?,
            }
        }
        self.packs.write(&candidates, |(id, row)| self.put(id, row))
    }

    fn write_alone(&self, pieces: &Pieces, write: &InstanceWrite) -> Result<(), StoreError> {
        let id = &write.instance;
        let InstanceChange::Put { state, payloads, history, history_events, fresh, ended, .. } =
            &write.change
        else {
            let old = self.tree.remove(id.as_str());
            let old = old.map_err(|error| from_sled("removing an instance", &error))?;
            self.removed.fetch_add(u64::from(old.is_some()), Ordering::Relaxed);
            return pieces.remove_all(&keys::instance(id));
        };
        let old = if *fresh { None } else { self.get(id)? };
        let old = old.as_deref().map(|value| decompress(id, value)).transpose()?;
        let old = old.as_deref().map(|row| decode(id, row)).transpose()?;
        if old.is_none() && !fresh {
            pieces.remove_all(&keys::instance(id))?;
        }
        let plan = plan(pieces, id, history, old.as_ref())?;
        let places = write_payloads(pieces, id, payloads, old.as_ref())?;
        let mut places_buffer = Vec::new();
        let places = Payloads::new(&places, &mut places_buffer);
        let inline = *ended && plan.at == 0 && row::fits(state.len(), plan.bytes.len(), places);
        if !inline {
            write_history(pieces, id, &plan, *history_events)?;
        }
        let mut head = Head {
            reflects: write.reflects,
            events: *history_events,
            generation: plan.generation,
            state_version: old.map_or(0, |old| old.head.state_version),
        };
        let state = if row::fits(state.len(), if inline { plan.bytes.len() } else { 0 }, places) {
            State::Here(state)
        } else {
            head.state_version = head.state_version.wrapping_add(1);
            pieces.write(&keys::state(id, head.state_version), state)?;
            State::Elsewhere { len: state.len(), outline: None }
        };
        let row = Row { head, history: inline.then_some(plan.bytes), payloads: places, state };
        self.put(id, &compressed::compress(row::encode(&row)))?;
        self.remove_outdated(pieces, id, &plan, &row, old.as_ref())
    }

    fn remove_outdated(
        &self,
        pieces: &Pieces,
        id: &InstanceId,
        plan: &Plan<'_>,
        row: &Row<'_>,
        old: Option<&Row<'_>>,
    ) -> Result<(), StoreError> {
        if row.payloads != old.map_or(Payloads::default(), |old| old.payloads) {
            let kept = row.payloads.iter().map(|place| keys::payload(id, place.slot, place.name));
            pieces.remove_all_but(&keys::payloads(id), &kept.collect::<Vec<_>>())?;
        }
        let Some(old) = old else { return Ok(()) };
        if plan.replaces {
            let all = keys::histories(id);
            if row.history.is_some() {
                pieces.remove_all(&all)?;
            } else {
                pieces.remove_range(&all, &all, Some(&keys::history(id, plan.generation)))?;
            }
        }
        match (old.state, row.state) {
            (State::Here(_), State::Here(_)) => Ok(()),
            (_, State::Here(_)) => pieces.remove_all(&keys::states(id)),
            (_, State::Elsewhere { .. }) => {
                let all = keys::states(id);
                pieces.remove_range(&all, &all, Some(&keys::state(id, row.head.state_version)))
            }
        }
    }

    fn put(&self, id: &InstanceId, row: &[u8]) -> Result<(), StoreError> {
        self.tree.insert(id.as_str(), row).map_err(|error| from_sled("writing an instance", &error))?;
        Ok(())
    }

    fn get(&self, id: &InstanceId) -> Result<Option<Stored>, StoreError> {
        match self.tree.get(id.as_str()).map_err(|error| from_sled(READING, &error))? {
            Some(row) => Ok(Some(Stored::Alone(row))),
            None => Ok(self.packs.get(id)?.map(Stored::Packed)),
        }
    }

    /// Reads an instance, without its history.
    pub(crate) fn load(
        &self,
        pieces: &Pieces,
        id: &InstanceId,
        detail: Detail,
    ) -> Result<Option<StoredInstance>, StoreError> {
        self.read_consistently(id, |row| {
            let (mut state, mut payloads) = (Vec::new(), Vec::new());
            match row.state {
                State::Elsewhere { outline: Some(outline), .. } if detail == Detail::Outline => {
                    state.extend_from_slice(outline);
                }
                _ if read_state(pieces, id, row, &mut state)? => {}
                _ => return Ok(None),
            }
            for PayloadPlace { slot, name, len } in row.payloads.iter().filter(|_| detail == Detail::State) {
                let mut payload = Vec::new();
                if !pieces.read(&keys::payload(id, slot, name), len, &mut payload)? {
                    return Ok(None);
                }
                payloads.push((slot, payload));
            }
            Ok(Some(StoredInstance { instance: id.clone(), reflects: row.head.reflects, state, payloads }))
        })
    }

    /// Reads the history of an instance.
    pub(crate) fn load_history(&self, pieces: &Pieces, id: &InstanceId) -> Result<Vec<u8>, StoreError> {
        let history = self.read_consistently(id, |row| {
            let mut bytes = Vec::new();
            let complete = read_history(pieces, id, row, row.head.events, &mut bytes)?;
            Ok(complete.then_some(bytes))
        })?;
        Ok(history.unwrap_or_default())
    }

    /// Reads something of an instance that may be written at the same time: when pieces are missing and the row has
    /// changed meanwhile, it tries again.
    fn read_consistently<T>(
        &self,
        id: &InstanceId,
        mut read: impl FnMut(&Row<'_>) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut value = self.get(id)?;
        while let Some(found) = value {
            if let Some(read) = read(&decode(id, &decompress(id, &found)?)?)? {
                return Ok(Some(read));
            }
            value = self.get(id)?;
            if value.as_deref() == Some(&*found) {
                return Err(corrupt(
                    format!("instance {id}"),
                    "a piece of its state, its payloads or its history is missing",
                ));
            }
        }
        Ok(None)
    }
}

/// The row, as it is stored, of an instance of which there is nothing else: nothing was stored under its id, it has ended, and all
/// of it fits into the row.
fn whole_row(write: &InstanceWrite) -> Option<Vec<u8>> {
    let InstanceChange::Put { state, payloads, history, history_events, fresh: true, ended: true, .. } =
        &write.change
    else {
        return None;
    };
    let (HistoryChange::Replace(history) | HistoryChange::Append { at: 0, bytes: history }) = history else {
        return None;
    };
    if !payloads.is_empty() {
        return None;
    }
    let head = Head { reflects: write.reflects, events: *history_events, generation: 0, state_version: 0 };
    let payloads = Payloads::default();
    let row = Row { head, history: Some(history), payloads, state: State::Here(state) };
    if row::encoded_bytes(&row) > compressed::ROW_BYTES_MAX {
        return None;
    }
    Some(compressed::compress(row::encode(&row))).filter(|row| row.len() <= VALUE_BYTES_MAX)
}

fn decompress<'a>(id: &InstanceId, value: &'a [u8]) -> Result<Cow<'a, [u8]>, StoreError> {
    compressed::decompress(value)
        .ok_or_else(|| corrupt(format!("instance {id}"), "its compressed row is damaged"))
}

fn decode<'a>(id: &InstanceId, value: &'a [u8]) -> Result<Row<'a>, StoreError> {
    row::decode(value).ok_or_else(|| corrupt(format!("instance {id}"), "its row is damaged"))
}

/// Decides how the history is written.
fn plan<'a>(
    pieces: &Pieces,
    id: &InstanceId,
    change: &'a HistoryChange,
    old: Option<&Row<'_>>,
) -> Result<Plan<'a>, StoreError> {
    let events = old.map_or(0, |old| old.head.events);
    let generation = old.map_or(0, |old| old.head.generation);
    let next_generation = old.map_or(0, |old| old.head.generation.wrapping_add(1));
    match change {
        HistoryChange::Replace(bytes) => {
            Ok(Plan { kept: None, at: 0, bytes, generation: next_generation, replaces: true })
        }
        HistoryChange::Append { at, bytes } if *at > events => Err(corrupt(
            format!("the history of instance {id}"),
            format!("it has {events} events, and {} bytes were handed in from event {at} on", bytes.len()),
        )),
        HistoryChange::Append { at, bytes } => {
            let grows = *at == events && old.is_none_or(|old| old.history.is_none());
            if grows {
                return Ok(Plan { kept: None, at: *at, bytes, generation, replaces: false });
            }
            // It was in the row, or this is a repetition: what comes before is written anew.
            let mut kept = Vec::new();
            let complete = match old {
                Some(old) => read_history(pieces, id, old, *at, &mut kept)?,
                None => true,
            };
            if !complete {
                let problem = format!("no event {at} begins a part of it");
                return Err(corrupt(format!("the history of instance {id}"), problem));
            }
            let kept = (*at > 0).then_some(kept);
            Ok(Plan { kept, at: *at, bytes, generation: next_generation, replaces: true })
        }
    }
}

/// Writes those payloads that the old row does not speak of; says where all of them are.
fn write_payloads(
    pieces: &Pieces,
    id: &InstanceId,
    payloads: &[PayloadWrite],
    old: Option<&Row<'_>>,
) -> Result<Vec<PayloadPlace>, StoreError> {
    let write = |payload: &PayloadWrite| {
        let (slot, name) = (payload.slot(), payload.name());
        let mut known = old.into_iter().flat_map(|old| old.payloads.iter());
        if let Some(known) = known.find(|known| (known.slot, known.name) == (slot, name)) {
            return Ok(known);
        }
        let bytes = payload.bytes()?;
        pieces.write(&keys::payload(id, slot, name), &bytes)?;
        Ok(PayloadPlace { slot, name, len: bytes.len() })
    };
    payloads.iter().map(write).collect()
}

fn write_history(pieces: &Pieces, id: &InstanceId, plan: &Plan<'_>, end: u64) -> Result<(), StoreError> {
    // What a crash left of an earlier attempt to write the same, which there may be of a fresh instance, too: its row comes last.
    let at = if plan.kept.is_some() { 0 } else { plan.at };
    let from = keys::part_from(id, plan.generation, at);
    pieces.remove_range(&keys::histories(id), &from, None)?;
    if let Some(kept) = &plan.kept {
        write_part(pieces, id, plan.generation, (0, plan.at), kept)?;
    }
    if end > plan.at {
        write_part(pieces, id, plan.generation, (plan.at, end), plan.bytes)?;
    }
    Ok(())
}

fn write_part(
    pieces: &Pieces,
    id: &InstanceId,
    generation: u32,
    (at, end): (u64, u64),
    bytes: &[u8],
) -> Result<(), StoreError> {
    let len = u32::try_from(bytes.len());
    let len = len.map_err(|_| corrupt(format!("the history of instance {id}"), "it exceeds 4 GiB"))?;
    pieces.write(&keys::part(id, generation, Part { at, end, len }), bytes)
}

/// Appends the state to `to`; false when a piece is missing.
fn read_state(pieces: &Pieces, id: &InstanceId, row: &Row<'_>, to: &mut Vec<u8>) -> Result<bool, StoreError> {
    match row.state {
        State::Here(state) => {
            to.extend_from_slice(state);
            Ok(true)
        }
        State::Elsewhere { len, .. } => pieces.read(&keys::state(id, row.head.state_version), len, to),
    }
}

/// Appends the events before number `end` to `to`; false when a piece is missing or `end` is in the middle of one.
fn read_history(
    pieces: &Pieces,
    id: &InstanceId,
    row: &Row<'_>,
    end: u64,
    to: &mut Vec<u8>,
) -> Result<bool, StoreError> {
    if let Some(history) = row.history {
        if end == row.head.events {
            to.extend_from_slice(history);
        }
        return Ok(end == row.head.events || end == 0);
    }
    let name = keys::history(id, row.head.generation);
    let mut at = 0;
    while at < end {
        let from = keys::part_from(id, row.head.generation, at);
        let key = pieces.first_from(&name, &from)?;
        let part = key.as_deref().and_then(|key| keys::parse_part(&name, key));
        let Some(part) = part.filter(|part| part.at == at && part.end > at && part.end <= end) else {
            return Ok(false);
        };
        if !pieces.read(&keys::part(id, row.head.generation, part), part.len as usize, to)? {
            return Ok(false);
        }
        at = part.end;
    }
    Ok(true)
}
