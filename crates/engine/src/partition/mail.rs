//! How many messages a partition's actors have had: what its work costs beside the turns themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the messages of one partition's actors. Only the partition's thread writes it, so counting is a load and a
/// store; anybody reads it.
#[derive(Clone, Default)]
pub(crate) struct Mail(Arc<AtomicU64>);

impl Mail {
    /// One more. To be called on the partition's thread only: by every handler of the partition actor, and for every
    /// message that it sends to an instance actor.
    pub(super) fn note(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
