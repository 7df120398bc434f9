//! Turns that do not end at once.
//!
//! A turn usually ends where it began: the shell runs it and reports. But its code may wait for something real, or run
//! in another process. Then the shell says that the turn goes on outside. Its messages go back into the queue, marked,
//! so that the next record writes them as accepted; commits and captures are held up by nothing, and the instance takes
//! no other turn meanwhile. When the result comes, the marked messages are consumed by the checkpoint. After a crash in
//! between they are in the queue like any others, and the turn runs again.

use super::entry::{Entry, Queued, RunningBatch, SessionPhase};
use super::machine::Partition;
use super::rewind::{is_rewind, rewind_instead};
use crate::event::EventKind;
use crate::ids::InstanceId;
use crate::message::TaskMessage;

impl Partition {
    /// A turn that was handed out does not end at once; `batch` is what it was given. Its result comes with
    /// [`Partition::on_turn`], or it is given up with [`Partition::on_turn_abandoned`].
    pub fn on_turn_outside(&mut self, instance: &InstanceId, batch: Vec<TaskMessage>) {
        let Some(entry) = self.entries.get_mut(instance) else { return };
        let Some(running) = entry.running.take() else { return };
        entry.outside = true;
        self.running -= 1;
        self.outside += 1;
        self.put_back(instance, batch, running, true);
    }

    /// Nobody will report the result of a turn that went on outside: its messages wait for the next turn.
    pub fn on_turn_abandoned(&mut self, instance: &InstanceId) {
        if self.end_outside(instance) {
            self.evict(instance);
            self.mark_ready(instance);
        }
    }

    /// The turn outside has no result; its messages are in the queue like any others again. False if there is no such
    /// turn.
    pub(super) fn end_outside(&mut self, instance: &InstanceId) -> bool {
        let Some(entry) = self.entries.get_mut(instance).filter(|entry| entry.outside) else { return false };
        entry.outside = false;
        entry.passed_over = 0;
        entry.session = SessionPhase::Idle;
        entry.queue.iter_mut().for_each(|queued| queued.outside = false);
        self.outside -= 1;
        true
    }

    /// An orchestration's turn that goes on outside is given up, because something has come that must not wait for whoever
    /// runs it: nobody may be left to do so. What the code would have asked for, it asks for again.
    pub(super) fn interrupt_outside(&mut self, instance: &InstanceId) {
        if !instance.is_entity() {
            self.on_turn_abandoned(instance);
        }
    }

    /// The orchestrations whose turns go on outside, in no particular order.
    pub fn orchestrations_outside(&self) -> impl Iterator<Item = &InstanceId> {
        let outside = self.entries.iter().filter(|(instance, entry)| entry.outside && !instance.is_entity());
        outside.map(|(instance, _)| instance)
    }

    /// How many turns go on outside.
    pub fn turns_outside(&self) -> usize {
        self.outside
    }

    /// Whether the turn that goes on outside has to give way to what has come in: the instance is to be terminated or
    /// suspended.
    pub(super) fn is_interrupted(entry: &Entry) -> bool {
        let interrupts = |queued: &Queued| {
            !queued.outside
                && matches!(
                    queued.message.event.kind,
                    EventKind::ExecutionTerminated { .. } | EventKind::ExecutionSuspended { .. }
                )
        };
        entry.outside && entry.queue.iter().rev().any(interrupts)
    }

    /// Puts the messages of a turn that did not consume them back into the queue, each at its place.
    pub(super) fn put_back(
        &mut self,
        instance: &InstanceId,
        batch: Vec<TaskMessage>,
        running: RunningBatch,
        outside: bool,
    ) {
        let Some(entry) = self.entries.get_mut(instance) else { return };
        if !outside {
            // They are looked at again.
            entry.passed_over = 0;
        }
        let mut batch = batch;
        if let Some(reason) = running.begins_again {
            batch.iter_mut().for_each(|message| rewind_instead(message, &reason));
        }
        for ((sequence, logged, stored), message) in running.items.into_iter().zip(batch).rev() {
            let asker = running.asker.filter(|_| is_rewind(&message));
            let queued = Queued { sequence, logged, stored, unverified: None, outside, asker, message };
            let Err(place) = entry.queue.binary_search_by_key(&sequence, |queued| queued.sequence) else {
                continue;
            };
            if !logged {
                self.open.accepted(&queued.message, sequence, self.now);
            }
            entry.queue.insert(place, queued);
        }
    }

    /// The batch of the turn whose result has come, wherever it ran.
    pub(super) fn take_running(&mut self, instance: &InstanceId) -> Option<RunningBatch> {
        let entry = self.entries.get_mut(instance)?;
        if !entry.outside {
            let running = entry.end_turn()?;
            self.running -= 1;
            return Some(running);
        }
        entry.outside = false;
        entry.session = SessionPhase::Idle;
        self.outside -= 1;
        let first_left = entry.queue.iter().find(|queued| !queued.outside);
        let first_left = first_left.map_or(u64::MAX, |queued| queued.sequence);
        let mut running = RunningBatch::default();
        entry.queue.retain(|queued| {
            if queued.outside {
                running.note(queued, first_left);
            }
            !queued.outside
        });
        Some(running)
    }
}
