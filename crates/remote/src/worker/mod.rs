//! The worker: runs the code of a served hub in this process.

mod builder;
mod code;
mod connections;
mod extended;
mod outbox;
mod profile;
mod sessions;
mod standard;
mod turns;
mod under_way;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use builder::WorkerBuilder;

use crate::address::{Link, Server};
use code::Code;
use profile::Profile;
use turns::Turns;

/// Target of what a worker says in the log.
const TARGET: &str = "steadfast::worker";

/// Which protocol a worker speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Steadfast's own extension, if the server has it in the same version, and the standard protocol otherwise.
    #[default]
    Negotiated,
    /// The standard protocol, like SDKs of other languages.
    Standard,
}

/// A worker that is connected, or tries to be. Dropping it lets it go at once: what it has begun is done again by another one.
#[derive(Debug)]
pub struct Worker {
    stop: watch::Sender<bool>,
    ended: JoinHandle<()>,
}

/// What all items of a worker share.
struct Shared {
    link: Link,
    code: Code,
    turns: Turns,
}

impl Worker {
    /// Collects what the worker is to run and how.
    pub fn builder(server: impl Into<Server>) -> WorkerBuilder {
        WorkerBuilder::new(server.into())
    }

    fn start(shared: Shared, profile: Profile, protocol: Protocol) -> Self {
        let (stop, stopping) = watch::channel(false);
        let ended = tokio::spawn(connections::work(Arc::new(shared), profile, protocol, stopping));
        Self { stop, ended }
    }

    /// Takes no more work, and ends when what it has begun is done and the server knows of it.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // It ends in no other way than this; a panic in it was reported.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ended.abort();
    }
}
