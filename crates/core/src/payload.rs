//! Payloads: JSON text that user code and other languages exchange.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// One JSON document as text. Cloning is cheap: short texts are kept inline, longer ones are shared.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
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
                let payload = Self(SmolStr::new(String::from_utf8_lossy(&buffer)));
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
