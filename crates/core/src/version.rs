//! Versions of orchestrations: how they compare, and which of them a worker runs.

use std::cmp::Ordering;

use smol_str::SmolStr;

use crate::failure::{FailureDetails, kinds};

/// Compares two versions part by part, from left to right; parts are what stands between dots.
///
/// - Parts of digits are numbers, of any length: "10" is greater than "9", and "1.10" than "1.9".
/// - Other parts are compared as text without regard to case, and are greater than numbers.
/// - Missing parts count as 0: "1" equals "1.0". Words such as `beta` have no special meaning.
/// - An empty version (none) is less than any other.
///
/// ```
/// use std::cmp::Ordering::{Equal, Less};
/// use steadfast_core::compare_versions;
/// assert_eq!(compare_versions("9", "10"), Less);
/// assert_eq!(compare_versions("1.9.3", "1.10"), Less);
/// assert_eq!(compare_versions("2.0-RC1", "2.0-rc1"), Equal);
/// assert_eq!(compare_versions("", "0"), Less);
/// ```
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    if left.is_empty() || right.is_empty() {
        return right.is_empty().cmp(&left.is_empty());
    }
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (left, right) => compare_parts(left.unwrap_or("0"), right.unwrap_or("0")),
        };
        if order.is_ne() {
            return order;
        }
    }
}

fn compare_parts(left: &str, right: &str) -> Ordering {
    match (digits(left), digits(right)) {
        // Without leading zeros the longer number is the greater one.
        (Some(left), Some(right)) => left.len().cmp(&right.len()).then_with(|| left.cmp(right)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => {
            let lowered = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<String>();
            lowered(left).cmp(&lowered(right))
        }
    }
}

/// The part without leading zeros, if it is a number.
fn digits(part: &str) -> Option<&str> {
    let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| part.trim_start_matches('0'))
}

/// Which instances a worker takes, by their version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VersionMatch {
    /// All of them.
    #[default]
    None,
    /// Those of exactly the worker's version.
    Strict,
    /// Those whose version is not greater than the worker's, see [`compare_versions`]; those without version, too.
    CurrentOrOlder,
}

/// What becomes of an instance that a worker does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VersionFailure {
    /// It waits, unchanged, until a hub is started with a worker that takes it. It can be terminated meanwhile.
    #[default]
    Reject,
    /// It fails with [`kinds::VERSION_MISMATCH`], which no retry policy tries again.
    Fail,
}

/// How a worker treats versions.
///
/// ```
/// use steadfast_core::{VersionFailure, VersionMatch, VersionOptions};
/// let options = VersionOptions {
///     version: "2.1".into(),
///     match_strategy: VersionMatch::CurrentOrOlder,
///     ..VersionOptions::default()
/// };
/// assert!(options.check("2.0").is_ok());
/// assert!(options.check("2.2").is_err());
/// assert_eq!(options.failure_strategy, VersionFailure::Reject);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionOptions {
    /// The worker's own version, empty for none. It is what the strategies compare with.
    pub version: SmolStr,
    /// The version of instances that are started without one, empty for the greatest that is registered. It counts
    /// for orchestrations that are registered under it or without version.
    pub default_version: SmolStr,
    /// Which instances the worker takes. It is checked at every turn.
    pub match_strategy: VersionMatch,
    /// What becomes of the others.
    pub failure_strategy: VersionFailure,
}

/// A worker does not take an instance because of its version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the instance has version '{version}', and this worker (version '{worker}') takes {taken}; run it with a worker \
     that takes that version"
)]
pub struct VersionMismatch {
    /// The instance's version.
    pub version: SmolStr,
    /// The worker's.
    pub worker: SmolStr,
    taken: &'static str,
}

impl VersionOptions {
    /// Whether the worker takes instances of `version`.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, version: &str) -> Result<(), VersionMismatch> {
        let (fits, taken) = match self.match_strategy {
            VersionMatch::None => return Ok(()),
            VersionMatch::Strict => (self.version == version, "only its own"),
            VersionMatch::CurrentOrOlder => {
                (compare_versions(version, &self.version).is_le(), "only its own and older ones")
            }
        };
        if fits {
            return Ok(());
        }
        Err(VersionMismatch { version: version.into(), worker: self.version.clone(), taken })
    }
}

impl From<VersionMismatch> for FailureDetails {
    fn from(mismatch: VersionMismatch) -> Self {
        Self::new(kinds::VERSION_MISMATCH, mismatch.to_string()).non_retriable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASCENDING: [&str; 16] = [
        "",
        "0",
        "0.1",
        "1",
        "1.0.1",
        "1.9",
        "1.10",
        "2",
        "9",
        "10",
        "18446744073709551616",
        "x",
        "x.1",
        "x.a",
        "y",
        "z9",
    ];

    #[test]
    fn versions_compare_by_number_where_they_are_numbers_and_the_order_is_total() {
        for (left_at, left) in ASCENDING.iter().enumerate() {
            for (right_at, right) in ASCENDING.iter().enumerate() {
                assert_eq!(compare_versions(left, right), left_at.cmp(&right_at), "{left:?} {right:?}");
            }
        }
        for (left, right) in [("1", "1.0.0"), ("01.2", "1.02"), ("1.Beta", "1.bETA")] {
            assert_eq!(compare_versions(left, right), Ordering::Equal, "{left} {right}");
        }
    }

    #[test]
    fn strategies_take_what_they_say() {
        let options = |match_strategy| VersionOptions {
            version: "1.10".into(),
            match_strategy,
            ..VersionOptions::default()
        };
        let taken = |match_strategy: VersionMatch| {
            let takes = |version: &&str| options(match_strategy).check(version).is_ok();
            ["", "1.9", "1.10", "1.10.0", "1.11", "2"].into_iter().filter(takes).collect::<Vec<_>>()
        };
        assert_eq!(taken(VersionMatch::None).len(), 6);
        assert_eq!(taken(VersionMatch::Strict), ["1.10"]);
        assert_eq!(taken(VersionMatch::CurrentOrOlder), ["", "1.9", "1.10", "1.10.0"]);
        let failure = FailureDetails::from(options(VersionMatch::Strict).check("2").unwrap_err());
        assert!(failure.non_retriable && failure.message.contains("'2'"), "{failure}");
    }
}
