//! Gates: something stops at them until the test lets it pass.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

/// Holds threads back while it is closed. It is open at first.
#[derive(Clone)]
pub(crate) struct Gate {
    state: Arc<(Mutex<State>, Condvar)>,
    waiting: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// So many may pass although it is closed.
    passes: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self { state: Arc::default(), waiting: watch::Sender::new(0) }
    }
}

impl Gate {
    pub(crate) fn close(&self) {
        self.state.0.lock().closed = true;
    }

    pub(crate) fn open(&self) {
        self.state.0.lock().closed = false;
        self.state.1.notify_all();
    }

    /// Lets one thread pass; the gate stays closed behind it.
    pub(crate) fn let_one_pass(&self) {
        self.state.0.lock().passes += 1;
        self.state.1.notify_all();
    }

    /// Blocks the thread while the gate is closed. A test that has failed opens it no more, and then its hub could not end: so
    /// nobody stands here for longer than any test waits.
    pub(crate) fn pass(&self) {
        let mut state = self.state.0.lock();
        if state.closed {
            self.waiting.send_modify(|waiting| *waiting += 1);
            let is_held = |state: &mut State| state.closed && state.passes == 0;
            self.state.1.wait_while_for(&mut state, is_held, 2 * super::PATIENCE);
            state.passes = state.passes.saturating_sub(1);
            self.waiting.send_modify(|waiting| *waiting -= 1);
        }
    }

    /// Waits until a thread stands at the gate.
    pub(crate) async fn reached(&self) {
        let mut waiting = self.waiting.subscribe();
        super::soon("reaching the gate", waiting.wait_for(|waiting| *waiting > 0)).await.unwrap();
    }
}

/// Holds tasks back until it is opened, once and for ever, and counts who came.
#[derive(Clone)]
pub(crate) struct Latch {
    opened: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

impl Default for Latch {
    fn default() -> Self {
        Self { opened: watch::Sender::new(false), arrived: watch::Sender::new(0) }
    }
}

impl Latch {
    pub(crate) async fn wait(&self) {
        self.arrived.send_modify(|arrived| *arrived += 1);
        self.opened.subscribe().wait_for(|opened| *opened).await.unwrap();
    }

    pub(crate) fn open(&self) {
        self.opened.send_replace(true);
    }

    /// Waits until so many have come.
    pub(crate) async fn arrived(&self, count: usize) {
        let mut arrived = self.arrived.subscribe();
        super::soon("the arrival", arrived.wait_for(|arrived| *arrived >= count)).await.unwrap();
    }

    pub(crate) fn arrivals(&self) -> usize {
        *self.arrived.borrow()
    }
}
