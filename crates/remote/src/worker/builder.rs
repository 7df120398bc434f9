//! Building a worker.

use std::fmt;
use std::sync::Arc;

use steadfast_core::VersionOptions;
use steadfast_core::model::{
    ActivityMiddleware, Converter, DataConverter, DuplicateRegistration, EntityMiddleware, OnNonDeterminism,
    Register, Registry, TurnMiddleware,
};
use steadfast_engine::{HubOptions, PerKind};

use super::code::Code;
use super::profile::Profile;
use super::turns::Turns;
use super::{Protocol, Shared, Worker};
use crate::address::Server;
use crate::error::ConnectError;

/// How many items of each kind a worker has at a time, if nothing is said.
const PLACES: usize = 512;

/// How many sessions a worker keeps, if nothing is said.
const SESSIONS: usize = 10_000;

/// Collects what a worker is to run and how, and starts it.
pub struct WorkerBuilder {
    server: Server,
    registry: Registry,
    duplicate: Option<DuplicateRegistration>,
    name: String,
    places: PerKind<usize>,
    payload_bytes_max: usize,
    threads: usize,
    sessions: usize,
    protocol: Protocol,
}

impl WorkerBuilder {
    pub(super) fn new(server: Server) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            server,
            registry: Registry::default(),
            duplicate: None,
            name: format!("{}-{}", env!("CARGO_PKG_NAME"), std::process::id()),
            places: PerKind { orchestrations: PLACES, activities: PLACES, entities: PLACES },
            payload_bytes_max: HubOptions::default().payload_bytes_max,
            threads,
            sessions: SESSIONS,
            protocol: Protocol::default(),
        }
    }

    /// Registers an orchestration, an activity or an entity. A name that is taken is reported by [`WorkerBuilder::start`].
    pub fn register(mut self, code: impl Register) -> Self {
        if let Err(duplicate) = code.register(&mut self.registry) {
            self.duplicate.get_or_insert(duplicate);
        }
        self
    }

    /// Which versions of instances this worker takes. Those that it does not take wait for another worker, or fail, as the
    /// options say. Under which version an instance begins is decided by who starts it.
    pub fn versions(mut self, versions: VersionOptions) -> Self {
        self.registry.set_versions(versions);
        self
    }

    /// What becomes of an instance whose code turns out to disagree with its history. Without a call it fails. One that is
    /// parked is given back, and offered again to this and to other workers.
    pub fn on_nondeterminism(mut self, what: OnNonDeterminism) -> Self {
        self.registry.set_on_nondeterminism(what);
        self
    }

    /// Puts middleware around the turns of all orchestrations. What was added first is outermost.
    pub fn turn_middleware(mut self, middleware: impl TurnMiddleware) -> Self {
        self.registry.add_turn_middleware(Arc::new(middleware));
        self
    }

    /// Puts middleware around the batches of operations of all entities. What was added first is outermost.
    pub fn entity_middleware(mut self, middleware: impl EntityMiddleware) -> Self {
        self.registry.add_entity_middleware(Arc::new(middleware));
        self
    }

    /// Puts middleware around all activities. What was added first is outermost.
    pub fn activity_middleware(mut self, middleware: impl ActivityMiddleware) -> Self {
        self.registry.add_activity_middleware(Arc::new(middleware));
        self
    }

    /// Replaces the data converter, JSON by default. Clients and other workers of the hub must have the same.
    pub fn data_converter(mut self, converter: impl DataConverter) -> Self {
        self.registry.set_converter(Converter::new(converter));
        self
    }

    /// The name under which the server knows the worker, in its log and in the state of the hub.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// How many items of each kind the worker has at a time; 512 without a call. With 0 it gets none of that kind.
    pub fn places(self, places: PerKind<usize>) -> Self {
        Self { places, ..self }
    }

    /// How large a result or an input may be, in bytes; 16 MiB without a call. The hub has a limit of its own.
    pub fn payload_bytes_max(self, bytes: usize) -> Self {
        Self { payload_bytes_max: bytes, ..self }
    }

    /// How many threads run orchestrations; as many as there are cores without a call.
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// How many instances the worker keeps in memory from one turn to the next, so that they need no replay; 10,000 without a
    /// call. The standard protocol knows nothing of that.
    pub fn sessions(self, sessions: usize) -> Self {
        Self { sessions, ..self }
    }

    /// Which protocol the worker speaks; the best that the server has, without a call.
    pub fn protocol(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// Starts the worker. It connects in the background, as often as is necessary. Activities and entities run on the tokio
    /// runtime in which this is called.
    ///
    /// # Errors
    /// When a name was registered twice, the address cannot be used, or there are no threads.
    pub async fn start(self) -> Result<Worker, ConnectError> {
        if let Some(duplicate) = self.duplicate {
            return Err(duplicate.into());
        }
        let link = self.server.link()?;
        let profile = Profile::new(self.name, self.places, &self.registry);
        let code = Code::new(self.registry, self.payload_bytes_max);
        let turns = Turns::start(self.threads, self.sessions)
            .map_err(|error| ConnectError::Threads { problem: error.to_string() })?;
        Ok(Worker::start(Shared { link, code, turns }, profile, self.protocol))
    }
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder").field("server", &self.server).finish_non_exhaustive()
    }
}
