//! The client: starts instances and talks to them.

mod call;
mod ended;
mod entities;
mod lifecycle;
mod purge;
mod query;
mod raw;
mod read;
mod run;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use serde::Serialize;
use smol_str::SmolStr;
use steadfast_core::failure::bounded_reason;
use steadfast_core::model::{Converter, OrchestrationHandle, Registry};
use steadfast_core::partition::Accepted;
use steadfast_core::{
    EntityId, EventAddress, EventKind, EventVersions, ExecutionId, ExecutionStarted, HistoryEvent, IdReuse,
    InstanceId, InstanceState, Origin, Payload, TaskMessage, Timestamp, TraceContext, check_tags, log_event,
};
use steadfast_store::Store;
use tokio::sync::oneshot;
use tracing::Instrument;
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::ClientError;
use crate::hub::Routes;
use crate::options::HubOptions;
use crate::partition::{Answer, Call};
use crate::trace;

pub use ended::{Ended, EndedPage, EndedQuery};
pub use entities::{CleanedEntities, EntityCleaning, EntityMetadata, EntityPage, EntityQuery};
pub use lifecycle::{PurgedTree, RestartOptions};
pub use purge::PurgeResult;
pub use query::{InstanceQuery, InvalidPageToken, Page, PageToken};
pub use raw::{RawClient, Started};
pub use run::Run;

/// Talks to a hub. Clones are cheap and stay valid until the hub is stopped; then every call says
/// [`ClientError::HubClosed`].
///
/// A call that changes something returns once the change is durable: it survives the death of the process and the
/// loss of power from then on.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    routes: Arc<Routes>,
    /// Weak, so that a client that is kept around does not keep the store's files locked.
    store: Weak<dyn Store>,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    options: Arc<HubOptions>,
}

/// How an instance is started.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// The instance's id; a new one is made when absent. An id of an instance that has ended may be used again, and
    /// begins a new execution.
    pub instance_id: Option<String>,
    /// The orchestration's version; that of the handle when absent. When that is none either, it is the hub's default
    /// ([`steadfast_core::VersionOptions::default_version`]) or the greatest that is registered; [`Run::version`] tells.
    pub version: Option<String>,
    /// Tags, visible in the instance's state and inherited by its sub-orchestrations; see
    /// [`steadfast_core::check_tags`] for what they may be.
    pub tags: BTreeMap<String, String>,
    /// Not to begin before this moment; until then the instance is pending.
    pub scheduled_start: Option<Timestamp>,
    /// What happens if an instance with that id exists, by its status. Without it that is an error if it has not ended,
    /// and it is replaced if it has.
    pub reuse: IdReuse,
    /// The trace that the instance belongs to, such as that of the request that is being served.
    pub trace: Option<TraceContext>,
}

impl Client {
    pub(crate) fn new(
        routes: Arc<Routes>,
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        options: Arc<HubOptions>,
    ) -> Self {
        let store = Arc::downgrade(&store);
        Self { shared: Arc::new(Shared { routes, store, registry, clock, options }) }
    }

    /// Starts an instance under a new id.
    ///
    /// # Errors
    /// When the orchestration is not registered, the input cannot be used, or the hub is closed.
    pub async fn start<H: OrchestrationHandle>(
        &self,
        orchestration: H,
        input: H::Input,
    ) -> Result<Run<H::Output>, ClientError> {
        self.start_with(orchestration, input, StartOptions::default()).await
    }

    /// Starts an instance with options.
    ///
    /// # Errors
    /// Those of [`Client::start`], and [`ClientError::AlreadyExists`] when the id is in use by an instance that has
    /// not ended.
    pub async fn start_with<H: OrchestrationHandle>(
        &self,
        orchestration: H,
        input: H::Input,
        options: StartOptions,
    ) -> Result<Run<H::Output>, ClientError> {
        let version = options.version.as_deref().map_or_else(|| orchestration.version(), SmolStr::from);
        let name = orchestration.name();
        let version = self.shared.registry.resolve_version(&name, &version, "");
        if self.shared.registry.find_orchestration(&name, &version).is_none() {
            let registered = self.shared.registry.orchestration_names().join(", ");
            return Err(ClientError::UnknownOrchestration { name, version, registered });
        }
        let input = self.encode(&input)?;
        let (watch, end) = oneshot::channel();
        let started = self.submit_start(name, version, input, None, options, Some(watch)).await?;
        Ok(Run::new(self.clone(), started, end))
    }

    async fn submit_start(
        &self,
        name: SmolStr,
        version: SmolStr,
        input: Payload,
        trace: Option<TraceContext>,
        options: StartOptions,
        watch: Option<Answer<Option<Arc<InstanceState>>>>,
    ) -> Result<Started, ClientError> {
        let (instance, fresh_id) = match options.instance_id {
            Some(id) => (InstanceId::parse(id)?, false),
            None => {
                let mut text = Uuid::encode_buffer();
                let text = &*Uuid::now_v7().as_simple().encode_lower(&mut text);
                (InstanceId::from_trusted(text), true)
            }
        };
        let execution = ExecutionId::new(Uuid::now_v7());
        let tags = options.tags.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        check_tags(&tags)?;
        let (span, trace) = trace::creating(trace.or(options.trace), &name, &version, &instance, execution);
        log_event!(SchedulingOrchestration, %instance, %execution, %name, %version);
        let started = ExecutionStarted {
            tags,
            scheduled_start: options.scheduled_start,
            trace: trace.map(Box::new),
            ..ExecutionStarted::new(name, version.clone(), input, execution)
        };
        let message =
            self.message(&instance, Some(execution), EventKind::ExecutionStarted(Box::new(started)));
        let reuse = options.reuse;
        let call = Call::Message { message: Box::new(message), fresh_id, reuse, watch };
        if self.call(&instance, call).instrument(span).await? == Accepted::Existing {
            let state = self.state(instance.as_str()).await?;
            return Ok(Started { instance, execution: state.execution, version: state.version });
        }
        Ok(Started { instance, execution, version })
    }

    /// Sends an event to an instance. It is kept until the orchestration waits for an event of that name.
    ///
    /// # Errors
    /// When there is no such instance, it has ended, or the payload cannot be used.
    pub async fn raise_event<T: Serialize + ?Sized>(
        &self,
        instance: &str,
        name: &str,
        payload: &T,
    ) -> Result<(), ClientError> {
        self.raise_event_to(instance, EventAddress::default(), name, payload).await
    }

    /// Sends an event to one execution, or one version, of an instance, and to no other that may have its id by the time
    /// when the event arrives.
    ///
    /// # Errors
    /// Those of [`Client::raise_event`], and [`ClientError::OtherExecution`] or [`ClientError::OtherVersion`] when that is
    /// what the instance has. If it changes between this call and the moment when the orchestration takes its messages, the
    /// event is discarded.
    pub async fn raise_event_to<T: Serialize + ?Sized>(
        &self,
        instance: &str,
        address: EventAddress,
        name: &str,
        payload: &T,
    ) -> Result<(), ClientError> {
        let input = self.encode(payload)?;
        self.send_event(instance, address, name.into(), input).await
    }

    async fn send_event(
        &self,
        instance: &str,
        address: EventAddress,
        name: SmolStr,
        input: Payload,
    ) -> Result<(), ClientError> {
        let (span, trace) = trace::raising(&name, instance);
        let EventAddress { execution, version } = address;
        let versions = version.map(|version| EventVersions { receiver: Some(version), ..Default::default() });
        let kind = EventKind::raised(name, input, trace, versions);
        self.send_to(instance, execution, kind).instrument(span).await
    }

    /// Ends an instance from outside, whatever it is doing; with `recurse` also the sub-orchestrations that it awaits,
    /// and theirs.
    ///
    /// # Errors
    /// When there is no such instance or it has ended.
    pub async fn terminate(&self, instance: &str, reason: &str, recurse: bool) -> Result<(), ClientError> {
        self.send(instance, EventKind::ExecutionTerminated { reason: bounded_reason(reason), recurse }).await
    }

    /// Lets an instance emit nothing until it is resumed. What arrives meanwhile is kept, in order.
    ///
    /// # Errors
    /// When there is no such instance or it has ended.
    pub async fn suspend(&self, instance: &str, reason: &str) -> Result<(), ClientError> {
        self.send(instance, EventKind::ExecutionSuspended { reason: bounded_reason(reason) }).await
    }

    /// Lets a suspended instance go on.
    ///
    /// # Errors
    /// When there is no such instance or it has ended.
    pub async fn resume(&self, instance: &str, reason: &str) -> Result<(), ClientError> {
        self.send(instance, EventKind::ExecutionResumed { reason: bounded_reason(reason) }).await
    }

    /// Lets an instance, or an entity (`@name@key`), whose turns crashed take turns again, as if they never had: after the
    /// cause is mended, or to try.
    ///
    /// # Errors
    /// [`ClientError::NotPoisoned`] when none of its turns has crashed since it last went on.
    pub async fn release(&self, instance: &str) -> Result<(), ClientError> {
        let instance = match instance.starts_with('@') {
            true => EntityId::parse(instance)?.instance_id().clone(),
            false => InstanceId::parse(instance)?,
        };
        self.call(&instance, Call::Release(instance.clone())).await.map(|_: Accepted| ())
    }

    async fn send(&self, instance: &str, kind: EventKind) -> Result<(), ClientError> {
        self.send_to(instance, None, kind).await
    }

    async fn send_to(
        &self,
        instance: &str,
        execution: Option<ExecutionId>,
        kind: EventKind,
    ) -> Result<(), ClientError> {
        let instance = InstanceId::parse(instance)?;
        if let EventKind::ExecutionTerminated { reason, .. }
        | EventKind::ExecutionSuspended { reason }
        | EventKind::ExecutionResumed { reason }
        | EventKind::ExecutionRewound { reason, .. } = &kind
        {
            self.check_size(reason.len())?;
        }
        log_sending(&instance, &kind);
        let message = Box::new(self.message(&instance, execution, kind));
        self.call(
            &instance,
            Call::Message { message, fresh_id: false, reuse: IdReuse::default(), watch: None },
        )
        .await
        .map(|_: Accepted| ())
    }

    fn message(&self, instance: &InstanceId, execution: Option<ExecutionId>, kind: EventKind) -> TaskMessage {
        let event = HistoryEvent::message(self.shared.clock.now(), kind);
        TaskMessage { instance: instance.clone(), execution, event, origin: Origin::Client }
    }

    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Payload, ClientError> {
        let converted = self.shared.registry.converter().encode(value);
        let payload = converted.map_err(|error| ClientError::InvalidPayload(Box::new(error)))?;
        self.check_size(payload.len())?;
        Ok(payload)
    }

    /// Reasons travel and are kept like payloads, so they have the same limit.
    fn check_size(&self, bytes: usize) -> Result<(), ClientError> {
        let max = self.shared.options.payload_bytes_max;
        if bytes > max { Err(ClientError::PayloadTooLarge { bytes, max }) } else { Ok(()) }
    }

    fn converter(&self) -> &Converter {
        self.shared.registry.converter()
    }

    fn store(&self) -> Result<Arc<dyn Store>, ClientError> {
        self.shared.store.upgrade().ok_or(ClientError::HubClosed)
    }
}

fn log_sending(instance: &InstanceId, kind: &EventKind) {
    match kind {
        EventKind::EventRaised { name, .. } => log_event!(RaisingEvent, %instance, %name),
        EventKind::VersionedEventRaised(raised) => {
            log_event!(RaisingEvent, %instance, name = %raised.name);
        }
        EventKind::ExecutionTerminated { reason, .. } => {
            let reason = bounded_reason(reason);
            log_event!(TerminatingInstance, %instance, %reason);
        }
        EventKind::ExecutionSuspended { reason } => log_event!(SuspendingInstance, %instance, %reason),
        EventKind::ExecutionResumed { reason } => log_event!(ResumingInstance, %instance, %reason),
        _ => {}
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("closed", &self.shared.routes.is_closed()).finish_non_exhaustive()
    }
}
