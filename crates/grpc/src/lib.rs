//! The Durable Task gRPC protocol: the messages that the SDKs of other languages exchange with a task hub, their
//! conversions to and from the core's vocabulary, and `TaskHubSidecarService` on tonic over the engine's client.
//!
//! Wire types stop here: no other crate sees them. This crate must not know how a hub is configured, which store it
//! runs on, or how a turn is taken.

pub mod convert;
pub mod extension;
pub mod framing;
mod serve;
mod service;
pub mod wire;

pub use serve::{
    Access, Denied, HubName, Hubs, HubsError, InvalidHubName, Limits, ListenError, Listeners, OpenAccess,
    Role, ServeError, ServeOptions, Tls, TlsError, TlsFiles, serve, socket_addresses,
};
pub use service::{MESSAGE_BYTES_MAX, TaskHubService, had_ended};
