//! The waker that orchestration code is polled with.

use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

thread_local! {
    /// The waker of the execution that this thread is applying an event to.
    static IN_TURN: Cell<*const TurnWaker> = const { Cell::new(ptr::null()) };
}

/// Notes wake-ups instead of scheduling anything: the turn polls again by itself. A wake-up from outside a turn, from
/// another thread or from another instance can only come from a future that is not durable.
#[derive(Debug, Default)]
pub(super) struct TurnWaker {
    woken: AtomicBool,
    foreign: AtomicBool,
}

impl TurnWaker {
    pub(super) fn enter_turn(self: &Arc<Self>) {
        IN_TURN.set(Arc::as_ptr(self));
    }

    pub(super) fn leave_turn(&self) {
        IN_TURN.set(ptr::null());
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
        let own = IN_TURN.get() == Arc::as_ptr(self);
        let noted = if own { &self.woken } else { &self.foreign };
        noted.store(true, Ordering::Release);
    }
}
