//! A started instance.

use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use steadfast_core::failure::kinds;
use steadfast_core::{ExecutionId, FailureDetails, InstanceId, InstanceState, OrchestrationStatus, Payload};
use steadfast_engine::{ClientError, Started};

use super::Client;

/// A started instance whose result is an `O`. Dropping it does not touch the instance.
pub struct Run<O> {
    client: Client,
    started: Started,
    output: PhantomData<fn() -> O>,
}

impl<O> Run<O> {
    pub(super) fn new(client: Client, started: Started) -> Self {
        Self { client, started, output: PhantomData }
    }

    /// The instance's id.
    pub fn id(&self) -> &InstanceId {
        &self.started.instance
    }

    /// The execution that was started. Continuing as new and rewinding begin others.
    pub fn execution(&self) -> ExecutionId {
        self.started.execution
    }

    /// The version under which the instance was started, empty for none.
    pub fn version(&self) -> &str {
        &self.started.version
    }

    /// The instance's state now.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`] when it was purged.
    pub async fn state(&self) -> Result<InstanceState, ClientError> {
        self.client.state(self.started.instance.as_str()).await
    }

    /// Waits until its first turn is done.
    ///
    /// # Errors
    /// Those of [`Client::wait_for_start`].
    pub async fn wait_for_start(&self) -> Result<InstanceState, ClientError> {
        self.client.wait_for_start(self.started.instance.as_str(), None).await
    }

    /// Waits until it has ended, however it ended.
    ///
    /// # Errors
    /// Those of [`Client::wait_for_completion`].
    pub async fn wait_for_completion(&self) -> Result<InstanceState, ClientError> {
        self.client.ended(&self.started.instance).await
    }
}

impl<O: DeserializeOwned> Run<O> {
    /// Waits for the result.
    ///
    /// # Errors
    /// [`ClientError::Failed`] or [`ClientError::Terminated`] when there is none, [`ClientError::InvalidPayload`] when
    /// it is not an `O`.
    pub async fn result(&self) -> Result<O, ClientError> {
        let state = self.wait_for_completion().await?;
        let id = state.instance;
        match state.status {
            OrchestrationStatus::Completed => self
                .client
                .converter()
                .decode(&state.output.unwrap_or(Payload::null()))
                .map_err(|error| ClientError::InvalidPayload(Box::new(error))),
            OrchestrationStatus::Terminated => {
                Err(ClientError::Terminated { id, reason: state.reason.unwrap_or_default() })
            }
            status => {
                let unknown =
                    || Box::new(FailureDetails::new(kinds::MESSAGE, format!("it ended as {status}")));
                Err(ClientError::Failed { id, details: state.failure.unwrap_or_else(unknown) })
            }
        }
    }
}

impl<O> fmt::Debug for Run<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("started", &self.started).finish_non_exhaustive()
    }
}
