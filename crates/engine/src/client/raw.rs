//! The untyped client: names and JSON text instead of handles and types.

use smol_str::SmolStr;
use steadfast_core::entity::EntityOperation;
use steadfast_core::{
    EntityId, EventAddress, EventKind, ExecutionId, InstanceId, InstanceState, Payload, Timestamp,
    TraceContext,
};

use super::{Client, StartOptions};
use crate::error::ClientError;
use crate::partition::WaitFor;

/// The calls of [`Client`] that take or give values, with JSON text in their place: for servers, tools and other
/// languages, which know no Rust types. What has no values is called on the [`Client`] itself.
#[derive(Clone, Copy, Debug)]
pub struct RawClient<'a> {
    client: &'a Client,
}

/// What was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The instance.
    pub instance: InstanceId,
    /// Its execution.
    pub execution: ExecutionId,
    /// The version that it was started with; empty for whichever is found when it begins.
    pub version: SmolStr,
}

impl Client {
    /// This client without types.
    pub fn raw(&self) -> RawClient<'_> {
        RawClient { client: self }
    }
}

impl RawClient<'_> {
    /// Starts an instance of an orchestration that need not be registered in this process. The version is that of the
    /// options, or the one that code of this process resolves, or none; `trace` is the trace that the instance belongs to.
    ///
    /// # Errors
    /// Those of [`Client::start_with`], without [`ClientError::UnknownOrchestration`].
    pub async fn start(
        &self,
        name: impl Into<SmolStr>,
        input: Payload,
        trace: Option<TraceContext>,
        options: StartOptions,
    ) -> Result<Started, ClientError> {
        self.client.check_size(input.len())?;
        let name = name.into();
        let asked = options.version.as_deref().unwrap_or_default();
        let version = self.client.shared.registry.resolve_version(&name, asked, "");
        self.client.submit_start(name, version, input, trace, options, None).await
    }

    /// Sends an event to an instance, like [`Client::raise_event`].
    ///
    /// # Errors
    /// Those of [`Client::raise_event`].
    pub async fn raise_event(
        &self,
        instance: &str,
        name: impl Into<SmolStr>,
        input: Payload,
    ) -> Result<(), ClientError> {
        self.client.check_size(input.len())?;
        self.client.send_event(instance, EventAddress::default(), name.into(), input).await
    }

    /// Terminates an instance, like [`Client::terminate`], with a JSON text of any size as its reason, which clients of other
    /// languages take for its output. Sub-orchestrations that are terminated with it get no more than the beginning of a long
    /// one.
    ///
    /// # Errors
    /// Those of [`Client::terminate`].
    pub async fn terminate(&self, instance: &str, output: Payload, recurse: bool) -> Result<(), ClientError> {
        let reason = SmolStr::from(output.as_str());
        self.client.send(instance, EventKind::ExecutionTerminated { reason, recurse }).await
    }

    /// Signals an entity, like [`Client::signal_entity`], and not before `at` if that is given. `request_id` is shown where
    /// the operation is shown, and means nothing else.
    ///
    /// # Errors
    /// When the input is too large or the hub is closed.
    pub async fn signal_entity(
        &self,
        entity: &EntityId,
        operation: impl Into<SmolStr>,
        input: Payload,
        request_id: impl Into<SmolStr>,
        at: Option<Timestamp>,
    ) -> Result<(), ClientError> {
        self.client.check_size(input.len())?;
        let operation = EntityOperation {
            request_id: request_id.into(),
            operation: operation.into(),
            input,
            scheduled_time: at,
            target: None,
            caller: None,
            trace: None,
        };
        self.client.send_signal(entity, operation).await
    }

    /// Waits until the instance's first turn is done, like [`Client::wait_for_start`], but also for an instance that does
    /// not exist yet. Drop the future to give up.
    ///
    /// # Errors
    /// When the id cannot be used or the hub is closed.
    pub async fn wait_for_start(&self, instance: &str) -> Result<InstanceState, ClientError> {
        self.client.wait_also(&InstanceId::parse(instance)?, WaitFor::Start, None, true).await
    }

    /// Waits until the instance has ended, like [`Client::wait_for_completion`], but also for an instance that does not
    /// exist yet. Drop the future to give up.
    ///
    /// # Errors
    /// When the id cannot be used or the hub is closed.
    pub async fn wait_for_completion(&self, instance: &str) -> Result<InstanceState, ClientError> {
        self.client.wait_also(&InstanceId::parse(instance)?, WaitFor::End, None, true).await
    }

    /// The hub's time.
    pub fn now(&self) -> Timestamp {
        self.client.shared.clock.now()
    }
}
