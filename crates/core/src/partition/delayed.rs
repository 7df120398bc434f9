//! Delayed signals: accepted, durable, and in no queue until they are due. So they hold nobody up, and the entity that
//! they are for need not exist meanwhile.

use super::effect::{Accepted, Effect, Token};
use super::intake::TIMERS_PER_TICK;
use super::machine::Partition;
use super::record::LogEntry;
use super::rows;
use crate::codec;
use crate::event::EventKind;
use crate::message::{DelayedKey, Origin, TaskMessage};
use crate::time::Timestamp;

/// A signal that waits for its time.
#[derive(Debug)]
pub(super) struct Delayed {
    pub(super) message: TaskMessage,
    /// It has a row in the instance store.
    pub(super) stored: bool,
}

/// When a message is to be delivered, if it has to wait for that. Every signal with a time goes this way, due or not:
/// what becomes of it must not depend on when it is looked at.
pub(super) fn delayed_until(message: &TaskMessage) -> Option<Timestamp> {
    match &message.event.kind {
        EventKind::EntityOperationSignaled(operation) if !matches!(message.origin, Origin::Delayed(_)) => {
            operation.scheduled_time
        }
        _ => None,
    }
}

impl Partition {
    /// Accepts a signal that comes from outside. It is written at once, as nothing can consume it in this record
    /// without settling it.
    pub(super) fn accept_delayed(&mut self, due: Timestamp, message: TaskMessage, token: Option<Token>) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let accepted = LogEntry::Accepted { sequence, message };
        codec::encode(&accepted, &mut self.open.buffer);
        if let LogEntry::Accepted { message, .. } = accepted {
            self.insert_delayed(DelayedKey { due, sequence }, message, false);
        }
        if let Some(token) = token {
            self.open.effects.push(Effect::Reply(token, Ok(Accepted::Message)));
        }
    }

    /// Keeps a signal that is part of a record; doing so twice changes nothing.
    pub(super) fn insert_delayed(&mut self, key: DelayedKey, message: TaskMessage, stored: bool) {
        self.next_sequence = self.next_sequence.max(key.sequence + 1);
        if !stored {
            self.changes.delayed.push(key);
        }
        self.delayed.entry(key).or_insert(Delayed { message, stored });
    }

    /// Puts signals that are due into their entities' queues, in the order of their times.
    pub(super) fn deliver_delayed(&mut self) {
        for _ in 0..TIMERS_PER_TICK {
            let Some(first) = self.delayed.first_entry().filter(|first| first.key().due <= self.now) else {
                break;
            };
            let key = *first.key();
            let Some(mut message) = self.settle_delayed(key) else { break };
            message.origin = Origin::Delayed(key);
            let instance = message.instance.clone();
            self.enqueue(&instance, message, None);
        }
    }

    /// Forgets a delayed signal, if it is one.
    pub(super) fn settle_delayed(&mut self, key: DelayedKey) -> Option<TaskMessage> {
        let delayed = self.delayed.remove(&key)?;
        if delayed.stored {
            self.changes.deleted_rows.push(rows::delayed_key(key));
        }
        Some(delayed.message)
    }
}
