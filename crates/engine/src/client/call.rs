//! How a call reaches the partition that owns an instance, and its answer comes back.

use std::time::{Duration, Instant};

use actix::Addr;
use steadfast_core::partition::{Accepted, Rejection};
use steadfast_core::{InstanceId, PartitionId};
use steadfast_store::StoreError;
use tokio::sync::oneshot;

use super::Client;
use crate::error::ClientError;
use crate::partition::{Answer, Call, CallError, PartitionActor, Submit};

/// How long a question waits that the store could not answer.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);

impl Client {
    /// A call that changes something. It is never repeated: when its outcome is unknown, the caller is told so.
    pub(super) async fn call(&self, instance: &InstanceId, call: Call) -> Result<Accepted, ClientError> {
        let owner = self.shared.routes.owner(instance);
        let calls = self.shared.routes.calls(owner);
        let permit = calls.acquire_owned().await.map_err(|_| ClientError::HubClosed)?;
        let address = self.address(owner).await?;
        let (answer, answered) = oneshot::channel();
        // The permit bounds how many of these are in the mailbox.
        address.do_send(Submit { call, answer, permit });
        match answered.await {
            Ok(Ok(accepted)) => Ok(accepted),
            Ok(Err(error)) => Err(call_error(instance, error)),
            Err(_) if self.shared.routes.is_closed() => Err(ClientError::HubClosed),
            Err(_) => Err(ClientError::Interrupted),
        }
    }

    /// A question to a partition. It changes nothing, so it is asked again when the partition was rebuilt meanwhile, and
    /// for a while when the store cannot be read.
    pub(super) async fn ask<T>(
        &self,
        owner: PartitionId,
        instance: Option<&InstanceId>,
        question: impl Fn(Addr<PartitionActor>, Answer<T>),
    ) -> Result<T, ClientError> {
        let patience = self.shared.options.unavailable_timeout;
        let mut failing_since: Option<Instant> = None;
        loop {
            let address = self.address(owner).await?;
            let (answer, answered) = oneshot::channel();
            let asked = Instant::now();
            question(address, answer);
            match answered.await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(CallError::Store(error))) if !error.is_retryable() => return Err(error.into()),
                Ok(Err(CallError::Rejected(rejection))) => {
                    let Some(instance) = instance else { return Err(ClientError::Unavailable) };
                    return Err(call_error(instance, CallError::Rejected(rejection)));
                }
                Ok(Err(CallError::Store(error))) => {
                    // One that waited for long was not failing all the time.
                    let since = failing_since.filter(|_| asked.elapsed() < patience).unwrap_or(asked);
                    failing_since = Some(since);
                    if since.elapsed() >= patience {
                        return Err(error.into());
                    }
                    tokio::time::sleep(ASK_AGAIN_AFTER).await;
                }
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// The partition's actor; waits for one that is being rebuilt.
    async fn address(&self, owner: PartitionId) -> Result<Addr<PartitionActor>, ClientError> {
        let routes = &self.shared.routes;
        let find = || match routes.is_closed() {
            true => Some(Err(ClientError::HubClosed)),
            false => routes.get(owner).filter(Addr::connected).map(Ok),
        };
        if let Some(found) = find() {
            return found;
        }
        let mut changes = routes.changes();
        let wait = async {
            loop {
                if let Some(found) = find() {
                    return found;
                }
                if changes.changed().await.is_err() {
                    return Err(ClientError::HubClosed);
                }
            }
        };
        let timeout = self.shared.options.unavailable_timeout;
        tokio::time::timeout(timeout, wait).await.unwrap_or(Err(ClientError::Unavailable))
    }
}

fn call_error(instance: &InstanceId, error: CallError) -> ClientError {
    let id = instance.clone();
    match error {
        CallError::Store(error) => ClientError::Store(error),
        CallError::Rejected(Rejection::AlreadyExists(status)) => ClientError::AlreadyExists { id, status },
        CallError::Rejected(Rejection::NotFound) => ClientError::InstanceNotFound { id },
        CallError::Rejected(Rejection::Ended(status)) => ClientError::NotRunning { id, status },
        CallError::Rejected(Rejection::NotEnded(status)) => ClientError::NotEnded { id, status },
        CallError::Rejected(Rejection::NotFailed(status)) => ClientError::NotFailed { id, status },
        CallError::Rejected(Rejection::NotRewound(refusal)) => ClientError::NotRewound { id, refusal },
        CallError::Rejected(Rejection::NotPoisoned) => ClientError::NotPoisoned { id },
        CallError::Rejected(Rejection::TooManyMessages(waiting)) => {
            ClientError::TooManyMessages { id, waiting }
        }
        CallError::Rejected(Rejection::OtherExecution { wanted, current }) => {
            ClientError::OtherExecution { id, wanted, current }
        }
        CallError::Rejected(Rejection::OtherVersion(version)) => ClientError::OtherVersion { id, version },
        CallError::Rejected(Rejection::Damaged(problem)) => {
            ClientError::Store(StoreError::Corrupt { place: format!("instance '{id}'"), problem })
        }
    }
}
