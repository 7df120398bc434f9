//! Times and sizes as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A length of time: a whole number and `ms`, `s`, `m` or `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Time(pub(crate) Duration);

/// A number of bytes: a whole number, alone or with `KiB`, `MiB` or `GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Size(pub(crate) usize);

/// What is written is no time, or no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub(crate) struct NotUnderstood {
    text: String,
    wanted: &'static str,
}

const TIME_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

const SIZE_UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

/// The number and the unit of a text.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

impl FromStr for Time {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Self, NotUnderstood> {
        let found = split(text).and_then(|(number, unit)| {
            let (_, millis) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
            Some(Self(Duration::from_millis(number.checked_mul(*millis)?)))
        });
        let wanted = "a time: write a whole number and ms, s, m or h, such as 30s";
        found.ok_or_else(|| NotUnderstood { text: text.to_owned(), wanted })
    }
}

impl FromStr for Size {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Self, NotUnderstood> {
        let found = split(text).and_then(|(number, unit)| {
            let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
            Some(Self(usize::try_from(number).ok()?.checked_mul(*bytes)?))
        });
        let wanted = "a size: write a whole number of bytes, or one and KiB, MiB or GiB, such as 64MiB";
        found.ok_or_else(|| NotUnderstood { text: text.to_owned(), wanted })
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let fits = |(_, of): &&(&str, u64)| millis.is_multiple_of(u128::from(*of));
        let largest = TIME_UNITS.iter().rev().find(fits).filter(|_| millis > 0);
        let (unit, of) = largest.copied().unwrap_or(("s", 1000));
        write!(f, "{}{unit}", millis / u128::from(of))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, of): &&(&str, usize)| self.0 > 0 && self.0.is_multiple_of(*of);
        let (unit, of) = SIZE_UNITS.iter().find(fits).copied().unwrap_or(("", 1));
        write!(f, "{}{unit}", self.0 / of)
    }
}

/// What serde needs of a type that is written as text.
macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = NotUnderstood;

            fn try_from(text: String) -> Result<Self, NotUnderstood> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    )*};
}

as_text!(Time, Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_come_back_as_they_were_written() {
        for text in ["250ms", "30s", "5m", "2h", "0s", "90s"] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
        for text in ["0", "1000", "1KiB", "64MiB", "3GiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("2 m".parse::<Time>().unwrap().0, Duration::from_secs(120));
        assert_eq!("64 MiB".parse::<Size>().unwrap().0, 64 << 20);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_an_example() {
        for text in ["", "s", "30", "-1s", "1.5s", "3d", "99999999999999999h", "ü"] {
            let error = text.parse::<Time>().unwrap_err().to_string();
            assert!(error.contains("such as 30s"), "{error}");
        }
        for text in ["", "MiB", "64MB", "-1", "99999999999999999GiB"] {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert!(error.contains("such as 64MiB"), "{error}");
        }
    }
}
