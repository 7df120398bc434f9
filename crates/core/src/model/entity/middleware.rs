//! Middleware around batches of operations of entities.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use super::batch::{BatchFuture, BatchOperation, EntityBatch, EntityBatchResult};
use crate::entity::EntityId;
use crate::failure::{FailureDetails, kinds};
use crate::model::middleware::Properties;
use crate::model::registry::Registry;
use crate::payload::Payload;

/// A batch or a middleware under way.
pub type EntityBatchFuture<'a> = Pin<Box<dyn Future<Output = EntityBatchResult> + Send + 'a>>;

/// Wraps the batches of operations that entities are given. It begins on the partition's thread, like the code of an
/// entity: it may wait, and must not block. A batch that a crash interrupted comes again.
///
/// A panic in it fails all operations of the batch, as if none had been run.
///
/// ```
/// use steadfast_core::FailureDetails;
/// use steadfast_core::model::{EntityBatchCall, EntityBatchFuture, EntityMiddleware, EntityNext};
///
/// /// Only orchestrations and entities may close accounts.
/// struct Authorise;
///
/// impl EntityMiddleware for Authorise {
///     fn call<'a>(&'a self, mut call: EntityBatchCall, next: EntityNext<'a>) -> EntityBatchFuture<'a> {
///         for at in 0..call.operations().len() {
///             let operation = &call.operations()[at];
///             if operation.operation.eq_ignore_ascii_case("close") && operation.caller.is_none() {
///                 call.refuse(at, FailureDetails::new("NotAuthorised", "ask your bank").non_retriable());
///             }
///         }
///         next.run(call)
///     }
/// }
/// ```
pub trait EntityMiddleware: Send + Sync + 'static {
    /// Runs the batch by calling [`EntityNext::run`], and returns its result or another one. Without that call no operation
    /// is run, and the state should stay what it was: see [`EntityBatchCall::refuse_all`].
    ///
    /// The result has one entry for each operation of `call`, in order. By then the operations have done what they did:
    /// replacing the result of one changes what its caller sees, and takes nothing back.
    fn call<'a>(&'a self, call: EntityBatchCall, next: EntityNext<'a>) -> EntityBatchFuture<'a>;
}

/// A batch on its way inwards. Requests for locks are not among its operations.
pub struct EntityBatchCall {
    batch: EntityBatch,
    refused: BTreeMap<usize, FailureDetails>,
    /// What the operations can read with [`EntityContext::property`](super::EntityContext::property).
    pub properties: Properties,
}

impl EntityBatchCall {
    /// The entity.
    pub fn entity(&self) -> &EntityId {
        &self.batch.entity
    }

    /// The operations, in order: their names, inputs and callers.
    pub fn operations(&self) -> &[BatchOperation] {
        &self.batch.operations
    }

    /// The operations, to be changed, such as by opening a sealed input.
    pub fn operations_mut(&mut self) -> &mut [BatchOperation] {
        &mut self.batch.operations
    }

    /// What the entity's code kept, if the entity exists.
    pub fn state(&self) -> Option<&Payload> {
        self.batch.state.as_ref()
    }

    /// Hands the code another state. What it leaves is in [`EntityBatchResult::state`].
    pub fn set_state(&mut self, state: Option<Payload>) {
        self.batch.state = state;
    }

    /// Fails one operation: neither middleware further in nor the code sees it. The others are run.
    pub fn refuse(&mut self, operation: usize, failure: FailureDetails) {
        if operation < self.batch.operations.len() {
            self.refused.insert(operation, failure);
        }
    }

    /// The result in which every operation has failed and nothing has changed.
    pub fn refuse_all(self, failure: &FailureDetails) -> EntityBatchResult {
        let results = self.batch.operations.iter().map(|_| Err(failure.clone())).collect();
        EntityBatchResult { results, actions: Vec::new(), state: self.batch.state }
    }
}

/// What is further in: more middleware, and at last the entity's code.
pub struct EntityNext<'a> {
    registry: &'a Registry,
    rest: &'a [Arc<dyn EntityMiddleware>],
}

impl<'a> EntityNext<'a> {
    /// Runs it.
    pub fn run(self, mut call: EntityBatchCall) -> EntityBatchFuture<'a> {
        if call.refused.is_empty() {
            return self.inwards(call);
        }
        let mut refused = std::mem::take(&mut call.refused);
        let all = call.batch.operations.len();
        let mut place = 0..;
        call.batch.operations.retain(|_| place.next().is_some_and(|at| !refused.contains_key(&at)));
        let inner: EntityBatchFuture<'a> = match call.batch.operations.is_empty() {
            true => Box::pin(ready(EntityBatchResult { state: call.batch.state, ..Default::default() })),
            false => self.inwards(call),
        };
        Box::pin(async move {
            let inner = inner.await;
            let mut ran = inner.results.into_iter();
            let results = (0..all).map(|at| match refused.remove(&at) {
                Some(failure) => Err(failure),
                None => ran.next().unwrap_or_else(|| Err(cut_short())),
            });
            EntityBatchResult { results: results.collect(), ..inner }
        })
    }

    fn inwards(self, call: EntityBatchCall) -> EntityBatchFuture<'a> {
        let Self { registry, rest } = self;
        match rest.split_first() {
            Some((first, rest)) => first.call(call, Self { registry, rest }),
            None => registry.run_entity(EntityBatch { properties: call.properties, ..call.batch }),
        }
    }
}

/// What is said of an operation that has no result.
pub(crate) fn cut_short() -> FailureDetails {
    FailureDetails::new(kinds::MESSAGE, "the batch ended before this operation")
}

impl Registry {
    /// Puts middleware around the batches of all entities, within what was added before.
    pub fn add_entity_middleware(&mut self, middleware: Arc<dyn EntityMiddleware>) {
        self.middleware.entities.push(middleware);
    }

    /// Starts a batch of an entity of this registry, with all that is around it.
    pub fn start_entity(self: &Arc<Self>, mut batch: EntityBatch) -> BatchFuture {
        if self.middleware.entities.is_empty() {
            return self.run_entity(batch);
        }
        let properties = std::mem::take(&mut batch.properties);
        let call = EntityBatchCall { batch, refused: BTreeMap::new(), properties };
        let registry = self.clone();
        Box::pin(async move {
            EntityNext { registry: &registry, rest: &registry.middleware.entities }.run(call).await
        })
    }

    fn run_entity(&self, batch: EntityBatch) -> BatchFuture {
        let Some(code) = self.find_entity(batch.entity.name()) else {
            let problem = format!("no entity is registered as '{}'", batch.entity.name());
            let failure = FailureDetails::new(kinds::ENTITY_NOT_REGISTERED, problem).non_retriable();
            let results = batch.operations.iter().map(|_| Err(failure.clone())).collect();
            let unchanged = EntityBatchResult { results, actions: Vec::new(), state: batch.state };
            return Box::pin(ready(unchanged));
        };
        code(batch)
    }
}
