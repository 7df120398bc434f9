//! The activities of a partition that have no result yet.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::effect::ActivityTask;
use super::machine::Partition;
use super::record::LogEntry;
use super::rows;
use crate::ids::{ExecutionId, InstanceId};
use crate::message::ActivityId;
use crate::model::CancelReason;
use crate::payload::Payload;

/// An activity without a result.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) task: Arc<ActivityTask>,
    /// It has a row in the instance store.
    pub(super) stored: bool,
    /// The row is out of date.
    pub(super) changed: bool,
}

/// All activities without a result.
#[derive(Debug, Default)]
pub(super) struct Activities {
    by_id: HashMap<ActivityId, Unfinished, FixedState>,
    /// By who asked for them. Made when it is first needed, because most programs never cancel anything.
    by_call: Option<HashMap<(ExecutionId, i32), ActivityId, FixedState>>,
    /// Those whose last heartbeat is not written yet.
    beaten: BTreeSet<ActivityId>,
}

impl Activities {
    pub(super) fn add(&mut self, task: Arc<ActivityTask>, stored: bool) {
        if let Some(by_call) = &mut self.by_call {
            by_call.insert((task.execution, task.task_id), task.id);
        }
        self.by_id.entry(task.id).or_insert(Unfinished { task, stored, changed: false });
    }

    fn remove(&mut self, id: ActivityId) -> Option<Unfinished> {
        let unfinished = self.by_id.remove(&id)?;
        if let Some(by_call) = &mut self.by_call {
            by_call.remove(&(unfinished.task.execution, unfinished.task.task_id));
        }
        if !self.beaten.is_empty() {
            self.beaten.remove(&id);
        }
        Some(unfinished)
    }

    pub(super) fn get(&self, id: ActivityId) -> Option<&Arc<ActivityTask>> {
        self.by_id.get(&id).map(|unfinished| &unfinished.task)
    }

    pub(super) fn get_mut(&mut self, id: ActivityId) -> Option<&mut Unfinished> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn tasks(&self) -> impl Iterator<Item = &Arc<ActivityTask>> {
        self.by_id.values().map(|unfinished| &unfinished.task)
    }

    /// The event ids of all calls of an execution. It looks at all activities.
    pub(super) fn of_execution(&self, execution: ExecutionId) -> Vec<i32> {
        let its = self.tasks().filter(|task| task.execution == execution);
        let mut ids: Vec<_> = its.map(|task| task.task_id).collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn find(&mut self, execution: ExecutionId, task_id: i32) -> Option<ActivityId> {
        let by_id = &self.by_id;
        let by_call = self.by_call.get_or_insert_with(|| {
            let calls = by_id.values().map(|it| ((it.task.execution, it.task.task_id), it.task.id));
            calls.collect()
        });
        by_call.get(&(execution, task_id)).copied()
    }
}

impl Partition {
    /// Nobody waits for the activity any more. Returns its number, if it has no result yet.
    pub(super) fn cancel_activity(
        &mut self,
        execution: ExecutionId,
        task_id: i32,
        reason: CancelReason,
    ) -> Option<ActivityId> {
        let id = self.activities.find(execution, task_id)?;
        let unfinished = self.activities.get_mut(id)?;
        Arc::make_mut(&mut unfinished.task).cancelled = Some(reason);
        unfinished.changed = true;
        self.changes.activities.push(id);
        Some(id)
    }

    /// A running activity has told how far it has come. That goes to disk with whatever else has to, so that an attempt
    /// after a crash can begin there; it is never a reason to write.
    pub fn note_heartbeat(&mut self, id: ActivityId, detail: Payload) {
        if self.set_heartbeat(id, detail) {
            self.activities.beaten.insert(id);
        }
    }

    pub(super) fn set_heartbeat(&mut self, id: ActivityId, detail: Payload) -> bool {
        let Some(unfinished) = self.activities.get_mut(id) else { return false };
        let task = Arc::make_mut(&mut unfinished.task);
        task.options.get_or_insert_default().last_heartbeat = Some(detail);
        unfinished.changed = true;
        self.changes.activities.push(id);
        true
    }

    /// The heartbeats since the last record.
    pub(super) fn take_heartbeats(&mut self) -> Vec<LogEntry> {
        let beaten = std::mem::take(&mut self.activities.beaten);
        let entry = |id: ActivityId| {
            let detail = self.activities.get(id)?.options.as_ref()?.last_heartbeat.clone()?;
            Some(LogEntry::Heartbeat { id, detail })
        };
        beaten.into_iter().filter_map(entry).collect()
    }

    /// Forgets an unfinished activity, if it is one.
    pub(super) fn settle_activity(&mut self, id: ActivityId) -> Option<Arc<ActivityTask>> {
        let unfinished = self.activities.remove(id)?;
        if unfinished.stored {
            self.changes.deleted_rows.push(rows::activity_key(id));
        }
        Some(unfinished.task)
    }

    /// The activity, if it has no result yet.
    pub fn activity(&self, id: ActivityId) -> Option<&Arc<ActivityTask>> {
        self.activities.get(id)
    }

    /// The activities of an instance that were asked for in durable records and have no result, in the order in which they
    /// were asked for. It looks at all activities of the partition, so it is for people and not for programs' loops.
    pub fn activities_of(&self, instance: &InstanceId) -> Vec<Arc<ActivityTask>> {
        let durable = |task: &&Arc<ActivityTask>| super::apply::scheduled_in(task.id) <= self.durable;
        let mut tasks: Vec<_> = self
            .activities
            .tasks()
            .filter(|task| task.instance == *instance)
            .filter(durable)
            .cloned()
            .collect();
        tasks.sort_unstable_by_key(|task| task.id);
        tasks
    }
}
