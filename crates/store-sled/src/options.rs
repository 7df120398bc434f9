//! What the user of a store on sled can choose, and what a test can put in the operating system's place.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How a store is opened. The default is right for most hubs:
///
/// ```
/// use steadfast_store_sled::SledOptions;
/// let options = SledOptions { partitions: Some(8), ..SledOptions::default() };
/// ```
#[derive(Clone)]
pub struct SledOptions {
    /// How many partitions the hub has. It is recorded when the hub is created (then 4 when left out), and must be
    /// the recorded number, or left out, from then on.
    pub partitions: Option<u16>,
    /// How much memory the page caches may take, in bytes.
    pub cache_bytes: u64,
    /// How much of the disk is left free, in bytes: with less, appends fail with
    /// [`StoreError::Full`](steadfast_store::StoreError::Full). Materialisation, which lets the log shrink, goes on
    /// until half of it is used up.
    pub reserve_bytes: u64,
    /// How file contents are made durable.
    pub data_sync: Arc<dyn DataSync>,
    /// How free space is found out.
    pub space_probe: Arc<dyn SpaceProbe>,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self {
            partitions: None,
            cache_bytes: 64 << 20,
            reserve_bytes: 64 << 20,
            data_sync: Arc::new(Fdatasync),
            space_probe: Arc::new(Statvfs),
        }
    }
}

/// Makes the contents of a file durable. sled's own flush doesn't: it neither writes the file's metadata nor empties
/// the device's cache.
pub trait DataSync: Send + Sync + 'static {
    /// Returns once everything written to the file survives power loss.
    ///
    /// # Errors
    /// Those of the operating system.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The real thing: `fdatasync`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fdatasync;

impl DataSync for Fdatasync {
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Finds out how much space is left.
pub trait SpaceProbe: Send + Sync + 'static {
    /// The bytes that can still be written below `folder`.
    ///
    /// # Errors
    /// Those of the operating system.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// The real thing: what the file system says is available to this user.
#[derive(Debug, Clone, Copy, Default)]
pub struct Statvfs;

impl SpaceProbe for Statvfs {
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}
