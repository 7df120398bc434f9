//! Removing instances that have ended.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use steadfast_core::InstanceFilter;
use steadfast_engine::ClientError;
use tonic::Status;

use super::TaskHubService;
use super::refuse::refused;
use crate::convert::{WireError, statuses, time_range};
use crate::wire;
use crate::wire::purge_instances_request::Request as Purge;

/// How many instances of a batch are removed at once.
const AT_ONCE: usize = 64;

impl TaskHubService {
    pub(super) async fn purge(
        &self,
        request: wire::PurgeInstancesRequest,
    ) -> Result<wire::PurgeInstancesResponse, Status> {
        let recursive = request.recursive;
        let (deleted, complete) = match request.request {
            Some(Purge::InstanceId(instance)) => (self.purge_one(&instance, recursive).await?, true),
            Some(Purge::InstanceBatch(batch)) => (self.purge_batch(batch, recursive).await?, true),
            Some(Purge::PurgeInstanceFilter(filter)) => self.purge_matching(filter, recursive).await?,
            None => {
                let message = "PurgeInstancesRequest";
                return Err(WireError::Missing { message, field: "request" }.into());
            }
        };
        Ok(wire::PurgeInstancesResponse {
            deleted_instance_count: i32::try_from(deleted).unwrap_or(i32::MAX),
            is_complete: Some(complete),
        })
    }

    /// How many were removed: none if there is none, or it has not ended.
    async fn purge_one(&self, instance: &str, recursive: bool) -> Result<u64, Status> {
        let purged = match recursive {
            true => self.client.purge_recursive(instance).await.map(|tree| tree.purged),
            false => self.client.purge(instance).await.map(|()| 1),
        };
        match purged {
            Err(ClientError::InstanceNotFound { .. } | ClientError::NotEnded { .. }) => Ok(0),
            purged => purged.map_err(refused),
        }
    }

    async fn purge_batch(&self, batch: wire::InstanceBatch, recursive: bool) -> Result<u64, Status> {
        let purges = batch.instance_ids.into_iter().map(|instance| async move {
            // What cannot be the id of an instance is the id of none.
            match self.purge_one(&instance, recursive).await {
                Err(status) if status.code() == tonic::Code::InvalidArgument => Ok(0),
                purged => purged,
            }
        });
        let mut purges = stream::iter(purges).buffer_unordered(AT_ONCE);
        let mut deleted = 0;
        while let Some(purged) = purges.next().await {
            deleted += purged?;
        }
        Ok(deleted)
    }

    /// How many were removed, and whether none is left.
    async fn purge_matching(
        &self,
        filter: wire::PurgeInstanceFilter,
        recursive: bool,
    ) -> Result<(u64, bool), Status> {
        let wanted = statuses(&filter.runtime_status, "runtimeStatus")?;
        if wanted.is_empty() && !filter.runtime_status.is_empty() {
            return Ok((0, true));
        }
        let budget = filter.timeout.map(time_budget).transpose()?;
        let filter = InstanceFilter {
            statuses: wanted,
            created: time_range(
                (filter.created_time_from, "createdTimeFrom"),
                (filter.created_time_to, "createdTimeTo"),
            )?,
            ..InstanceFilter::default()
        };
        let purged = match recursive {
            true => self.client.purge_matching_recursive(&filter, budget).await,
            false => self.client.purge_matching(&filter, budget).await,
        };
        purged.map(|result| (result.deleted, result.complete)).map_err(refused)
    }
}

/// How long a purge may take.
fn time_budget(timeout: prost_types::Duration) -> Result<Duration, Status> {
    match (u64::try_from(timeout.seconds), u32::try_from(timeout.nanos)) {
        (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) if (seconds, nanos) != (0, 0) => {
            Ok(Duration::new(seconds, nanos))
        }
        _ => Err(Status::invalid_argument("'timeout' must be longer than nothing")),
    }
}
