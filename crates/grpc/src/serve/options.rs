//! What can be set of a server.

use std::time::Duration;

use crate::service::MESSAGE_BYTES_MAX;

/// Bounds of what callers may take of a server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many connections may be open. Further ones are closed at once.
    pub connections: usize,
    /// How many calls may be under way on one connection. Further ones wait at the caller's.
    pub calls_per_connection: u32,
    /// How many calls may be under way at all, those that wait included. Further ones get `RESOURCE_EXHAUSTED`.
    pub calls: usize,
    /// How many workers may be connected. Further ones get `RESOURCE_EXHAUSTED`.
    pub worker_streams: usize,
    /// The largest message that is taken, in bytes.
    pub message_bytes: usize,
    /// How many bytes the messages may have together that have begun to come and are not there yet. Further ones get
    /// `RESOURCE_EXHAUSTED`. At least `message_bytes`.
    pub receiving_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            // Clients keep all their waits on one connection, and what they call beside them must not wait for those.
            calls_per_connection: 20_000,
            calls: 100_000,
            worker_streams: 2_000,
            message_bytes: MESSAGE_BYTES_MAX,
            receiving_bytes: 256 << 20,
        }
    }
}

/// Settings of a server.
#[derive(Debug, Clone, Copy)]
pub struct ServeOptions {
    /// Bounds of what callers may take.
    pub limits: Limits,
    /// How long a new connection may take until it speaks HTTP/2, TLS included.
    pub greeting_timeout: Duration,
    /// How long a message may take that has begun to come, and again for each MiB of it. What takes longer gets
    /// `DEADLINE_EXCEEDED`.
    pub message_timeout: Duration,
    /// How often an idle connection is asked whether somebody is still there; who does not answer in 20 seconds is gone.
    pub keepalive_interval: Duration,
    /// How long the calls under way may take to end when the server shuts down.
    pub drain_timeout: Duration,
    /// Whether the server describes its methods to whoever asks (gRPC reflection).
    pub reflection: bool,
    /// Whether workers and clients that are Rust programs may speak the extension that is made for them; without it they speak the
    /// standard protocol.
    pub worker_extension: bool,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            greeting_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(30),
            keepalive_interval: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            reflection: true,
            worker_extension: true,
        }
    }
}
