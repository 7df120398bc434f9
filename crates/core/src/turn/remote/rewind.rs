//! Rewinding by a worker: it is given the whole history of the execution that failed, and answers with another one.

use std::sync::Arc;

use super::exchange::{RemoteTurn, TurnAnswer};
use super::hooks::{Around, Hooks};
use super::session::RemoteSession;
use crate::action::Completion;
use crate::event::{EventKind, ExecutionStarted, HistoryEvent};
use crate::message::TaskMessage;
use crate::time::Timestamp;
use crate::turn::rewound::{Failed, RewindRefusal, rewound_elsewhere};
use crate::turn::session::Turn;

/// The first half of a turn that rewinds a failed execution.
#[derive(Debug)]
pub(super) struct Rewinding {
    started: Arc<ExecutionStarted>,
    history: Arc<Vec<HistoryEvent>>,
    message: TaskMessage,
    hooks: Hooks,
    /// Its first half.
    begun: Turn,
}

impl RemoteSession {
    /// The first half of a turn that rewinds the failed execution whose whole history this is, for the message that asked for
    /// it.
    ///
    /// # Errors
    /// When it cannot be rewound.
    pub fn begin_rewind(
        &mut self,
        history: Vec<HistoryEvent>,
        message: TaskMessage,
        now: Timestamp,
    ) -> Result<RemoteTurn, RewindRefusal> {
        let started = Arc::new(Failed::of(&history)?.started.clone());
        let now = history.iter().map(|event| event.timestamp).fold(now, Timestamp::max);
        let began = HistoryEvent::message(now, EventKind::OrchestratorStarted);
        let begun = Turn { events: vec![began, message.event.clone()], ..Turn::default() };
        let new = Arc::from(&begun.events[..]);
        let (middleware, instance) = (&self.registry.middleware, &self.instance);
        let around = Around { middleware, instance, started: &started };
        let mut hooks = Hooks::begin(&around);
        if let Some(failure) = hooks.before(&around, &begun) {
            return Err(RewindRefusal::Middleware(Box::new(failure)));
        }
        let history = Arc::new(history);
        let turn = RemoteTurn {
            instance: self.instance.clone(),
            started,
            past: history.clone(),
            new,
            keepsake: None,
        };
        self.rewinding = Some(Rewinding { started: turn.started.clone(), history, message, hooks, begun });
        Ok(turn)
    }

    /// Whether the answer that is awaited is a rewritten history.
    pub fn is_rewinding(&self) -> bool {
        self.rewinding.is_some()
    }

    /// The second half of a turn that rewinds: what the worker answered. The session goes on with the new execution. None
    /// when no such answer is awaited.
    ///
    /// # Errors
    /// When the history that it gave cannot be used, or there is none; with the message that asked for it.
    pub fn rewind(
        &mut self,
        mut answer: TurnAnswer,
    ) -> Option<Result<Turn, Box<(TaskMessage, RewindRefusal)>>> {
        let Rewinding { started, history, message, mut hooks, begun } = self.rewinding.take()?;
        // It is not the execution that ends with it.
        let by_worker = answer.completion.take();
        let (middleware, instance) = (&self.registry.middleware, &self.instance);
        hooks.after(&Around { middleware, instance, started: &started }, &begun, &mut answer);
        let rewound = match (answer.completion, answer.rewound, by_worker) {
            (Some(Completion::Failed(failure)), ..) => Err(RewindRefusal::Middleware(failure)),
            (_, Some(rewritten), _) => rewound_elsewhere(instance, &history, &message, rewritten),
            (_, None, Some(Completion::Failed(failure))) => Err(RewindRefusal::ByWorker(failure)),
            (_, None, _) => Err(RewindRefusal::Malformed("the worker gave none")),
        };
        Some(match rewound {
            Ok(mut turn) => {
                self.restore(turn.events.clone(), None);
                turn.custom_status = answer.custom_status;
                Ok(turn)
            }
            Err(refusal) => Err(Box::new((message, refusal))),
        })
    }
}
