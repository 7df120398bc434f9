//! sled's errors, and ours, as [`StoreError`]s.

use std::path::Path;

use steadfast_store::StoreError;

/// Sorts an error of sled into what the reader can do about it.
pub(crate) fn from_sled(doing: &'static str, error: &sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) => StoreError::from_io(doing, error),
        sled::Error::Corruption { .. } => corrupt("sled's files", format!("{doing}: {error}")),
        other => StoreError::Io { doing, problem: other.to_string() },
    }
}

/// Adds what was being done to an error of the operating system.
pub(crate) fn from_io(doing: &'static str, path: &Path, error: &std::io::Error) -> StoreError {
    match StoreError::from_io(doing, error) {
        StoreError::Io { doing, problem } => {
            StoreError::Io { doing, problem: format!("{}: {problem}", path.display()) }
        }
        other => other,
    }
}

/// What is stored cannot be what was written.
pub(crate) fn corrupt(place: impl Into<String>, problem: impl Into<String>) -> StoreError {
    StoreError::Corrupt { place: place.into(), problem: problem.into() }
}

/// Runs something of sled, which panics when it finds its files damaged in some ways.
pub(crate) fn catch_panic<T>(
    doing: &'static str,
    run: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(corrupt("sled's files", format!("{doing}: sled panicked: {text}")))
    })
}
