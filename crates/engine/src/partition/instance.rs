//! The instance actor: one resident instance, its session, and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use steadfast_core::partition::{ParkReason, SessionSource, TurnRequest};
use steadfast_core::turn::{Session, Turn};
use steadfast_core::{FailureDetails, InstanceId, TaskMessage};
use steadfast_store::bridge;

use super::actor::PartitionActor;
use super::messages::{TurnDone, TurnPanicked};

/// Runs the turns of one instance on its partition's thread. It does no IO and ends when the partition drops its
/// address.
pub(super) struct InstanceActor {
    pub(super) instance: InstanceId,
    pub(super) session: Session,
    pub(super) partition: Addr<PartitionActor>,
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
            Ok(outcome) => self.partition.do_send(TurnDone { instance, outcome }),
            Err(panic) => {
                let problem = format!("{instance}: {}", FailureDetails::from_panic(&*panic));
                self.partition.do_send(TurnPanicked(problem));
            }
        }
    }
}

impl InstanceActor {
    fn run(&mut self, request: TurnRequest) -> Result<Turn, (Vec<TaskMessage>, ParkReason)> {
        if let SessionSource::Replay { .. } = &request.session {
            let history = bridge::replayed_events(&self.instance, &request.session);
            let replayed = history
                .map_err(|error| ParkReason::Damaged(error.to_string()))
                .and_then(|history| self.session.replay(&history).map_err(ParkReason::from));
            if let Err(reason) = replayed {
                return Err((request.batch, reason));
            }
        }
        match self.session.check(&request.batch) {
            Ok(()) => Ok(self.session.turn(request.batch, request.now)),
            Err(unfit) => Err((request.batch, unfit.into())),
        }
    }
}

/// Starts an instance actor on the current thread.
pub(super) fn start(
    instance: InstanceId,
    session: Session,
    partition: &Context<PartitionActor>,
) -> Addr<InstanceActor> {
    InstanceActor { instance, session, partition: partition.address() }.start()
}
