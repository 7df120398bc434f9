//! How records, states and histories become bytes: bincode 2, and nothing else, in this one place.
//!
//! Integers are variable-length and little-endian, so small numbers take a byte. What is encoded has no type
//! information: whoever stores it puts [`FORMAT_VERSION`] in front of it or keeps it beside it.

use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::{Deserialize, Serialize};

pub use crate::compression::{COMPRESS_FROM_DEFAULT, compress_payloads_from};

/// The version of everything encoded here. It changes when an old record would be read wrongly.
pub const FORMAT_VERSION: u8 = 2;

/// No single encoded value is larger; a larger length can only be damage, and is refused before memory is taken.
const LIMIT: usize = 1 << 31;

/// Bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the record: {problem}")]
pub struct DecodeError {
    /// What is wrong.
    pub problem: String,
}

impl DecodeError {
    /// An error with a text.
    pub fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into() }
    }
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<LIMIT>()
}

/// Appends the encoding of `value` to `buffer`.
pub fn encode<T: Serialize>(value: &T, buffer: &mut Vec<u8>) {
    // Neither the writer (a Vec) nor the types of this crate can fail: all lengths are known and no map has odd keys.
    if let Err(error) = bincode::serde::encode_into_writer(value, Appender(buffer), config()) {
        unreachable!("an in-memory encoding failed: {error}");
    }
}

/// Appends to a Vec without the detour over `std::io::Write`, whose errors cost more than the few bytes of a field.
struct Appender<'a>(&'a mut Vec<u8>);

impl Writer for Appender<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// The encoding of `value`.
pub fn encode_to_vec<T: Serialize>(value: &T) -> Vec<u8> {
    let mut buffer = Vec::new();
    encode(value, &mut buffer);
    buffer
}

/// Reads one value from the front of `bytes` and moves `bytes` behind it.
///
/// # Errors
/// When the bytes end too early or do not fit the type.
pub fn decode<'de, T: Deserialize<'de>>(bytes: &mut &'de [u8]) -> Result<T, DecodeError> {
    let (value, read) = bincode::serde::borrow_decode_from_slice(bytes, config())
        .map_err(|error| DecodeError::new(error.to_string()))?;
    *bytes = &bytes[read..];
    Ok(value)
}

/// Reads one value that takes up all of `bytes`.
///
/// # Errors
/// When the bytes do not fit the type or some are left over.
pub fn decode_all<'de, T: Deserialize<'de>>(mut bytes: &'de [u8]) -> Result<T, DecodeError> {
    let value = decode(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(value);
    }
    Err(DecodeError::new(format!("{} bytes are left over", bytes.len())))
}

/// Reads values until `bytes` are used up.
///
/// # Errors
/// When the bytes do not fit the type.
pub fn decode_many<'de, T: Deserialize<'de>>(mut bytes: &'de [u8]) -> Result<Vec<T>, DecodeError> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(decode(&mut bytes)?);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_bytes_is_an_error_and_takes_no_memory() {
        let mut bytes = vec![253]; // a u64 length follows
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        assert!(decode_all::<String>(&bytes).is_err());
        assert!(decode_all::<Vec<u8>>(&bytes).is_err());
        assert!(decode_all::<Vec<String>>(&bytes).is_err());
        assert!(decode_all::<&[u8]>(&bytes).is_err());
    }

    #[test]
    fn bytes_that_are_left_over_are_an_error() {
        let mut bytes = encode_to_vec(&7u32);
        assert_eq!(decode_all::<u32>(&bytes).unwrap(), 7);
        bytes.push(0);
        assert!(decode_all::<u32>(&bytes).is_err());
    }
}
