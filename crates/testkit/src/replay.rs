//! The replay tester: does this code still agree with that history?

use std::sync::Arc;

use steadfast_core::failure::kinds;
use steadfast_core::history_json::{self, HistoryJsonError};
use steadfast_core::model::{Register, Registry};
use steadfast_core::turn::{NotRegistered, Session, Unfit};
use steadfast_core::{
    EventKind, FailureDetails, HistoryEvent, InstanceId, OrchestrationStatus, Origin, Payload, TaskMessage,
};

/// What the code does where the history ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayOutcome {
    /// What the code asks for beyond the history: nothing when the history ends with a whole turn.
    pub next: Vec<EventKind>,
    /// How the code ends, if it does.
    pub end: Option<ReplayedEnd>,
    /// The custom status that the code set since the last whole turn.
    pub custom_status: Option<Payload>,
}

/// How replayed code ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayedEnd {
    /// It returned, failed, or was terminated.
    Completed {
        /// Completed, Failed or Terminated.
        status: OrchestrationStatus,
        /// The result, if it completed.
        output: Option<Payload>,
        /// Why it failed.
        failure: Option<Box<FailureDetails>>,
    },
    /// It continues as new.
    ContinuedAsNew {
        /// Input of the next execution.
        input: Payload,
    },
}

/// Code and history do not agree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The code asks for something else than the history says, or ends where the history goes on.
    #[error("{}", .0.message)]
    NonDeterminism(Box<FailureDetails>),
    /// The history ends the execution, and the code does not, or otherwise.
    #[error("the history ends with {expected}, but the code now {found}")]
    EndsDifferently {
        /// What the history says.
        expected: String,
        /// What the code does.
        found: String,
    },
    /// The orchestration is not registered.
    #[error(transparent)]
    NotRegistered(#[from] NotRegistered),
    /// The dump is not the history of an execution.
    #[error(transparent)]
    Unreadable(#[from] HistoryJsonError),
    /// The registry does not go on with it: it does not take its version, or parks what disagrees.
    #[error(transparent)]
    Unfit(Unfit),
    /// It does not begin with an `ExecutionStarted`.
    #[error("the history has no ExecutionStarted, so nobody knows which code it belongs to")]
    NoStart,
}

/// Replays a history through the code that is to go on with it, as the runtime does when it loads the instance. Put the
/// histories of running instances into your tests, and a change that would break them is found before they are.
///
/// ```
/// use steadfast_core::model::{ActivityContext, OrchestrationContext, activity, orchestration};
/// use steadfast_core::Result;
/// use steadfast_testkit::{HistoryBuilder, ReplayError, replay};
///
/// let greet = activity("greet", |_: ActivityContext, city: String| async move { Result::<_>::Ok(format!("Hello, {city}!")) });
/// let call = greet.handle();
/// let greet_one = orchestration("greet_one", move |ctx: OrchestrationContext, city: String| {
///     let call = call.clone();
///     async move { Result::<_>::Ok(ctx.call(call, city).await?) }
/// });
///
/// let mut history = HistoryBuilder::new("greet_one", "Tokyo");
/// let greeting = history.task_scheduled("greet", "Tokyo");
/// history.task_completed(greeting, "Hello, Tokyo!");
/// let outcome = replay(greet_one, &history.build_open()).unwrap();
/// assert!(outcome.end.is_some(), "the code returns at that point");
///
/// // The same history does not fit code that asks for something else first.
/// let wave = activity("wave", |_: ActivityContext, (): ()| async move { Result::<_>::Ok(()) }).handle();
/// let changed = orchestration("greet_one", move |ctx: OrchestrationContext, _: String| {
///     let wave = wave.clone();
///     async move { Result::<_>::Ok(ctx.call(wave, ()).await?) }
/// });
/// let error = replay(changed, &history.build_open()).unwrap_err();
/// assert!(matches!(error, ReplayError::NonDeterminism(_)));
/// assert!(error.to_string().contains("activity 'greet'"));
/// ```
///
/// # Errors
/// Where they part.
///
/// # Panics
/// Never: one registration cannot collide with itself.
pub fn replay(orchestration: impl Register, history: &[HistoryEvent]) -> Result<ReplayOutcome, ReplayError> {
    let mut registry = Registry::default();
    orchestration.register(&mut registry).expect("an empty registry takes anything");
    replay_in(&Arc::new(registry), &InstanceId::from_trusted("replayed"), history)
}

/// Replays a history that was printed as JSON, by [`history_json::write`] or by another Durable Task backend, through
/// the code that the registry has for it: keep dumps of running instances beside the tests.
///
/// ```
/// use std::sync::Arc;
/// use steadfast_core::Result;
/// use steadfast_core::model::{ActivityName, OrchestrationContext, Register, Registry, orchestration};
/// use steadfast_testkit::replay_json;
///
/// let greet_one = orchestration("greet_one", |ctx: OrchestrationContext, city: String| async move {
///     Result::<_>::Ok(ctx.call(ActivityName::<String, String>::new("greet"), city).await?)
/// });
/// let mut registry = Registry::default();
/// greet_one.register(&mut registry).unwrap();
/// let dump = r#"[
///     {"EventType": 12, "EventId": -1, "Timestamp": "2026-01-01T00:00:00Z"},
///     {"EventType": 0, "EventId": -1, "Timestamp": "2026-01-01T00:00:00Z", "Name": "greet_one", "Input": "\"Tokyo\""},
///     {"EventType": 4, "EventId": 0, "Timestamp": "2026-01-01T00:00:00Z", "Name": "greet"},
///     {"EventType": 13, "EventId": -1, "Timestamp": "2026-01-01T00:00:00Z"}
/// ]"#;
/// assert!(replay_json(&Arc::new(registry), dump).unwrap().end.is_none(), "the code waits for the activity");
/// ```
///
/// # Errors
/// When the dump cannot be read, or where code and history part.
pub fn replay_json(registry: &Arc<Registry>, dump: &str) -> Result<ReplayOutcome, ReplayError> {
    let mut dump = history_json::read(dump)?;
    dump.begin_at_zero();
    let instance = dump.instance.unwrap_or_else(|| InstanceId::from_trusted("replayed"));
    replay_in(registry, &instance, &dump.events)
}

/// Replays a history of `instance` through whatever code the registry has for it. The instance's id matters only to
/// code that uses it.
///
/// # Errors
/// Where code and history part.
pub fn replay_in(
    registry: &Arc<Registry>,
    instance: &InstanceId,
    history: &[HistoryEvent],
) -> Result<ReplayOutcome, ReplayError> {
    let is_start = |event: &HistoryEvent| matches!(event.kind, EventKind::ExecutionStarted(_));
    if !history.iter().any(is_start) {
        return Err(ReplayError::NoStart);
    }
    // A session whose execution is over takes no more turns; so the code is brought to just before its end.
    let end = history.iter().position(|event| ends(&event.kind));
    let open = &history[..end.unwrap_or(history.len())];
    let mut session = Session::new(registry.clone(), instance.clone(), usize::MAX);
    session.replay(open).map_err(|unfit| match unfit {
        Unfit::NotRegistered(missing) => ReplayError::NotRegistered(missing),
        other => ReplayError::Unfit(other),
    })?;
    let now = open.last().map(|event| event.timestamp).unwrap_or_default();
    // An event that means nothing to the code makes it show what it asks for.
    let event = HistoryEvent::message(now, EventKind::GenericEvent { data: "replayed".into() });
    let (instance, execution) = (instance.clone(), None);
    let turn = session.turn(vec![TaskMessage { instance, execution, event, origin: Origin::Client }], now);
    let mut outcome = ReplayOutcome { next: Vec::new(), end: None, custom_status: turn.custom_status };
    for event in turn.events {
        match event.kind {
            EventKind::ExecutionCompleted { status, output, failure } => {
                outcome.end = Some(ReplayedEnd::Completed { status, output, failure });
            }
            EventKind::ContinueAsNew { input } => outcome.end = Some(ReplayedEnd::ContinuedAsNew { input }),
            EventKind::OrchestratorStarted
            | EventKind::OrchestratorCompleted
            | EventKind::GenericEvent { .. } => {}
            asked => outcome.next.push(asked),
        }
    }
    let recorded = end.map(|at| &history[at].kind);
    if let Some(ReplayedEnd::Completed { failure: Some(failure), .. }) = &outcome.end
        && failure.error_type == kinds::NON_DETERMINISM
        && !is_nondeterminism(recorded)
    {
        return Err(ReplayError::NonDeterminism(failure.clone()));
    }
    match recorded {
        Some(recorded) if !agrees(recorded, &outcome) => {
            Err(ReplayError::EndsDifferently { expected: describe(recorded), found: found(&outcome) })
        }
        _ => Ok(outcome),
    }
}

fn ends(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ExecutionCompleted { .. } | EventKind::ContinueAsNew { .. })
}

/// The history itself ends with a disagreement; nothing that the code does now could mend it.
fn is_nondeterminism(recorded: Option<&EventKind>) -> bool {
    matches!(recorded, Some(EventKind::ExecutionCompleted { failure: Some(failure), .. })
        if failure.error_type == kinds::NON_DETERMINISM)
}

fn agrees(recorded: &EventKind, outcome: &ReplayOutcome) -> bool {
    if !outcome.next.is_empty() {
        return false;
    }
    match (recorded, &outcome.end) {
        (EventKind::ExecutionCompleted { status, .. }, Some(ReplayedEnd::Completed { status: now, .. })) => {
            status == now
        }
        (EventKind::ContinueAsNew { .. }, Some(ReplayedEnd::ContinuedAsNew { .. })) => true,
        _ => false,
    }
}

fn describe(recorded: &EventKind) -> String {
    match recorded {
        EventKind::ExecutionCompleted { status, .. } => format!("status {status}"),
        other => other.type_name().to_owned(),
    }
}

fn found(outcome: &ReplayOutcome) -> String {
    match (outcome.next.first(), &outcome.end) {
        (Some(EventKind::TaskScheduled { name, .. }), _) => format!("asks for activity '{name}'"),
        (Some(asked), _) => format!("asks for {}", asked.type_name()),
        (None, Some(ReplayedEnd::Completed { status, .. })) => format!("ends with status {status}"),
        (None, Some(ReplayedEnd::ContinuedAsNew { .. })) => "continues as new".to_owned(),
        (None, None) => "waits".to_owned(),
    }
}
