//! A whole task hub in one thread, in virtual time, whose every step is chosen by a seed.
//!
//! A [`Simulation`] drives what the runtime's shell drives: partition machines, a session for each resident instance,
//! the log, the materialiser, activities, the links between partitions and a client. Each step is one small thing (run
//! a turn, append to the log, perform an effect, deliver a message, ...), so a test can stop after any of them, crash
//! the hub there, and see it recover:
//!
//! ```
//! use steadfast_core::model::{ActivityContext, OrchestrationContext, activity, orchestration};
//! use steadfast_core::{OrchestrationStatus, Result};
//! use steadfast_testkit::{Simulation, SimulationOptions};
//!
//! let greet = activity("greet", |_: ActivityContext, city: String| async move { Result::<_>::Ok(format!("Hello, {city}!")) });
//! let call = greet.handle();
//! let hello = orchestration("hello", move |ctx: OrchestrationContext, city: String| {
//!     let call = call.clone();
//!     async move { Result::<_>::Ok(ctx.call(call, city).await?) }
//! });
//!
//! let mut hub = Simulation::new(SimulationOptions::default());
//! hub.register(greet);
//! hub.register(hello);
//! hub.start("hello", "hello-1", &"Tokyo");
//! hub.run_steps(12);
//! hub.crash_and_recover();
//! hub.finish();
//!
//! let state = hub.state("hello-1").unwrap();
//! assert_eq!(state.status, OrchestrationStatus::Completed);
//! assert_eq!(state.output.unwrap().as_str(), "\"Hello, Tokyo!\"");
//! ```
//!
//! What the runtime promises is checked on the way: no effect before its record is durable, one turn of an instance at
//! a time, well-formed histories that replay, nothing left over at the end.

mod activities;
mod checks;
mod client;
mod crash;
mod network;
mod node;
mod options;
mod step;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use steadfast_core::model::{Register, Registry};
use steadfast_core::partition::{Partition, PartitionCounts, Poison, Token};
use steadfast_core::{EventKind, HistoryEvent, IdReuse, InstanceId, InstanceState, Payload, Timestamp};
use steadfast_store::{LogRecord, MemoryStore, Store, bridge};

pub use self::checks::EndState;
pub use self::client::{Answer, Request};
pub use self::options::{Schedule, SimulationOptions};

use self::activities::Activities;
use self::client::{Client, Gate, Wanted};
use self::network::Network;
use self::node::Node;
use crate::SplitMix64;

/// More steps than this mean that the hub never comes to rest.
const STEPS_MAX: u64 = 5_000_000;

/// A whole task hub: see the module's documentation.
pub struct Simulation {
    options: SimulationOptions,
    registry: Arc<Registry>,
    store: MemoryStore,
    now: Timestamp,
    random: SplitMix64,
    nodes: Vec<Node>,
    network: Network,
    activities: Activities,
    client: Client,
    /// Records handed in and not appended, in that order.
    log: VecDeque<LogRecord>,
    /// Answers to reads.
    states: BTreeMap<Token, Option<Arc<InstanceState>>>,
    steps: u64,
    crashes: u64,
    /// In rounds: which kind of step is being done.
    round: usize,
    /// How often in a row messages had to be sent again.
    resends: u32,
    possible: Vec<step::Step>,
}

impl Simulation {
    /// A new, empty hub.
    pub fn new(options: SimulationOptions) -> Self {
        let store = MemoryStore::new(options.partitions);
        Self::over(store, options)
    }

    /// A hub over a store, as after a restart of the program.
    ///
    /// # Panics
    /// When the store cannot be read.
    pub fn over(store: MemoryStore, options: SimulationOptions) -> Self {
        let mut simulation = Self {
            registry: Arc::default(),
            store,
            now: Timestamp::from_micros(1_700_000_000_000_000),
            random: SplitMix64::new(options.seed),
            nodes: Vec::new(),
            network: Network::default(),
            activities: Activities::default(),
            client: Client::new(),
            log: VecDeque::new(),
            states: BTreeMap::new(),
            steps: 0,
            crashes: 0,
            round: 0,
            resends: 0,
            possible: Vec::new(),
            options,
        };
        simulation.recover_all();
        simulation
    }

    /// Registers an orchestration or an activity. Activities of a simulation must not wait for anything.
    ///
    /// # Panics
    /// When its name and version is taken.
    pub fn register(&mut self, definition: impl Register) {
        definition.register(Arc::make_mut(&mut self.registry)).expect("the name and version is free");
    }

    /// Plans the start of an instance. An id that begins with `fresh-` is taken to be one that the runtime made.
    ///
    /// # Panics
    /// When the input has no JSON form.
    pub fn start(&mut self, name: &str, instance: &str, input: &(impl Serialize + ?Sized)) -> Request {
        self.client.plan_start(name, instance, payload(input), None)
    }

    /// Plans the start of an instance that is not to begin before `delay` has passed.
    ///
    /// # Panics
    /// When the input has no JSON form.
    pub fn start_later(
        &mut self,
        name: &str,
        instance: &str,
        input: &(impl Serialize + ?Sized),
        delay: Duration,
    ) -> Request {
        self.client.plan_start(name, instance, payload(input), Some(delay))
    }

    /// Says what a planned start does if its id is in use.
    pub fn reusing(&mut self, start: Request, reuse: IdReuse) -> Request {
        self.client.set_reuse(start, reuse);
        start
    }

    /// Plans an external event.
    ///
    /// # Panics
    /// When the event has no JSON form.
    pub fn raise(&mut self, instance: &str, name: &str, event: &(impl Serialize + ?Sized)) -> Request {
        let kind = EventKind::EventRaised { name: name.into(), input: payload(event), trace: None };
        self.client.plan(instance, Wanted::Message(kind))
    }

    /// Plans a signal to an entity.
    ///
    /// # Panics
    /// When the input has no JSON form, or the id is not one of an entity.
    pub fn signal(&mut self, entity: &str, operation: &str, input: &(impl Serialize + ?Sized)) -> Request {
        self.client.plan_signal(entity, operation, payload(input), None)
    }

    /// Plans a signal that is to be delivered when `delay` has passed.
    ///
    /// # Panics
    /// When the input has no JSON form, or the id is not one of an entity.
    pub fn signal_later(
        &mut self,
        entity: &str,
        operation: &str,
        input: &(impl Serialize + ?Sized),
        delay: Duration,
    ) -> Request {
        self.client.plan_signal(entity, operation, payload(input), Some(delay))
    }

    /// Plans a termination.
    pub fn terminate(&mut self, instance: &str, recurse: bool) -> Request {
        let kind = EventKind::ExecutionTerminated { reason: "terminated by the test".into(), recurse };
        self.client.plan(instance, Wanted::Message(kind))
    }

    /// Plans a suspension.
    pub fn suspend(&mut self, instance: &str) -> Request {
        let kind = EventKind::ExecutionSuspended { reason: "suspended by the test".into() };
        self.client.plan(instance, Wanted::Message(kind))
    }

    /// Plans a resumption.
    pub fn resume(&mut self, instance: &str) -> Request {
        let kind = EventKind::ExecutionResumed { reason: "resumed by the test".into() };
        self.client.plan(instance, Wanted::Message(kind))
    }

    /// Plans that an instance which has failed goes on from before its failure.
    pub fn rewind(&mut self, instance: &str) -> Request {
        let kind = EventKind::ExecutionRewound { reason: "rewound by the test".into(), child: None };
        self.client.plan(instance, Wanted::Message(kind))
    }

    /// Plans the removal of an instance.
    pub fn purge(&mut self, instance: &str) -> Request {
        self.client.plan(instance, Wanted::Purge)
    }

    /// Plans the release of an instance whose turns crashed.
    pub fn release(&mut self, instance: &str) -> Request {
        self.client.plan(instance, Wanted::Release)
    }

    /// What is planned from here on waits until everything before is answered.
    pub fn when_answered(&mut self) {
        self.client.begin_phase(Gate::Answered);
    }

    /// What is planned from here on waits until nothing can happen without time passing.
    pub fn when_idle(&mut self) {
        self.client.begin_phase(Gate::Idle);
    }

    /// What is planned from here on waits until nothing will happen any more.
    pub fn when_at_rest(&mut self) {
        self.client.begin_phase(Gate::Rest);
    }

    /// The answer to a call, once there is one.
    pub fn answer(&self, request: Request) -> Option<&Answer> {
        self.client.answer(request)
    }

    /// Performs at most `steps` steps; false when the hub came to rest before.
    pub fn run_steps(&mut self, steps: u64) -> bool {
        (0..steps).all(|_| self.step())
    }

    /// Runs until nothing will happen any more.
    ///
    /// # Panics
    /// When that never comes, or something that the runtime promises does not hold.
    pub fn run(&mut self) {
        while self.step() {
            assert!(
                self.steps < STEPS_MAX,
                "the hub does not come to rest; unanswered: {:?}",
                self.client.unanswered()
            );
        }
    }

    /// Runs until nothing will happen any more, writes everything into the instance store, and checks that nothing is
    /// stuck or left over and that every history is well formed and replays.
    ///
    /// # Panics
    /// When it is not so.
    pub fn finish(&mut self) {
        self.run();
        loop {
            let crashes = self.crashes;
            for node in &mut self.nodes {
                node.partition.want_materialisation();
                node.touched();
            }
            self.run();
            // A partition that was built anew has forgotten what was wanted of it.
            if self.crashes == crashes {
                break;
            }
        }
        self.check_at_rest();
    }

    /// How many steps were performed.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How many crashes there were.
    pub fn crashes(&self) -> u64 {
        self.crashes
    }

    /// The virtual time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The store, to script faults with. A crash replaces it by its image.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// What each partition holds in memory.
    pub fn counts(&self) -> Vec<PartitionCounts> {
        self.nodes.iter().map(|node| node.partition.counts()).collect()
    }

    /// From now on so many of 100 turns crash.
    pub fn set_crashed_turns(&mut self, percent: u8) {
        self.options.crashed_turns = percent;
    }

    /// The instances whose last turn crashed.
    pub fn poisoned(&self) -> Vec<(InstanceId, Poison)> {
        self.nodes.iter().flat_map(|node| node.partition.poisoned()).collect()
    }

    /// Whether everything that the partitions know is durable.
    pub fn is_durable(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| node.partition.is_settled() && node.handed_in == node.partition.durable())
    }

    /// How often each activity call was run, by its idempotency key.
    pub fn activity_runs(&self) -> &BTreeMap<String, u32> {
        &self.activities.runs
    }

    /// An instance's state, read as a client reads it.
    ///
    /// # Panics
    /// When the store fails.
    pub fn state(&mut self, instance: &str) -> Option<InstanceState> {
        let instance = InstanceId::from_trusted(instance);
        let token = self.client.token();
        let node = self.node_of(&instance);
        if !self.nodes[node].partition.read_state(token, &instance) {
            let stored = self.reader().load_instance(&instance).expect("the store reads");
            return stored.map(|stored| bridge::instance_state(&stored).expect("the state can be read"));
        }
        self.nodes[node].touched();
        while !self.states.contains_key(&token) {
            assert!(self.step(), "a read of {instance} is never answered");
        }
        self.states.remove(&token).flatten().map(|state| (*state).clone())
    }

    /// An instance's history, as far as it is known now.
    ///
    /// # Panics
    /// When the store fails.
    pub fn history(&mut self, instance: &str) -> Vec<HistoryEvent> {
        let instance = InstanceId::from_trusted(instance);
        let node = self.node_of(&instance);
        let token = self.client.token();
        let store = self.reader();
        let history = read_history(&mut self.nodes[node].partition, &store, token, &instance);
        self.nodes[node].touched();
        history
    }

    /// What the store holds, without the faults that are scripted for the hub.
    fn reader(&self) -> MemoryStore {
        self.store.reopen()
    }

    fn node_of(&self, instance: &InstanceId) -> usize {
        usize::from(instance.partition(self.options.partitions).0)
    }
}

fn payload(value: &(impl Serialize + ?Sized)) -> Payload {
    Payload::encode(value).expect("the value has a JSON form")
}

fn read_history(
    partition: &mut Partition,
    store: &dyn Store,
    token: Token,
    instance: &InstanceId,
) -> Vec<HistoryEvent> {
    let pieces = partition.read_history(token, instance).unwrap_or_default();
    let stored = store.load_history(instance).expect("the store reads");
    bridge::history_events(instance, &stored, &pieces).expect("the history can be read")
}
