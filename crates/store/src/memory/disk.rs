//! The data of a [`MemoryStore`](super::MemoryStore) and the single writes that change it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use steadfast_core::{InstanceFacts, InstanceFilter, InstanceId, PartitionId, Position};

use crate::{
    Detail, Found, HistoryChange, InstanceChange, InstanceWrite, LogRecord, PartitionSnapshot, RowWrite,
    StoreError, StoredInstance,
};

/// One write: it happens in full or not at all.
#[derive(Clone)]
pub(super) enum Write {
    Record(LogRecord),
    /// With the bytes of its payloads, by their slots and names.
    Instance(Box<InstanceWrite>, Vec<(u8, u128, Arc<[u8]>)>),
    Row(PartitionId, RowWrite),
    Upto(PartitionId, Position),
    Truncated(PartitionId, Position),
}

#[derive(Clone, Default)]
struct Partition {
    log: BTreeMap<Position, Arc<[u8]>>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    upto: Position,
}

#[derive(Clone)]
struct Instance {
    reflects: Position,
    facts: InstanceFacts,
    state: Arc<[u8]>,
    /// By their slots: their names and bytes.
    payloads: BTreeMap<u8, (u128, Arc<[u8]>)>,
    history_events: u64,
    /// By the number of the first event in the piece.
    history: BTreeMap<u64, Arc<[u8]>>,
}

/// Everything that one store holds.
#[derive(Clone, Default)]
pub(super) struct Disk {
    partitions: BTreeMap<PartitionId, Partition>,
    instances: BTreeMap<InstanceId, Instance>,
}

impl Disk {
    pub(super) fn apply(&mut self, write: &Write) {
        match write {
            Write::Record(record) => {
                let log = &mut self.partitions.entry(record.partition).or_default().log;
                log.insert(record.position, Arc::clone(&record.bytes));
            }
            Write::Truncated(partition, position) => {
                self.partitions.entry(*partition).or_default().log.remove(position);
            }
            Write::Row(partition, row) => {
                let rows = &mut self.partitions.entry(*partition).or_default().rows;
                match &row.value {
                    Some(value) => rows.insert(row.key.clone(), value.clone()),
                    None => rows.remove(&row.key),
                };
            }
            Write::Upto(partition, upto) => self.partitions.entry(*partition).or_default().upto = *upto,
            Write::Instance(write, payloads) => self.apply_instance(write, payloads),
        }
    }

    fn apply_instance(&mut self, write: &InstanceWrite, payloads: &[(u8, u128, Arc<[u8]>)]) {
        let InstanceChange::Put { state, history, history_events, facts, .. } = &write.change else {
            self.instances.remove(&write.instance);
            return;
        };
        let instance = self.instances.entry(write.instance.clone()).or_insert_with(|| Instance {
            reflects: write.reflects,
            facts: facts.clone(),
            state: Arc::clone(state),
            payloads: BTreeMap::new(),
            history_events: 0,
            history: BTreeMap::new(),
        });
        instance.reflects = write.reflects;
        instance.facts = facts.clone();
        instance.state = Arc::clone(state);
        let mut before = std::mem::take(&mut instance.payloads);
        for (slot, name, bytes) in payloads {
            // What is there under this name stays, as in a store that does not write it again.
            let known = before.remove(slot).filter(|(known, _)| known == name);
            instance.payloads.insert(*slot, known.unwrap_or_else(|| (*name, Arc::clone(bytes))));
        }
        instance.history_events = *history_events;
        let (at, bytes) = match history {
            HistoryChange::Append { at, bytes } => (*at, bytes),
            HistoryChange::Replace(bytes) => (0, bytes),
        };
        instance.history.split_off(&at);
        if !bytes.is_empty() {
            instance.history.insert(at, Arc::clone(bytes));
        }
    }

    /// Refuses a record that would leave a gap behind the last one.
    pub(super) fn check_next(&self, record: &LogRecord) -> Result<(), StoreError> {
        let Some(partition) = self.partitions.get(&record.partition) else { return Ok(()) };
        match partition.log.last_key_value() {
            Some((last, _)) if last.next() != record.position => Err(StoreError::Corrupt {
                place: format!("log of {}", record.partition),
                problem: format!("record {} was handed in after record {last}", record.position),
            }),
            _ => Ok(()),
        }
    }

    /// Refuses a piece of history that doesn't continue what is stored.
    pub(super) fn check_history(&self, write: &InstanceWrite) -> Result<(), StoreError> {
        let InstanceChange::Put { history: HistoryChange::Append { at, .. }, .. } = &write.change else {
            return Ok(());
        };
        let instance = self.instances.get(&write.instance);
        let stored = instance.map_or(0, |instance| instance.history_events);
        // A materialisation that is repeated appends again where it appended before.
        let again = instance.is_some_and(|instance| instance.history.contains_key(at));
        if *at != stored && *at != 0 && !again {
            return Err(StoreError::Corrupt {
                place: format!("history of instance {}", write.instance),
                problem: format!("it has {stored} events, and more were handed in from number {at} on"),
            });
        }
        Ok(())
    }

    pub(super) fn positions_upto(&self, partition: PartitionId, upto: Position) -> Vec<Position> {
        let Some(partition) = self.partitions.get(&partition) else { return Vec::new() };
        partition.log.range(..=upto).map(|(position, _)| *position).collect()
    }

    pub(super) fn records_after(
        &self,
        partition: PartitionId,
        after: Position,
    ) -> Vec<(Position, Arc<[u8]>)> {
        let Some(partition) = self.partitions.get(&partition) else { return Vec::new() };
        let range = (Bound::Excluded(after), Bound::Unbounded);
        partition.log.range(range).map(|(position, bytes)| (*position, Arc::clone(bytes))).collect()
    }

    pub(super) fn snapshot(&self, partition: PartitionId) -> PartitionSnapshot {
        let Some(partition) = self.partitions.get(&partition) else { return PartitionSnapshot::default() };
        let rows = partition.rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        PartitionSnapshot { upto: partition.upto, rows }
    }

    pub(super) fn instance(&self, id: &InstanceId) -> Option<StoredInstance> {
        self.instances.get(id).map(|instance| instance.stored(id, Detail::State))
    }

    pub(super) fn history(&self, id: &InstanceId) -> Vec<u8> {
        let pieces = self.instances.get(id).into_iter().flat_map(|instance| instance.history.values());
        pieces.flat_map(|piece| piece.iter().copied()).collect()
    }

    pub(super) fn find(
        &self,
        filter: &InstanceFilter,
        after: Option<&InstanceId>,
        limit: usize,
        detail: Detail,
    ) -> Found {
        let prefix = InstanceId::from_trusted(&*filter.id_prefix);
        let from = match after {
            Some(after) if *after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(&prefix),
        };
        let mut matching = self
            .instances
            .range((from, Bound::Unbounded))
            .take_while(|(id, _)| id.as_str().starts_with(&filter.id_prefix))
            .filter(|(id, instance)| filter.matches_facts(id, &instance.facts));
        let instances: Vec<_> =
            matching.by_ref().take(limit).map(|(id, instance)| instance.stored(id, detail)).collect();
        let last = instances.last().map(|stored| stored.instance.clone()).or_else(|| after.cloned());
        Found { upto: matching.next().and(last), instances }
    }
}

impl Instance {
    fn stored(&self, id: &InstanceId, detail: Detail) -> StoredInstance {
        let payloads = match detail {
            Detail::Outline => Vec::new(),
            Detail::State => self.payloads.iter().map(|(slot, (_, bytes))| (*slot, bytes.to_vec())).collect(),
        };
        let state = self.state.to_vec();
        StoredInstance { instance: id.clone(), reflects: self.reflects, state, payloads }
    }
}
