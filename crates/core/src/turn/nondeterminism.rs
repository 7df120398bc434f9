//! Replay that disagrees with history.

use crate::action::{ActionKind, OrchestratorAction};
use crate::entity::EntityId;
use crate::event::{EventKind, HistoryEvent};
use crate::failure::{FailureDetails, kinds};

/// The code asked for something else than the history says it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the history's event #{event_id} is {expected}, but the code now {found}; was the orchestration's code changed \
     while this instance was running? register the changed code as a new version instead"
)]
pub struct NonDeterminism {
    /// The id of the event or action at which they part.
    pub event_id: i32,
    /// What the history says.
    pub expected: String,
    /// What the code does.
    pub found: String,
}

impl From<NonDeterminism> for FailureDetails {
    fn from(error: NonDeterminism) -> Self {
        Self::new(kinds::NON_DETERMINISM, error.to_string()).non_retriable()
    }
}

impl NonDeterminism {
    /// Compares an event that records an action with the first unconfirmed action of the replaying code.
    pub(super) fn check(event: &HistoryEvent, action: Option<&OrchestratorAction>) -> Result<(), Self> {
        let matches =
            action.is_some_and(|action| action.id == event.event_id && agree(&event.kind, &action.kind));
        if matches {
            return Ok(());
        }
        let found = match action {
            Some(action) => format!("asks for {} as #{}", describe_action(&action.kind), action.id),
            None => "asks for nothing at that point".to_owned(),
        };
        Err(Self { event_id: event.event_id, expected: describe_event(&event.kind), found })
    }

    /// The code asked for `action` in a turn whose history ends without it.
    pub(super) fn unexpected(action: &OrchestratorAction) -> Self {
        Self {
            event_id: action.id,
            expected: "the end of the turn".to_owned(),
            found: format!("asks for {} as #{}", describe_action(&action.kind), action.id),
        }
    }

    /// The code ended in a turn after which the history goes on.
    pub(super) fn early_end(event_id: i32) -> Self {
        Self { event_id, expected: "a turn that waits".to_owned(), found: "ends".to_owned() }
    }

    /// The code says that no execution without this patch is left.
    pub(super) fn outdated_patch(id: &str) -> Self {
        Self {
            event_id: crate::event::NO_EVENT_ID,
            expected: format!("an execution that went on without patch '{id}'"),
            found: "has deprecated that patch: it no longer has the old path".to_owned(),
        }
    }

    /// A completion is for another kind of operation than the code asked for.
    pub(super) fn wrong_kind(event_id: i32, event: &EventKind, found: &str) -> Self {
        let expected = format!("an operation that ends with {}", event.type_name());
        Self { event_id, expected, found: format!("waits for {found} there") }
    }
}

/// Whether an action is the one that an event records. Inputs and times are not compared: they may follow harmless
/// changes, such as a field that was added with a default.
fn agree(event: &EventKind, action: &ActionKind) -> bool {
    match (event, action) {
        (
            EventKind::TaskScheduled { name, version, .. },
            ActionKind::ScheduleTask { name: now, version: version_now, .. },
        ) => name == now && version == version_now,
        (EventKind::TimerCreated { .. }, ActionKind::CreateTimer { .. }) => true,
        (EventKind::SubOrchestrationInstanceCreated(then), ActionKind::CreateSubOrchestration(now)) => {
            then.name == now.name
                && then.version == now.version
                && then.instance == now.instance
                && then.detached == now.detached
        }
        (
            EventKind::EventSent { instance, name, .. },
            ActionKind::SendEvent { instance: instance_now, name: now, .. },
        ) => instance == instance_now && name == now,
        (EventKind::EntityOperationSignaled(then), ActionKind::SignalEntity(now))
        | (EventKind::EntityOperationCalled(then), ActionKind::CallEntity(now)) => {
            then.target == now.target && then.operation == now.operation
        }
        (EventKind::EntityLockRequested(then), ActionKind::LockEntities(now)) => {
            then.lock_set == now.lock_set
        }
        (EventKind::EntityUnlockSent(then), ActionKind::UnlockEntity(now)) => {
            then.target == now.target && then.then == now.then
        }
        _ => false,
    }
}

fn versioned(what: &str, name: &str, version: &str) -> String {
    if version.is_empty() {
        format!("{what} '{name}'")
    } else {
        format!("{what} '{name}' version '{version}'")
    }
}

fn describe_event(event: &EventKind) -> String {
    match event {
        EventKind::TaskScheduled { name, version, .. } => versioned("activity", name, version),
        EventKind::TimerCreated { .. } => "a timer".to_owned(),
        EventKind::SubOrchestrationInstanceCreated(child) => {
            format!(
                "{} with id '{}'",
                versioned("sub-orchestration", &child.name, &child.version),
                child.instance
            )
        }
        EventKind::EventSent { instance, name, .. } => format!("event '{name}' sent to '{instance}'"),
        EventKind::EntityOperationSignaled(operation) => {
            format!("signal '{}' to {}", operation.operation, entities(operation.target.as_slice()))
        }
        EventKind::EntityOperationCalled(operation) => {
            format!("call '{}' of {}", operation.operation, entities(operation.target.as_slice()))
        }
        EventKind::EntityLockRequested(request) => format!("locks of {}", entities(&request.lock_set)),
        EventKind::EntityUnlockSent(unlock) => {
            format!("release of {}", entities(unlock.target.as_slice()))
        }
        other => other.type_name().to_owned(),
    }
}

fn entities(ids: &[EntityId]) -> String {
    ids.iter().map(|id| format!("entity '{id}'")).collect::<Vec<_>>().join(", ")
}

fn describe_action(action: &ActionKind) -> String {
    match action {
        ActionKind::Complete(_) => "the end of the execution".to_owned(),
        other => other.scheduled_event().map_or_else(String::new, |event| describe_event(&event)),
    }
}
