//! Building and starting a hub.

use std::sync::Arc;

use steadfast_core::model::{
    ActivityMiddleware, Converter, DataConverter, DuplicateRegistration, EntityMiddleware, OnNonDeterminism,
    Register, Registry, TurnMiddleware,
};
use steadfast_core::{VersionOptions, log_event};
use steadfast_store::{CodedStore, StorageCodec, Store, StoreError};

use super::threads::HubThreads;
use super::{Hub, Routes};
use crate::client::Client;
use crate::clock::{Clock, SystemClock};
use crate::error::HubError;
use crate::options::HubOptions;
use crate::workers::{Workers, WorkersOptions};

type OpenStore = Box<dyn FnOnce(Option<u16>) -> Result<Arc<dyn Store>, StoreError> + Send>;

/// Collects what a hub is to run and how, and starts it.
pub struct HubBuilder {
    open: OpenStore,
    registry: Registry,
    duplicate: Option<DuplicateRegistration>,
    partitions: Option<u16>,
    options: HubOptions,
    clock: Arc<dyn Clock>,
    codec: Option<Arc<dyn StorageCodec>>,
    workers: Option<WorkersOptions>,
}

impl HubBuilder {
    /// A hub on the store that `open` opens; it is given the number of partitions asked for, if one was.
    pub fn new(
        open: impl FnOnce(Option<u16>) -> Result<Arc<dyn Store>, StoreError> + Send + 'static,
    ) -> Self {
        Self {
            open: Box::new(open),
            registry: Registry::default(),
            duplicate: None,
            partitions: None,
            options: HubOptions::default(),
            clock: Arc::new(SystemClock),
            codec: None,
            workers: None,
        }
    }

    /// Registers an orchestration or an activity. A name that is taken is reported by [`HubBuilder::start`].
    pub fn register(mut self, code: impl Register) -> Self {
        if let Err(duplicate) = code.register(&mut self.registry) {
            self.duplicate.get_or_insert(duplicate);
        }
        self
    }

    /// Which versions of instances this process takes, and under which version those begin that are started without
    /// one. Without a call it takes all.
    pub fn versions(mut self, versions: VersionOptions) -> Self {
        self.registry.set_versions(versions);
        self
    }

    /// What becomes of an instance whose code turns out to disagree with its history. Without a call it fails.
    pub fn on_nondeterminism(mut self, what: OnNonDeterminism) -> Self {
        self.registry.set_on_nondeterminism(what);
        self
    }

    /// How many partitions a new hub gets (at least 1). An existing hub keeps its number, and asking for another one
    /// is an error.
    pub fn partitions(mut self, partitions: u16) -> Self {
        self.partitions = Some(partitions.max(1));
        self
    }

    /// Replaces all settings.
    pub fn options(mut self, options: HubOptions) -> Self {
        self.options = options;
        self
    }

    /// Lets workers in other processes run the code that is not registered here; see [`Hub::workers`]. Without a call,
    /// instances whose code is not registered wait for a start of the hub with it.
    pub fn workers(mut self, options: WorkersOptions) -> Self {
        self.workers = Some(options);
        self
    }

    /// Replaces the clock, for tests that own time.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Puts middleware around the turns of all orchestrations, those included that workers take. What was added first is
    /// outermost.
    pub fn turn_middleware(mut self, middleware: impl TurnMiddleware) -> Self {
        self.registry.add_turn_middleware(Arc::new(middleware));
        self
    }

    /// Puts middleware around all activities that this process runs; those that workers run have only the workers' own. What was
    /// added first is outermost.
    pub fn activity_middleware(mut self, middleware: impl ActivityMiddleware) -> Self {
        self.registry.add_activity_middleware(Arc::new(middleware));
        self
    }

    /// Puts middleware around the batches of operations of all entities whose code this process runs; those that workers run have
    /// only the workers' own. What was added first is outermost.
    pub fn entity_middleware(mut self, middleware: impl EntityMiddleware) -> Self {
        self.registry.add_entity_middleware(Arc::new(middleware));
        self
    }

    /// Replaces the data converter, JSON by default. What was written before must stay readable.
    pub fn data_converter(mut self, converter: impl DataConverter) -> Self {
        self.registry.set_converter(Converter::new(converter));
        self
    }

    /// Sends everything that the hub stores through a codec, such as encryption at rest. A hub has to be created with
    /// it, and opened with one that reads what was written before.
    pub fn storage_codec(mut self, codec: impl StorageCodec) -> Self {
        self.codec = Some(Arc::new(codec));
        self
    }

    /// Opens the store, recovers the partitions and starts the actors. Activities will run on the tokio runtime in
    /// which this is called.
    ///
    /// # Errors
    /// When the store cannot be opened or read, a name was registered twice, options contradict one another, or there is
    /// no tokio runtime.
    pub async fn start(self) -> Result<Hub, HubError> {
        if let Some(duplicate) = self.duplicate {
            return Err(duplicate.into());
        }
        self.options.check().map_err(|problem| HubError::Options { problem })?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| HubError::Threads {
            problem: format!(
                "a hub is started within a tokio runtime, which then runs its activities: {error}"
            ),
        })?;
        let Self { open, mut registry, partitions, options, clock, codec, .. } = self;
        let workers = self.workers.map(|options| Workers::new(options, clock.clone()));
        if let Some(workers) = &workers {
            registry.set_other_entities(workers.entity_code());
        }
        let (options, registry) = (Arc::new(options), Arc::new(registry));
        let started = tokio::task::spawn_blocking(move || {
            let mut store = open(partitions)?;
            if let Some(codec) = codec {
                store = Arc::new(CodedStore::new(store, codec));
            }
            let routes = Arc::new(Routes::new(store.info().partitions, options.pending_calls_max));
            let client =
                Client::new(routes.clone(), store.clone(), registry.clone(), clock.clone(), options.clone());
            log_event!(WorkerStarting, partitions = store.info().partitions);
            let threads = HubThreads::start(
                &store,
                &routes,
                options.clone(),
                registry,
                clock,
                runtime,
                workers.clone(),
            )?;
            log_event!(WorkerStarted, partitions = store.info().partitions);
            let stop_timeout = options.stop_timeout;
            Ok(Hub { client, routes, store, threads: Some(threads), workers, stop_timeout })
        });
        started.await.map_err(|error| HubError::Threads { problem: error.to_string() })?
    }
}
