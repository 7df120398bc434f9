//! Payloads that are apart from the state of their instance.

use std::fmt;
use std::sync::Arc;

use crate::StoreError;

/// A long payload of an instance, apart from its state: it stays what it is while the state changes, and need not be read
/// with it. It is encoded when a store asks for its bytes: one that has it already does not.
#[derive(Clone)]
pub struct PayloadWrite {
    slot: u8,
    name: u128,
    text_bytes: usize,
    encode: Arc<dyn Fn() -> Result<Arc<[u8]>, StoreError> + Send + Sync>,
}

impl PayloadWrite {
    /// A payload of so many bytes, before it is encoded.
    ///
    /// No two of one write have the same slot. As long as the name in a slot is the same, so is what the bytes say, even if they are
    /// encoded in another way; so a store that has them need not write them again.
    ///
    /// ```
    /// use steadfast_store::PayloadWrite;
    /// let payload = PayloadWrite::new(0, 17, 4, || Ok(b"text"[..].into()));
    /// assert_eq!(&payload.bytes().unwrap()[..], b"text");
    /// ```
    pub fn new(
        slot: u8,
        name: u128,
        text_bytes: usize,
        encode: impl Fn() -> Result<Arc<[u8]>, StoreError> + Send + Sync + 'static,
    ) -> Self {
        Self { slot, name, text_bytes, encode: Arc::new(encode) }
    }

    /// Which of the instance's payloads it is.
    pub fn slot(&self) -> u8 {
        self.slot
    }

    /// What it is known by in its slot.
    pub fn name(&self) -> u128 {
        self.name
    }

    /// How long it is before it is encoded.
    pub fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// The encoded payload.
    ///
    /// # Errors
    /// Those of the codec that the store is behind.
    pub fn bytes(&self) -> Result<Arc<[u8]>, StoreError> {
        (self.encode)()
    }

    /// The same payload, encoded once more.
    pub(crate) fn then(
        &self,
        encode: impl Fn(&[u8]) -> Result<Arc<[u8]>, StoreError> + Send + Sync + 'static,
    ) -> Self {
        let first = self.encode.clone();
        Self { encode: Arc::new(move || encode(&first()?)), ..self.clone() }
    }
}

impl fmt::Debug for PayloadWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, name, text_bytes, .. } = self;
        write!(f, "PayloadWrite({slot}, {name:x}, {text_bytes} bytes)")
    }
}
