//! The other side of a remote turn: the worker, whose session runs the code and says what it asked for.

use super::exchange::TurnAnswer;
use crate::action::Completion;
use crate::event::{CarriedEvent, EventKind, HistoryEvent};
use crate::ids::InstanceId;
use crate::model::Middleware;
use crate::turn::execution::Execution;
use crate::turn::hooks;
use crate::turn::session::{Session, Unfit, suspended_unborn};

impl Session {
    /// Takes a turn for a hub elsewhere: `new` is what the hub adds to the history before the code runs, `OrchestratorStarted`
    /// first. The hub has reconciled it already and knows the execution's version, so all of it counts, and nothing is
    /// resolved anew. What the session had replayed before, or what its own answers became, is the history up to there.
    ///
    /// # Errors
    /// When this program does not run the instance. The session is not to be used again then.
    pub fn remote_turn(&mut self, new: &[HistoryEvent]) -> Result<TurnAnswer, Unfit> {
        let Some(now) = new.first().map(|event| event.timestamp) else { return Ok(TurnAnswer::default()) };
        let mut refused = None;
        for (at, event) in new.iter().enumerate() {
            if let EventKind::ExecutionStarted(started) = &event.kind {
                let mismatch = self.enter(started, event.timestamp)?;
                let is_refused = self.refused(true);
                refused = Some(is_refused);
                let Some(execution) = self.execution_mut() else { continue };
                execution.context.borrow_mut().now = now;
                if let Some(mismatch) = mismatch.filter(|_| !is_refused) {
                    execution.fail(mismatch.into());
                } else if !is_refused && suspended_unborn(&new[at..]) {
                    execution.begin_suspended(event);
                    continue;
                }
            } else if refused.is_none() && self.execution_mut().is_some() {
                refused = Some(self.refused(false));
            }
            let Some(execution) = self.execution_mut() else { continue };
            if execution.completion.is_some() && !execution.suspended {
                execution.carry(event);
            } else if let Err(error) = execution.feed(event) {
                execution.fail_nondeterministic(error);
            }
        }
        let (middleware, instance) = (self.registry().clone(), self.instance().clone());
        let answer =
            self.execution_mut().map(|execution| execution.conclude(&middleware.middleware, &instance));
        Ok(answer.unwrap_or_default())
    }
}

impl Execution {
    /// An event that arrived in the turn in which the code had ended before it. It goes along if the code continues as new.
    fn carry(&mut self, event: &HistoryEvent) {
        if let Some(Completion::ContinueAsNew { .. }) = &self.completion {
            self.context.borrow_mut().inbox.extend(CarriedEvent::of(event));
        }
    }

    /// What the code asked for in this turn.
    fn conclude(&mut self, middleware: &Middleware, instance: &InstanceId) -> TurnAnswer {
        let mut completion = if self.suspended { None } else { self.completion.take() };
        if !middleware.turns.is_empty() {
            hooks::after(middleware, instance, self, &mut completion);
        }
        let mut context = self.context.borrow_mut();
        let mut answer = TurnAnswer {
            patches: std::mem::take(&mut context.patches.taken),
            actions: if self.suspended { Vec::new() } else { context.actions.drain(..).collect() },
            ..TurnAnswer::default()
        };
        if let Some(completion) = completion {
            if let Completion::ContinueAsNew { preserve_events: true, version, .. } = &completion {
                let version = version.as_ref().unwrap_or(&self.started.version);
                answer.carried_events = context.inbox.take_unconsumed();
                answer.carried_events.retain(|event| event.is_for(version));
            }
            answer.completion_id = Some(context.next_id);
            context.next_id += 1;
            answer.completion = Some(completion);
            self.ended = true;
        }
        answer.cancelled_timers = context.take_cancelled_timers();
        answer.cancelled_activities = context.take_cancelled_activities(self.ended);
        answer.keeps_custom_status = context.custom_status.is_none();
        if let Some(status) = context.custom_status.take() {
            self.custom_status = Some(status);
        }
        answer.custom_status = self.custom_status.clone();
        answer
    }
}
