//! What an entity's code is given beside its state.

use std::sync::{Arc, Mutex, PoisonError};

use smol_str::{SmolStr, format_smolstr};

use super::batch::{BatchOperation, EntityAction, FreshIds};
use super::call::{EntityCall, encode_input};
use crate::entity::{EntityCaller, EntityId, EntityOperation};
use crate::error::{Error, Result};
use crate::event::{Tags, TraceContext};
use crate::ids::InstanceId;
use crate::model::converter::Converter;
use crate::model::handle::OrchestrationHandle;
use crate::model::middleware::Properties;
use crate::time::Timestamp;

/// What an operation of an entity is given: who it is, who asked, and ways to ask others for something. What it asks for
/// is done if the operation succeeds, together with the change of the state, and not at all if it fails.
#[derive(Debug)]
pub struct EntityContext {
    entity: EntityId,
    now: Timestamp,
    max_payload_bytes: usize,
    fresh_ids: Fresh,
    properties: Properties,
    converter: Converter,
    current: Mutex<Current>,
}

struct Fresh(FreshIds);

impl std::fmt::Debug for Fresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FreshIds")
    }
}

/// The operation that is being run.
#[derive(Debug, Default)]
struct Current {
    operation: SmolStr,
    caller: Option<EntityCaller>,
    is_signal: bool,
    /// The span of this operation.
    trace: Option<TraceContext>,
    actions: Vec<EntityAction>,
    deleted: bool,
}

/// How an entity starts an orchestration.
#[derive(Debug, Clone, Default)]
pub struct EntityStartOptions {
    /// Its instance id; a new one is made when absent. An id that is in use by an instance that has not ended starts
    /// nothing.
    pub instance_id: Option<String>,
    /// Its tags.
    pub tags: Tags,
    /// Not to begin before this moment.
    pub scheduled_start: Option<Timestamp>,
}

impl EntityContext {
    pub(super) fn new(
        entity: EntityId,
        now: Timestamp,
        max_payload_bytes: usize,
        fresh_ids: FreshIds,
        properties: Properties,
        converter: Converter,
    ) -> Self {
        let (fresh_ids, current) = (Fresh(fresh_ids), Mutex::default());
        Self { entity, now, max_payload_bytes, fresh_ids, properties, converter, current }
    }

    pub(super) fn converter(&self) -> &Converter {
        &self.converter
    }

    pub(super) fn begin(&mut self, operation: &BatchOperation) {
        let current = self.current.get_mut().unwrap_or_else(PoisonError::into_inner);
        current.operation = operation.operation.clone();
        current.caller = operation.caller.clone();
        current.is_signal = operation.is_signal;
        current.trace = operation.trace.as_ref().map(|trace| trace.of_operation());
        current.deleted = false;
        current.actions.clear();
    }

    /// Ends a successful operation: what it asked for.
    pub(super) fn end(&mut self) -> Vec<EntityAction> {
        std::mem::take(&mut self.current.get_mut().unwrap_or_else(PoisonError::into_inner).actions)
    }

    pub(super) fn has_deleted(&mut self) -> bool {
        self.current.get_mut().unwrap_or_else(PoisonError::into_inner).deleted
    }

    fn with<T>(&self, look: impl FnOnce(&mut Current) -> T) -> T {
        look(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The entity.
    pub fn id(&self) -> &EntityId {
        &self.entity
    }

    /// When the turn began.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The name by which the operation was asked for.
    pub fn operation(&self) -> SmolStr {
        self.with(|current| current.operation.clone())
    }

    /// Who asked: an orchestration or another entity; none for a client.
    pub fn caller(&self) -> Option<InstanceId> {
        self.with(|current| current.caller.as_ref().map(|caller| caller.instance.clone()))
    }

    /// Whether nobody waits for the result.
    pub fn is_signal(&self) -> bool {
        self.with(|current| current.is_signal)
    }

    /// The trace context of this operation: what it causes elsewhere belongs below it. None when it is not traced.
    pub fn trace_context(&self) -> Option<TraceContext> {
        self.with(|current| current.trace.clone())
    }

    /// What middleware put in for this batch, by its type.
    pub fn property<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.properties.get()
    }

    /// Signals an entity, maybe this one.
    ///
    /// # Errors
    /// When the id or the input cannot be used.
    pub fn signal<O>(&self, call: EntityCall<O>) -> Result<()> {
        self.signal_when(call, None)
    }

    /// Signals an entity at a moment. The signal is kept until then, however long that is.
    ///
    /// # Errors
    /// When the id or the input cannot be used.
    pub fn signal_at<O>(&self, call: EntityCall<O>, at: Timestamp) -> Result<()> {
        self.signal_when(call, Some(at))
    }

    fn signal_when<O>(&self, call: EntityCall<O>, at: Option<Timestamp>) -> Result<()> {
        let (target, operation) =
            call.into_signal(at, &self.converter, self.max_payload_bytes).map_err(Error::from)?;
        let trace = self.next_trace();
        let operation = Box::new(EntityOperation { trace, ..operation });
        self.push(EntityAction::Signal { target, operation });
        Ok(())
    }

    /// Starts an orchestration that nobody awaits, under a new id, which is returned.
    ///
    /// # Errors
    /// When the input cannot be used.
    pub fn start<H: OrchestrationHandle>(&self, orchestration: H, input: H::Input) -> Result<InstanceId> {
        self.start_with(orchestration, input, EntityStartOptions::default())
    }

    /// Starts an orchestration that nobody awaits, with options.
    ///
    /// # Errors
    /// When the id or the input cannot be used.
    pub fn start_with<H: OrchestrationHandle>(
        &self,
        orchestration: H,
        input: H::Input,
        options: EntityStartOptions,
    ) -> Result<InstanceId> {
        let input = encode_input(&input, &self.converter, self.max_payload_bytes).map_err(Error::from)?;
        let instance = match options.instance_id {
            Some(id) => InstanceId::parse(id)?,
            None => InstanceId::from_trusted(format_smolstr!("{}", (self.fresh_ids.0)())),
        };
        self.push(EntityAction::Start {
            instance: instance.clone(),
            name: orchestration.name(),
            version: orchestration.version(),
            input,
            tags: options.tags,
            scheduled_start: options.scheduled_start,
            trace: self.next_trace(),
        });
        Ok(instance)
    }

    /// Deletes the state once this operation has succeeded, whatever it leaves in it. The next operation finds the
    /// default; if there is none, the entity is gone.
    pub fn delete_state(&self) {
        self.with(|current| current.deleted = true);
    }

    /// The context of the next thing that is asked of others.
    fn next_trace(&self) -> Option<Box<TraceContext>> {
        self.with(|current| {
            let ordinal = i32::try_from(current.actions.len()).unwrap_or(i32::MAX);
            current.trace.as_ref().map(|trace| Box::new(trace.below("action", ordinal)))
        })
    }

    fn push(&self, action: EntityAction) {
        self.with(|current| current.actions.push(action));
    }
}
