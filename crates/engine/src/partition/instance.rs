//! The instance actor: one resident instance, its session, and nothing else.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use steadfast_core::entity::{EntitySession, EntityState, PendingEntityTurn};
use steadfast_core::model::Registry;
use steadfast_core::partition::{ParkReason, SessionSource, TurnRequest};
use steadfast_core::turn::{CrashedTurn, Session, Turn, guarded};
use steadfast_core::{EntityId, ExecutionId, FailureDetails, InstanceId, TaskMessage};
use steadfast_store::bridge;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::actor::PartitionActor;
use super::journal;
use super::messages::{TurnDone, TurnPanicked};
use crate::trace::Trail;

/// Runs the turns of one instance on its partition's thread. It does no IO and ends when the partition drops its
/// address.
pub(super) struct InstanceActor {
    pub(super) instance: InstanceId,
    pub(super) session: ResidentSession,
    pub(super) trail: Trail,
    pub(super) partition: Addr<PartitionActor>,
    /// Where the code of entities waits for what is not ready at once.
    pub(super) runtime: Handle,
}

/// What is in memory of the instance.
pub(super) enum ResidentSession {
    Orchestration(Box<Session>),
    Entity(EntitySession),
}

impl ResidentSession {
    pub(super) fn new(registry: Arc<Registry>, instance: &InstanceId, max_payload_bytes: usize) -> Self {
        match EntityId::of_instance(instance) {
            None => {
                Self::Orchestration(Box::new(Session::new(registry, instance.clone(), max_payload_bytes)))
            }
            Some(entity) => {
                let fresh_ids = Arc::new(|| ExecutionId::new(Uuid::now_v7()));
                Self::Entity(EntitySession::new(registry, entity, max_payload_bytes, fresh_ids))
            }
        }
    }
}

/// What came of a turn that was handed out.
pub(super) enum TurnOutcome {
    /// It has ended.
    Done(Turn),
    /// It could not be run; its messages come back.
    Parked(Vec<TaskMessage>, ParkReason),
    /// It crashed; its messages come back, unless it went on elsewhere: then they are in the queue already.
    Crashed(CrashedTurn),
    /// It goes on elsewhere; a copy of its messages.
    Outside(Vec<TaskMessage>),
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
}

/// Run a turn, and report to the partition.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct RunTurn(pub(super) TurnRequest);

impl Handler<RunTurn> for InstanceActor {
    type Result = ();

    fn handle(&mut self, RunTurn(request): RunTurn, _context: &mut Self::Context) {
        let instance = self.instance.clone();
        // At most one turn of an instance is under way, so the bound of the partition's mailbox is not in question.
        // Panics of user code do not come this far.
        match catch_unwind(AssertUnwindSafe(|| self.run(request))) {
            Ok(Ended::Here(outcome)) => self.partition.do_send(TurnDone { instance, outcome }),
            Ok(Ended::NotYet(turn)) => self.go_on_outside(turn),
            Err(panic) => {
                let problem = format!("{instance}: {}", FailureDetails::from_panic(&*panic));
                self.partition.do_send(TurnPanicked(problem));
            }
        }
    }
}

enum Ended {
    Here(TurnOutcome),
    NotYet(Pin<Box<PendingEntityTurn>>),
}

impl InstanceActor {
    fn run(&mut self, request: TurnRequest) -> Ended {
        let session = match &mut self.session {
            ResidentSession::Orchestration(session) => session,
            ResidentSession::Entity(entity) => {
                let state = match request.session {
                    SessionSource::Entity(state) => *state,
                    _ => EntityState::default(),
                };
                let turn = entity.begin(request.batch, state, request.now);
                return self.run_entity(Box::pin(turn));
            }
        };
        if let SessionSource::Replay { .. } = &request.session {
            let history = bridge::replayed_events(&self.instance, &request.session);
            let replayed = guarded(|| {
                history.map_err(|error| ParkReason::Damaged(error.to_string())).and_then(|history| {
                    self.trail.replayed(&history);
                    session.replay(&history).map_err(ParkReason::from)
                })
            });
            match replayed {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => return Ended::Here(TurnOutcome::Parked(request.batch, reason)),
                Err(problem) => {
                    let crashed = CrashedTurn { batch: request.batch, problem };
                    return Ended::Here(TurnOutcome::Crashed(crashed));
                }
            }
        }
        if let Err(unfit) = session.check(&request.batch) {
            return Ended::Here(TurnOutcome::Parked(request.batch, unfit.into()));
        }
        journal::begins(&request);
        Ended::Here(match session.try_turn(request.batch, request.now, &request.room) {
            Ok(turn) => {
                self.trail.turn(&self.instance, &turn);
                journal::done(&self.instance, &turn);
                TurnOutcome::Done(turn)
            }
            Err(crashed) => TurnOutcome::Crashed(crashed),
        })
    }

    /// Polls the turn once, here. Most entities wait for nothing real, and their turns end at once like any.
    fn run_entity(&self, mut turn: Pin<Box<PendingEntityTurn>>) -> Ended {
        // Sockets and timers of the entity's code belong to the program's runtime, not to this thread's.
        let _entered = self.runtime.enter();
        match turn.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Ready(ended) => Ended::Here(ended.into()),
            Poll::Pending => Ended::NotYet(turn),
        }
    }

    /// A turn that waits for something real goes on among the activities, and reports from there.
    fn go_on_outside(&self, turn: Pin<Box<PendingEntityTurn>>) {
        let (instance, partition) = (self.instance.clone(), self.partition.clone());
        // Before anything can report the end.
        let outcome = TurnOutcome::Outside(turn.messages().to_vec());
        partition.do_send(TurnDone { instance: instance.clone(), outcome });
        self.runtime.spawn(async move {
            let outcome = turn.await.into();
            // An entity has one turn at a time, so this is bounded by the number of entities.
            partition.do_send(TurnDone { instance, outcome });
        });
    }
}

/// Starts an instance actor on the current thread.
pub(super) fn start(
    instance: InstanceId,
    session: ResidentSession,
    runtime: Handle,
    partition: &Context<PartitionActor>,
) -> Addr<InstanceActor> {
    InstanceActor { instance, session, trail: Trail::default(), partition: partition.address(), runtime }
        .start()
}
