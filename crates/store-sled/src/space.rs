//! Keeps sled from ever meeting a full disk, which it takes badly.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use steadfast_store::StoreError;

use crate::error::from_io;
use crate::options::SpaceProbe;

/// What was found is believed for so long, and for so many bytes written.
const BELIEVED_FOR: Duration = Duration::from_millis(500);
const BELIEVED_BYTES: u64 = 16 << 20;

/// How much sled writes for one byte that it is given: a leaf is written anew several times while it fills up.
const WRITE_AMPLIFICATION: u64 = 4;

pub(crate) struct Space {
    folder: PathBuf,
    reserve_bytes: u64,
    probe: Arc<dyn SpaceProbe>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    free_bytes: u64,
    /// When; none when it isn't to be believed any more.
    at: Option<Instant>,
    written_since: u64,
}

impl Space {
    pub(crate) fn new(folder: PathBuf, reserve_bytes: u64, probe: Arc<dyn SpaceProbe>) -> Self {
        Self { folder, reserve_bytes, probe, found: Mutex::default() }
    }

    /// Fails unless an append of so many bytes leaves the reserve untouched.
    pub(crate) fn check_append(&self, bytes: u64) -> Result<(), StoreError> {
        self.check(bytes, self.reserve_bytes)
    }

    /// Fails unless a materialisation of so many bytes leaves half of the reserve untouched: it may go on when
    /// appends may not, because the log can only shrink after it.
    pub(crate) fn check_materialisation(&self, bytes: u64) -> Result<(), StoreError> {
        self.check(bytes, self.reserve_bytes / 2)
    }

    fn check(&self, bytes: u64, keep: u64) -> Result<(), StoreError> {
        let needed = bytes.saturating_mul(WRITE_AMPLIFICATION);
        let mut found = self.found.lock();
        let believed = found.at.is_some_and(|at| at.elapsed() < BELIEVED_FOR);
        if !believed || found.written_since >= BELIEVED_BYTES {
            let free_bytes = self.probe.free_bytes(&self.folder);
            found.free_bytes =
                free_bytes.map_err(|error| from_io("asking for free space", &self.folder, &error))?;
            found.at = Some(Instant::now());
            found.written_since = 0;
        }
        found.written_since = found.written_since.saturating_add(needed);
        if found.free_bytes < keep.saturating_add(found.written_since) {
            found.at = None;
            return Err(StoreError::Full);
        }
        Ok(())
    }
}
