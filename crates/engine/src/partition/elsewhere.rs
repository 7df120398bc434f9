//! Activities whose code is not registered in this process: workers run them. They take no places here, only those of their
//! names.

use std::collections::HashMap;
use std::sync::Arc;

use actix::Context;
use foldhash::fast::FixedState;
use smol_str::SmolStr;
use steadfast_core::dispatch::WaitingActivities;
use steadfast_core::model::CancelReason;
use steadfast_core::partition::ActivityTask;
use steadfast_core::{ActivityId, FailureDetails, Payload};

use super::actor::PartitionActor;
use super::dispatcher::check_size;
use super::limits::Permit;
use crate::workers::{Item, Workers};

/// The activities of a partition that workers are to run.
pub(super) struct Elsewhere {
    /// They have no place among those of their name yet.
    pub(super) waiting: WaitingActivities,
    /// They wait for a worker, or one has them.
    given: HashMap<ActivityId, Arc<Item>, FixedState>,
    workers: Option<Workers>,
}

/// What goes with an activity to whoever runs it.
pub(crate) struct RunsElsewhere {
    permit: Option<Permit>,
    payload_bytes_max: usize,
}

impl RunsElsewhere {
    /// A worker has given a result.
    pub(crate) fn ended(self, outcome: Result<Payload, FailureDetails>) -> Result<Payload, FailureDetails> {
        drop(self.permit);
        check_size(outcome, self.payload_bytes_max)
    }
}

impl Elsewhere {
    pub(super) fn new(limited: impl IntoIterator<Item = SmolStr>, workers: Option<Workers>) -> Self {
        Self { waiting: WaitingActivities::new(limited), given: HashMap::default(), workers }
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// The activity has a result. False if it was not given to workers.
    pub(super) fn end(&mut self, id: ActivityId) -> bool {
        !self.given.is_empty() && self.given.remove(&id).is_some()
    }
}

/// The partition goes: nobody takes the results any more.
impl Drop for Elsewhere {
    fn drop(&mut self) {
        let Some(workers) = &self.workers else { return };
        self.given.values().for_each(|item| workers.withdraw(item));
    }
}

impl PartitionActor {
    /// An activity is to be run, here or by a worker.
    pub(super) fn wait_for_place(&mut self, task: Arc<ActivityTask>) {
        let is_here = || {
            let ActivityTask { name, version, instance_version, .. } = &*task;
            self.shared.registry.find_activity_for(name, version, instance_version).is_some()
        };
        if self.shared.workers.is_none() || is_here() {
            self.attempts.wait(task);
        } else {
            self.attempts.elsewhere.waiting.push(task, 0);
        }
    }

    pub(super) fn give_to_workers(
        &mut self,
        given: Vec<(Arc<ActivityTask>, Option<Permit>)>,
        context: &Context<Self>,
    ) {
        let Some(workers) = self.shared.workers.clone().filter(|_| !given.is_empty()) else { return };
        let reports = self.reports(context);
        let payload_bytes_max = self.shared.options.payload_bytes_max;
        for (task, permit) in given {
            let (id, attempt) = (task.id, RunsElsewhere { permit, payload_bytes_max });
            let item = Item::activity(task, attempt, reports.clone());
            self.attempts.elsewhere.given.insert(id, item.clone());
            workers.offer(item);
        }
    }

    /// Nobody waits for the activity any more. If no worker has had it yet, it is looked at anew.
    pub(super) fn take_back_from_workers(&mut self, id: ActivityId) {
        let Some(workers) = &self.shared.workers else { return };
        let given = &mut self.attempts.elsewhere.given;
        if given.get(&id).is_some_and(|item| !item.was_handed_out())
            && let Some(item) = given.remove(&id)
        {
            workers.withdraw(&item);
            if let Some(task) = self.machine.activity(id).cloned() {
                self.attempts.elsewhere.waiting.push(task, 0);
            }
        }
    }

    /// Nobody waits for the activity any more: the worker that has it is told.
    pub(super) fn tell_worker(&self, id: ActivityId, reason: CancelReason) {
        if let Some(item) = self.attempts.elsewhere.given.get(&id)
            && let Some(workers) = &self.shared.workers
        {
            workers.cancel(item, reason);
        }
    }
}
