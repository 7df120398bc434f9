//! Removing instances.

use steadfast_engine::ClientError;
use tonic::Status;

use super::refuse::refused;
use super::{TaskHubService, not_served};
use crate::convert::WireError;
use crate::wire;
use crate::wire::purge_instances_request::Request as Purge;

impl TaskHubService {
    pub(super) async fn purge(
        &self,
        request: wire::PurgeInstancesRequest,
    ) -> Result<wire::PurgeInstancesResponse, Status> {
        let deleted = match request.request {
            Some(Purge::InstanceId(instance)) => self.purge_one(&instance).await?,
            Some(Purge::InstanceBatch(batch)) => {
                let mut deleted: i32 = 0;
                for instance in &batch.instance_ids {
                    deleted = deleted.saturating_add(self.purge_one(instance).await?);
                }
                deleted
            }
            Some(Purge::PurgeInstanceFilter(_)) => not_served("purges by filter")?,
            None => {
                let message = "PurgeInstancesRequest";
                return Err(WireError::Missing { message, field: "request" }.into());
            }
        };
        Ok(wire::PurgeInstancesResponse { deleted_instance_count: deleted, is_complete: Some(true) })
    }

    /// How many were removed: none if there is none, or it has not ended.
    async fn purge_one(&self, instance: &str) -> Result<i32, Status> {
        match self.client.purge(instance).await {
            Ok(()) => Ok(1),
            Err(ClientError::InstanceNotFound { .. } | ClientError::NotEnded { .. }) => Ok(0),
            Err(error) => Err(refused(error)),
        }
    }
}
