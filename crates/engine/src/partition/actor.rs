//! The partition actor: owns a partition machine and performs what it returns.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context, SpawnHandle};
use foldhash::fast::FixedState;
use steadfast_core::model::Registry;
use steadfast_core::partition::{Partition, Token};
use steadfast_core::{InstanceMap, PartitionId, Timestamp};
use steadfast_store::StoreError;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::attempts::{ActivityRunner, Attempts};
use super::calls::PendingCall;
use super::instance::InstanceActor;
use super::limits::Limits;
use super::mail::Mail;
use super::messages::{Resend, Submit};
use super::waiters::Waiters;
use crate::clock::Clock;
use crate::hub::Routes;
use crate::options::HubOptions;
use crate::storage::Storage;
use crate::workers::Workers;

const MAILBOX_CAPACITY_MAX: usize = 1 << 20;

/// What all partition actors of a hub share.
#[derive(Clone)]
pub(crate) struct PartitionContext {
    pub(crate) options: Arc<HubOptions>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether due times are slept for, rather than announced by the clock.
    pub(crate) clock_flows: bool,
    pub(crate) storage: Storage,
    /// Where the code of entities waits for what is not ready at once.
    pub(crate) runtime: Handle,
    pub(crate) runner: Arc<dyn ActivityRunner>,
    pub(crate) limits: Arc<Limits>,
    /// Who runs code that is not registered, if anybody.
    pub(crate) workers: Option<Workers>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) failures: mpsc::UnboundedSender<PartitionFailure>,
}

/// A partition stopped because of an error and has to be built anew.
#[derive(Debug)]
pub(crate) struct PartitionFailure {
    pub(crate) partition: PartitionId,
}

/// Owns one control-queue partition. All its decisions are the machine's.
pub(crate) struct PartitionActor {
    pub(super) machine: Partition,
    pub(super) shared: PartitionContext,
    pub(super) instances: InstanceMap<ResidentActor>,
    /// Clients that wait for what they asked to become durable.
    pub(super) calls: HashMap<Token, PendingCall, FixedState>,
    pub(super) reads: HashMap<Token, PendingRead, FixedState>,
    pub(super) waiters: Waiters,
    pub(super) next_token: u64,
    /// Calls held back while the materialiser is behind; as many as there are permits at most.
    pub(super) held_back: VecDeque<Submit>,
    /// Activities that wait, and those that run.
    pub(super) attempts: Attempts,
    pub(super) tick: Option<(Timestamp, SpawnHandle)>,
    pub(super) materialise_tick: Option<SpawnHandle>,
    pub(super) stopping: Option<Stopping>,
    pub(super) failed: bool,
    /// A pump is on its way through the mailbox.
    pub(super) pump_due: bool,
    pub(super) mail: Mail,
    guard: FailureGuard,
}

/// The actor of an instance in memory.
pub(super) struct ResidentActor {
    pub(super) address: Addr<InstanceActor>,
    /// Tells it from others that the instance had before.
    pub(super) number: u64,
}

/// An answer that was found and waits until what it shows is durable.
pub(super) enum PendingRead {
    State(super::messages::Wait),
    Release(Box<dyn FnOnce(Result<(), StoreError>) + Send>),
}

pub(super) struct Stopping {
    pub(super) done: oneshot::Sender<()>,
    /// Running activities are no longer waited for.
    pub(super) overdue: bool,
}

/// Reports the partition as failed when the actor goes away in any way but a clean stop, a panic included.
struct FailureGuard {
    partition: PartitionId,
    routes: Arc<Routes>,
    failures: mpsc::UnboundedSender<PartitionFailure>,
    armed: bool,
}

impl Drop for FailureGuard {
    fn drop(&mut self) {
        if self.armed && !self.routes.is_closed() {
            self.routes.clear(self.partition);
            let _ = self.failures.send(PartitionFailure { partition: self.partition });
        }
    }
}

impl PartitionActor {
    pub(crate) fn new(machine: Partition, shared: PartitionContext) -> Self {
        let partitions = usize::from(shared.routes.partitions());
        let guard = FailureGuard {
            partition: machine.id(),
            routes: shared.routes.clone(),
            failures: shared.failures.clone(),
            armed: true,
        };
        let running_max = shared.options.concurrent_activities_max.div_ceil(partitions).max(1);
        let attempts = Attempts::new(&shared, running_max);
        let mail = shared.routes.mail(machine.id()).clone();
        Self {
            machine,
            attempts,
            shared,
            instances: InstanceMap::default(),
            calls: HashMap::default(),
            reads: HashMap::default(),
            waiters: Waiters::default(),
            next_token: 0,
            held_back: VecDeque::new(),
            tick: None,
            materialise_tick: None,
            stopping: None,
            failed: false,
            pump_due: false,
            mail,
            guard,
        }
    }

    pub(super) fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    /// Ends the actor in good order.
    pub(super) fn finish(&mut self, context: &mut Context<Self>) {
        use actix::ActorContext;
        self.guard.armed = false;
        self.shared.routes.clear(self.machine.id());
        if let Some(stopping) = self.stopping.take() {
            let _ = stopping.done.send(());
        }
        context.stop();
    }

    /// Gives up after an error of the store: nothing of what is in memory can be trusted to be in the log, so a new
    /// actor is built from the store (invariant I5). Whoever waits is told, and nothing more is done.
    pub(super) fn fail(&mut self, error: &StoreError, context: &mut Context<Self>) {
        use actix::ActorContext;
        if self.failed {
            return;
        }
        self.failed = true;
        // Callers wait for the new actor from now on.
        self.shared.routes.clear(self.machine.id());
        tracing::error!(partition = %self.machine.id(), %error, "the partition stops and is rebuilt from the store");
        for (_, call) in self.calls.drain() {
            let _ = call.answer.send(Err(super::messages::CallError::Store(error.clone())));
        }
        for (_, read) in self.reads.drain() {
            if let PendingRead::Release(release) = read {
                release(Err(error.clone()));
            }
        }
        if let Some(stopping) = self.stopping.take() {
            self.guard.armed = false;
            let _ = stopping.done.send(());
        }
        context.stop();
    }
}

impl Actor for PartitionActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Senders use `do_send` and bound themselves; and actix stands still when the capacity is close to the limit of
        // the type.
        context.set_mailbox_capacity(self.shared.options.pending_calls_max.min(MAILBOX_CAPACITY_MAX));
        self.attempts.started(context.address());
        self.shared.routes.set(self.machine.id(), context.address());
        for peer in self.shared.routes.others(self.machine.id()) {
            peer.do_send(Resend(self.machine.id()));
        }
        // Turns that were pending when the partition ended begin at once, and nothing has come in that told the time.
        self.machine.set_now(self.shared.clock.now());
        self.pump(context);
    }
}
