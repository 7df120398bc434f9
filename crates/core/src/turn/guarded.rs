//! A turn that may not end well: because the history has no room for what it did, or because the kernel panicked.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::execution::Execution;
use super::session::{Session, Turn, put_continuation_first};
use crate::failure::{FailureDetails, kinds};
use crate::message::TaskMessage;
use crate::time::Timestamp;

/// How much a history holds and may hold, at the beginning of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRoom {
    /// How many events it has.
    pub events: u64,
    /// How many it may have.
    pub events_max: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// The size from which on it is too long.
    pub bytes_max: u64,
}

impl HistoryRoom {
    /// Room for whatever comes.
    pub const UNLIMITED: Self = Self { events: 0, events_max: u64::MAX, bytes: 0, bytes_max: u64::MAX };

    /// Why `further` events do not fit, if they do not.
    pub(super) fn refuse(&self, further: usize) -> Option<FailureDetails> {
        let Self { events, events_max, bytes, bytes_max } = *self;
        let would_have = events.saturating_add(further as u64);
        let problem = if would_have > events_max {
            format!("the history would have {would_have} events and the hub allows {events_max}")
        } else if bytes >= bytes_max {
            format!("the history has {bytes} bytes and the hub allows {bytes_max}")
        } else {
            return None;
        };
        let advice = "continue as new before it gets so long, or divide the work among sub-orchestrations";
        Some(FailureDetails::new(kinds::HISTORY_TOO_LONG, format!("{problem}; {advice}")).non_retriable())
    }
}

/// The kernel panicked in a turn, which is a bug, or user code found a way around the guards. The session must not be used
/// any more. Nothing has been changed otherwise, and here are the messages.
#[derive(Debug)]
pub struct CrashedTurn {
    /// What the turn was to consume.
    pub batch: Vec<TaskMessage>,
    /// What the panic said.
    pub problem: String,
}

impl Session {
    /// Runs one turn like [`Session::turn`], in a history that has only so much room, and gives the messages back should
    /// the turn panic.
    ///
    /// # Errors
    /// When the turn panics.
    pub fn try_turn(
        &mut self,
        mut batch: Vec<TaskMessage>,
        now: Timestamp,
        room: &HistoryRoom,
    ) -> Result<Turn, CrashedTurn> {
        let moved = if self.is_over() { put_continuation_first(&mut batch) } else { 0 };
        let mut turn = Turn::default();
        match guarded(|| self.run(&mut batch, now, room, &mut turn)) {
            Ok(()) => Ok(turn),
            Err(problem) => {
                self.put_events_back(&mut batch, turn);
                batch[..moved].rotate_left(moved.min(1));
                Err(CrashedTurn { batch, problem })
            }
        }
    }
}

/// Runs a part of a turn, and says what a panic said.
///
/// # Errors
/// When it panics.
pub fn guarded<T>(part: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(part)).map_err(|panic| {
        let problem = FailureDetails::from_panic(&*panic).message;
        // A payload may panic when it is dropped; it may even be what has panicked here.
        std::mem::forget(panic);
        problem
    })
}

impl Execution {
    /// Ends the execution if what the turn has done so far, and what its code asks for, does not fit into the history. An
    /// execution that ends or continues as new by itself needs no more room.
    pub(super) fn end_without_room(&mut self, room: &HistoryRoom, turn: &Turn) {
        if self.is_terminated() || (self.completion.is_some() && !self.suspended) {
            return;
        }
        let mut context = self.context.borrow_mut();
        // Its end, and that of the turn, are events as well.
        let further = turn.events.len() + context.actions.len() + 2;
        let Some(failure) = room.refuse(further) else { return };
        context.actions.clear();
        drop(context);
        // A suspended instance goes on collecting events, so this does not wait for the resumption.
        self.suspended = false;
        if self.completion.is_none() {
            self.fail(failure);
        }
    }
}
