//! What tags may be.

use crate::event::Tags;

/// How many tags an instance has at most.
pub const MAX_TAGS: usize = 64;

/// How many bytes the keys and values of an instance's tags have at most, together.
pub const MAX_TAGS_BYTES: usize = 16 << 10;

/// Keys that begin so are reserved for the runtime and for the Durable Task SDKs.
const RESERVED_PREFIXES: [&str; 2] = ["MS_", "steadfast."];

/// A key that the Durable Task Framework gives a meaning of its own.
const FIRE_AND_FORGET: &str = "FireAndForget";

/// Tags that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTags {
    /// A key is empty.
    #[error("a tag has an empty key")]
    EmptyKey,
    /// A key is reserved.
    #[error(
        "the tag '{key}' is reserved (`FireAndForget`, and keys that begin with `MS_` or `steadfast.`); choose another key"
    )]
    Reserved {
        /// The key, shortened to 64 characters.
        key: String,
    },
    /// There are too many.
    #[error("there are {count} tags, with those that are inherited, and at most {MAX_TAGS} are allowed")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// They are too large.
    #[error(
        "the tags have {bytes} bytes, with those that are inherited, and at most {MAX_TAGS_BYTES} are allowed; put data into the input"
    )]
    TooLarge {
        /// How large they are.
        bytes: usize,
    },
}

/// Checks the tags of an instance: their keys, number (at most [`MAX_TAGS`]) and size (at most [`MAX_TAGS_BYTES`]).
///
/// # Errors
/// When they cannot be used.
///
/// ```
/// use steadfast_core::{InvalidTags, Tags, check_tags};
/// assert!(check_tags(&Tags::from([("tenant".into(), "a".into())])).is_ok());
/// let reserved = Tags::from([("MS_CreateTrace".into(), "true".into())]);
/// assert!(matches!(check_tags(&reserved), Err(InvalidTags::Reserved { .. })));
/// ```
pub fn check_tags(tags: &Tags) -> Result<(), InvalidTags> {
    if tags.len() > MAX_TAGS {
        return Err(InvalidTags::TooMany { count: tags.len() });
    }
    let bytes = tags.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_TAGS_BYTES {
        return Err(InvalidTags::TooLarge { bytes });
    }
    for key in tags.keys() {
        if key.is_empty() {
            return Err(InvalidTags::EmptyKey);
        }
        if key == FIRE_AND_FORGET || RESERVED_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) {
            return Err(InvalidTags::Reserved { key: key.chars().take(64).collect() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol_str::format_smolstr;

    #[test]
    fn tags_are_bounded_in_number_and_size_and_reserved_keys_are_refused() {
        let many: Tags = (0..=MAX_TAGS).map(|n| (format_smolstr!("{n}"), "x".into())).collect();
        assert_eq!(check_tags(&many), Err(InvalidTags::TooMany { count: MAX_TAGS + 1 }));
        let large = Tags::from([("k".into(), "x".repeat(MAX_TAGS_BYTES).into())]);
        assert_eq!(check_tags(&large), Err(InvalidTags::TooLarge { bytes: MAX_TAGS_BYTES + 1 }));
        assert_eq!(check_tags(&Tags::from([("".into(), "x".into())])), Err(InvalidTags::EmptyKey));
        for key in ["FireAndForget", "MS_Entities_TraceParent", "steadfast.x"] {
            let error = check_tags(&Tags::from([(key.into(), "x".into())])).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
        let most = Tags::from([("k".into(), "x".repeat(MAX_TAGS_BYTES - 1).into())]);
        assert_eq!(check_tags(&most), Ok(()));
    }
}
