//! Rewinding by code of this program: what is left of a failed execution's history is found out by replaying it.
//!
//! The end and all failures are taken out of the history, and the code is run over what is left. Where it asks for
//! something else than the history says, it had handled a failure, by trying again or otherwise: that failure is put
//! back, and so on, until code and history agree. Then the code stands where it was before it failed, and whatever it
//! asks for beyond that is part of the turn.

use std::collections::BTreeSet;

use super::emit::emit;
use super::guarded::{HistoryRoom, guarded};
use super::hooks;
use super::nondeterminism::NonDeterminism;
use super::rewound::{Failed, RewindRefusal, is_end, is_failure, unanswered};
use super::session::{Session, Turn, Unfit};
use crate::action::Completion;
use crate::event::{EventKind, ExecutionStarted, HistoryEvent};
use crate::message::TaskMessage;
use crate::payload::Payload;
use crate::time::Timestamp;

/// How many replays look for the failures that were handled. Then all those are taken to be that come before the place
/// where code and history part.
const REPLAYS_MAX: u32 = 100;

/// Where code and history part.
struct Parted {
    /// The place in the failed execution's history.
    at: usize,
    error: NonDeterminism,
}

/// What a replay found: the custom status that the code set last, or where it parts with the history.
type Outcome = Result<Option<Payload>, Parted>;

/// The search for what is left of a history.
struct Search<'a> {
    history: &'a [HistoryEvent],
    failed: &'a Failed<'a>,
    /// The start of the new execution.
    started: ExecutionStarted,
    /// Places of failures that stay, because the code had handled them.
    kept: BTreeSet<usize>,
    replays: u32,
}

impl Session {
    /// Rewinds the failed execution whose whole history this is, for the message that asked for it. The session must be new.
    /// It is in the new execution then, with which it goes on.
    ///
    /// # Errors
    /// When it cannot be rewound. The session must not be used any more.
    pub fn rewind(
        &mut self,
        history: &[HistoryEvent],
        message: &TaskMessage,
        now: Timestamp,
        room: &HistoryRoom,
    ) -> Result<Turn, RewindRefusal> {
        guarded(|| self.rewind_unguarded(history, message, now, room))
            .unwrap_or_else(|problem| Err(RewindRefusal::Crashed(problem)))
    }

    fn rewind_unguarded(
        &mut self,
        history: &[HistoryEvent],
        message: &TaskMessage,
        now: Timestamp,
        room: &HistoryRoom,
    ) -> Result<Turn, RewindRefusal> {
        let EventKind::ExecutionRewound { reason, .. } = &message.event.kind else {
            return Err(RewindRefusal::Malformed("nobody asked for it"));
        };
        let failed = Failed::of(history)?;
        // Whatever the program does with versions that it does not take, it does not run such an instance again.
        self.registry.versions().check(&failed.started.version)?;
        let kept_below = next_id(history);
        let execution = failed.started.execution.derive("rewound", 0);
        let started = failed.successor(execution, kept_below, message);
        let mut search = Search { history, failed: &failed, started, kept: BTreeSet::new(), replays: 0 };
        let status = search.run(self)?;
        let (mut events, unwanted) = (search.left().0, search.unwanted(self));

        let Some(execution) = &mut self.execution else {
            return Err(RewindRefusal::Damaged("it begins no execution".to_owned()));
        };
        let now = now.max(execution.now());
        let mut turn = Turn {
            execution: Some(search.started.execution),
            version: search.started.version.clone(),
            ..Turn::default()
        };
        turn.events.push(HistoryEvent::message(now, EventKind::OrchestratorStarted));
        let rewound = EventKind::ExecutionRewound { reason: reason.clone(), child: None };
        turn.events.push(HistoryEvent::message(message.event.timestamp, rewound));
        turn.events.iter().try_for_each(|event| execution.feed(event))?;
        let middleware = &self.registry.middleware;
        if !middleware.turns.is_empty()
            && hooks::before(middleware, &self.instance, execution, false)
            && let Some(Completion::Failed(failure)) = execution.completion.take()
        {
            return Err(RewindRefusal::Middleware(failure));
        }
        let room = HistoryRoom { events: room.events.saturating_add(events.len() as u64), ..*room };
        execution.end_without_room(&room, &turn);
        emit(middleware, &self.instance, execution, &mut turn);

        events.extend(turn.events.drain(..2));
        let installed = failed.install(&self.instance, events, &search.started, &unwanted);
        turn.events.splice(..0, installed.events);
        if !turn.ended {
            // To an execution that has ended again nobody has to answer.
            turn.messages.splice(..0, installed.messages);
            turn.cancelled_timers.extend(installed.cancelled_timers);
        }
        turn.cancelled_activities.extend(installed.cancelled_activities);
        turn.custom_status = turn.custom_status.or(status);
        Ok(turn)
    }
}

impl Search<'_> {
    /// Finds the failures that stay.
    fn run(&mut self, session: &mut Session) -> Result<Option<Payload>, RewindRefusal> {
        let mut outcome = self.replay(session)?;
        loop {
            let parted = match outcome {
                Ok(status) => return Ok(status),
                Err(parted) => parted,
            };
            self.check_section(&parted)?;
            let removed = |at: &usize| is_failure(&self.history[*at].kind) && !self.kept.contains(at);
            let removed: Vec<_> = (0..=parted.at).rev().filter(removed).collect();
            outcome = self.put_back(session, &parted, removed)?;
        }
    }

    /// Puts one failure back, or if none helps all of them, so that code and history agree further than before.
    fn put_back(
        &mut self,
        session: &mut Session,
        parted: &Parted,
        removed: Vec<usize>,
    ) -> Result<Outcome, RewindRefusal> {
        if removed.is_empty() {
            return Err(parted.error.clone().into());
        }
        let helps = |outcome: &Outcome| outcome.as_ref().err().is_none_or(|next| next.at > parted.at);
        // What was handled last is usually what the code went on from.
        for at in &removed {
            if self.replays >= REPLAYS_MAX {
                break;
            }
            self.kept.insert(*at);
            let outcome = self.replay(session)?;
            if helps(&outcome) {
                return Ok(outcome);
            }
            self.kept.remove(at);
        }
        if removed.len() != 1 || self.replays >= REPLAYS_MAX {
            self.kept.extend(removed);
            let outcome = self.replay(session)?;
            if helps(&outcome) {
                return Ok(outcome);
            }
        }
        Err(parted.error.clone().into())
    }

    /// An execution that gave locks back because it failed had them when it failed.
    fn check_section(&self, parted: &Parted) -> Result<(), RewindRefusal> {
        let last_turn =
            self.history.iter().rposition(|event| event.kind == EventKind::OrchestratorStarted).unwrap_or(0);
        match &self.history[parted.at].kind {
            EventKind::EntityUnlockSent(unlock) if parted.at >= last_turn => {
                let entities = unlock.target.iter().chain(&unlock.then).map(|id| format!("'{id}'"));
                Err(RewindRefusal::HeldLocks(entities.collect::<Vec<_>>().join(", ")))
            }
            _ => Ok(()),
        }
    }

    /// What is left of the history, and which place each event had in it. The last turn is left open: whatever the
    /// code now asks for there is part of the turn that rewinds it.
    fn left(&self) -> (Vec<HistoryEvent>, Vec<usize>) {
        let last = self.history.len().saturating_sub(1);
        let stays = |(at, event): &(usize, &HistoryEvent)| {
            let removed = is_failure(&event.kind) && !self.kept.contains(at);
            let closes = *at == last && event.kind == EventKind::OrchestratorCompleted;
            !removed && !closes && !is_end(&event.kind)
        };
        let left = self.history.iter().enumerate().filter(stays).map(|(at, event)| match at {
            at if at == self.failed.start_at => {
                let kind = EventKind::ExecutionStarted(Box::new(self.started.clone()));
                (HistoryEvent { kind, ..event.clone() }, at)
            }
            at => (event.clone(), at),
        });
        left.unzip()
    }

    fn replay(&mut self, session: &mut Session) -> Result<Outcome, RewindRefusal> {
        self.replays += 1;
        session.execution = None;
        let (left, places) = self.left();
        let mut status = None;
        let replayed = session.replay_with(&left, true, |execution, event| {
            if event.kind == EventKind::OrchestratorCompleted {
                let set = execution.context.borrow_mut().custom_status.take();
                status = set.or(status.take());
            }
        });
        match replayed {
            Ok(()) => Ok(Ok(status)),
            Err((at, Unfit::Disagrees(error))) => Ok(Err(Parted { at: places[at], error })),
            Err((_, Unfit::NotRegistered(missing))) => Err(missing.into()),
            Err((_, Unfit::Version(mismatch))) => Err(mismatch.into()),
        }
    }

    /// What was under way when the execution failed, and is of no interest to its code: it lost that before.
    fn unwanted(&self, session: &Session) -> BTreeSet<i32> {
        let open = unanswered(self.history).into_keys();
        let Some(execution) = &session.execution else { return BTreeSet::new() };
        let context = execution.context.borrow();
        open.filter(|id| context.open.get(id).is_none_or(|task| task.outcome.is_some())).collect()
    }
}

/// A number greater than that of any action in the history, not counting its end.
fn next_id(history: &[HistoryEvent]) -> i32 {
    let actions = history.iter().filter(|event| !is_end(&event.kind)).map(|event| event.event_id);
    actions.max().unwrap_or(-1).saturating_add(1)
}
