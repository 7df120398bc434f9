//! Payloads: JSON text that user code and other languages exchange.

use std::fmt;

use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

use crate::compression;

/// One JSON document as text. Cloning is cheap: short texts are kept inline, longer ones are shared.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Payload(SmolStr);

impl Payload {
    /// The JSON `null`.
    pub const fn null() -> Self {
        Self(SmolStr::new_static("null"))
    }

    /// Serialises a value.
    ///
    /// # Errors
    /// When serde cannot express the value as JSON (a map with non-string keys, for example).
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        thread_local! {
            // One buffer a thread: a payload is usually shorter than what SmolStr keeps inline.
            static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        BUFFER.with(|buffer| match buffer.try_borrow_mut() {
            Ok(mut buffer) => {
                buffer.clear();
                serde_json::to_writer(&mut *buffer, value)?;
                // It is text: serde_json writes nothing else. Lossy only so that nothing has to be believed.
                let payload = match std::str::from_utf8(&buffer) {
                    Ok(text) => Self(SmolStr::new(text)),
                    Err(_) => Self(SmolStr::new(String::from_utf8_lossy(&buffer))),
                };
                if buffer.capacity() > 1 << 20 {
                    *buffer = Vec::new();
                }
                Ok(payload)
            }
            // A Serialize implementation that itself encodes a payload.
            Err(_) => Ok(Self(serde_json::to_string(value)?.into())),
        })
    }

    /// Reads a value back. A text without bytes is how other languages say that there is no value; it is read as `null`.
    ///
    /// ```
    /// use steadfast_core::Payload;
    /// assert_eq!(Payload::from_json("").decode::<Option<u32>>().unwrap(), None);
    /// ```
    ///
    /// # Errors
    /// When the text is not JSON or does not fit the type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(if self.0.is_empty() { "null" } else { &self.0 })
    }

    /// Wraps a text that is JSON already.
    pub fn from_json(text: impl Into<SmolStr>) -> Self {
        Self(text.into())
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Length of the text in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the text has no bytes at all (which is not a JSON document).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// As text where people read it. In records a large one is compressed: what stands there then is no UTF-8, so that
/// nobody takes one for the other.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.len() >= compression::SMALLEST
            && !serializer.is_human_readable()
            && let Some(compressed) = compression::compress(self.0.as_bytes())
        {
            return serializer.serialize_bytes(&compressed);
        }
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return SmolStr::deserialize(deserializer).map(Self);
        }
        deserializer.deserialize_bytes(PayloadVisitor)
    }
}

struct PayloadVisitor;

impl Visitor<'_> for PayloadVisitor {
    type Value = Payload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a payload")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Payload, E> {
        if compression::is_compressed(bytes) {
            let text = compression::decompress(bytes).map_err(E::custom)?;
            let text = String::from_utf8(text).map_err(|_| E::custom("a compressed payload is not text"))?;
            return Ok(Payload(text.into()));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| E::custom(format!("a payload is not text: {error}")))?;
        Ok(Payload(SmolStr::new(text)))
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
