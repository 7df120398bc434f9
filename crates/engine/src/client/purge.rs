//! Purging: one instance, or all that match a filter.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use steadfast_core::partition::Accepted;
use steadfast_core::{InstanceFilter, InstanceId, OrchestrationStatus, log_event};

use super::{Client, InstanceQuery};
use crate::error::ClientError;
use crate::partition::Call;

/// How many instances are looked for at once.
const PAGE: usize = 1000;

/// How many are removed at once; the time is looked at in between.
const AT_ONCE: usize = 64;

/// The statuses of instances that have ended.
const ENDED: [OrchestrationStatus; 4] = [
    OrchestrationStatus::Completed,
    OrchestrationStatus::Failed,
    OrchestrationStatus::Canceled,
    OrchestrationStatus::Terminated,
];

/// What a purge by filter did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeResult {
    /// How many instances it removed.
    pub deleted: u64,
    /// Whether it came to the end. When not, because time was up or some instance could not be removed, another call
    /// goes on with what is left.
    pub complete: bool,
}

impl Client {
    /// Removes an instance that has ended, with its history.
    ///
    /// # Errors
    /// When there is no such instance or it has not ended.
    pub async fn purge(&self, instance: &str) -> Result<(), ClientError> {
        let instance = InstanceId::parse(instance)?;
        self.purge_one(&instance).await
    }

    /// Removes all instances that match the filter and have ended, with their histories, in the order of their ids; what
    /// has not ended is passed over, also when the filter asks for it. Stops soon after `time_budget` is used up, if one
    /// is given, but not before it has removed something.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use steadfast_core::{InstanceFilter, TimeRange, Timestamp};
    /// # async fn clean(client: steadfast_engine::Client, last_month: Timestamp) -> Result<(), steadfast_engine::ClientError> {
    /// let old = InstanceFilter { completed: TimeRange::before(last_month), ..InstanceFilter::default() };
    /// while !client.purge_matching(&old, Some(Duration::from_secs(1))).await?.complete {
    ///     tokio::task::yield_now().await; // let others have their turn
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the hub is closed or the store cannot be searched. What was removed before stays removed.
    pub async fn purge_matching(
        &self,
        filter: &InstanceFilter,
        time_budget: Option<Duration>,
    ) -> Result<PurgeResult, ClientError> {
        self.purge_all(filter, time_budget, false).await
    }

    /// [`Client::purge_matching`] that removes each instance as [`Client::purge_recursive`] does. The sub-orchestrations are
    /// counted too.
    ///
    /// # Errors
    /// Those of [`Client::purge_matching`].
    pub async fn purge_matching_recursive(
        &self,
        filter: &InstanceFilter,
        time_budget: Option<Duration>,
    ) -> Result<PurgeResult, ClientError> {
        self.purge_all(filter, time_budget, true).await
    }

    async fn purge_all(
        &self,
        filter: &InstanceFilter,
        time_budget: Option<Duration>,
        recursive: bool,
    ) -> Result<PurgeResult, ClientError> {
        let began = Instant::now();
        let mut result = PurgeResult { deleted: 0, complete: true };
        let statuses = ended_among(&filter.statuses);
        if statuses.is_empty() {
            return Ok(result);
        }
        let filter = InstanceFilter { statuses, ..filter.clone() };
        let mut query =
            InstanceQuery { filter, page_size: PAGE, omit_payloads: true, ..InstanceQuery::default() };
        loop {
            let page = self.query(&query).await?;
            let mut chunks = page.instances.chunks(AT_ONCE).peekable();
            while let Some(chunk) = chunks.next() {
                let purges = chunk.iter().map(|state| self.purge_this(&state.instance, recursive));
                for outcome in join_all(purges).await {
                    match outcome {
                        Ok(removed) => result.deleted += removed,
                        // Somebody else removed it, or it was started anew.
                        Err(ClientError::InstanceNotFound { .. } | ClientError::NotEnded { .. }) => {}
                        Err(ClientError::HubClosed) => return Err(ClientError::HubClosed),
                        Err(error) => {
                            tracing::warn!(%error, "an instance could not be purged");
                            result.complete = false;
                        }
                    }
                }
                let more = chunks.peek().is_some() || page.continuation.is_some();
                if more && time_budget.is_some_and(|budget| began.elapsed() >= budget) {
                    return Ok(PurgeResult { complete: false, ..result });
                }
            }
            query.continuation = page.continuation;
            if query.continuation.is_none() {
                return Ok(result);
            }
        }
    }

    /// How many instances that removed.
    async fn purge_this(&self, instance: &InstanceId, recursive: bool) -> Result<u64, ClientError> {
        match recursive {
            true => self.purge_recursive(instance.as_str()).await.map(|tree| tree.purged),
            false => self.purge_one(instance).await.map(|()| 1),
        }
    }

    async fn purge_one(&self, instance: &InstanceId) -> Result<(), ClientError> {
        log_event!(PurgeInstanceHistory, %instance);
        self.call(instance, Call::Purge(instance.clone())).await.map(|_: Accepted| ())
    }
}

/// Those of the statuses that instances have which have ended; all of them when nothing is said.
pub(super) fn ended_among(statuses: &[OrchestrationStatus]) -> Vec<OrchestrationStatus> {
    let wanted = |status: &OrchestrationStatus| statuses.is_empty() || statuses.contains(status);
    ENDED.into_iter().filter(wanted).collect()
}
