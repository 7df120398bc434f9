//! The embedded store of Steadfast: commit log and instance store on [sled](https://docs.rs/sled).
//!
//! A hub is a folder with two databases, `log` and `data`, so that making an append durable waits for nothing but the
//! log, and the log's short-lived records don't mix with what stays. The file `hub` describes the folder, the file
//! `lock` keeps others out, and the files `log.count` and `data.count` notice when sled forgets something.
//!
//! ```
//! # fn main() -> Result<(), steadfast_store::StoreError> {
//! # let folder = tempfile::tempdir().unwrap();
//! use steadfast_core::{PartitionId, Position};
//! use steadfast_store::{LogRecord, Store};
//! use steadfast_store_sled::{SledOptions, SledStore};
//!
//! let store = SledStore::open(folder.path(), SledOptions::default())?;
//! let bytes = b"a record".as_slice().into();
//! store.append(&[LogRecord { partition: PartitionId(0), position: Position(1), bytes }])?;
//! drop(store);
//!
//! let store = SledStore::open(folder.path(), SledOptions::default())?;
//! store.read_log(PartitionId(0), Position::ZERO, &mut |position, bytes| {
//!     assert_eq!((position, &bytes[..]), (Position(1), &b"a record"[..]));
//!     Ok(())
//! })?;
//! # Ok(())
//! # }
//! ```

mod cleaning;
mod database;
mod directory;
mod error;
mod format;
mod instances;
mod keys;
mod log;
mod open;
mod options;
mod pieces;
mod rows;
mod space;
mod store;
mod syncer;
mod tree;
mod witness;

pub use options::{DataSync, Fdatasync, SledOptions, SpaceProbe, Statvfs};
pub use store::SledStore;
