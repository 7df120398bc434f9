//! Writes what bincode's standard configuration writes, byte for byte (`tests/codec.rs` compares them).
//!
//! Encoding is a good part of what a turn costs. bincode returns an error of four words from each field, through memory;
//! here the error is a pointer and nothing stands between a field and the buffer.

use std::fmt::Display;

use serde::ser::{
    self, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// A number below this is written as one byte. The bytes from here on say how many follow.
pub(super) const TWO_BYTES_FOLLOW: u8 = 251;
pub(super) const FOUR_BYTES_FOLLOW: u8 = 252;
pub(super) const EIGHT_BYTES_FOLLOW: u8 = 253;
pub(super) const SIXTEEN_BYTES_FOLLOW: u8 = 254;

/// Appends values to a buffer.
pub(super) struct Encoder<'a>(pub(super) &'a mut Vec<u8>);

/// A value that has no encoding: a sequence that does not know its length, or what its `Serialize` refuses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unencodable(Box<str>);

impl ser::Error for Unencodable {
    fn custom<T: Display>(problem: T) -> Self {
        Self(problem.to_string().into())
    }
}

type Outcome = Result<(), Unencodable>;

impl Encoder<'_> {
    #[inline]
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    #[inline]
    fn unsigned(&mut self, number: u64) {
        if number < u64::from(TWO_BYTES_FOLLOW) {
            self.byte(number as u8);
        } else {
            self.long(number);
        }
    }

    fn long(&mut self, number: u64) {
        if let Ok(number) = u16::try_from(number) {
            self.marked(TWO_BYTES_FOLLOW, number.to_le_bytes());
        } else if let Ok(number) = u32::try_from(number) {
            self.marked(FOUR_BYTES_FOLLOW, number.to_le_bytes());
        } else {
            self.marked(EIGHT_BYTES_FOLLOW, number.to_le_bytes());
        }
    }

    #[inline]
    fn marked<const N: usize>(&mut self, mark: u8, bytes: [u8; N]) {
        self.0.reserve(N + 1);
        self.0.push(mark);
        self.0.extend_from_slice(&bytes);
    }

    /// Numbers near zero are small whatever their sign.
    #[inline]
    fn signed(&mut self, number: i64) {
        self.unsigned(((number << 1) ^ (number >> 63)) as u64);
    }

    fn unsigned_wide(&mut self, number: u128) {
        match u64::try_from(number) {
            Ok(number) => self.unsigned(number),
            Err(_) => self.marked(SIXTEEN_BYTES_FOLLOW, number.to_le_bytes()),
        }
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.unsigned(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn len(&mut self, len: Option<usize>) -> Outcome {
        let len = len.ok_or_else(|| ser::Error::custom("a sequence does not know its length"))?;
        self.unsigned(len as u64);
        Ok(())
    }
}

macro_rules! write_with {
    ($($method:ident($type:ty) $write:expr;)*) => {$(
        #[inline]
        fn $method(mut self, value: $type) -> Outcome {
            let write: fn(&mut Self, $type) = $write;
            write(&mut self, value);
            Ok(())
        }
    )*};
}

impl<'a> Serializer for Encoder<'a> {
    type Ok = ();
    type Error = Unencodable;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    write_with! {
        serialize_bool(bool) |to, value| to.byte(u8::from(value));
        serialize_u8(u8) |to, value| to.byte(value);
        serialize_i8(i8) |to, value| to.byte(value as u8);
        serialize_u16(u16) |to, value| to.unsigned(u64::from(value));
        serialize_u32(u32) |to, value| to.unsigned(u64::from(value));
        serialize_u64(u64) |to, value| to.unsigned(value);
        serialize_u128(u128) |to, value| to.unsigned_wide(value);
        serialize_i16(i16) |to, value| to.signed(i64::from(value));
        serialize_i32(i32) |to, value| to.signed(i64::from(value));
        serialize_i64(i64) |to, value| to.signed(value);
        serialize_i128(i128) |to, value| to.unsigned_wide(((value << 1) ^ (value >> 127)) as u128);
        serialize_f32(f32) |to, value| to.0.extend_from_slice(&value.to_le_bytes());
        serialize_f64(f64) |to, value| to.0.extend_from_slice(&value.to_le_bytes());
        serialize_char(char) |to, value| to.0.extend_from_slice(value.encode_utf8(&mut [0; 4]).as_bytes());
        serialize_str(&str) |to, value| to.bytes(value.as_bytes());
        serialize_bytes(&[u8]) |to, value| to.bytes(value);
    }

    #[inline]
    fn serialize_none(mut self) -> Outcome {
        self.byte(0);
        Ok(())
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> Outcome {
        self.byte(1);
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Outcome {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _name: &'static str) -> Outcome {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(mut self, _name: &'static str, index: u32, _variant: &'static str) -> Outcome {
        self.unsigned(u64::from(index));
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, value: &T) -> Outcome {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        value: &T,
    ) -> Outcome {
        self.unsigned(u64::from(index));
        value.serialize(self)
    }

    #[inline]
    fn serialize_seq(mut self, len: Option<usize>) -> Result<Self, Unencodable> {
        self.len(len)?;
        Ok(self)
    }

    #[inline]
    fn serialize_tuple(self, _len: usize) -> Result<Self, Unencodable> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Self, Unencodable> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_variant(
        mut self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self, Unencodable> {
        self.unsigned(u64::from(index));
        Ok(self)
    }

    #[inline]
    fn serialize_map(mut self, len: Option<usize>) -> Result<Self, Unencodable> {
        self.len(len)?;
        Ok(self)
    }

    #[inline]
    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Self, Unencodable> {
        Ok(self)
    }

    #[inline]
    fn serialize_struct_variant(
        mut self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self, Unencodable> {
        self.unsigned(u64::from(index));
        Ok(self)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// What is compound is its parts, one after the other.
macro_rules! parts {
    ($($compound:ident $method:ident($($name:ident)?);)*) => {$(
        impl $compound for Encoder<'_> {
            type Ok = ();
            type Error = Unencodable;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, $($name: &'static str,)? value: &T) -> Outcome {
                value.serialize(Encoder(self.0))
            }

            #[inline]
            fn end(self) -> Outcome {
                Ok(())
            }
        }
    )*};
}

parts! {
    SerializeSeq serialize_element();
    SerializeTuple serialize_element();
    SerializeTupleStruct serialize_field();
    SerializeTupleVariant serialize_field();
    SerializeStruct serialize_field(_name);
    SerializeStructVariant serialize_field(_name);
}

impl SerializeMap for Encoder<'_> {
    type Ok = ();
    type Error = Unencodable;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Outcome {
        key.serialize(Encoder(self.0))
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Outcome {
        value.serialize(Encoder(self.0))
    }

    #[inline]
    fn end(self) -> Outcome {
        Ok(())
    }
}
