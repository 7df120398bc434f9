//! What is asked of an entity, before it is known how: as a call or as a signal.

use std::marker::PhantomData;

use serde::Serialize;
use smol_str::SmolStr;

use crate::entity::{EntityId, EntityOperation};
use crate::failure::{FailureDetails, kinds};
use crate::ids::InvalidInstanceId;
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
/// clients and entities signal it.
///
/// ```
/// use steadfast_core::entity::EntityId;
/// use steadfast_core::model::EntityCall;
/// let counter = EntityId::new("counter", "a").unwrap();
/// let add = EntityCall::<i64>::new(&counter, "add", &5);
/// ```
#[derive(Debug, Clone)]
#[must_use = "an operation does nothing until it is called or signaled"]
pub struct EntityCall<O = ()> {
    operation: Result<(EntityId, EntityOperation), FailureDetails>,
    name: SmolStr,
    output: PhantomData<fn() -> O>,
}

impl<O> EntityCall<O> {
    /// An operation by its name. What cannot be used is reported when the operation is called or signaled.
    pub fn new<I: Serialize + ?Sized>(
        entity: impl IntoEntityId,
        operation: impl Into<SmolStr>,
        input: &I,
    ) -> Self {
        let name = operation.into();
        let described = || {
            let entity = entity.entity_id().map_err(|error| {
                FailureDetails::new(kinds::INVALID_ENTITY_ID, error.to_string()).non_retriable()
            })?;
            let input = Payload::encode(input).map_err(|error| {
                let problem = format!("the input has no JSON form: {error}");
                FailureDetails::new(kinds::INVALID_PAYLOAD, problem).non_retriable()
            })?;
            let operation = EntityOperation {
                request_id: SmolStr::default(),
                operation: name.clone(),
                input,
                scheduled_time: None,
                target: None,
                caller: None,
                trace: None,
            };
            Ok((entity, operation))
        };
        Self { operation: described(), name, output: PhantomData }
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
        max_payload_bytes: usize,
    ) -> Result<(EntityId, EntityOperation), FailureDetails> {
        let (entity, operation) = self.operation?;
        check_size(&operation.input, max_payload_bytes, "input")?;
        Ok((entity, EntityOperation { scheduled_time: at, ..operation }))
    }
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
