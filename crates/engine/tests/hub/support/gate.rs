//! Gates: something stops at them until the test lets it pass.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

/// Holds threads back while it is closed. It is open at first.
#[derive(Clone)]
pub(crate) struct Gate {
    closed: Arc<(Mutex<bool>, Condvar)>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { closed: Arc::default(), waiting: watch::Sender::new(0) }
    }
}

impl Gate {
    pub(crate) fn close(&self) {
        *self.closed.0.lock() = true;
    }

    pub(crate) fn open(&self) {
        *self.closed.0.lock() = false;
        self.closed.1.notify_all();
    }

    /// Blocks the thread while the gate is closed.
    pub(crate) fn pass(&self) {
        let mut closed = self.closed.0.lock();
        if *closed {
            self.waiting.send_modify(|waiting| *waiting += 1);
            self.closed.1.wait_while(&mut closed, |closed| *closed);
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
