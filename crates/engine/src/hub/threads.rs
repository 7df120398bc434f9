//! The hub's threads: one that carries the actix system and supervises, arbiters for the partitions, and the store's.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix::{Actor, Arbiter, System};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use steadfast_core::PartitionId;
use steadfast_core::codec::compress_payloads_from;
use steadfast_core::model::Registry;
use steadfast_core::partition::{Partition, PartitionOptions};
use steadfast_store::{Store, StoreError, bridge};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{REBUILD_DELAY_MAX, REBUILD_DELAY_MIN, REBUILD_FORGIVEN_AFTER, Routes};
use crate::clock::Clock;
use crate::error::HubError;
use crate::options::HubOptions;
use crate::partition::{Dispatcher, Limits, PartitionActor, PartitionContext, PartitionFailure, Tick};
use crate::storage::Storage;
use crate::workers::Workers;

/// All threads of a running hub.
pub(super) struct HubThreads {
    shutdown: oneshot::Sender<()>,
    system: JoinHandle<()>,
    storage: Storage,
    storage_threads: Vec<JoinHandle<()>>,
}

impl HubThreads {
    /// Recovers all partitions and starts everything; returns when all partitions are ready.
    pub(super) fn start(
        store: &Arc<dyn Store>,
        routes: &Arc<Routes>,
        options: Arc<HubOptions>,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
        workers: Option<Workers>,
    ) -> Result<Self, HubError> {
        let threads_failed = |error: std::io::Error| HubError::Threads { problem: error.to_string() };
        let machines = recover_all(&**store, routes.partitions(), &options)?;
        let (storage, storage_threads) =
            Storage::start(store.clone(), options.compress_payloads_from).map_err(threads_failed)?;
        let limits = Limits::new(&options.activity_limits, routes, clock.now());
        let runner = Dispatcher {
            registry: registry.clone(),
            runtime: runtime.clone(),
            payload_bytes_max: options.payload_bytes_max,
            slots: Arc::new(Semaphore::new(options.concurrent_activities_max.min(Semaphore::MAX_PERMITS))),
        };
        let clock_flows = !announce_jumps(&*clock, routes, workers.as_ref());
        if let Some(workers) = &workers {
            workers.keep_time(&runtime, clock_flows);
        }
        let (failures, failed) = mpsc::unbounded_channel();
        let shared = PartitionContext {
            options,
            registry,
            clock,
            clock_flows,
            storage: storage.clone(),
            runtime,
            runner: Arc::new(runner),
            limits,
            workers,
            routes: routes.clone(),
            failures,
        };
        let (shutdown, shut_down) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let system = std::thread::Builder::new()
            .name("steadfast-system".to_owned())
            .spawn(move || {
                System::new().block_on(async move {
                    let supervisor = Supervisor::new(shared);
                    for machine in machines {
                        supervisor.start(machine).await;
                    }
                    let _ = ready.send(());
                    supervisor.run(failed, shut_down).await;
                    supervisor.join();
                });
            })
            .map_err(threads_failed)?;
        is_ready.recv().map_err(|_| HubError::Threads {
            problem: "the partitions' threads died at the start".to_owned(),
        })?;
        Ok(Self { shutdown, system, storage, storage_threads })
    }

    /// Ends all threads and waits for them.
    pub(super) fn join(self) -> Result<(), HubError> {
        drop(self.shutdown);
        let mut died = self.system.join().is_err();
        self.storage.close();
        for thread in self.storage_threads {
            died |= thread.join().is_err();
        }
        if died {
            return Err(HubError::Threads {
                problem: "a thread of the hub had panicked; see the log".to_owned(),
            });
        }
        Ok(())
    }
}

/// A clock that jumps wakes all partitions when it does; false for one that flows.
fn announce_jumps(clock: &dyn Clock, routes: &Arc<Routes>, workers: Option<&Workers>) -> bool {
    let routes = Arc::downgrade(routes);
    let tick_workers = workers.map(Workers::ticker);
    clock.on_jump(Box::new(move || {
        if let Some(tick) = &tick_workers {
            tick();
        }
        if let Some(routes) = routes.upgrade() {
            routes.all().iter().for_each(|address| address.do_send(Tick));
        }
    }))
}

fn recover_all(store: &dyn Store, count: u16, options: &HubOptions) -> Result<Vec<Partition>, StoreError> {
    let recovered: Vec<_> = std::thread::scope(|scope| {
        let recover = |id| scope.spawn(move || recover_partition(store, PartitionId(id), count, options));
        (0..count)
            .map(recover)
            .collect::<Vec<_>>()
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect()
    });
    let panicked =
        |_| StoreError::Io { doing: "recovering", problem: "a recovery panicked; see the log".to_owned() };
    recovered.into_iter().map(|joined| joined.map_err(panicked)?).collect()
}

fn recover_partition(
    store: &dyn Store,
    id: PartitionId,
    count: u16,
    options: &HubOptions,
) -> Result<Partition, StoreError> {
    let options = PartitionOptions {
        extended_sessions: options.extended_sessions,
        session_idle_timeout: options.session_idle_timeout,
        resident_sessions_max: options.resident_sessions_max.div_ceil(usize::from(count)).max(1),
        materialise_after_bytes: options.materialise_after_bytes,
        overlay_bytes_max: options.overlay_bytes_max,
        turn_crashes_max: options.turn_crashes_max,
        turn_retry_delay: options.turn_retry_delay,
        instance_messages_max: options.instance_messages_max,
        history_events_max: options.history_events_max,
        history_bytes_max: options.history_bytes_max,
        history_warning_percent: options.history_warning_percent,
        ..PartitionOptions::new(id, count)
    };
    bridge::recover_partition(store, options)
}

/// Starts partition actors, and builds those anew that failed (invariant I5): never from what is in memory.
struct Supervisor {
    shared: PartitionContext,
    arbiters: Vec<Arbiter>,
}

impl Supervisor {
    fn new(shared: PartitionContext) -> Self {
        let partitions = usize::from(shared.routes.partitions());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let arbiters = (0..partitions.min(cores)).map(|_| Arbiter::new()).collect();
        Self { shared, arbiters }
    }

    async fn start(&self, machine: Partition) {
        let arbiter = &self.arbiters[usize::from(machine.id().0) % self.arbiters.len()];
        let shared = self.shared.clone();
        let (started, is_started) = oneshot::channel();
        arbiter.spawn_fn(move || {
            compress_payloads_from(shared.options.compress_payloads_from);
            PartitionActor::new(machine, shared).start();
            let _ = started.send(());
        });
        let _ = is_started.await;
    }

    async fn run(
        &self,
        mut failed: mpsc::UnboundedReceiver<PartitionFailure>,
        mut shut_down: oneshot::Receiver<()>,
    ) {
        let mut delays: HashMap<PartitionId, (Duration, Instant)> = HashMap::new();
        let mut rebuilds = FuturesUnordered::new();
        loop {
            tokio::select! {
                _ = &mut shut_down => return,
                Some(failure) = failed.recv() => {
                    let now = Instant::now();
                    let (delay, last) = delays.entry(failure.partition).or_insert((REBUILD_DELAY_MIN, now));
                    if now.duration_since(*last) > REBUILD_FORGIVEN_AFTER {
                        *delay = REBUILD_DELAY_MIN;
                    }
                    rebuilds.push(self.rebuild_after(failure, *delay));
                    (*delay, *last) = ((*delay * 2).min(REBUILD_DELAY_MAX), now);
                }
                Some(()) = rebuilds.next() => {}
            }
        }
    }

    async fn rebuild_after(&self, failure: PartitionFailure, delay: Duration) {
        tokio::time::sleep(delay).await;
        match self.rebuild(failure.partition).await {
            Ok(machine) => self.start(machine).await,
            Err(error) => {
                tracing::error!(partition = %failure.partition, %error, "the partition cannot be rebuilt yet");
                let _ = self.shared.failures.send(failure);
            }
        }
    }

    /// What the actor that failed had handed to the store's threads is let through first, or it would change the store
    /// behind the new actor's back. What a failed append wrote may be in the log without being durable, so it is made
    /// so before it is read.
    async fn rebuild(&self, partition: PartitionId) -> Result<Partition, StoreError> {
        let (storage, options) = (self.shared.storage.clone(), self.shared.options.clone());
        let rebuilt = tokio::task::spawn_blocking(move || {
            storage.wait_for_writes();
            let store = &*storage.store;
            store.recover()?;
            store.flush()?;
            recover_partition(store, partition, store.info().partitions, &options)
        });
        let panicked = |error: tokio::task::JoinError| StoreError::Io {
            doing: "recovering",
            problem: error.to_string(),
        };
        rebuilt.await.map_err(panicked)?
    }

    fn join(self) {
        for arbiter in self.arbiters {
            arbiter.stop();
            let _ = arbiter.join();
        }
    }
}
