//! The waker that orchestration code is polled with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::thread::{self, ThreadId};

/// Notes wake-ups instead of scheduling anything: the turn polls again by itself. A wake-up from outside a turn or
/// from another thread can only come from a future that is not durable.
#[derive(Debug)]
pub(super) struct TurnWaker {
    /// The thread that takes the turns; an execution never leaves it.
    thread: ThreadId,
    in_turn: AtomicBool,
    woken: AtomicBool,
    foreign: AtomicBool,
}

impl TurnWaker {
    pub(super) fn new() -> Self {
        Self {
            thread: thread::current().id(),
            in_turn: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            foreign: AtomicBool::new(false),
        }
    }

    pub(super) fn enter_turn(&self) {
        self.in_turn.store(true, Ordering::Release);
    }

    pub(super) fn leave_turn(&self) {
        self.in_turn.store(false, Ordering::Release);
    }

    /// Whether there was a wake-up since the last call.
    pub(super) fn take_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire) && self.woken.swap(false, Ordering::AcqRel)
    }

    /// Whether there ever was a wake-up from outside a turn.
    pub(super) fn saw_foreign(&self) -> bool {
        self.foreign.load(Ordering::Acquire)
    }
}

impl Wake for TurnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let own = self.in_turn.load(Ordering::Acquire) && thread::current().id() == self.thread;
        let noted = if own { &self.woken } else { &self.foreign };
        noted.store(true, Ordering::Release);
    }
}
