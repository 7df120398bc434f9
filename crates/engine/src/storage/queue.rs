//! A queue whose consumer takes everything at once: what arrives while it works makes the next batch.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Unbounded by itself; each producer bounds what it has under way (a partition some records, one capture, and one load
/// for each instance with messages), so its length is bounded by the number of partitions and waiting instances.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    finished: Condvar,
}

struct State<T> {
    items: Vec<T>,
    closed: bool,
    /// How many items were ever put in, and how many of those the consumer has done with.
    pushed: u64,
    done: u64,
    /// How many the consumer works on.
    taken: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Arc<Self> {
        let state = State { items: Vec::new(), closed: false, pushed: 0, done: 0, taken: 0 };
        Arc::new(Self { state: Mutex::new(state), filled: Condvar::new(), finished: Condvar::new() })
    }

    pub(super) fn push(&self, item: T) {
        let mut state = self.state.lock();
        state.items.push(item);
        state.pushed += 1;
        let first = state.items.len() == 1;
        drop(state);
        if first {
            self.filled.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }

    /// Swaps the waiting items into `batch`, which must be empty, as soon as there are some. False when the queue is
    /// closed and empty.
    pub(super) fn take(&self, batch: &mut Vec<T>) -> bool {
        let mut state = self.state.lock();
        state.done += std::mem::take(&mut state.taken);
        self.finished.notify_all();
        while state.items.is_empty() {
            if state.closed {
                return false;
            }
            self.filled.wait(&mut state);
        }
        std::mem::swap(&mut state.items, batch);
        state.taken = batch.len() as u64;
        true
    }

    /// Blocks until the consumer has done with everything that is in the queue now.
    pub(super) fn wait_for_present(&self) {
        let mut state = self.state.lock();
        let present = state.pushed;
        self.finished.wait_while(&mut state, |state| state.done < present);
    }
}
