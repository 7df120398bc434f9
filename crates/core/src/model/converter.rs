//! Data converters: how values become payloads and back. JSON unless a hub says otherwise.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::payload::Payload;

/// A value has no form as a payload, or a payload is not a value of the type asked for.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ConvertError(#[from] Box<dyn std::error::Error + Send + Sync>);

impl ConvertError {
    /// Wraps an error of a format.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// What [`DataConverter::decode`] hands the deserializer of its format to.
pub type ReadValue<'a> =
    &'a mut dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error>;

/// Turns values into payloads and back, for orchestrations, activities and entities, and for clients that talk to them. A
/// payload is a text: a binary format has to be written as one, in Base64 for example. It must be deterministic for orchestrations to
/// be, and stay able to read what it wrote before.
///
/// ```
/// use steadfast_core::Payload;
/// use steadfast_core::model::{ConvertError, DataConverter, ReadValue, erased_serde};
///
/// /// JSON that people like to look at.
/// struct Pretty;
///
/// impl DataConverter for Pretty {
///     fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Payload, ConvertError> {
///         let text = serde_json::to_string_pretty(value).map_err(ConvertError::new)?;
///         Ok(Payload::from_json(text))
///     }
///
///     fn decode(&self, payload: &Payload, read: ReadValue<'_>) -> Result<(), ConvertError> {
///         let mut json = serde_json::Deserializer::from_str(payload.as_str());
///         read(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut json)).map_err(ConvertError::new)
///     }
/// }
/// ```
pub trait DataConverter: Send + Sync + 'static {
    /// The payload for a value.
    ///
    /// # Errors
    /// When the format cannot express it.
    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Payload, ConvertError>;

    /// Opens a payload and calls `read` with it, once.
    ///
    /// # Errors
    /// When the payload is not of the format, and whatever `read` returns.
    fn decode(&self, payload: &Payload, read: ReadValue<'_>) -> Result<(), ConvertError>;
}

/// A hub's converter; clones are cheap. The default is JSON, without a detour.
#[derive(Clone, Default)]
pub struct Converter(Option<Arc<dyn DataConverter>>);

impl Converter {
    /// JSON.
    pub const JSON: Self = Self(None);

    /// A handle to a converter of one's own.
    pub fn new(converter: impl DataConverter) -> Self {
        Self(Some(Arc::new(converter)))
    }

    /// The payload for a value.
    ///
    /// # Errors
    /// When the format cannot express it.
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Payload, ConvertError> {
        match &self.0 {
            None => Payload::encode(value).map_err(ConvertError::new),
            Some(converter) => converter.encode(&value),
        }
    }

    /// The value of a payload.
    ///
    /// # Errors
    /// When the payload is not of the format, or does not fit the type.
    pub fn decode<T: DeserializeOwned>(&self, payload: &Payload) -> Result<T, ConvertError> {
        let Some(converter) = &self.0 else { return payload.decode().map_err(ConvertError::new) };
        let mut value = None;
        converter.decode(payload, &mut |deserializer| {
            value = Some(erased_serde::deserialize(deserializer)?);
            Ok(())
        })?;
        value.ok_or_else(|| ConvertError::new("the data converter did not read the payload"))
    }
}

impl fmt::Debug for Converter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_none() { "Json" } else { "Custom" })
    }
}
