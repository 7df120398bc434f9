//! The actix shell around the kernel: partition actors, instance actors, the log writer, the materialiser, the
//! activity dispatcher, the hub that owns them and the client that talks to them.
//!
//! An actor here decodes what comes in, hands it to the kernel and performs what the kernel returns. It takes no
//! decisions of its own, and it must not know how a store works or what is in an event.

mod client;
mod clock;
mod error;
mod hub;
mod options;
mod partition;
mod storage;
mod trace;
mod workers;

pub use client::{
    CleanedEntities, Client, Ended, EndedPage, EndedQuery, EntityCleaning, EntityMetadata, EntityPage,
    EntityQuery, InstanceQuery, InvalidPageToken, Page, PageToken, PurgeResult, PurgedTree, RawClient,
    RestartOptions, Run, StartOptions, Started,
};
pub use clock::{Clock, SystemClock};
pub use error::{ClientError, HubError};
pub use hub::{Hub, HubBuilder};
pub use options::HubOptions;
pub use partition::{ActivityProgress, ActivityState};
pub use workers::{
    Delivered, EntityAnswer, EntityWork, NameFilter, PerKind, Resident, WorkFilters, WorkItem, WorkKind,
    WorkResult, WorkerConnection, WorkerProfile, Workers, WorkersOptions, WorkersStatus,
};
