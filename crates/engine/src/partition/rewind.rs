//! Turns that rewind a failed instance, by code of this process or by a worker.

use steadfast_core::partition::{ParkReason, TurnRequest};
use steadfast_core::turn::{RewindRefusal, Turn, TurnAnswer, guarded};
use steadfast_core::{HistoryEvent, TaskMessage, log_event};

use super::instance::{Ended, InstanceActor, ResidentSession, TurnOutcome, crashed};
use super::journal;

impl InstanceActor {
    /// The session is new, and of whoever has the code.
    pub(super) fn run_rewind(&mut self, request: TurnRequest, history: Vec<HistoryEvent>) -> Ended {
        if self.is_stopping() && matches!(self.session, ResidentSession::Remote(_)) {
            return Ended::Here(TurnOutcome::Parked(request.batch, ParkReason::Stopping));
        }
        journal::begins(&request);
        let TurnRequest { batch, now, room, .. } = request;
        let [message] = &batch[..] else {
            return self.not_rewound(batch, RewindRefusal::Malformed("nobody asked for it alone"));
        };
        let begun = match &mut self.session {
            ResidentSession::Orchestration(session) => {
                session.rewind(&history, message, now, &room).map(|turn| Ended::Here(self.rewound(turn)))
            }
            ResidentSession::Remote(session) => {
                let begun = guarded(|| session.begin_rewind(history, message.clone(), now));
                let begun = begun.unwrap_or_else(|problem| Err(RewindRefusal::Crashed(problem)));
                begun.map(|turn| Ended::ByWorker(vec![message.clone()], turn))
            }
            ResidentSession::Entity(_) => Err(RewindRefusal::Malformed("entities have none")),
        };
        begun.unwrap_or_else(|refusal| self.not_rewound(batch, refusal))
    }

    /// The worker's answer to such a turn. None when the answer is awaited for another turn.
    pub(super) fn rewound_by_worker(&mut self, answer: &mut TurnAnswer) -> Option<TurnOutcome> {
        let ResidentSession::Remote(session) = &mut self.session else { return None };
        if !session.is_rewinding() {
            return None;
        }
        let answer = std::mem::take(answer);
        Some(match guarded(|| session.rewind(answer)) {
            Ok(Some(Ok(turn))) => self.rewound(turn),
            Ok(Some(Err(refused))) => {
                let (message, refusal) = *refused;
                self.refused(vec![message], refusal)
            }
            Ok(None) => TurnOutcome::GivenUp,
            Err(problem) => crashed(Vec::new(), problem),
        })
    }

    fn rewound(&mut self, turn: Turn) -> TurnOutcome {
        self.trail.replayed(turn.kept_events());
        self.trail.turn(&self.instance, &turn);
        journal::done(&self.instance, &turn);
        TurnOutcome::Done(turn)
    }

    pub(super) fn not_rewound(&self, batch: Vec<TaskMessage>, refusal: RewindRefusal) -> Ended {
        Ended::Here(self.refused(batch, refusal))
    }

    fn refused(&self, batch: Vec<TaskMessage>, refusal: RewindRefusal) -> TurnOutcome {
        log_event!(OrchestrationAborted, instance = %self.instance, reason = %refusal);
        TurnOutcome::NotRewound(batch, refusal)
    }
}
