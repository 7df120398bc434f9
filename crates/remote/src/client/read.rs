//! Reading instances: states, waits and histories.

use std::time::Duration;

use steadfast_core::{ExecutionId, HistoryEvent, InstanceId, InstanceState};
use steadfast_engine::ClientError;
use steadfast_grpc::convert::{Whose, history_from_wire, received_state};
use steadfast_grpc::wire;
use uuid::Uuid;

use super::{Client, of_instance, unclear};
use crate::calls::Stub;

impl Client {
    /// The instance's state. Of its parent the id is known, and nothing of the sizes of its history, its generation, its timers
    /// and its children: the protocol has no words for these.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`] when there is no such instance.
    pub async fn state(&self, instance: &str) -> Result<InstanceState, ClientError> {
        let instance = InstanceId::parse(instance)?;
        let request = request(&instance);
        let found =
            self.ask(request, |mut stub, request| async move { stub.get_instance(request).await }).await;
        state_of(&instance, found.map_err(|failed| of_instance(&instance, failed))?)
    }

    /// Waits until the instance's first turn is done, and returns its state. It is told, it does not poll.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] when that does not happen within `timeout`; [`ClientError::InstanceNotFound`].
    pub async fn wait_for_start(
        &self,
        instance: &str,
        timeout: Option<Duration>,
    ) -> Result<InstanceState, ClientError> {
        let instance = InstanceId::parse(instance)?;
        let wait = async {
            // The server would wait also for one that does not exist.
            self.state(instance.as_str()).await?;
            let request = request(&instance);
            let begun = |mut stub: Stub, request| async move { stub.wait_for_instance_start(request).await };
            let begun = self.ask(request, begun).await.map_err(|failed| of_instance(&instance, failed))?;
            state_of(&instance, begun)
        };
        within(timeout, &instance, wait).await
    }

    /// Waits until the instance has ended, over all generations, and returns its state. It is told, it does not poll.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] when that does not happen within `timeout`; [`ClientError::InstanceNotFound`].
    pub async fn wait_for_completion(
        &self,
        instance: &str,
        timeout: Option<Duration>,
    ) -> Result<InstanceState, ClientError> {
        let instance = InstanceId::parse(instance)?;
        let wait = async {
            let state = self.state(instance.as_str()).await?;
            if state.status.is_terminal() { Ok(state) } else { self.ended(&instance).await }
        };
        within(timeout, &instance, wait).await
    }

    /// Waits for the end of an instance that exists, or did.
    pub(super) async fn ended(&self, instance: &InstanceId) -> Result<InstanceState, ClientError> {
        let request = request(instance);
        let ended = |mut stub: Stub, request| async move { stub.wait_for_instance_completion(request).await };
        let ended = self.ask(request, ended).await.map_err(|failed| of_instance(instance, failed))?;
        state_of(instance, ended)
    }

    /// The history of the instance's current (or last) execution.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`] when there is no such instance.
    pub async fn history(&self, instance: &str) -> Result<Vec<HistoryEvent>, ClientError> {
        let instance = InstanceId::parse(instance)?;
        let request = wire::StreamInstanceHistoryRequest {
            instance_id: instance.to_string(),
            ..wire::StreamInstanceHistoryRequest::default()
        };
        let read = |mut stub: Stub, request| async move {
            let mut chunks = stub.stream_instance_history(request).await?.into_inner();
            let mut events = Vec::new();
            while let Some(chunk) = chunks.message().await? {
                events.extend(chunk.events);
            }
            Ok(tonic::Response::new(events))
        };
        let events = self.ask(request, read).await.map_err(|failed| of_instance(&instance, failed))?;
        let whose = Whose { instance, execution: ExecutionId::new(Uuid::nil()) };
        history_from_wire(events, &whose).map_err(unclear)
    }

    /// The history of the instance's current (or last) execution as JSON in the Durable Task event vocabulary, for
    /// people, tools and replay tests: see [`steadfast_core::history_json`].
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`] when there is no such instance.
    pub async fn history_json(&self, instance: &str) -> Result<String, ClientError> {
        let events = self.history(instance).await?;
        Ok(steadfast_core::history_json::write(&InstanceId::parse(instance)?, &events))
    }

    /// The state of one execution of an instance.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`]; [`ClientError::OtherExecution`] when the instance is in another execution: only
    /// the current one, or the last, is kept.
    pub async fn state_of(
        &self,
        instance: &str,
        execution: ExecutionId,
    ) -> Result<InstanceState, ClientError> {
        let state = self.state(instance).await?;
        if state.execution == execution {
            return Ok(state);
        }
        Err(ClientError::OtherExecution { id: state.instance, wanted: execution, current: state.execution })
    }
}

fn request(instance: &InstanceId) -> wire::GetInstanceRequest {
    wire::GetInstanceRequest { instance_id: instance.to_string(), get_inputs_and_outputs: true }
}

fn state_of(instance: &InstanceId, found: wire::GetInstanceResponse) -> Result<InstanceState, ClientError> {
    match found.orchestration_state.filter(|_| found.exists) {
        Some(state) => received_state(state).map_err(unclear),
        None => Err(ClientError::InstanceNotFound { id: instance.clone() }),
    }
}

async fn within<T>(
    timeout: Option<Duration>,
    instance: &InstanceId,
    wait: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    match timeout {
        None => wait.await,
        Some(timeout) => tokio::time::timeout(timeout, wait)
            .await
            .unwrap_or_else(|_| Err(ClientError::TimedOut { id: instance.clone(), timeout })),
    }
}
