//! The hub: builds the shell around a store and takes it down again.

mod builder;
mod routes;
mod threads;

pub use builder::HubBuilder;
pub(crate) use routes::Routes;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use steadfast_core::log_event;
use steadfast_store::{Store, StoreMetrics};
use tokio::sync::oneshot;

use crate::client::Client;
use crate::error::HubError;
use crate::partition::Stop;
use crate::workers::Workers;
use threads::HubThreads;

/// A running hub. [`Hub::stop`] ends it in good order; dropping it is as safe as a crash of the process: everything
/// acknowledged is in the store, and the next start goes on from there.
pub struct Hub {
    client: Client,
    routes: Arc<Routes>,
    store: Arc<dyn Store>,
    threads: Option<HubThreads>,
    workers: Option<Workers>,
    stop_timeout: Duration,
}

impl Hub {
    /// A client of this hub; clones are cheap.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where workers in other processes get what is not registered in this one; none unless
    /// [`HubBuilder::workers`] was called.
    pub fn workers(&self) -> Option<&Workers> {
        self.workers.as_ref()
    }

    /// How many partitions the hub has.
    pub fn partitions(&self) -> u16 {
        self.routes.partitions()
    }

    /// The store's counters since the hub was started.
    pub fn store_metrics(&self) -> StoreMetrics {
        self.store.metrics()
    }

    /// How many messages the hub's actors have been sent since it was started: those of partitions, and the turns that
    /// they handed to instances. Divided by what was done meanwhile, it is the price of doing it in actors.
    pub fn actor_messages(&self) -> u64 {
        self.routes.messages()
    }

    /// Stops the hub: takes no more calls, finishes the turns and waits for the activities under way (those that take
    /// longer than [`crate::HubOptions::stop_timeout`] are run again at the next start), writes everything to the
    /// store, and closes it. Callers that wait for instances get [`crate::ClientError::HubClosed`].
    ///
    /// # Errors
    /// When the store could not be written at last, or a thread of the hub had died.
    pub async fn stop(mut self) -> Result<(), HubError> {
        log_event!(WorkerStopping, partitions = self.routes.partitions());
        self.routes.close();
        if let Some(workers) = &self.workers {
            workers.drain(self.stop_timeout).await;
        }
        let mut stopped = Vec::new();
        for address in self.routes.all() {
            let (done, wait) = oneshot::channel();
            address.do_send(Stop { forced: false, done });
            drop(address);
            stopped.push(wait);
        }
        for wait in stopped {
            // A partition that is being rebuilt has nothing to finish.
            let _ = wait.await;
        }
        let Some(threads) = self.threads.take() else { return Ok(()) };
        let store = self.store.clone();
        let ended = tokio::task::spawn_blocking(move || {
            let joined = threads.join();
            store.flush()?;
            joined
        });
        ended.await.map_err(|error| HubError::Threads { problem: error.to_string() })??;
        log_event!(WorkerStopped, partitions = self.routes.partitions());
        Ok(())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let Some(threads) = self.threads.take() else { return };
        self.routes.close();
        if let Some(workers) = &self.workers {
            workers.close();
        }
        for address in self.routes.all() {
            let (done, _) = oneshot::channel();
            address.do_send(Stop { forced: true, done });
        }
        // The threads only finish the call to the store that they are in, if any; then the store is free.
        let _ = threads.join();
    }
}

/// How long a partition that failed waits before it is rebuilt.
const REBUILD_DELAY_MIN: Duration = Duration::from_millis(20);

/// A partition that has worked for so long since it last failed is rebuilt as if it had never failed.
const REBUILD_FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// How long a partition that failed again and again waits before it is rebuilt, at most.
const REBUILD_DELAY_MAX: Duration = Duration::from_secs(5);

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("partitions", &self.partitions()).finish_non_exhaustive()
    }
}
