//! Recovery: the rows of the instance store, then the records that it does not reflect, through the same code as live.

use std::sync::Arc;

use super::effect::Effect;
use super::entry::{Entry, Presence, Queued};
use super::intake::scheduled_start;
use super::links::Outgoing;
use super::machine::{Partition, PartitionOptions};
use super::record::{self, LogEntry};
use super::rows::{self, Row};
use super::tally::Tally;
use super::turns::Work;
use crate::codec::{self, DecodeError};
use crate::ids::{InstanceId, Position};
use crate::state::InstanceState;

/// What the instance store says of an instance.
#[derive(Debug, Clone)]
pub struct RecoveredInstance {
    /// Its state.
    pub state: InstanceState,
    /// The position that it reflects.
    pub reflects: Position,
}

/// Reads instances during recovery.
pub trait RecoverySource {
    /// What stops a read.
    type Error: From<RecoveryError>;

    /// Reads an instance.
    ///
    /// # Errors
    /// Whatever the storage says; the recovery is then given up.
    fn instance(&mut self, instance: &InstanceId) -> Result<Option<RecoveredInstance>, Self::Error>;
}

/// What is stored cannot be what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {source}")]
pub struct RecoveryError {
    /// Which record or row.
    pub place: String,
    /// What is wrong with it.
    #[source]
    pub source: DecodeError,
}

impl Partition {
    /// A partition as the instance store has it: `rows` reflect the log up to `upto`, and maybe parts of what follows.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn restore(
        options: PartitionOptions,
        upto: Position,
        rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, RecoveryError> {
        let mut partition = Self::empty(options, upto);
        for (key, value) in rows {
            let row = rows::decode(&key, &value)
                .map_err(|source| RecoveryError { place: format!("row {}", hex(&key)), source })?;
            partition.restore_row(row);
        }
        partition.links.changed_next.clear();
        partition.links.changed_received.clear();
        Ok(partition)
    }

    fn restore_row(&mut self, row: Row) {
        match row {
            Row::Activity(task) => {
                self.activities.add(Arc::from(task), true);
            }
            Row::Counts(counts) => self.tally = Tally::stored(counts),
            Row::Received { source, upto } => self.links.raise_received(source, upto),
            Row::OutboxNext { receiver, next } => self.links.raise_next(receiver, next),
            Row::Outbox { receiver, sequence, message } => {
                let outgoing = Outgoing { message: *message, stored: true, position: self.durable };
                self.links.put(receiver, sequence, outgoing);
            }
            Row::Queued { sequence, message } => self.queue_logged(sequence, *message, true),
            Row::Delayed { key, message } => self.insert_delayed(key, *message, true),
            Row::Poison(instance, poison) => self.poisoned.restore(instance, poison),
            Row::Timer(timer) => {
                self.timers.insert(timer, true);
            }
        }
    }

    /// Applies the next record of the log.
    ///
    /// # Errors
    /// When the record cannot be read, or an instance cannot. The partition must not be used then.
    pub fn replay_record<S: RecoverySource>(
        &mut self,
        position: Position,
        bytes: &[u8],
        source: &mut S,
    ) -> Result<(), S::Error> {
        if position != self.open.position {
            let problem = format!("record {} is missing", self.open.position);
            return Err(self.recovery_error(position, DecodeError::new(problem)).into());
        }
        let mut entries = Vec::new();
        record::read(self.options.id, position, bytes, &mut |entry, events| {
            let events_read = codec::decode_many(events)?;
            entries.push((entry, events_read, events.to_vec()));
            Ok(())
        })
        .map_err(|source| self.recovery_error(position, source))?;
        for (entry, events, bytes) in entries {
            match entry {
                LogEntry::Checkpoint(head) => {
                    let current = self.recover_instance(&head.instance, source)? < position;
                    if current {
                        self.apply_to_instance(&head, &events, &bytes);
                    }
                    head.settled.iter().for_each(|origin| self.settle(origin));
                    let apart = head.entity.as_ref().map_or(&[][..], |entity| &entity.apart);
                    self.consume(&head.instance, head.consumed_upto, apart);
                    self.apply_to_rows(head, events);
                }
                LogEntry::Accepted { sequence, message } => {
                    let current = self.recover_instance(&message.instance, source)? < position;
                    self.settle(&message.origin);
                    if current {
                        self.apply_accepted(&message, position);
                    }
                    self.queue_logged(sequence, message, false);
                }
                LogEntry::Discarded { instance, upto } => self.consume(&instance, upto, &[]),
                LogEntry::Settled(origins) => origins.iter().for_each(|origin| self.settle(origin)),
                LogEntry::OutboxAcknowledged { receiver, upto } => self.drop_outgoing(receiver, upto),
                LogEntry::TurnCrashed { instance, poison } => self.poisoned.set(instance, poison),
                LogEntry::Released { instance } => {
                    self.poisoned.clear(&instance);
                }
                LogEntry::Heartbeat { id, detail } => {
                    self.set_heartbeat(id, detail);
                }
                LogEntry::Refused { instance, sequences, settled, messages } => {
                    self.apply_refused(&instance, &sequences, &settled, messages);
                }
                LogEntry::Purged { instance } => {
                    self.poisoned.clear(&instance);
                    if self.recover_instance(&instance, source)? < position {
                        self.apply_purge(&instance);
                    }
                }
                LogEntry::Kept { instance, keepsake } => {
                    if self.recover_instance(&instance, source)? < position {
                        self.apply_kept(&instance, keepsake);
                    }
                }
                LogEntry::Counts(counts) => self.tally.recorded(counts),
            }
        }
        self.tally.take_recorded();
        self.durable = position;
        self.open_record(position.next());
        Ok(())
    }

    fn recovery_error(&self, position: Position, source: DecodeError) -> RecoveryError {
        RecoveryError { place: format!("record {position} of {}", self.options.id), source }
    }

    /// Makes sure that the instance's stored state is known, and says which position it reflects.
    fn recover_instance<S: RecoverySource>(
        &mut self,
        instance: &InstanceId,
        source: &mut S,
    ) -> Result<Position, S::Error> {
        let known =
            self.entries.get(instance).is_some_and(|entry| !matches!(entry.presence, Presence::Unknown));
        if !known {
            let recovered = source.instance(instance)?;
            let entry = self.entries.entry(instance.clone()).or_default();
            entry.loading = false;
            match recovered {
                Some(recovered) => {
                    entry.reflects = recovered.reflects;
                    self.tally.learn(instance, &recovered.state);
                    entry.presence = Presence::Present(Arc::new(recovered.state));
                    entry.stored = true;
                }
                // An instance that was purged by a later record than this one is absent as well; then what this
                // record says of it is applied and purged again when that record comes.
                None => entry.presence = Presence::Absent,
            }
        }
        Ok(self.entries.get(instance).map_or(Position::ZERO, |entry| entry.reflects))
    }

    fn consume(&mut self, instance: &InstanceId, upto: u64, apart: &[u64]) {
        let last = apart.last().copied().unwrap_or_default().max(upto);
        self.next_sequence = self.next_sequence.max(last + 1);
        let Some(entry) = self.entries.get_mut(instance) else { return };
        let mut kept = std::collections::VecDeque::new();
        for queued in std::mem::take(&mut entry.queue) {
            if queued.sequence > upto && apart.binary_search(&queued.sequence).is_err() {
                kept.push_back(queued);
            } else if queued.stored {
                self.changes.delete_queued(queued.sequence);
            }
        }
        entry.queue = kept;
        let still_held = entry.queue.iter().any(|queued| scheduled_start(&queued.message).is_some());
        if !still_held && let Some(at) = entry.held_until.take() {
            self.held.remove(&(at, instance.clone()));
        }
    }

    /// Ends the recovery: asks again for everything that is not known to be done.
    pub fn resume(&mut self) {
        self.open.effects.clear();
        self.open.received_from.clear();
        // Entries whose instance was never looked up need a load before their messages can be consumed.
        self.work.clear();
        let mut idle = Vec::new();
        let mut waiting: Vec<_> =
            self.entries.iter().map(|(instance, entry)| (first_queued(entry), instance.clone())).collect();
        waiting.sort_unstable();
        self.ready.clear();
        for (_, instance) in waiting {
            let Some(entry) = self.entries.get_mut(&instance) else { continue };
            entry.ready = false;
            entry.loading = matches!(entry.presence, Presence::Unknown);
            if entry.loading {
                if entry.queue.iter().any(Queued::is_start) {
                    self.tally.unseen.insert(instance.clone());
                }
                self.work.push_back(Work::Load(instance.clone()));
            } else if entry.queue.is_empty() {
                idle.push(instance);
            } else {
                self.mark_ready(&instance);
            }
        }
        idle.iter().for_each(|instance| self.forget_if_clean(instance));
        let mut tasks: Vec<_> = self.activities.tasks().cloned().collect();
        tasks.sort_unstable_by_key(|task| task.id);
        self.immediate = tasks.into_iter().map(Effect::Dispatch).collect();
        for (&(receiver, _), outgoing) in self.links.outbox_mut() {
            self.immediate.push(Effect::Send(receiver, Box::new(outgoing.message.clone())));
        }
    }
}

fn first_queued(entry: &Entry) -> u64 {
    entry.queue.front().map_or(u64::MAX, |queued| queued.sequence)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
