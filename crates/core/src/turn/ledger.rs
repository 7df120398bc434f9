//! What is kept of an execution beside its code: what its end has to tell others. It follows from the history alone, so
//! it is the same whether the code runs here or in another process.

use std::collections::BTreeMap;

use crate::entity::RequestedLocks;
use crate::event::{EventKind, HistoryEvent};
use crate::ids::InstanceId;
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct Ledger {
    /// When the instance was created.
    pub(super) created_at: Timestamp,
    /// Sub-orchestrations that are awaited and have not ended.
    pub(super) children: BTreeMap<i32, InstanceId>,
    /// Entities' locks that the history says it has asked for.
    locks: Option<Box<RequestedLocks>>,
    /// Suspensions and resumptions that arrived after the code continued as new: they are for the next execution.
    pub(super) forwarded: Vec<HistoryEvent>,
    /// The termination concerns its children, too.
    pub(super) terminated_recursively: bool,
}

impl Ledger {
    pub(super) fn new(created_at: Timestamp) -> Self {
        Self {
            created_at,
            children: BTreeMap::new(),
            locks: None,
            forwarded: Vec::new(),
            terminated_recursively: false,
        }
    }

    /// Takes note of an event that records an action.
    pub(super) fn note_action(&mut self, event: &HistoryEvent) {
        match &event.kind {
            EventKind::SubOrchestrationInstanceCreated(created) if !created.detached => {
                self.children.insert(event.event_id, created.instance.clone());
            }
            kind => self.note_locks(kind),
        }
    }

    /// Locks follow from the history, also where the code disagrees with it.
    pub(super) fn note_locks(&mut self, kind: &EventKind) {
        RequestedLocks::note_in(&mut self.locks, kind);
    }

    /// Takes note of an event that ends the wait for a sub-orchestration.
    pub(super) fn note_answer(&mut self, kind: &EventKind) {
        if let EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, .. }
        | EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, .. } = kind
        {
            self.children.remove(task_scheduled_id);
        }
    }

    pub(super) fn take_locks(&mut self) -> Option<RequestedLocks> {
        self.locks.take().map(|locks| *locks)
    }
}
