//! The threads that talk to the store, so that no actor ever waits for it.

mod loader;
mod log_writer;
mod materialiser;
mod queue;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use steadfast_core::FailureDetails;
use steadfast_core::codec::compress_payloads_from;
use steadfast_store::{Store, StoreError};

pub(crate) use loader::LoadRequest;
pub(crate) use log_writer::AppendRequest;
pub(crate) use materialiser::MaterialiseRequest;
use queue::Queue;

/// How far the materialiser steps back, from 0 to 19. With 15 it gets a thirtieth of what others get that want the processor.
#[cfg(target_os = "linux")]
const MATERIALISER_NICENESS: i32 = 15;

/// The store's threads and how to reach them.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) store: Arc<dyn Store>,
    appends: Arc<Queue<AppendRequest>>,
    materialisations: Arc<Queue<MaterialiseRequest>>,
    loads: Arc<Queue<LoadRequest>>,
}

impl Storage {
    /// Starts the threads. They end after [`Storage::close`].
    pub(crate) fn start(
        store: Arc<dyn Store>,
        compress_from: usize,
    ) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let storage =
            Self { store, appends: Queue::new(), materialisations: Queue::new(), loads: Queue::new() };
        let threads = vec![
            spawn("steadfast-log", storage.clone(), |storage| {
                log_writer::run(&*storage.store, &storage.appends)
            })?,
            spawn("steadfast-materialise", storage.clone(), move |storage| {
                step_back();
                // States are encoded here.
                compress_payloads_from(compress_from);
                materialiser::run(&*storage.store, &storage.materialisations);
            })?,
            spawn("steadfast-load", storage.clone(), |storage| loader::run(&*storage.store, &storage.loads))?,
        ];
        Ok((storage, threads))
    }

    /// Hands a record to the log writer.
    pub(crate) fn append(&self, request: AppendRequest) {
        self.appends.push(request);
    }

    /// Hands a capture to the materialiser.
    pub(crate) fn materialise(&self, request: MaterialiseRequest) {
        self.materialisations.push(request);
    }

    /// Asks for an instance to be read.
    pub(crate) fn load(&self, request: LoadRequest) {
        self.loads.push(request);
    }

    /// Blocks until nothing of what was asked for so far can change the store any more.
    pub(crate) fn wait_for_writes(&self) {
        self.appends.wait_for_present();
        self.materialisations.wait_for_present();
    }

    /// Lets the threads finish what is queued and end.
    pub(crate) fn close(&self) {
        self.appends.close();
        self.materialisations.close();
        self.loads.close();
    }
}

/// Calls the store. A panic in it is an error like any other: the thread must go on, or everybody would wait for ever.
fn call<T>(doing: &'static str, store: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(store)).unwrap_or_else(|panic| {
        let problem = FailureDetails::from_panic(&*panic).to_string();
        Err(StoreError::Io { doing, problem })
    })
}

/// Lets the other threads go first: what this one does has time, and takes the processor for tens of milliseconds. Where it
/// cannot be had, it does without.
fn step_back() {
    // Elsewhere this would concern the whole process.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, MATERIALISER_NICENESS);
}

fn spawn(
    name: &str,
    storage: Storage,
    run: impl FnOnce(&Storage) + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&storage))
}
