//! Task hubs on the stores that come with the crate.

use std::path::PathBuf;
use std::sync::Arc;

use steadfast_engine::HubBuilder;
use steadfast_store::{MemoryStore, Store};
use steadfast_store_sled::{SledOptions, SledStore};

/// As many as a hub on disk has, so that tests in memory see the same order of things.
const MEMORY_PARTITIONS: u16 = 4;

/// Where a hub begins: one named store with its partitions, instances and queues.
///
/// ```no_run
/// use steadfast::prelude::*;
///
/// # async fn example() -> Result<()> {
/// let hub = TaskHub::builder("./data/orders").partitions(8).start().await?;
/// hub.stop().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub enum TaskHub {}

impl TaskHub {
    /// A hub in a folder, which is created if there is none. Only one process at a time can have it open.
    pub fn builder(folder: impl Into<PathBuf>) -> HubBuilder {
        Self::builder_with(folder, SledOptions::default())
    }

    /// [`Self::builder`] with settings of the store. The number of partitions is that of
    /// [`HubBuilder::partitions`] if it is set there, too.
    pub fn builder_with(folder: impl Into<PathBuf>, options: SledOptions) -> HubBuilder {
        let folder = folder.into();
        HubBuilder::new(move |partitions| {
            let options = SledOptions { partitions: partitions.or(options.partitions), ..options };
            Ok(Arc::new(SledStore::open(&folder, options)?) as Arc<dyn Store>)
        })
    }

    /// A hub in memory, for tests: everything works as on disk, and is gone with the hub.
    pub fn in_memory() -> HubBuilder {
        HubBuilder::new(|partitions| {
            Ok(Arc::new(MemoryStore::new(partitions.unwrap_or(MEMORY_PARTITIONS))) as Arc<dyn Store>)
        })
    }
}
