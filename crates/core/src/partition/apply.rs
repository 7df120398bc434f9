//! Applying facts to the partition's state: what live turns and recovery have in common.

use std::collections::VecDeque;
use std::sync::Arc;

use super::delayed::delayed_until;
use super::effect::{ActivityTask, Effect};
use super::entry::{Dirty, Entry, Presence, Queued, suspension};
use super::forced::incarnation;
use super::intake::{can_be_consumed, scheduled_start};
use super::links::Outgoing;
use super::machine::Partition;
use super::materialise::Changes;
use super::record::{CheckpointHead, LogEntry};
use super::rows;
use super::tally::Tally;
use super::turns::Work;
use crate::codec;
use crate::event::{EventKind, HistoryEvent};
use crate::ids::{InstanceId, PartitionId, Position};
use crate::message::{ActivityId, DelayedKey, Origin, TaskMessage, TimerKey};
use crate::model::CancelReason;
use crate::state::{InstanceState, OrchestrationStatus};

/// Room for activities in one record's share of [`ActivityId`]s, in bits: sixteen million.
const ACTIVITIES_PER_RECORD_BITS: u32 = 24;

/// The record in which the activity was asked for.
pub(super) fn scheduled_in(id: ActivityId) -> Position {
    Position(id.0 >> ACTIVITIES_PER_RECORD_BITS)
}

/// What an instance is taken to cost in the overlay besides its history: its entry, its state, and what these point to.
const ENTRY_BYTES: usize = size_of::<Entry>() + size_of::<InstanceState>() + 512;

/// What a history is taken to cost in the overlay: itself, and the payloads and tags in it that the state has as well.
const fn overlay_bytes(history_bytes: usize) -> usize {
    2 * history_bytes
}

/// At most so much room is kept for what comes after the first turn.
const HISTORY_ROOM: usize = 512;

impl Partition {
    /// Applies a turn.
    pub(super) fn apply_checkpoint(&mut self, head: CheckpointHead, events: Vec<HistoryEvent>, bytes: &[u8]) {
        self.apply_to_instance(&head, &events, bytes);
        self.apply_to_rows(head, events);
    }

    /// The part that concerns the instance itself.
    pub(super) fn apply_to_instance(&mut self, head: &CheckpointHead, events: &[HistoryEvent], bytes: &[u8]) {
        if let Some(change) = &head.entity {
            self.apply_entity(&head.instance, change);
            return;
        }
        if events.is_empty() {
            return;
        }
        let started = events.iter().take(2).find_map(|event| match &event.kind {
            EventKind::ExecutionStarted(started) => Some((started, event.timestamp)),
            _ => None,
        });
        let (instance, position) = (&head.instance, self.open.position);
        if let Some((started, at)) = started {
            self.begin_history(instance, InstanceState::pending(instance.clone(), started, at), position);
            self.open.effects.push(Effect::Started(instance.clone()));
        }
        let Some(entry) = self.entries.get_mut(instance) else { return };
        let Presence::Present(state) = &mut entry.presence else { return };
        let (at, length) = (state.history_events, (state.history_events, state.history_bytes));
        let state = Arc::make_mut(state);
        let before = Tally::before(state);
        for event in events {
            state.apply(event);
        }
        state.history_bytes = state.history_bytes.saturating_add(bytes.len() as u64);
        for (_, timer_id) in &head.removed_timers {
            state.open_timers.remove(timer_id);
        }
        if let Some(status) = &head.custom_status {
            state.custom_status = (!status.is_empty()).then(|| status.clone());
        }
        self.options.warn_of_length(length, state);
        let ended = state.status.is_terminal();
        self.tally.turn(instance, before, state);
        self.any_terminated |= state.status == OrchestrationStatus::Terminated;
        entry.changed_at = position;
        let dirty = dirty(entry, instance, at, &mut self.changes, &mut self.overlay_bytes);
        if dirty.history.capacity() == 0 {
            // Most instances that go on have a few turns more like this one.
            let more = if ended { 0 } else { (3 * bytes.len()).min(HISTORY_ROOM) };
            dirty.history.reserve_exact(bytes.len() + more);
        }
        dirty.history.extend_from_slice(bytes);
        self.overlay_bytes += overlay_bytes(bytes.len());
        if ended {
            if entry.queue.is_empty() {
                // Until it is materialised, which may be a while, nothing will need the room.
                entry.queue = VecDeque::new();
            }
            let state = entry.state().cloned();
            self.open.effects.push(Effect::Ended(instance.clone(), state));
        }
    }

    /// A worker gave something to keep, in a turn that this record has.
    pub(super) fn apply_kept(&mut self, instance: &InstanceId, keepsake: Arc<[u8]>) {
        let presence = self.entries.get_mut(instance).map(|entry| &mut entry.presence);
        if let Some(Presence::Present(state)) = presence {
            Arc::make_mut(state).keepsake = Some(keepsake);
        }
    }

    /// The part that concerns timers, activities, messages and what was consumed.
    pub(super) fn apply_to_rows(&mut self, head: CheckpointHead, events: Vec<HistoryEvent>) {
        let CheckpointHead { instance, execution, .. } = &head;
        self.poisoned.clear(instance);
        let events = self.open_events(&head, events);
        for event in events {
            match event.kind {
                EventKind::TaskScheduled { name, version, input, options } => {
                    let id = ActivityId(
                        (self.open.position.0 << ACTIVITIES_PER_RECORD_BITS) | self.open.activities,
                    );
                    self.open.activities += 1;
                    self.add_activity(ActivityTask {
                        id,
                        instance: instance.clone(),
                        execution: *execution,
                        task_id: event.event_id,
                        name,
                        version,
                        instance_version: head.version.clone(),
                        input,
                        options,
                        cancelled: None,
                    });
                }
                EventKind::TimerCreated { fire_at } => {
                    let removed = head.removed_timers.iter().any(|(_, id)| *id == event.event_id);
                    if !removed {
                        let (instance, execution) = (instance.clone(), *execution);
                        self.add_timer(TimerKey { fire_at, instance, execution, timer_id: event.event_id });
                    }
                }
                _ => {}
            }
        }
        for (fire_at, timer_id) in &head.removed_timers {
            let (instance, execution) = (instance.clone(), *execution);
            self.settle_timer(&TimerKey { fire_at: *fire_at, instance, execution, timer_id: *timer_id });
        }
        if !head.cancelled_activities.is_empty() {
            self.apply_cancellations(&head);
        }
        for (sequence, message) in head.messages {
            self.send(sequence, message);
        }
    }

    fn add_activity(&mut self, task: ActivityTask) {
        let (id, task) = (task.id, Arc::new(task));
        self.changes.activities.push(id);
        self.open.effects.push(Effect::Dispatch(task.clone()));
        self.activities.add(task, false);
    }

    fn apply_cancellations(&mut self, head: &CheckpointHead) {
        let reason = if head.ended { CancelReason::Ended } else { CancelReason::NotAwaited };
        for task_id in &head.cancelled_activities {
            if let Some(id) = self.cancel_activity(head.execution, *task_id, reason) {
                self.open.effects.push(Effect::Cancel(id, reason));
            }
        }
    }

    fn add_timer(&mut self, timer: TimerKey) {
        self.changes.timers.push(timer.clone());
        self.timers.entry(timer).or_insert(false);
    }

    /// Sends a numbered message: into a queue of this partition, or into the outbox.
    pub(super) fn send(&mut self, sequence: u64, message: TaskMessage) {
        if let Origin::Remote { source, sequence } = message.origin
            && source == self.options.id
        {
            let receiver = message.instance.partition(self.options.count);
            self.open.effects.push(Effect::Send(receiver, Box::new(message.clone())));
            let position = self.open.position;
            self.links.put(receiver, sequence, Outgoing { message, stored: false, position });
            return;
        }
        self.queue_logged(sequence, message, false);
    }

    /// Puts a message that is part of a record into its instance's queue.
    pub(super) fn queue_logged(&mut self, sequence: u64, message: TaskMessage, stored: bool) {
        if let Some(due) = delayed_until(&message) {
            self.insert_delayed(DelayedKey { due, sequence }, message, stored);
            return;
        }
        let instance = message.instance.clone();
        self.next_sequence = self.next_sequence.max(sequence + 1);
        let entry = self.entries.entry(instance.clone()).or_insert_with(|| {
            self.work.push_back(Work::Load(instance.clone()));
            Box::new(Entry { loading: true, ..Entry::default() })
        });
        let Err(place) = entry.queue_place(sequence) else { return };
        if !matches!(entry.presence, Presence::Unknown) && !can_be_consumed(entry, &message) {
            if stored {
                self.changes.delete_queued(sequence);
            }
            self.forget_if_clean(&instance);
            return;
        }
        if let Some(at) = scheduled_start(&message).filter(|at| *at > self.now) {
            entry.held_until = Some(at);
            self.held.insert((at, instance.clone()));
        }
        if suspension(&message).is_some() {
            self.suspending.insert(instance.clone());
        }
        // Live that is the end. A recovered record tells of the messages that turns sent before those that clients sent,
        // whichever came first.
        entry.queue.insert(
            place,
            Queued { sequence, logged: true, stored, unverified: None, outside: false, asker: None, message },
        );
        if !stored {
            self.changes.queued.push((instance.clone(), sequence));
        }
        self.mark_ready(&instance);
    }

    /// Writes what was accepted in this record and is still in its queue.
    pub(super) fn write_accepted(&mut self) {
        self.open.end_patience();
        let mut fresh = std::mem::take(&mut self.open.fresh);
        for (instance, sequence) in fresh.drain(..) {
            let Some(entry) = self.entries.get_mut(&instance) else { continue };
            let Some(queued) = entry.queued_mut(sequence).filter(|queued| !queued.logged) else { continue };
            queued.logged = true;
            let accepted = LogEntry::Accepted { sequence, message: queued.message.clone() };
            codec::encode(&accepted, &mut self.open.buffer);
            self.changes.queued.push((instance.clone(), sequence));
            if let LogEntry::Accepted { message, .. } = accepted {
                self.apply_accepted(&message, self.open.position);
            }
        }
        self.open.fresh = fresh;
    }

    /// A start that the record at `position` or an earlier one accepted is visible as a pending instance, unless it is a
    /// stray one of an instance that is alive.
    pub(super) fn apply_accepted(&mut self, message: &TaskMessage, position: Position) {
        let EventKind::ExecutionStarted(started) = &message.event.kind else { return };
        let Some(entry) = self.entries.get(&message.instance) else { return };
        let replaces = match &entry.presence {
            Presence::Unknown => false,
            Presence::Absent => true,
            Presence::Present(state) => state.status.is_terminal() && state.execution != started.execution,
        };
        if replaces {
            let incarnation = incarnation(entry, started);
            let state = InstanceState {
                incarnation,
                ..InstanceState::pending(message.instance.clone(), started, message.event.timestamp)
            };
            self.begin_history(&message.instance, state, position);
        }
    }

    /// Replaces whatever is known of the instance by a new execution without events.
    fn begin_history(&mut self, instance: &InstanceId, mut state: InstanceState, position: Position) {
        let Some(entry) = self.entries.get_mut(instance) else { return };
        self.tally.replace(instance, entry.state().map(|state| &**state), &mut state);
        entry.presence = Presence::Present(Arc::new(state));
        entry.changed_at = position;
        entry.loaded = None;
        let dirty = dirty(entry, instance, 0, &mut self.changes, &mut self.overlay_bytes);
        dirty.replace = true;
        dirty.deleted = false;
        dirty.at = 0;
        let dropped = std::mem::take(&mut dirty.history).len();
        self.overlay_bytes -= overlay_bytes(dropped);
    }

    pub(super) fn apply_purge(&mut self, instance: &InstanceId) {
        let position = self.open.position;
        let Some(entry) = self.entries.get_mut(instance) else { return };
        if let Some(state) = entry.state() {
            self.tally.purge(instance, state);
        }
        entry.presence = Presence::Absent;
        entry.changed_at = position;
        entry.loaded = None;
        self.poisoned.clear(instance);
        let dirty = dirty(entry, instance, 0, &mut self.changes, &mut self.overlay_bytes);
        dirty.deleted = true;
        dirty.at = 0;
        let dropped = std::mem::take(&mut dirty.history).len();
        self.overlay_bytes -= overlay_bytes(dropped);
    }

    /// What changed of the instance since the last capture; `at` is the number of events before the change.
    pub(super) fn dirty(&mut self, instance: &InstanceId, at: u64) -> &mut Dirty {
        let entry = self.entries.entry(instance.clone()).or_default();
        dirty(entry, instance, at, &mut self.changes, &mut self.overlay_bytes)
    }

    /// The overlay no longer holds a captured change.
    pub(super) fn release_overlay(&mut self, history_bytes: usize) {
        self.overlay_bytes = self.overlay_bytes.saturating_sub(overlay_bytes(history_bytes) + ENTRY_BYTES);
    }

    pub(super) fn settle_timer(&mut self, timer: &TimerKey) {
        if self.timers.remove(timer) == Some(true) {
            self.changes.deleted_rows.push(rows::timer_key(timer));
        }
    }

    /// Makes sure that a message with this origin is never applied again.
    pub(super) fn settle(&mut self, origin: &Origin) {
        match origin {
            Origin::Client | Origin::Local => {}
            Origin::Activity(id) => {
                self.settle_activity(*id);
            }
            Origin::Timer(timer) => self.settle_timer(timer),
            Origin::Delayed(key) => {
                self.settle_delayed(*key);
            }
            Origin::Remote { source, sequence } => self.links.raise_received(*source, *sequence),
        }
    }

    pub(super) fn drop_outgoing(&mut self, receiver: PartitionId, upto: u64) {
        for sequence in self.links.acknowledge(receiver, upto) {
            self.changes.deleted_rows.push(rows::outbox_key(receiver, sequence));
        }
    }
}

/// [`Partition::dirty`] of an entry that is at hand.
fn dirty<'a>(
    entry: &'a mut Entry,
    instance: &InstanceId,
    at: u64,
    changes: &mut Changes,
    overlay_bytes: &mut usize,
) -> &'a mut Dirty {
    entry.dirty.get_or_insert_with(|| {
        changes.instances.push(instance.clone());
        *overlay_bytes += ENTRY_BYTES;
        Dirty { at, ..Dirty::default() }
    })
}
