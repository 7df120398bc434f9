//! The worker: runs the code of a served hub in this process.

mod builder;
mod code;
mod standard;
mod turns;

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use builder::WorkerBuilder;

use crate::address::{Link, Server};
use code::Code;
use turns::Turns;

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

/// An item that is under way. The worker ends when there is none.
#[derive(Clone)]
struct UnderWay {
    _held: mpsc::Sender<Infallible>,
}

impl Worker {
    /// Collects what the worker is to run and how.
    pub fn builder(server: impl Into<Server>) -> WorkerBuilder {
        WorkerBuilder::new(server.into())
    }

    fn start(shared: Shared, profile: standard::Profile) -> Self {
        let (stop, stopping) = watch::channel(false);
        let ended = tokio::spawn(standard::work(Arc::new(shared), profile, stopping));
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
