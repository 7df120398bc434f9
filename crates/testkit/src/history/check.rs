//! What every history has to look like, whatever the code did.

use std::collections::BTreeMap;

use steadfast_core::{EventKind, HistoryEvent, Timestamp};

/// A history that no runtime wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {at} ({kind}): {problem}")]
pub struct MalformedHistory {
    /// The event's number, counted from 0.
    pub at: usize,
    /// The event's type.
    pub kind: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// What kind of answer an event that asks for something gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Task,
    SubOrchestration,
    Timer,
    Nothing,
}

/// Checks that turns are bracketed (but for one that a rewind follows, which is left open), that ids are unique and ascend, that every answer belongs to a question of its kind
/// and comes once, that time does not go back, and that nothing follows the end.
///
/// # Errors
/// The first event that breaks a rule.
pub fn check_history(history: &[HistoryEvent]) -> Result<(), MalformedHistory> {
    let mut check = Check::default();
    for (at, event) in history.iter().enumerate() {
        check.event(at, event).map_err(|problem| MalformedHistory {
            at,
            kind: event.kind.type_name(),
            problem,
        })?;
    }
    match history.last() {
        Some(last) if check.open => {
            let problem = "the last turn has no end".to_owned();
            Err(MalformedHistory { at: history.len() - 1, kind: last.kind.type_name(), problem })
        }
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Check {
    open: bool,
    /// A turn began within a turn, so it has to rewind the execution.
    rewinds: bool,
    started: bool,
    ended: bool,
    clock: Timestamp,
    last_id: Option<i32>,
    asked: BTreeMap<i32, Asked>,
}

impl Check {
    fn event(&mut self, at: usize, event: &HistoryEvent) -> Result<(), String> {
        let is_rewind = matches!(event.kind, EventKind::ExecutionRewound { .. });
        ensure(is_rewind || !self.rewinds, "it comes where a turn that began within a turn has to rewind")?;
        self.rewinds = false;
        match &event.kind {
            EventKind::OrchestratorStarted => {
                self.rewinds = self.open;
                ensure(!self.ended, "a turn begins after the end")?;
                ensure(event.timestamp >= self.clock, "the clock goes back")?;
                self.clock = event.timestamp;
                self.open = true;
            }
            EventKind::OrchestratorCompleted => {
                ensure(self.open, "a turn ends that did not begin")?;
                self.open = false;
            }
            _ => ensure(self.open, "it stands between two turns")?,
        }
        let is_bracket =
            matches!(event.kind, EventKind::OrchestratorStarted | EventKind::OrchestratorCompleted);
        ensure(is_bracket || !self.ended, "it stands after the end")?;
        match (&event.kind, at) {
            (EventKind::ExecutionStarted(_), 1) => self.started = true,
            (EventKind::ExecutionStarted(_), _) => {
                return Err("it is not the first event of the first turn".to_owned());
            }
            (_, 0) => ensure(is_bracket, "a history begins with a turn")?,
            _ => ensure(self.started, "the history does not begin with ExecutionStarted")?,
        }
        let asked = match &event.kind {
            EventKind::TaskScheduled { .. } => Asked::Task,
            EventKind::SubOrchestrationInstanceCreated(created) if !created.detached => {
                Asked::SubOrchestration
            }
            EventKind::TimerCreated { .. } => Asked::Timer,
            EventKind::SubOrchestrationInstanceCreated(_)
            | EventKind::EventSent { .. }
            | EventKind::EntityOperationSignaled(_)
            | EventKind::EntityOperationCalled(_)
            | EventKind::EntityLockRequested(_)
            | EventKind::EntityUnlockSent(_) => Asked::Nothing,
            EventKind::ExecutionCompleted { .. } | EventKind::ContinueAsNew { .. } => {
                self.ended = true;
                Asked::Nothing
            }
            other => {
                ensure(event.event_id < 0, "it has an id, although no action caused it")?;
                return self.answer(other);
            }
        };
        ensure(self.last_id.is_none_or(|last| last < event.event_id), "its id does not ascend")?;
        ensure(event.event_id >= 0, "it has no id")?;
        self.last_id = Some(event.event_id);
        self.asked.insert(event.event_id, asked);
        Ok(())
    }

    fn answer(&mut self, kind: &EventKind) -> Result<(), String> {
        let (id, wanted) = match kind {
            EventKind::TaskCompleted { task_scheduled_id, .. }
            | EventKind::TaskFailed { task_scheduled_id, .. } => (task_scheduled_id, Asked::Task),
            EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, .. }
            | EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, .. } => {
                (task_scheduled_id, Asked::SubOrchestration)
            }
            EventKind::TimerFired { timer_id, .. } => (timer_id, Asked::Timer),
            _ => return Ok(()),
        };
        match self.asked.insert(*id, Asked::Nothing) {
            Some(asked) if asked == wanted => Ok(()),
            Some(_) => Err(format!("#{id} is answered twice, or is of another kind")),
            None => Err(format!("nothing asked for #{id}")),
        }
    }
}

fn ensure(holds: bool, problem: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem.to_owned()) }
}
