//! Instances whose turns crash: tried again later, then left alone until somebody releases them. Only they suffer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effect::{Accepted, Effect, Rejection, Token};
use super::entry::Entry;
use super::machine::Partition;
use super::materialise::CapturedRow;
use super::record::LogEntry;
use super::rows;
use crate::codec;
use crate::event::EventKind;
use crate::ids::InstanceId;
use crate::message::TaskMessage;
use crate::time::Timestamp;

/// What is known of an instance whose last turn crashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poison {
    /// How many of its turns crashed in a row, over restarts of the process.
    pub crashes: u32,
    /// What the last one said.
    pub problem: String,
    /// When it last crashed.
    pub at: Timestamp,
    /// It is not tried again before it is released.
    pub parked: bool,
}

/// All instances whose last turn crashed. Usually there are none.
#[derive(Debug, Default)]
pub(super) struct Poisoned {
    known: BTreeMap<InstanceId, Poison>,
    /// Those that changed since the last capture.
    changed: Vec<InstanceId>,
}

impl Poisoned {
    pub(super) fn set(&mut self, instance: InstanceId, poison: Poison) {
        self.changed.push(instance.clone());
        self.known.insert(instance, poison);
    }

    /// As it is in the instance store.
    pub(super) fn restore(&mut self, instance: InstanceId, poison: Poison) {
        self.known.insert(instance, poison);
    }

    /// The instance is well again.
    pub(super) fn clear(&mut self, instance: &InstanceId) -> bool {
        let was_known = !self.known.is_empty() && self.known.remove(instance).is_some();
        if was_known {
            self.changed.push(instance.clone());
        }
        was_known
    }

    pub(super) fn is_parked(&self, instance: &InstanceId) -> bool {
        !self.known.is_empty() && self.known.get(instance).is_some_and(|poison| poison.parked)
    }

    /// The rows that are out of date; one that was never written may be removed, too.
    pub(super) fn capture(&mut self, captured: &mut Vec<CapturedRow>) {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        captured.extend(changed.iter().map(|instance| CapturedRow {
            key: rows::poison_key(instance),
            value: self.known.get(instance).map(codec::encode_to_vec),
        }));
    }
}

impl Partition {
    /// A turn crashed. Its messages go back to the front of the queue, where those of a turn that went on outside are
    /// already, and the instance is tried again later, each time after a longer pause, until it has crashed too often.
    /// The session is not used again.
    pub fn on_crashed(&mut self, instance: &InstanceId, batch: Vec<TaskMessage>, problem: &str) {
        if !self.end_outside(instance) {
            let Some(running) = self.end_running(instance) else { return };
            self.put_back(instance, batch, running, false);
        }
        let crashes = self.poisoned.known.get(instance).map_or(0, |poison| poison.crashes).saturating_add(1);
        let parked = crashes >= self.options.turn_crashes_max;
        let poison = Poison { crashes, problem: problem.to_owned(), at: self.now, parked };
        let entry = LogEntry::TurnCrashed { instance: instance.clone(), poison: poison.clone() };
        codec::encode(&entry, &mut self.open.buffer);
        self.poisoned.set(instance.clone(), poison);
        if !parked {
            let at = self.now.after(pause_after(crashes, self.options.turn_retry_delay));
            self.hold_until(instance, at);
        }
        // Work that came in for it, such as its termination, may still be possible.
        self.mark_ready(instance);
        self.evict(instance);
        self.run_replacements(instance);
    }

    /// What the instance crashed over is gone without a turn that changed anything.
    pub(super) fn forgive(&mut self, instance: &InstanceId) {
        if !self.poisoned.is_parked(instance) && self.poisoned.clear(instance) {
            codec::encode(&LogEntry::Released { instance: instance.clone() }, &mut self.open.buffer);
        }
    }

    fn hold_until(&mut self, instance: &InstanceId, at: Timestamp) {
        let Some(entry) = self.entries.get_mut(instance) else { return };
        if let Some(before) = entry.held_until.replace(at) {
            self.held.remove(&(before, instance.clone()));
        }
        self.held.insert((at, instance.clone()));
    }

    /// Lets an instance whose turns crashed take turns again, as if they never had. The answer leaves as
    /// [`Effect::Reply`].
    pub fn release(&mut self, token: Token, instance: &InstanceId) {
        if !self.poisoned.clear(instance) {
            self.immediate.push(Effect::Reply(token, Err(Rejection::NotPoisoned)));
            return;
        }
        codec::encode(&LogEntry::Released { instance: instance.clone() }, &mut self.open.buffer);
        self.open.effects.push(Effect::Reply(token, Ok(Accepted::Released)));
        if let Some(at) = self.entries.get_mut(instance).and_then(|entry| entry.held_until.take()) {
            self.held.remove(&(at, instance.clone()));
        }
        self.mark_ready(instance);
    }

    /// All instances whose last turn crashed, in id order.
    pub fn poisoned(&self) -> Vec<(InstanceId, Poison)> {
        self.poisoned.known.iter().map(|(instance, poison)| (instance.clone(), poison.clone())).collect()
    }
}

/// The pause doubles with each crash, to a thousand times the first at most.
fn pause_after(crashes: u32, first: Duration) -> Duration {
    first.saturating_mul(1 << crashes.saturating_sub(1).min(10))
}

/// Whether a termination waits in the queue: it ends an instance that can do nothing else.
pub(super) fn has_termination(entry: &Entry) -> bool {
    entry
        .queue
        .iter()
        .any(|queued| matches!(queued.message.event.kind, EventKind::ExecutionTerminated { .. }))
}
