//! How records, states and histories become bytes: the encoding of bincode 2, and nothing else, in this one place.
//!
//! Integers are variable-length and little-endian, so small numbers take a byte. What is encoded has no type
//! information: whoever stores it puts [`FORMAT_VERSION`] in front of it or keeps it beside it.

mod decoder;
mod encoder;

use serde::{Deserialize, Serialize};

use decoder::Decoder;
use encoder::Encoder;

pub use crate::compression::{COMPRESS_FROM_DEFAULT, compress_payloads_from};

/// The version of everything encoded here. It changes when an old record would be read wrongly.
pub const FORMAT_VERSION: u8 = 2;

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

/// Appends the encoding of `value` to `buffer`.
pub fn encode<T: Serialize>(value: &T, buffer: &mut Vec<u8>) {
    // The types of this crate cannot fail: all lengths are known.
    if let Err(error) = value.serialize(Encoder(buffer)) {
        unreachable!("an in-memory encoding failed: {error}");
    }
}

/// The encoding of `value`.
pub fn encode_to_vec<T: Serialize>(value: &T) -> Vec<u8> {
    // Most values fit, and growing there byte by byte would take several steps.
    let mut buffer = Vec::with_capacity(128);
    encode(value, &mut buffer);
    buffer
}

/// Reads one value from the front of `bytes` and moves `bytes` behind it.
///
/// # Errors
/// When the bytes end too early or do not fit the type.
pub fn decode<'de, T: Deserialize<'de>>(bytes: &mut &'de [u8]) -> Result<T, DecodeError> {
    let mut decoder = Decoder { bytes };
    let value = T::deserialize(&mut decoder).map_err(|error| DecodeError::new(error.to_string()))?;
    *bytes = decoder.bytes;
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
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;

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
    fn numbers_of_every_length_and_all_kinds_of_values_are_written_and_read_like_bincode_does() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        enum Kind {
            Unit,
            New(i8),
            Tuple(i16, u16),
            Struct { wide: i128, text: String },
        }
        fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
            let bytes = encode_to_vec(&value);
            assert_eq!(bytes, bincode::serde::encode_to_vec(&value, bincode::config::standard()).unwrap());
            assert_eq!(decode_all::<T>(&bytes).unwrap(), value);
            for end in 0..bytes.len() {
                assert!(decode_all::<T>(&bytes[..end]).is_err());
            }
        }
        for bits in 0..128 {
            for near in [0, 1, 2, 6] {
                let wide = (1u128 << bits).wrapping_sub(near);
                check((wide as u8, wide as u16, wide as u32, wide as u64, wide, wide as usize));
                check((wide as i8, wide as i16, wide as i32, wide as i64, wide as i128, wide as isize));
            }
        }
        check((250u64, 251u64, -125i64, -126i64, f32::MIN, f64::MAX, true, 'a', ['ß', '€', '𝄞']));
        check([Kind::Unit, Kind::New(-1), Kind::Tuple(-200, 60_000)]);
        check((Kind::Struct { wide: -1, text: "x".to_owned() }, Some("y".to_owned()), None::<u8>));
        check(BTreeMap::from([("k".to_owned(), vec![1]), ("l".to_owned(), vec![])]));
    }

    #[test]
    fn bytes_that_stand_for_no_value_are_errors() {
        let refused = |bytes: &[u8], what: &str| {
            let problems = [decode_all::<u64>(bytes).err(), decode_all::<Option<bool>>(bytes).err()];
            assert!(problems.iter().flatten().any(|error| error.problem.contains(what)), "{problems:?}");
        };
        refused(&[254, 1], "254 is no length of a number");
        refused(&[2], "2 is no sign of whether there is a value");
        refused(&[1, 2], "2 is no boolean");
        for mark in [251, 252, 253] {
            refused(&[mark, 1], "too early");
        }
        assert!(decode_all::<u16>(&[252, 1, 0, 0, 0]).is_err() && decode_all::<u32>(&[253; 9]).is_err());
        assert!(decode_all::<char>(&[0xff]).is_err() && decode_all::<char>(&[0xf0, 0x9d]).is_err());
        assert!(decode_all::<serde_json::Value>(&[0]).is_err());
    }

    #[test]
    fn bytes_that_are_left_over_are_an_error() {
        let mut bytes = encode_to_vec(&7u32);
        assert_eq!(decode_all::<u32>(&bytes).unwrap(), 7);
        bytes.push(0);
        assert!(decode_all::<u32>(&bytes).is_err());
    }
}
