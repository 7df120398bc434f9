//! Rewinding by a worker: it is given the whole history of the execution that failed, and answers with another one.

use std::sync::Arc;

use super::exchange::{RemoteTurn, TurnAnswer};
use super::session::RemoteSession;
use crate::action::Completion;
use crate::event::{EventKind, HistoryEvent};
use crate::message::TaskMessage;
use crate::time::Timestamp;
use crate::turn::rewound::{Failed, RewindRefusal, rewound_elsewhere};
use crate::turn::session::Turn;

/// The first half of a turn that rewinds a failed execution.
#[derive(Debug)]
pub(super) struct Rewinding {
    history: Arc<Vec<HistoryEvent>>,
    message: TaskMessage,
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
        let new = Arc::from([began, message.event.clone()]);
        let history = Arc::new(history);
        let turn = RemoteTurn {
            instance: self.instance.clone(),
            started,
            past: history.clone(),
            new,
            keepsake: None,
        };
        self.rewinding = Some(Rewinding { history, message });
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
    pub fn rewind(&mut self, answer: TurnAnswer) -> Option<Result<Turn, Box<(TaskMessage, RewindRefusal)>>> {
        let Rewinding { history, message } = self.rewinding.take()?;
        let rewound = match (answer.rewound, answer.completion) {
            (Some(rewritten), _) => rewound_elsewhere(&self.instance, &history, &message, rewritten),
            (None, Some(Completion::Failed(failure))) => Err(RewindRefusal::ByWorker(failure)),
            (None, _) => Err(RewindRefusal::Malformed("the worker gave none")),
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
