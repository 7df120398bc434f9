//! Beginning instances again, and removing them.

use steadfast_core::{IdReuse, InstanceId, OnExisting};
use steadfast_engine::{ClientError, PurgedTree, RestartOptions, StartOptions, Started};
use steadfast_grpc::wire;
use steadfast_grpc::wire::purge_instances_request::Request as Purge;
use tonic::Code;

use super::{Client, of_instance};

impl Client {
    /// Begins an instance again, with the name, version, input and tags that it has. Under its own id it is replaced,
    /// and must have ended. Under another one it may still be going on.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`]; [`ClientError::NotEnded`]; [`ClientError::AlreadyExists`] when an instance
    /// with another id given exists.
    pub async fn restart(&self, instance: &str, options: RestartOptions) -> Result<Started, ClientError> {
        let id = InstanceId::parse(instance)?;
        if let Some(other) = options.instance_id.filter(|other| other != instance) {
            return self.start_again_as(instance, other).await;
        }
        let request =
            wire::RestartInstanceRequest { instance_id: id.to_string(), restart_with_new_instance_id: false };
        match self
            .change(request, |mut stub, request| async move { stub.restart_instance(request).await })
            .await
        {
            Ok(_) => {
                let state = self.state(instance).await?;
                Ok(Started { instance: id, execution: state.execution, version: state.version })
            }
            Err(failed) if failed.code() == Some(Code::FailedPrecondition) => {
                let status = self.state(instance).await?.status;
                Err(ClientError::NotEnded { id, status })
            }
            Err(failed) => Err(of_instance(&id, failed)),
        }
    }

    async fn start_again_as(&self, instance: &str, other: String) -> Result<Started, ClientError> {
        let old = self.state(instance).await?;
        let text = |text: &str| text.to_owned();
        let options = StartOptions {
            instance_id: Some(other),
            tags: old.tags.iter().map(|(key, value)| (text(key), text(value))).collect(),
            reuse: IdReuse::default().on_ended(OnExisting::Error),
            ..StartOptions::default()
        };
        self.submit_start(old.name, old.version, &old.input, options).await
    }

    /// Lets an instance that has failed go on where it failed: what it had done stays done, and what failed is tried again.
    ///
    /// # Errors
    /// When there is no such instance, it has not failed, or the server does not do that.
    pub async fn rewind(&self, instance: &str, reason: &str) -> Result<(), ClientError> {
        let id = InstanceId::parse(instance)?;
        let (instance_id, reason) = (id.to_string(), Some(reason.to_owned()));
        let request = wire::RewindInstanceRequest { instance_id, reason };
        let rewound = self
            .change(request, |mut stub, request| async move { stub.rewind_instance(request).await })
            .await;
        rewound.map(|_| ()).map_err(|failed| of_instance(&id, failed))
    }

    /// Removes an instance that has ended, with its history.
    ///
    /// # Errors
    /// When there is no such instance or it has not ended.
    pub async fn purge(&self, instance: &str) -> Result<(), ClientError> {
        self.remove(instance, false).await.map(|_| ())
    }

    /// Removes an instance that has ended, with its history, and with it the sub-orchestrations that have ended, and theirs.
    /// The protocol does not tell which were kept because they have not ended.
    ///
    /// # Errors
    /// Those of [`Client::purge`].
    pub async fn purge_recursive(&self, instance: &str) -> Result<PurgedTree, ClientError> {
        let purged = self.remove(instance, true).await?;
        Ok(PurgedTree { purged, kept: Vec::new() })
    }

    async fn remove(&self, instance: &str, recursive: bool) -> Result<u64, ClientError> {
        let id = InstanceId::parse(instance)?;
        let request = wire::PurgeInstancesRequest {
            request: Some(Purge::InstanceId(id.to_string())),
            recursive,
            ..wire::PurgeInstancesRequest::default()
        };
        let purged = self
            .change(request, |mut stub, request| async move { stub.purge_instances(request).await })
            .await;
        let purged = purged.map_err(|failed| of_instance(&id, failed))?.into_inner();
        match u64::try_from(purged.deleted_instance_count) {
            Ok(0) | Err(_) => {
                let status = self.state(instance).await?.status;
                Err(ClientError::NotEnded { id, status })
            }
            Ok(count) => Ok(count),
        }
    }
}
