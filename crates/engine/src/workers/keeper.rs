//! Watches the time for workers: leases that run out, pauses that end, and work that nobody takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::Workers;

/// How often the log says what waits without a worker that takes it.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

impl Workers {
    /// Watches the time until the workers are closed. A clock that does not flow by itself calls [`Workers::ticker`].
    pub(crate) fn keep_time(&self, runtime: &Handle, clock_flows: bool) {
        let workers = self.clone();
        runtime.spawn(async move {
            tokio::select! {
                () = workers.closed() => {}
                () = workers.watch(clock_flows) => {}
                () = workers.report() => {}
            }
        });
    }

    async fn watch(&self, clock_flows: bool) {
        loop {
            let rescheduled = self.shared.rescheduled.notified();
            let due = self.shared.state.lock().next_due().filter(|_| clock_flows);
            match due {
                None => rescheduled.await,
                Some(due) => {
                    let pause = due.since(self.shared.clock.now());
                    tokio::select! {
                        () = rescheduled => {}
                        () = tokio::time::sleep(pause) => self.tick(),
                    }
                }
            }
        }
    }

    fn tick(&self) {
        self.change(|state, now| state.tick(now));
    }

    /// To be called when the clock has jumped.
    pub(crate) fn ticker(&self) -> impl Fn() + Send + Sync + 'static {
        // The clock keeps it, and is kept by the workers itself.
        let shared = Arc::downgrade(&self.shared);
        move || {
            if let Some(shared) = shared.upgrade() {
                Self { shared }.tick();
            }
        }
    }

    async fn report(&self) {
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            for (kind, name, version, count) in self.status().without_worker {
                tracing::warn!(target: "steadfast::workers", ?kind, %name, %version, count, "no connected worker takes this; it waits until one does");
            }
        }
    }
}
