//! Reads what [`super::encoder`] writes, and whatever else bincode's standard configuration reads as the same values.
//!
//! Whatever the bytes are, the answer is a value or an error: every length is compared with the bytes that are left
//! before anything is taken for it.

use std::fmt::Display;

use serde::Deserializer;
use serde::de::{
    self, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::encoder::{EIGHT_BYTES_FOLLOW, FOUR_BYTES_FOLLOW, SIXTEEN_BYTES_FOLLOW, TWO_BYTES_FOLLOW};

/// Takes values from the front of some bytes.
pub(super) struct Decoder<'de> {
    pub(super) bytes: &'de [u8],
}

/// What is wrong with the bytes. Small, because every field may return one.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreadable(Box<str>);

impl de::Error for Unreadable {
    #[cold]
    fn custom<T: Display>(problem: T) -> Self {
        Self(problem.to_string().into())
    }
}

type Read<T> = Result<T, Unreadable>;

#[cold]
fn cut_off() -> Unreadable {
    de::Error::custom("the bytes end too early")
}

#[cold]
fn not_a(what: &str, byte: u8) -> Unreadable {
    de::Error::custom(format_args!("{byte} is no {what}"))
}

impl<'de> Decoder<'de> {
    #[inline]
    fn byte(&mut self) -> Read<u8> {
        let (byte, rest) = self.bytes.split_first().ok_or_else(cut_off)?;
        self.bytes = rest;
        Ok(*byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (array, rest) = self.bytes.split_first_chunk().ok_or_else(cut_off)?;
        self.bytes = rest;
        Ok(*array)
    }

    /// A number of a type for which more bytes than `longest` says never follow.
    #[inline]
    fn unsigned(&mut self, longest: u8) -> Read<u64> {
        match self.byte()? {
            byte @ ..TWO_BYTES_FOLLOW => Ok(u64::from(byte)),
            mark if mark <= longest => self.long(mark),
            mark => Err(not_a("length of a number", mark)),
        }
    }

    fn long(&mut self, mark: u8) -> Read<u64> {
        match mark {
            TWO_BYTES_FOLLOW => Ok(u64::from(u16::from_le_bytes(self.array()?))),
            FOUR_BYTES_FOLLOW => Ok(u64::from(u32::from_le_bytes(self.array()?))),
            EIGHT_BYTES_FOLLOW => Ok(u64::from_le_bytes(self.array()?)),
            mark => Err(not_a("length of a number", mark)),
        }
    }

    #[inline]
    fn signed(&mut self, longest: u8) -> Read<i64> {
        let number = self.unsigned(longest)?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn unsigned_wide(&mut self) -> Read<u128> {
        if self.bytes.first() == Some(&SIXTEEN_BYTES_FOLLOW) {
            self.byte()?;
            return Ok(u128::from_le_bytes(self.array()?));
        }
        self.unsigned(EIGHT_BYTES_FOLLOW).map(u128::from)
    }

    /// A length; nothing that has one takes less than a byte for each part.
    #[inline]
    fn len(&mut self) -> Read<usize> {
        let len = self.unsigned(EIGHT_BYTES_FOLLOW)?;
        match usize::try_from(len) {
            Ok(len) if len <= self.bytes.len() => Ok(len),
            _ => Err(de::Error::custom(format_args!(
                "a length of {len} and {} bytes are left",
                self.bytes.len()
            ))),
        }
    }

    #[inline]
    fn counted(&mut self) -> Read<&'de [u8]> {
        let len = self.len()?;
        let (bytes, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        Ok(bytes)
    }

    #[inline]
    fn text(&mut self) -> Read<&'de str> {
        std::str::from_utf8(self.counted()?).map_err(de::Error::custom)
    }

    fn character(&mut self) -> Read<char> {
        let len = self.bytes.first().map_or(1, |first| usize::from(first.leading_ones() as u8).max(1));
        let (bytes, rest) = self.bytes.split_at_checked(len).ok_or_else(cut_off)?;
        self.bytes = rest;
        let text = std::str::from_utf8(bytes).map_err(de::Error::custom)?;
        text.chars().next().ok_or_else(cut_off)
    }

    #[inline]
    fn parts(&mut self, left: usize) -> Parts<'_, 'de> {
        Parts { decoder: self, left }
    }
}

macro_rules! read_with {
    ($($method:ident $visit:ident $read:expr;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
            visitor.$visit($read(self)?)
        }
    )*};
}

macro_rules! refuse {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _visitor: V) -> Read<V::Value> {
            Err(de::Error::custom("the bytes do not say what they are"))
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = Unreadable;

    refuse! { deserialize_any deserialize_identifier deserialize_ignored_any }

    read_with! {
        deserialize_u8 visit_u8 Decoder::byte;
        deserialize_i8 visit_i8 |from: Self| from.byte().map(|byte| byte as i8);
        deserialize_u16 visit_u16 |from: Self| from.unsigned(TWO_BYTES_FOLLOW).map(|number| number as u16);
        deserialize_u32 visit_u32 |from: Self| from.unsigned(FOUR_BYTES_FOLLOW).map(|number| number as u32);
        deserialize_u64 visit_u64 |from: Self| from.unsigned(EIGHT_BYTES_FOLLOW);
        deserialize_u128 visit_u128 Decoder::unsigned_wide;
        deserialize_i16 visit_i16 |from: Self| from.signed(TWO_BYTES_FOLLOW).map(|number| number as i16);
        deserialize_i32 visit_i32 |from: Self| from.signed(FOUR_BYTES_FOLLOW).map(|number| number as i32);
        deserialize_i64 visit_i64 |from: Self| from.signed(EIGHT_BYTES_FOLLOW);
        deserialize_f32 visit_f32 |from: Self| from.array().map(f32::from_le_bytes);
        deserialize_f64 visit_f64 |from: Self| from.array().map(f64::from_le_bytes);
        deserialize_char visit_char Decoder::character;
        deserialize_str visit_borrowed_str Decoder::text;
        deserialize_string visit_borrowed_str Decoder::text;
        deserialize_bytes visit_borrowed_bytes Decoder::counted;
        deserialize_byte_buf visit_borrowed_bytes Decoder::counted;
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let number = self.unsigned_wide()?;
        visitor.visit_i128((number >> 1) as i128 ^ -((number & 1) as i128))
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            byte => Err(not_a("boolean", byte)),
        }
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self),
            byte => Err(not_a("sign of whether there is a value", byte)),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let len = self.len()?;
        visitor.visit_seq(self.parts(len))
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let len = self.len()?;
        visitor.visit_map(self.parts(len))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Read<V::Value> {
        visitor.visit_seq(self.parts(len))
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Read<V::Value> {
        visitor.visit_seq(self.parts(len))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        visitor.visit_seq(self.parts(fields.len()))
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        visitor.visit_enum(self)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// So many parts, one after the other.
struct Parts<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_, 'de> {
    type Error = Unreadable;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Read<Option<T::Value>> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.decoder).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Parts<'_, 'de> {
    type Error = Unreadable;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        self.next_element_seed(seed)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Read<V::Value> {
        seed.deserialize(&mut *self.decoder)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> EnumAccess<'de> for &mut Decoder<'de> {
    type Error = Unreadable;
    type Variant = Self;

    #[inline]
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Read<(V::Value, Self)> {
        let index = self.unsigned(FOUR_BYTES_FOLLOW)? as u32;
        let index: de::value::U32Deserializer<Unreadable> = index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Decoder<'de> {
    type Error = Unreadable;

    #[inline]
    fn unit_variant(self) -> Read<()> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Read<T::Value> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Read<V::Value> {
        visitor.visit_seq(self.parts(len))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Read<V::Value> {
        visitor.visit_seq(self.parts(fields.len()))
    }
}
