//! What can go wrong with a store, by what the reader can do about it.

use std::path::PathBuf;

/// An error of a store. Each variant says what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another process (or another hub of this process) has the store open.
    #[error(
        "the store at {path:?} is in use by another process; stop it, or give this one another data folder"
    )]
    Locked {
        /// The store's folder.
        path: PathBuf,
    },
    /// The folder holds a store of another format.
    #[error(
        "the store at {path:?} has format {found}, and this version of steadfast reads format {expected}; \
         open it with the version that wrote it"
    )]
    WrongFormat {
        /// The store's folder.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The format that this version reads and writes.
        expected: u32,
    },
    /// The hub has another number of partitions than asked for.
    #[error(
        "the hub was created with {found} partitions and cannot be opened with {asked}; \
         the number is fixed at creation, so leave it out or create another hub"
    )]
    PartitionCount {
        /// What the store records.
        found: u16,
        /// What was asked for.
        asked: u16,
    },
    /// What is stored cannot be what was written.
    #[error("the store is damaged at {place}: {problem}; restore the data folder from a backup")]
    Corrupt {
        /// Which record, row or file.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no space left.
    #[error("no space is left for the store; free some, the hub goes on by itself")]
    Full,
    /// Anything else that the operating system or the database says.
    #[error("the store failed while {doing}: {problem}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        problem: String,
    },
}

impl StoreError {
    /// Whether trying again later, without changing anything, can help.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Full | Self::Io { .. } | Self::Locked { .. })
    }

    /// An operating system's error, sorted into the variants.
    pub fn from_io(doing: &'static str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { doing, problem: error.to_string() },
        }
    }
}
