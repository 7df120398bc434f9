//! The items that are under way, for a worker that is to end when there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the items that are under way.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Counter>);

#[derive(Default)]
struct Counter {
    count: AtomicUsize,
    idle: Notify,
}

/// One item. It is under way until this is dropped.
pub(super) struct Held(Arc<Counter>);

impl UnderWay {
    pub(super) fn begin(&self) -> Held {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        Held(self.0.clone())
    }

    /// Ends when nothing is under way.
    pub(super) async fn idle(&self) {
        loop {
            let mut idle = std::pin::pin!(self.0.idle.notified());
            idle.as_mut().enable();
            if self.0.count.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}
