//! Entities of Rust code: a state and named operations.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;

use foldhash::fast::FixedState;
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use tracing::Instrument;

use super::super::converter::Converter;
use super::batch::{BatchOperation, EntityBatch, EntityBatchResult};
use super::call::check_size;
use super::context::EntityContext;
use super::spans;
use crate::error::Error;
use crate::failure::{FailureDetails, kinds};
use crate::model::registry::{
    DuplicateRegistration, Outcome, Register, Registry, decode_input, encode_outcome,
};
use crate::payload::Payload;

/// An operation under way that borrows the entity's state.
pub type EntityFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

type Read<S> = Box<dyn Fn(&S, &EntityContext, &Payload) -> Outcome + Send + Sync>;
type Write<S> = Box<dyn Fn(&mut S, &EntityContext, &Payload) -> Outcome + Send + Sync>;
type Wait<S> =
    Box<dyn for<'a> Fn(&'a mut S, &'a EntityContext, &Payload) -> EntityFuture<'a, Outcome> + Send + Sync>;

enum Operation<S> {
    Read(Read<S>),
    Write(Write<S>),
    Wait(Wait<S>),
}

/// The operation that every entity has unless it defines its own.
const DELETE: &str = "delete";

/// An entity ready to be registered, made by [`entity`].
pub struct EntityDefinition<S> {
    name: SmolStr,
    operations: HashMap<SmolStr, Operation<S>, FixedState>,
    /// Operations that were given twice.
    duplicate: Option<SmolStr>,
    blocking: bool,
}

/// Makes an entity of a name and the type of its state. Names of entities and operations are compared without regard to
/// case. An entity that is asked for something and does not exist begins with the state's default; it exists from the
/// first operation on that may change the state, until the state is deleted.
///
/// ```
/// use steadfast_core::model::{EntityContext, Register, Registry, entity};
/// use steadfast_core::Error;
/// let counter = entity::<i64>("counter")
///     .operation("add", |sum: &mut i64, _: &EntityContext, amount: i64| {
///         *sum += amount;
///         Ok::<_, Error>(*sum)
///     })
///     .query("get", |sum: &i64, _: &EntityContext, ()| Ok::<_, Error>(*sum));
/// let mut registry = Registry::default();
/// counter.register(&mut registry).unwrap();
/// assert!(registry.find_entity("counter").is_some());
/// ```
pub fn entity<S>(name: impl Into<SmolStr>) -> EntityDefinition<S>
where
    S: Serialize + DeserializeOwned + Default + Send + 'static,
{
    let name: SmolStr = name.into();
    EntityDefinition {
        name: name.to_lowercase().into(),
        operations: HashMap::default(),
        duplicate: None,
        blocking: false,
    }
}

impl<S: Serialize + DeserializeOwned + Default + Send + 'static> EntityDefinition<S> {
    /// An operation that may change the state. If it fails or panics, the state is what it was before.
    pub fn operation<I, O, E, F>(self, name: impl Into<SmolStr>, code: F) -> Self
    where
        F: Fn(&mut S, &EntityContext, I) -> Result<O, E> + Send + Sync + 'static,
        I: DeserializeOwned,
        O: Serialize,
        E: Into<Error>,
    {
        self.with(
            name.into(),
            Operation::Write(Box::new(move |state, context, input| {
                let input = decode_input::<I>(context.converter(), input)?;
                encode_outcome(context.converter(), code(state, context, input))
            })),
        )
    }

    /// An operation that only reads the state. It does not make the entity exist.
    pub fn query<I, O, E, F>(self, name: impl Into<SmolStr>, code: F) -> Self
    where
        F: Fn(&S, &EntityContext, I) -> Result<O, E> + Send + Sync + 'static,
        I: DeserializeOwned,
        O: Serialize,
        E: Into<Error>,
    {
        self.with(
            name.into(),
            Operation::Read(Box::new(move |state, context, input| {
                let input = decode_input::<I>(context.converter(), input)?;
                encode_outcome(context.converter(), code(state, context, input))
            })),
        )
    }

    /// An operation that may wait for something real, like a socket. Meanwhile the entity does nothing else; everything
    /// else goes on. After a crash it runs again from its beginning.
    pub fn operation_async<I, O, E, F>(self, name: impl Into<SmolStr>, code: F) -> Self
    where
        F: for<'a> Fn(&'a mut S, &'a EntityContext, I) -> EntityFuture<'a, Result<O, E>>
            + Send
            + Sync
            + 'static,
        I: DeserializeOwned,
        O: Serialize + 'static,
        E: Into<Error> + 'static,
    {
        self.with(
            name.into(),
            Operation::Wait(Box::new(move |state, context, input| {
                match decode_input::<I>(context.converter(), input) {
                    Ok(input) => {
                        let running = code(state, context, input);
                        Box::pin(running.map(|outcome| encode_outcome(context.converter(), outcome)))
                    }
                    Err(failure) => Box::pin(std::future::ready(Err(failure))),
                }
            })),
        )
    }

    /// Says that operations may block their thread: read files, or calculate for long. They are then run on threads that
    /// may be blocked, which costs each batch a change of threads and a write; otherwise a partition, with everything that
    /// it owns, waits for them.
    pub fn blocking(self) -> Self {
        Self { blocking: true, ..self }
    }

    fn with(mut self, name: SmolStr, operation: Operation<S>) -> Self {
        let name: SmolStr = name.to_lowercase().into();
        if self.operations.insert(name.clone(), operation).is_some() {
            self.duplicate.get_or_insert(name);
        }
        self
    }

    fn find(&self, name: &str) -> Option<&Operation<S>> {
        self.operations.get(name).or_else(|| self.operations.get(name.to_lowercase().as_str()))
    }

    async fn run(self: Arc<Self>, batch: EntityBatch) -> EntityBatchResult {
        let EntityBatch { entity, state, operations, now, max_payload_bytes, .. } = batch;
        let EntityBatch { fresh_ids, properties, converter, .. } = batch;
        let mut context =
            EntityContext::new(entity, now, max_payload_bytes, fresh_ids, properties, converter);
        let mut results = Vec::with_capacity(operations.len());
        let mut actions = Vec::new();
        let mut kept = Kept { state, live: None, max_payload_bytes };
        for operation in &operations {
            context.begin(operation);
            let span = spans::running(context.id(), operation);
            let mut outcome = self.run_one(operation, &mut kept, &context).instrument(span.clone()).await;
            if let Ok((_, changes)) = outcome
                && let Err(failure) = kept.keep(changes, &mut context)
            {
                outcome = Err(failure);
            }
            match &outcome {
                Ok(_) => {
                    let asked_for = context.end();
                    spans::asking(operation, &asked_for);
                    actions.extend(asked_for);
                }
                Err(failure) => {
                    spans::failed(&span, failure);
                    kept.live = None;
                }
            }
            results.push(outcome.map(|(output, _)| output));
        }
        EntityBatchResult { results, actions, state: kept.state }
    }

    /// Runs one operation on the live state; says with its output whether it may have changed it.
    async fn run_one(
        &self,
        operation: &BatchOperation,
        kept: &mut Kept<S>,
        context: &EntityContext,
    ) -> Result<(Payload, bool), FailureDetails> {
        let Some(code) = self.find(&operation.operation) else {
            if operation.operation.eq_ignore_ascii_case(DELETE) {
                context.delete_state();
                let nothing = encode_outcome(context.converter(), Ok::<_, Error>(()))?;
                return Ok((nothing, false));
            }
            return Err(self.not_found(operation));
        };
        let max = kept.max_payload_bytes;
        let guarded = |run: &mut dyn FnMut() -> Outcome| {
            catch_unwind(AssertUnwindSafe(run))
                .unwrap_or_else(|panic| Err(FailureDetails::from_panic(&*panic)))
        };
        let state = kept.live(context.converter())?;
        let (outcome, changes) = match code {
            Operation::Read(code) => (guarded(&mut || code(state, context, &operation.input)), false),
            Operation::Write(code) => (guarded(&mut || code(state, context, &operation.input)), true),
            Operation::Wait(code) => {
                let running = async { code(state, context, &operation.input).await };
                let ended = AssertUnwindSafe(running).catch_unwind().await;
                (ended.unwrap_or_else(|panic| Err(FailureDetails::from_panic(&*panic))), true)
            }
        };
        let output = outcome?;
        check_size(&output, max, "result")?;
        Ok((output, changes))
    }

    fn not_found(&self, operation: &BatchOperation) -> FailureDetails {
        let mut names: Vec<_> = self.operations.keys().map(SmolStr::as_str).collect();
        names.sort_unstable();
        let problem = format!(
            "entity '{}' has no operation '{}'; it has: {}",
            self.name,
            operation.operation,
            names.join(", ")
        );
        FailureDetails::new(kinds::ENTITY_OPERATION_NOT_FOUND, problem).non_retriable()
    }
}

/// The state: as it was after the last operation that succeeded, and the value that operations work on, if it is equal.
struct Kept<S> {
    state: Option<Payload>,
    live: Option<S>,
    max_payload_bytes: usize,
}

impl<S: Serialize + DeserializeOwned + Default> Kept<S> {
    fn live(&mut self, converter: &Converter) -> Result<&mut S, FailureDetails> {
        if self.live.is_none() {
            let fresh = catch_unwind(AssertUnwindSafe(|| match &self.state {
                None => Ok(S::default()),
                Some(state) => converter.decode::<S>(state).map_err(|error| {
                    let expected = std::any::type_name::<S>();
                    let problem = format!("the entity's state is not a {expected}: {error}");
                    FailureDetails::new(kinds::INVALID_PAYLOAD, problem).non_retriable()
                }),
            }));
            let fresh = fresh.unwrap_or_else(|panic| Err(FailureDetails::from_panic(&*panic)))?;
            return Ok(self.live.insert(fresh));
        }
        self.live.as_mut().ok_or_else(|| FailureDetails::new(kinds::MESSAGE, "the entity has no state"))
    }

    /// An operation succeeded: what it left becomes the state, if there is a way to write it down.
    fn keep(&mut self, changes: bool, context: &mut EntityContext) -> Result<(), FailureDetails> {
        if context.has_deleted() {
            (self.state, self.live) = (None, None);
        } else if changes && let Some(live) = &self.live {
            let encoded =
                catch_unwind(AssertUnwindSafe(|| encode_outcome(context.converter(), Ok::<_, Error>(live))));
            let state = encoded.unwrap_or_else(|panic| Err(FailureDetails::from_panic(&*panic)))?;
            check_size(&state, self.max_payload_bytes, "entity's state")?;
            self.state = Some(state);
        }
        Ok(())
    }
}

impl<S: Serialize + DeserializeOwned + Default + Send + 'static> Register for EntityDefinition<S> {
    fn register(self, registry: &mut Registry) -> Result<(), DuplicateRegistration> {
        if let Some(name) = self.duplicate {
            let version = SmolStr::default();
            return Err(DuplicateRegistration { what: "operation", name, version });
        }
        let name = self.name.clone();
        let blocking = self.blocking;
        let definition = Arc::new(self);
        registry.add_entity(name.clone(), Arc::new(move |batch| Box::pin(definition.clone().run(batch))))?;
        if blocking {
            registry.set_entity_blocking(name);
        }
        Ok(())
    }
}
