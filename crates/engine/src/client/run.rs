//! A started instance.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use steadfast_core::failure::kinds;
use steadfast_core::{ExecutionId, FailureDetails, InstanceId, InstanceState, OrchestrationStatus, Payload};
use tokio::sync::oneshot;

use super::{Client, Started};
use crate::error::ClientError;
use crate::partition::{CallError, WaitFor};

/// Gets the state of an instance when it ends.
type EndWatch = oneshot::Receiver<Result<Option<Arc<InstanceState>>, CallError>>;

/// A started instance whose result is an `O`. Dropping it does not touch the instance.
pub struct Run<O> {
    client: Client,
    instance: InstanceId,
    execution: ExecutionId,
    version: SmolStr,
    /// Told at the end of the instance; taken by the first who waits for it.
    end: Mutex<Option<EndWatch>>,
    output: PhantomData<fn() -> O>,
}

impl<O> Run<O> {
    pub(super) fn new(client: Client, started: Started, end: EndWatch) -> Self {
        let Started { instance, execution, version } = started;
        Self { client, instance, execution, version, end: Mutex::new(Some(end)), output: PhantomData }
    }

    /// The instance's id.
    pub fn id(&self) -> &InstanceId {
        &self.instance
    }

    /// The execution that was started. Continuing as new and rewinding begin others.
    pub fn execution(&self) -> ExecutionId {
        self.execution
    }

    /// The version under which the instance was started, empty for none: the one asked for, that of the handle, the hub's
    /// default, or the greatest that is registered.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The instance's state now.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`] when it was purged.
    pub async fn state(&self) -> Result<InstanceState, ClientError> {
        self.client.wait(&self.instance, WaitFor::Nothing, None).await
    }

    /// Waits until its first turn is done.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`] when it was purged.
    pub async fn wait_for_start(&self) -> Result<InstanceState, ClientError> {
        self.client.wait(&self.instance, WaitFor::Start, None).await
    }

    /// Waits until it has ended, however it ended.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`] when it was purged.
    pub async fn wait_for_completion(&self) -> Result<InstanceState, ClientError> {
        let end = self.end.lock().take();
        let mut failed = None;
        if let Some(end) = end
            && let Ok(Ok(Some(state))) = end.await
        {
            if state.status != OrchestrationStatus::Failed {
                return Ok(Arc::unwrap_or_clone(state));
            }
            failed = Some(state);
        }
        // It was waited for before, its partition was rebuilt, or it may have been rewound since it failed: ask.
        match (self.client.wait(&self.instance, WaitFor::End, None).await, failed) {
            (Err(ClientError::InstanceNotFound { .. }), Some(failed)) => Ok(Arc::unwrap_or_clone(failed)),
            (asked, _) => asked,
        }
    }

    /// Lets the instance go on from before its failure: see [`Client::rewind`]. Its end can be waited for again.
    ///
    /// # Errors
    /// Those of [`Client::rewind`].
    pub async fn rewind(&self, reason: &str) -> Result<(), ClientError> {
        self.client.rewind(self.instance.as_str(), reason).await
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
        f.debug_struct("Run").field("instance", &self.instance).finish_non_exhaustive()
    }
}
