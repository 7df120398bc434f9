//! What a worker is given for a turn, and what it answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::action::{ActionKind, Completion, OrchestratorAction};
use crate::event::{CarriedEvent, ExecutionStarted, HistoryEvent};
use crate::failure::{FailureDetails, kinds};
use crate::ids::InstanceId;
use crate::payload::Payload;

/// A trace context has a span and a time. What is larger, in bytes, is none, and is not kept.
const KEEPSAKE_BYTES_MAX: usize = 256;

/// What a worker needs to take a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTurn {
    /// Whose turn.
    pub instance: InstanceId,
    /// How the execution began: its name, version and id are in it.
    pub started: Arc<ExecutionStarted>,
    /// The history so far.
    pub past: Arc<Vec<HistoryEvent>>,
    /// What the turn adds to it before the code runs: `OrchestratorStarted` first, and at least one event after it, but for
    /// the turn after a rewind. A turn that rewinds adds `ExecutionRewound`, and `past` has an end then.
    pub new: Arc<[HistoryEvent]>,
    /// What an answer to an earlier turn of the execution gave to keep.
    pub keepsake: Option<Arc<[u8]>>,
}

/// What the code asked for in one turn.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnAnswer {
    /// What it asked for, in the order of the message, without what has a field of its own. The ids are the worker's, and
    /// its history confirms them; several actions may have the same one.
    pub actions: Vec<OrchestratorAction>,
    /// How the execution ends, if it does. What else was asked for is done before that, wherever it stood.
    pub completion: Option<Completion>,
    /// The number of the event that records the end; a number of its own if absent.
    pub completion_id: Option<i32>,
    /// The events that go along to the next execution.
    pub carried_events: Vec<CarriedEvent>,
    /// Instances to be terminated, with the reason and whether their children are too.
    pub terminations: Vec<(InstanceId, SmolStr, bool)>,
    /// The history after a rewind, which takes the place of the one before.
    pub rewound: Option<Vec<HistoryEvent>>,
    /// The custom status; absent when there is none.
    pub custom_status: Option<Payload>,
    /// The custom status stays what it is, whatever `custom_status` says.
    pub keeps_custom_status: bool,
    /// Patches that the code took in this turn.
    pub patches: Vec<SmolStr>,
    /// Timers that the code lost interest in.
    pub cancelled_timers: Vec<i32>,
    /// Activities whose outcome the code does not wait for any more.
    pub cancelled_activities: Vec<i32>,
    /// What the worker wants to have again with the next turn of the execution, for instance the span that it traces it by.
    /// It has at most 256 bytes, or it is not kept; without one, what was given before stays.
    pub keepsake: Option<Arc<[u8]>>,
}

impl TurnAnswer {
    /// An answer that ends the execution with a failure, and asks for nothing else.
    pub fn failed(failure: FailureDetails) -> Self {
        let completion = Some(Completion::Failed(Box::new(failure.bounded())));
        Self { completion, keeps_custom_status: true, ..Self::default() }
    }

    /// What it gives to keep, unless that is too large.
    pub(super) fn kept(&self) -> Option<&Arc<[u8]>> {
        self.keepsake.as_ref().filter(|keepsake| keepsake.len() <= KEEPSAKE_BYTES_MAX)
    }

    /// The first payload that has more bytes than `max`, as the failure that it is.
    pub(super) fn too_large(&self, max: usize) -> Option<FailureDetails> {
        let inputs = self.actions.iter().filter_map(|action| match &action.kind {
            ActionKind::ScheduleTask { input, .. } => Some(("an activity's input", input)),
            ActionKind::CreateSubOrchestration(created) => {
                Some(("a sub-orchestration's input", &created.input))
            }
            ActionKind::SendEvent { input, .. } => Some(("an event", input)),
            ActionKind::SignalEntity(operation) | ActionKind::CallEntity(operation) => {
                Some(("an operation's input", &operation.input))
            }
            _ => None,
        });
        let result = self.completion.as_ref().and_then(|completion| match completion {
            Completion::Completed(output) => Some(("the result", output)),
            Completion::ContinueAsNew { input, .. } => Some(("the next input", input)),
            Completion::Failed(_) | Completion::Terminated(_) => None,
        });
        let status = self.custom_status.as_ref().map(|status| ("the custom status", status));
        let (what, payload) = inputs.chain(result).chain(status).find(|(_, payload)| payload.len() > max)?;
        let problem =
            format!("{what} has {} bytes and the hub allows {max}; pass a reference", payload.len());
        Some(FailureDetails::new(kinds::PAYLOAD_TOO_LARGE, problem).non_retriable())
    }
}
