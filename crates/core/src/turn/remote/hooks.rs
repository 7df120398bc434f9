//! Where the hub's middleware is called around a turn whose code runs in another process: before a worker is asked, and when
//! its answer is there.

use super::exchange::TurnAnswer;
use crate::event::{EventKind, ExecutionStarted};
use crate::failure::FailureDetails;
use crate::ids::InstanceId;
use crate::model::{Middleware, Properties, TurnContext, TurnOutcome};
use crate::turn::hooks::{begin_with, call};
use crate::turn::session::Turn;

/// What middleware has put in for an execution, and how far a turn of it has come.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    properties: Properties,
    /// So many have let the turn pass.
    passed: usize,
}

/// The execution that middleware is around.
pub(super) struct Around<'a> {
    pub(super) middleware: &'a Middleware,
    pub(super) instance: &'a InstanceId,
    pub(super) started: &'a ExecutionStarted,
}

impl Hooks {
    /// An execution comes into memory.
    pub(super) fn begin(around: &Around<'_>) -> Self {
        let mut hooks = Self::default();
        begin_with(around.middleware, around.instance, around.started, &mut hooks.properties);
        hooks
    }

    /// A turn begins: why not, if middleware refuses it.
    pub(super) fn before(&mut self, around: &Around<'_>, turn: &Turn) -> Option<FailureDetails> {
        self.passed = 0;
        for one in &around.middleware.turns {
            let mut context = self.context(around, turn);
            if let Err(failure) = call(|| one.before(&mut context)) {
                return Some(failure);
            }
            self.passed += 1;
        }
        None
    }

    /// There is an answer: middleware sees it, the innermost first, and may change it.
    pub(super) fn after(&mut self, around: &Around<'_>, turn: &Turn, answer: &mut TurnAnswer) {
        let passed = std::mem::take(&mut self.passed);
        let given = if answer.keeps_custom_status { None } else { answer.custom_status.clone() };
        let mut custom_status = given.clone();
        for one in around.middleware.turns[..passed.min(around.middleware.turns.len())].iter().rev() {
            let mut outcome = TurnOutcome {
                completion: &mut answer.completion,
                custom_status: &mut custom_status,
                actions: &answer.actions,
            };
            let mut context = self.context(around, turn);
            let seen = call(|| {
                one.after(&mut context, &mut outcome);
                Ok(())
            });
            if let Err(failure) = seen {
                outcome.fail(failure);
            }
        }
        if custom_status != given {
            (answer.custom_status, answer.keeps_custom_status) = (custom_status, false);
        }
    }

    fn context<'a>(&'a mut self, around: &Around<'a>, turn: &Turn) -> TurnContext<'a> {
        let starts = |kind: &EventKind| matches!(kind, EventKind::ExecutionStarted(_));
        TurnContext {
            instance: around.instance,
            started: around.started,
            now: turn.events.first().map(|event| event.timestamp).unwrap_or_default(),
            is_first: turn.events.iter().any(|event| starts(&event.kind)),
            properties: &mut self.properties,
        }
    }
}
