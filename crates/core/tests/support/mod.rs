//! Drives a [`Session`] by hand: virtual time, one batch of messages per turn, and the history that results. Each
//! scenario runs twice, with a session that is kept and with one that is made anew and replays the history before
//! every turn; both must do exactly the same.

mod events;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use steadfast_core::model::{OrchestrationContext, Register, Registry, orchestration};
use steadfast_core::turn::{HistoryRoom, RewindRefusal, Session, Turn};
use steadfast_core::{
    EventKind, ExecutionId, ExecutionStarted, FailureDetails, HistoryEvent, InstanceId, NO_EVENT_ID,
    OrchestrationStatus, Origin, Payload, TaskMessage, Timestamp,
};

pub(crate) use events::*;

/// The name under which [`code`] registers its orchestration.
pub(crate) const TEST: &str = "test";
/// The largest payload in bytes.
pub(crate) const MAX_PAYLOAD: usize = 1000;

/// A registry with one orchestration, named [`TEST`].
pub(crate) fn code<I, O, F, Fut>(code: F) -> Registry
where
    F: Fn(OrchestrationContext, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = steadfast_core::Result<O>> + 'static,
    I: DeserializeOwned + 'static,
    O: Serialize + 'static,
{
    let mut registry = Registry::default();
    orchestration(TEST, code).register(&mut registry).unwrap();
    registry
}

/// Runs a scenario with a kept and with a replaying session, and compares all their turns.
pub(crate) fn scenario(registry: Registry, script: impl Fn(&mut Driver)) -> Driver {
    let registry = Arc::new(registry);
    let [kept, replaying] = [false, true].map(|replaying| {
        let mut driver = Driver::new(registry.clone(), replaying);
        script(&mut driver);
        driver
    });
    assert_eq!(kept.turns, replaying.turns, "a replaying session did something else than a kept one");
    kept
}

pub(crate) struct Driver {
    registry: Arc<Registry>,
    session: Session,
    replaying: bool,
    /// The time of the next turn; it advances by a second after each.
    pub(crate) now: Timestamp,
    /// The current execution's history.
    pub(crate) history: Vec<HistoryEvent>,
    pub(crate) turns: Vec<Turn>,
    started: u128,
}

impl Driver {
    pub(crate) fn new(registry: Arc<Registry>, replaying: bool) -> Self {
        let session = Session::new(registry.clone(), instance(), MAX_PAYLOAD);
        let now = Timestamp::from_micros(1_000_000_000);
        Self { registry, session, replaying, now, history: Vec::new(), turns: Vec::new(), started: 0 }
    }

    /// Changes the code for all turns to come, as a new deployment does.
    pub(crate) fn deploy(&mut self, registry: Registry) {
        self.registry = Arc::new(registry);
        self.evict();
    }

    /// Replaces the session by one that has replayed the history.
    pub(crate) fn evict(&mut self) {
        self.session = Session::new(self.registry.clone(), instance(), MAX_PAYLOAD);
        // History of an orchestration that is not registered has ended; nothing needs to be replayed then.
        let _ = self.session.replay(&self.history);
    }

    /// One turn over a batch of messages.
    pub(crate) fn turn(&mut self, batch: Vec<TaskMessage>) -> &Turn {
        if self.replaying {
            self.evict();
        }
        let turn = self.session.turn(batch, self.now);
        self.now = self.now.after(Duration::from_secs(1));
        if matches!(turn.events.get(1).map(|event| &event.kind), Some(EventKind::ExecutionStarted(_))) {
            self.history.clear();
        }
        self.history.extend(turn.events.iter().cloned());
        check_turn(&turn);
        check_history(&self.history);
        self.turns.push(turn);
        self.last()
    }

    /// Rewinds the execution, which has failed.
    pub(crate) fn rewind(&mut self) -> Result<&Turn, RewindRefusal> {
        self.rewind_for(rewound(None), &HistoryRoom::UNLIMITED)
    }

    pub(crate) fn rewind_for(&mut self, kind: EventKind, room: &HistoryRoom) -> Result<&Turn, RewindRefusal> {
        let mut session = Session::new(self.registry.clone(), instance(), MAX_PAYLOAD);
        let turn = session.rewind(&self.history, &self.message(kind), self.now, room)?;
        self.session = session;
        self.now = self.now.after(Duration::from_secs(1));
        self.history.clone_from(&turn.events);
        check_turn(&turn);
        check_history(&self.history);
        self.turns.push(turn);
        Ok(self.last())
    }

    /// One turn over a batch of events addressed to whichever execution is current.
    pub(crate) fn send(&mut self, batch: impl IntoIterator<Item = EventKind>) -> &Turn {
        let batch = batch.into_iter().map(|kind| self.message(kind)).collect();
        self.turn(batch)
    }

    /// Starts [`TEST`] with an input, in a turn of its own.
    pub(crate) fn start(&mut self, input: impl Serialize) -> &Turn {
        let start = self.start_of(TEST, input);
        self.turn(vec![start])
    }

    /// Starts [`TEST`] in the same turn in which other events arrive.
    pub(crate) fn start_and(&mut self, batch: impl IntoIterator<Item = EventKind>) -> &Turn {
        let mut messages = vec![self.start_of(TEST, ())];
        messages.extend(batch.into_iter().map(|kind| self.message(kind)));
        self.turn(messages)
    }

    /// The message that starts an orchestration as a new execution.
    pub(crate) fn start_of(&mut self, name: &str, input: impl Serialize) -> TaskMessage {
        self.started += 1;
        let execution = ExecutionId::new(uuid::Uuid::from_u128(self.started));
        let started = started(name, execution, Payload::encode(&input).unwrap());
        self.message_to(execution, EventKind::ExecutionStarted(Box::new(started)))
    }

    pub(crate) fn message(&self, kind: EventKind) -> TaskMessage {
        // Messages are older than the turn that receives them.
        let sent = Timestamp::from_micros(self.now.as_micros() - 1000);
        let event = HistoryEvent::message(sent, kind);
        TaskMessage { instance: instance(), execution: None, event, origin: Origin::Client }
    }

    pub(crate) fn message_to(&self, execution: ExecutionId, kind: EventKind) -> TaskMessage {
        TaskMessage { execution: Some(execution), ..self.message(kind) }
    }

    /// The start of the next generation that the last turn asked for.
    pub(crate) fn next_start(&self) -> TaskMessage {
        let to_self = |message: &&TaskMessage| {
            message.instance == instance() && matches!(message.event.kind, EventKind::ExecutionStarted(_))
        };
        self.last().messages.iter().find(to_self).expect("the last turn did not continue as new").clone()
    }

    /// Begins the next generation in a turn in which other events arrive, too.
    pub(crate) fn next_generation(&mut self, batch: impl IntoIterator<Item = EventKind>) -> &Turn {
        let mut messages = vec![self.next_start()];
        messages.extend(batch.into_iter().map(|kind| self.message(kind)));
        self.turn(messages)
    }

    pub(crate) fn last(&self) -> &Turn {
        self.turns.last().expect("there was no turn")
    }

    /// What the last turn did, in short: see [`short`].
    pub(crate) fn emitted(&self) -> Vec<String> {
        let actions = self.last().new_events().iter().filter(|event| event.event_id != NO_EVENT_ID);
        actions.map(short).collect()
    }

    /// The whole history but for the marks of turns, in short.
    pub(crate) fn story(&self) -> Vec<String> {
        let marks = [EventKind::OrchestratorStarted, EventKind::OrchestratorCompleted];
        self.history.iter().filter(|event| !marks.contains(&event.kind)).map(short).collect()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.session.is_over()
    }

    /// The status with which the execution ended.
    pub(crate) fn status(&self) -> Option<OrchestrationStatus> {
        self.history.iter().find_map(|event| match &event.kind {
            EventKind::ExecutionCompleted { status, .. } => Some(*status),
            EventKind::ContinueAsNew { .. } => Some(OrchestrationStatus::ContinuedAsNew),
            _ => None,
        })
    }

    /// The result of an execution that completed.
    pub(crate) fn output<T: DeserializeOwned>(&self) -> T {
        let output = self.history.iter().find_map(|event| match &event.kind {
            EventKind::ExecutionCompleted { output, .. } => output.as_ref(),
            _ => None,
        });
        let output = output.unwrap_or_else(|| panic!("no result: {:#?}", self.story()));
        output.decode().unwrap()
    }

    /// Why the execution failed.
    pub(crate) fn failure(&self) -> &FailureDetails {
        let failure = self.history.iter().find_map(|event| match &event.kind {
            EventKind::ExecutionCompleted { failure, .. } => failure.as_deref(),
            _ => None,
        });
        failure.unwrap_or_else(|| panic!("no failure: {:#?}", self.story()))
    }

    /// Asserts that the last turn emitted just this, in the notation of [`short`].
    pub(crate) fn expect<const N: usize>(&self, emitted: [&str; N]) {
        assert_eq!(self.emitted(), emitted);
    }
}

pub(crate) fn instance() -> InstanceId {
    InstanceId::parse("the-instance").unwrap()
}

pub(crate) fn started(name: &str, execution: ExecutionId, input: Payload) -> ExecutionStarted {
    ExecutionStarted::new(SmolStr::new(name), SmolStr::default(), input, execution)
}

/// What holds of every turn.
fn check_turn(turn: &Turn) {
    let Some((first, rest)) = turn.events.split_first() else {
        assert_eq!(turn.execution, None);
        return;
    };
    assert!(turn.execution.is_some());
    assert_eq!(first.kind, EventKind::OrchestratorStarted);
    assert_eq!(rest.last().unwrap().kind, EventKind::OrchestratorCompleted);
}

/// What holds of every history: ids of actions ascend without repetition, and the clock never goes back.
fn check_history(history: &[HistoryEvent]) {
    let ids: Vec<_> = history.iter().map(|event| event.event_id).filter(|id| *id != NO_EVENT_ID).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "ids repeat or go back: {ids:?}");
    let turns = history.iter().filter(|event| event.kind == EventKind::OrchestratorStarted);
    assert!(turns.is_sorted_by_key(|event| event.timestamp), "the clock went back");
}
