//! The instance actor: one resident instance, its session, and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use steadfast_core::entity::{EntitySession, EntityState, PendingEntityTurn};
use steadfast_core::model::Registry;
use steadfast_core::partition::{ParkReason, SessionSource, TurnRequest};
use steadfast_core::turn::{
    CrashedTurn, RemoteSession, RemoteStep, RemoteTurn, RewindRefusal, Session, Turn, first_start, guarded,
};
use steadfast_core::{
    EntityId, EventKind, ExecutionId, FailureDetails, HistoryEvent, InstanceId, TaskMessage,
};
use steadfast_store::bridge;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::actor::{PartitionActor, PartitionContext};
use super::journal;
use super::messages::{TurnDone, TurnPanicked};
use crate::trace::Trail;
use crate::workers::{Item, Kept, TurnAnswered, Workers};

/// Runs the turns of one instance on its partition's thread. It does no IO and ends when the partition drops its
/// address.
pub(super) struct InstanceActor {
    pub(super) instance: InstanceId,
    /// Tells it from other actors that the instance had before.
    number: u64,
    pub(super) session: ResidentSession,
    pub(super) trail: Trail,
    partition: Addr<PartitionActor>,
    registry: Arc<Registry>,
    max_payload_bytes: usize,
    /// Where the code of entities waits for what is not ready at once.
    runtime: Handle,
    /// Who runs code that is not registered here, if anybody.
    workers: Option<Workers>,
    /// The turn that a worker takes.
    asked: Option<Arc<Item>>,
    /// Where the session of an instance is that workers run.
    kept: Option<Kept>,
}

/// What is in memory of the instance.
pub(super) enum ResidentSession {
    Orchestration(Box<Session>),
    /// Workers run its code.
    Remote(Box<RemoteSession>),
    Entity(EntitySession),
}

/// What came of a turn that was handed out.
pub(super) enum TurnOutcome {
    /// It has ended.
    Done(Turn),
    /// It could not be run; its messages come back.
    Parked(Vec<TaskMessage>, ParkReason),
    /// It crashed; its messages come back, unless it went on elsewhere: then they are in the queue already.
    Crashed(CrashedTurn),
    /// It was to rewind the instance and could not; its message comes back.
    NotRewound(Vec<TaskMessage>, RewindRefusal),
    /// It goes on elsewhere; a copy of its messages.
    Outside(Vec<TaskMessage>),
    /// It went on elsewhere, and will not end.
    GivenUp,
}

impl From<Result<Turn, CrashedTurn>> for TurnOutcome {
    fn from(ended: Result<Turn, CrashedTurn>) -> Self {
        match ended {
            Ok(turn) => Self::Done(turn),
            Err(crashed) => Self::Crashed(crashed),
        }
    }
}

impl Actor for InstanceActor {
    type Context = Context<Self>;

    fn stopped(&mut self, _context: &mut Self::Context) {
        self.withdraw_turn();
    }
}

/// Run a turn, and report to the partition.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct RunTurn(pub(super) TurnRequest);

impl Handler<RunTurn> for InstanceActor {
    type Result = ();

    fn handle(&mut self, RunTurn(request): RunTurn, context: &mut Self::Context) {
        // Panics of user code do not come this far.
        match catch_unwind(AssertUnwindSafe(|| self.run(request))) {
            Ok(Ended::Here(outcome)) => self.report(outcome),
            Ok(Ended::ByWorker(batch, turn)) => self.ask_worker(batch, turn, context),
            Ok(Ended::NotYet(turn)) => self.go_on_outside(turn),
            Err(panic) => {
                let problem = format!("{}: {}", self.instance, FailureDetails::from_panic(&*panic));
                self.partition.do_send(TurnPanicked(problem));
            }
        }
    }
}

impl Handler<TurnAnswered> for InstanceActor {
    type Result = ();

    fn handle(&mut self, TurnAnswered(mut answer, keeper): TurnAnswered, _context: &mut Self::Context) {
        if self.asked.take().is_none() {
            return;
        }
        if let Some(outcome) = self.rewound_by_worker(&mut answer) {
            self.report(outcome);
            return;
        }
        let ResidentSession::Remote(session) = &mut self.session else { return };
        match guarded(|| session.answer(*answer)) {
            Ok(Some(turn)) => {
                let keeper = keeper.filter(|_| !turn.ended);
                self.kept = keeper.map(|keeper| keeper.knows(session.events()));
                self.trail.turn(&self.instance, &turn);
                journal::done(&self.instance, &turn);
                self.report(TurnOutcome::Done(turn));
            }
            Ok(None) => self.report(TurnOutcome::GivenUp),
            Err(problem) => self.report(crashed(Vec::new(), problem)),
        }
    }
}

/// No worker will answer; an answer that came before counts.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct GiveUp;

impl Handler<GiveUp> for InstanceActor {
    type Result = ();

    fn handle(&mut self, _: GiveUp, _context: &mut Self::Context) {
        if self.withdraw_turn() {
            self.report(TurnOutcome::GivenUp);
        }
    }
}

/// How far a turn came at once.
pub(super) enum Ended {
    Here(TurnOutcome),
    NotYet(Pin<Box<PendingEntityTurn>>),
    /// A worker is to take it.
    ByWorker(Vec<TaskMessage>, RemoteTurn),
}

impl InstanceActor {
    /// Starts the actor of an instance on the current thread.
    pub(super) fn start_for(
        instance: InstanceId,
        number: u64,
        shared: &PartitionContext,
        partition: &Context<PartitionActor>,
    ) -> Addr<Self> {
        let (registry, max_payload_bytes) = (shared.registry.clone(), shared.options.payload_bytes_max);
        let session = match EntityId::of_instance(&instance) {
            None => {
                let session = Session::new(registry.clone(), instance.clone(), max_payload_bytes);
                ResidentSession::Orchestration(Box::new(session))
            }
            Some(entity) => {
                let fresh_ids = Arc::new(|| ExecutionId::new(Uuid::now_v7()));
                let session = EntitySession::new(registry.clone(), entity, max_payload_bytes, fresh_ids);
                ResidentSession::Entity(session)
            }
        };
        Self {
            instance,
            number,
            session,
            trail: Trail::default(),
            partition: partition.address(),
            registry,
            max_payload_bytes,
            runtime: shared.runtime.clone(),
            workers: shared.workers.clone(),
            asked: None,
            kept: None,
        }
        .start()
    }

    /// At most one turn of an instance is under way, so the bound of the partition's mailbox is not in question.
    fn report(&self, outcome: TurnOutcome) {
        let (instance, actor) = (self.instance.clone(), self.number);
        self.partition.do_send(TurnDone { instance, actor, outcome });
    }

    fn run(&mut self, request: TurnRequest) -> Ended {
        if let ResidentSession::Entity(entity) = &self.session {
            if self.is_stopping()
                && !EntityId::of_instance(&self.instance)
                    .is_some_and(|id| self.registry.has_entity(id.name()))
            {
                return Ended::Here(TurnOutcome::Parked(request.batch, ParkReason::Stopping));
            }
            let state = match request.session {
                SessionSource::Entity(state) => *state,
                _ => EntityState::default(),
            };
            let turn = entity.begin(request.batch, state, request.now);
            return self.run_entity(Box::pin(turn));
        }
        let rewinds = matches!(request.session, SessionSource::Rewind { .. });
        let history = match &request.session {
            SessionSource::Replay { .. } | SessionSource::Rewind { .. } => {
                match guarded(|| bridge::replayed_events(&self.instance, &request.session)) {
                    Ok(Ok(history)) => Some(history),
                    Ok(Err(error)) if rewinds => {
                        return self.not_rewound(request.batch, RewindRefusal::Damaged(error.to_string()));
                    }
                    Err(problem) if rewinds => {
                        return self.not_rewound(request.batch, RewindRefusal::Crashed(problem));
                    }
                    Ok(Err(error)) => {
                        let reason = ParkReason::Damaged(error.to_string());
                        return Ended::Here(TurnOutcome::Parked(request.batch, reason));
                    }
                    Err(problem) => return Ended::Here(crashed(request.batch, problem)),
                }
            }
            _ => None,
        };
        if let Some(history) = history.as_ref().filter(|_| !rewinds) {
            self.trail.replayed(history);
        }
        if self.workers.is_some() {
            self.choose_session(&request, history.as_deref());
        }
        if rewinds {
            return self.run_rewind(request, history.unwrap_or_default());
        }
        match self.session {
            ResidentSession::Remote(_) => self.run_remote(request, history),
            _ => Ended::Here(self.run_here(request, history)),
        }
    }

    /// Whoever has the code of the execution that the turn is for runs it: this process first.
    fn choose_session(&mut self, request: &TurnRequest, history: Option<&[HistoryEvent]>) {
        let is_over = match &self.session {
            ResidentSession::Orchestration(session) => session.is_over(),
            ResidentSession::Remote(session) => session.is_over(),
            ResidentSession::Entity(_) => return,
        };
        let began = history.into_iter().flatten().find_map(|event| match &event.kind {
            EventKind::ExecutionStarted(started) => Some(&**started),
            _ => None,
        });
        let started = match began {
            None if is_over => first_start(&request.batch),
            began => began,
        };
        let Some(started) = started else { return };
        match (self.registry.runs(started), &self.session) {
            (true, ResidentSession::Remote(_)) => {
                let (registry, instance) = (self.registry.clone(), self.instance.clone());
                let session = Session::new(registry, instance, self.max_payload_bytes);
                self.session = ResidentSession::Orchestration(Box::new(session));
            }
            (false, ResidentSession::Orchestration(_)) => {
                let session =
                    RemoteSession::new(self.registry.clone(), self.instance.clone(), self.max_payload_bytes);
                self.session = ResidentSession::Remote(Box::new(session));
            }
            _ => {}
        }
    }

    fn run_here(&mut self, request: TurnRequest, history: Option<Vec<HistoryEvent>>) -> TurnOutcome {
        let ResidentSession::Orchestration(session) = &mut self.session else { return TurnOutcome::GivenUp };
        if let Some(history) = history {
            match guarded(|| session.replay(&history)) {
                Ok(Ok(())) => {}
                Ok(Err(unfit)) => return TurnOutcome::Parked(request.batch, unfit.into()),
                Err(problem) => return crashed(request.batch, problem),
            }
        }
        if let Err(unfit) = session.check(&request.batch) {
            return TurnOutcome::Parked(request.batch, unfit.into());
        }
        journal::begins(&request);
        match session.try_turn(request.batch, request.now, &request.room) {
            Ok(turn) => {
                self.trail.turn(&self.instance, &turn);
                journal::done(&self.instance, &turn);
                TurnOutcome::Done(turn)
            }
            Err(crashed) => TurnOutcome::Crashed(crashed),
        }
    }

    fn run_remote(&mut self, request: TurnRequest, history: Option<Vec<HistoryEvent>>) -> Ended {
        let is_stopping = self.is_stopping();
        let (ResidentSession::Remote(session), kept) = (&mut self.session, &mut self.kept) else {
            return Ended::Here(TurnOutcome::GivenUp);
        };
        journal::begins(&request);
        let keepsake = match &request.session {
            SessionSource::Replay { keepsake, .. } => keepsake.clone(),
            _ => None,
        };
        let step = guarded(|| {
            if let Some(history) = history {
                kept.take();
                session.restore(history, keepsake);
            }
            session.begin(&request.batch, request.now, &request.room)
        });
        match step {
            Ok(RemoteStep::Done(turn)) => {
                self.trail.turn(&self.instance, &turn);
                journal::done(&self.instance, &turn);
                Ended::Here(TurnOutcome::Done(turn))
            }
            Ok(RemoteStep::Ask(_)) if is_stopping => {
                Ended::Here(TurnOutcome::Parked(request.batch, ParkReason::Stopping))
            }
            Ok(RemoteStep::Ask(turn)) => Ended::ByWorker(request.batch, turn),
            Err(problem) => Ended::Here(crashed(request.batch, problem)),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.workers.as_ref().is_some_and(Workers::is_closed)
    }

    /// The turn goes on in a worker. Its answer comes as a message.
    fn ask_worker(&mut self, batch: Vec<TaskMessage>, turn: RemoteTurn, context: &Context<Self>) {
        let Some(workers) = &self.workers else { return };
        let item = Item::turn(turn, context.address().downgrade().recipient(), self.kept.take());
        self.asked = Some(item.clone());
        // Before anything can report the end.
        self.report(TurnOutcome::Outside(batch));
        workers.offer(item);
    }

    /// No answer to the turn that a worker takes is waited for any more. False if there is none.
    fn withdraw_turn(&mut self) -> bool {
        let asked = self.asked.take();
        if let (Some(item), Some(workers)) = (&asked, &self.workers) {
            workers.withdraw(item);
        }
        asked.is_some()
    }

    /// Polls the turn once, here. Most entities wait for nothing real, and their turns end at once like any.
    fn run_entity(&self, mut turn: Pin<Box<PendingEntityTurn>>) -> Ended {
        if turn.may_block() {
            return Ended::NotYet(turn);
        }
        // Sockets and timers of the entity's code belong to the program's runtime, not to this thread's.
        let _entered = self.runtime.enter();
        match turn.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Ready(ended) => Ended::Here(ended.into()),
            Poll::Pending => Ended::NotYet(turn),
        }
    }

    /// A turn that waits for something real goes on among the activities, and one that may block where that harms nobody.
    /// They report from there.
    fn go_on_outside(&self, turn: Pin<Box<PendingEntityTurn>>) {
        let (instance, actor, partition) = (self.instance.clone(), self.number, self.partition.clone());
        // Before anything can report the end.
        self.report(TurnOutcome::Outside(turn.messages().to_vec()));
        let is_here = EntityId::of_instance(&instance).is_some_and(|id| self.registry.has_entity(id.name()));
        let workers = self.workers.clone().filter(|_| !is_here);
        let given_up = async move {
            match workers {
                Some(workers) => workers.closed().await,
                None => std::future::pending().await,
            }
        };
        let may_block = turn.may_block();
        let running = async move {
            // An entity has one turn at a time, so this is bounded by the number of entities.
            let outcome = tokio::select! {
                ended = turn => ended.into(),
                () = given_up => TurnOutcome::GivenUp,
            };
            partition.do_send(TurnDone { instance, actor, outcome });
        };
        if may_block {
            let runtime = self.runtime.clone();
            self.runtime.spawn_blocking(move || runtime.block_on(running));
        } else {
            self.runtime.spawn(running);
        }
    }
}

pub(super) fn crashed(batch: Vec<TaskMessage>, problem: String) -> TurnOutcome {
    TurnOutcome::Crashed(CrashedTurn { batch, problem })
}
