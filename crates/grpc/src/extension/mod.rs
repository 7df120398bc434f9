//! Steadfast's own protocol for Rust programs. Workers get the same work as over the standard protocol, in batches, with the core's
//! types whole, and if they keep sessions only what is new of a history. Clients make the same calls, many in a message.

mod calls;
mod message;
mod service;
mod sound;

pub use calls::BATCHED_MESSAGE_BYTES_MAX;
pub(crate) use calls::{acceptance, refusal};
pub use message::{
    FORMAT, Item, Past, Profile, Report, decode_items, decode_profile, decode_reports, encode_item,
    encode_profile, encode_report,
};
pub use service::WorkerLinkService;

pub use crate::serve::batched_method;

/// How large a message becomes, in bytes, before what is left goes into another one; a single item may be larger.
pub const BATCH_BYTES: usize = 1 << 20;
