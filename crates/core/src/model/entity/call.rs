//! What is asked of an entity, before it is known how: as a call or as a signal.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use smol_str::SmolStr;

use crate::entity::{EntityId, EntityOperation};
use crate::failure::{FailureDetails, kinds};
use crate::ids::InvalidInstanceId;
use crate::model::converter::Converter;
use crate::payload::Payload;
use crate::time::Timestamp;

/// Names an entity: an [`EntityId`], or what `#[entity]` makes for `Counter::at("a")`.
pub trait IntoEntityId {
    /// The id.
    ///
    /// # Errors
    /// When name or key cannot be used.
    fn entity_id(&self) -> Result<EntityId, InvalidInstanceId>;
}

impl IntoEntityId for EntityId {
    fn entity_id(&self) -> Result<EntityId, InvalidInstanceId> {
        Ok(self.clone())
    }
}

impl<T: IntoEntityId> IntoEntityId for &T {
    fn entity_id(&self) -> Result<EntityId, InvalidInstanceId> {
        (*self).entity_id()
    }
}

/// An operation of an entity with its input, whose result is an `O`. What `#[entity]` makes of
/// `Counter::at("a").add(5)`, or one made by hand. It does nothing by itself: orchestrations call it or signal it,
/// clients and entities signal it. Then the data converter of their hub makes a payload of the input.
///
/// ```
/// use steadfast_core::entity::EntityId;
/// use steadfast_core::model::EntityCall;
/// let counter = EntityId::new("counter", "a").unwrap();
/// let add = EntityCall::<i64>::new(&counter, "add", 5);
/// ```
#[must_use = "an operation does nothing until it is called or signaled"]
pub struct EntityCall<O = ()> {
    entity: Result<EntityId, InvalidInstanceId>,
    name: SmolStr,
    /// As it is, because what it becomes is the hub's to say.
    input: Box<dyn erased_serde::Serialize + Send>,
    output: PhantomData<fn() -> O>,
}

impl<O> EntityCall<O> {
    /// An operation by its name. What cannot be used is reported when the operation is called or signaled.
    pub fn new<I: Serialize + Send + 'static>(
        entity: impl IntoEntityId,
        operation: impl Into<SmolStr>,
        input: I,
    ) -> Self {
        let (entity, name) = (entity.entity_id(), operation.into());
        Self { entity, name, input: Box::new(input), output: PhantomData }
    }

    /// The operation's name.
    pub fn operation(&self) -> &SmolStr {
        &self.name
    }

    /// The entity and the operation as they travel, for a signal that is delivered at `at`, or at once.
    ///
    /// # Errors
    /// When the id or the input cannot be used, or the input is larger than `max_payload_bytes`.
    pub fn into_signal(
        self,
        at: Option<Timestamp>,
        converter: &Converter,
        max_payload_bytes: usize,
    ) -> Result<(EntityId, EntityOperation), FailureDetails> {
        let entity = self.entity.map_err(|error| {
            FailureDetails::new(kinds::INVALID_ENTITY_ID, error.to_string()).non_retriable()
        })?;
        let input = encode_input(&*self.input, converter, max_payload_bytes)?;
        let operation = EntityOperation {
            request_id: SmolStr::default(),
            operation: self.name,
            input,
            scheduled_time: at,
            target: None,
            caller: None,
            trace: None,
        };
        Ok((entity, operation))
    }
}

impl<O> fmt::Debug for EntityCall<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntityCall")
            .field("entity", &self.entity)
            .field("operation", &self.name)
            .finish_non_exhaustive()
    }
}

/// The payload of an input, if it is not too large.
pub(super) fn encode_input<I: Serialize + ?Sized>(
    input: &I,
    converter: &Converter,
    max_payload_bytes: usize,
) -> Result<Payload, FailureDetails> {
    let input = converter.encode(input).map_err(|error| {
        let problem = format!("the input has no form as a payload: {error}");
        FailureDetails::new(kinds::INVALID_PAYLOAD, problem).non_retriable()
    })?;
    check_size(&input, max_payload_bytes, "input")?;
    Ok(input)
}

/// Refuses a payload that is larger than the hub allows.
pub(super) fn check_size(payload: &Payload, max: usize, what: &str) -> Result<(), FailureDetails> {
    let len = payload.len();
    if len <= max {
        return Ok(());
    }
    let problem =
        format!("the {what} has {len} bytes and the hub allows {max}; pass a reference to the data");
    Err(FailureDetails::new(kinds::PAYLOAD_TOO_LARGE, problem).non_retriable())
}
