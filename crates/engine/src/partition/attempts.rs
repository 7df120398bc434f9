//! The activities of a partition that wait or run: what stands between the machine, which says what is to be run, and
//! whoever runs it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use actix::{Addr, AsyncContext, Context, Handler};
use foldhash::fast::FixedState;
use parking_lot::Mutex;
use smol_str::SmolStr;
use steadfast_core::dispatch::{Deadlines, NextActivity, Refusal, WaitingActivities};
use steadfast_core::failure::{LAST_HEARTBEAT, kinds};
use steadfast_core::model::{ActivityLink, CancelReason};
use steadfast_core::partition::ActivityTask;
use steadfast_core::{ActivityId, FailureDetails, Payload, Timestamp};

use super::actor::{PartitionActor, PartitionContext};
use super::elsewhere::Elsewhere;
use super::limits::{Limits, Permit};
use super::messages::{ActivitiesRead, ActivityResults, AttemptBegan, Heartbeat, PlaceFree};
use crate::clock::Clock;

/// How often the heartbeats of one attempt are handed to the machine, at most. Between, they stay in memory.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// So many entries of attempts that have ended are not worth looking for.
const STRAY_ENTRIES_MAX: usize = 256;

/// Whoever runs activities. The partition hands out attempts when there are places for them, and takes reports; who runs
/// them, in which thread, process or language, it does not know.
pub(crate) trait ActivityRunner: Send + Sync {
    /// Runs the attempts. Returns at once. Each of them must be [`Reports::done`] once and must keep its permit until then;
    /// those that have deadlines must be [`Reports::began`] when their code begins.
    fn run(&self, attempts: Vec<Attempt>, reports: &Reports);
}

/// One attempt at an activity that has got a place.
pub(crate) struct Attempt {
    pub(super) task: Arc<ActivityTask>,
    /// Its place among those of its name, if the name has a limit.
    pub(super) permit: Option<Permit>,
}

type Outcome = Result<Payload, FailureDetails>;

/// Where the reports on attempts go: to the partition that handed them out.
#[derive(Clone)]
pub(crate) struct Reports {
    partition: Addr<PartitionActor>,
    table: Arc<AttemptTable>,
}

impl Reports {
    /// The attempts have ended. Each answers one that was handed out, and only so many are at once, which bounds them.
    pub(crate) fn done(&self, results: Vec<(ActivityId, Outcome)>) {
        self.partition.do_send(ActivityResults(results));
    }

    /// The code of an attempt begins now.
    pub(crate) fn began(&self, id: ActivityId) {
        self.partition.do_send(AttemptBegan { id, at: self.table.clock.now() });
    }

    /// What the attempt's code talks to.
    pub(crate) fn link(&self) -> Arc<dyn ActivityLink> {
        self.table.clone()
    }

    /// Whether they go to the same partition.
    pub(crate) fn go_to_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.table, &other.table)
    }
}

/// What running attempts and their partition tell each other. An attempt has an entry from the first heartbeat or
/// cancellation on; most never have one.
struct AttemptTable {
    clock: Arc<dyn Clock>,
    payload_bytes_max: usize,
    partition: Mutex<Option<Addr<PartitionActor>>>,
    entries: Mutex<HashMap<ActivityId, TableEntry, FixedState>>,
    /// How many entries there are: looked at without the lock.
    count: AtomicUsize,
    /// The actor is gone.
    closed: AtomicBool,
}

#[derive(Default)]
struct TableEntry {
    cancelled: Option<CancelReason>,
    wakers: Vec<Waker>,
    heartbeat: Option<(Payload, Timestamp)>,
    /// When a heartbeat was last handed to the machine.
    reported_at: Option<Timestamp>,
}

impl AttemptTable {
    fn with<T>(&self, id: ActivityId, change: impl FnOnce(&mut TableEntry) -> T) -> T {
        let mut entries = self.entries.lock();
        let changed = change(entries.entry(id).or_default());
        self.count.store(entries.len(), Ordering::Release);
        changed
    }

    fn remove(&self, id: ActivityId) -> Option<TableEntry> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut entries = self.entries.lock();
        let removed = entries.remove(&id);
        self.count.store(entries.len(), Ordering::Release);
        removed
    }

    /// Forgets entries that nobody removes: code of an attempt that has ended may have left something behind that made one.
    fn prune(&self, is_unfinished: impl Fn(ActivityId) -> bool) {
        let mut entries = self.entries.lock();
        entries.retain(|id, entry| entry.cancelled.is_some() || is_unfinished(*id));
        self.count.store(entries.len(), Ordering::Release);
    }

    fn heartbeat_of(&self, id: ActivityId) -> Option<(Payload, Timestamp)> {
        self.entries.lock().get(&id)?.heartbeat.clone()
    }

    fn cancel(&self, id: ActivityId, reason: CancelReason) {
        let wakers = self.with(id, |entry| {
            entry.cancelled.get_or_insert(reason);
            std::mem::take(&mut entry.wakers)
        });
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl ActivityLink for AttemptTable {
    fn heartbeat(&self, id: ActivityId, detail: Payload) -> Result<(), FailureDetails> {
        let (bytes, max) = (detail.len(), self.payload_bytes_max);
        if bytes > max {
            let problem = format!("the detail has {bytes} bytes and the hub allows {max}");
            return Err(FailureDetails::new(kinds::PAYLOAD_TOO_LARGE, problem).non_retriable());
        }
        let now = self.clock.now();
        let due = self.with(id, |entry| {
            let due = entry.reported_at.is_none_or(|at| at.after(HEARTBEAT_INTERVAL) <= now);
            if due {
                entry.reported_at = Some(now);
            }
            entry.heartbeat = Some((detail.clone(), now));
            due
        });
        if due && let Some(partition) = &*self.partition.lock() {
            partition.do_send(Heartbeat { id, detail });
        }
        Ok(())
    }

    fn poll_cancelled(&self, id: ActivityId, waker: Option<&Waker>) -> Option<CancelReason> {
        let known = |entry: Option<&TableEntry>| entry.and_then(|entry| entry.cancelled);
        let Some(waker) = waker else {
            let closed = self.closed.load(Ordering::Acquire).then_some(CancelReason::Superseded);
            return known(self.entries.lock().get(&id)).or(closed);
        };
        self.with(id, |entry| {
            if self.closed.load(Ordering::Acquire) {
                entry.cancelled.get_or_insert(CancelReason::Superseded);
            }
            if entry.cancelled.is_none() && !entry.wakers.iter().any(|known| known.will_wake(waker)) {
                entry.wakers.push(waker.clone());
            }
            entry.cancelled
        })
    }
}

/// Where an activity without a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivityState {
    /// It waits for a free place.
    Waiting,
    /// It was handed to whoever runs it.
    Running,
}

/// An activity that has no result yet.
#[derive(Debug, Clone, PartialEq)]
pub struct ActivityProgress {
    /// The event id of its `TaskScheduled`.
    pub task_id: i32,
    /// Its name.
    pub name: SmolStr,
    /// Where it is.
    pub state: ActivityState,
    /// The detail of its last heartbeat; of an attempt before this one, if this one has not given any.
    pub heartbeat: Option<Payload>,
    /// When this attempt gave its last heartbeat.
    pub heartbeat_at: Option<Timestamp>,
    /// Why nobody waits for it any more, if so.
    pub cancelled: Option<CancelReason>,
}

/// The activities of a partition that wait or run.
pub(super) struct Attempts {
    waiting: WaitingActivities,
    running: usize,
    running_max: usize,
    deadlines: Deadlines,
    table: Arc<AttemptTable>,
    limits: Arc<Limits>,
    /// When a rate next allows one of those that wait to begin.
    next_by_rate: Option<Timestamp>,
    pub(super) elsewhere: Elsewhere,
}

impl Attempts {
    pub(super) fn new(shared: &PartitionContext, running_max: usize) -> Self {
        Self {
            waiting: WaitingActivities::new(shared.limits.names()),
            running: 0,
            running_max,
            deadlines: Deadlines::default(),
            table: Arc::new(AttemptTable {
                clock: shared.clock.clone(),
                payload_bytes_max: shared.options.payload_bytes_max,
                partition: Mutex::new(None),
                entries: Mutex::default(),
                count: AtomicUsize::new(0),
                closed: AtomicBool::new(false),
            }),
            limits: shared.limits.clone(),
            next_by_rate: None,
            elsewhere: Elsewhere::new(shared.limits.names(), shared.workers.clone()),
        }
    }

    /// An activity is to be run.
    pub(super) fn wait(&mut self, task: Arc<ActivityTask>) {
        if let Some(reason) = task.cancelled {
            self.table.cancel(task.id, reason);
        }
        let free = self.running_max.saturating_sub(self.running);
        self.waiting.push(task, free);
    }

    /// How many activities that ask for places of their names wait.
    fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.elsewhere.has_waiting()
    }

    /// Nobody waits for the activity any more: it learns of that when it runs, if it does not yet.
    fn cancel(&self, id: ActivityId, reason: CancelReason) {
        self.table.cancel(id, reason);
    }

    /// Heartbeats go to this partition from now on.
    pub(super) fn started(&self, partition: Addr<PartitionActor>) {
        *self.table.partition.lock() = Some(partition);
    }

    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.elsewhere.forget_waiting();
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// When there is something to do although nothing has come in.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.deadlines.next_due().into_iter().chain(self.next_by_rate).min()
    }
}

/// The actor goes: its attempts, should they still run, will be repeated.
impl Drop for Attempts {
    fn drop(&mut self) {
        self.table.closed.store(true, Ordering::Release);
        let mut entries = self.table.entries.lock();
        let wakers: Vec<_> = entries
            .values_mut()
            .flat_map(|entry| {
                entry.cancelled.get_or_insert(CancelReason::Superseded);
                std::mem::take(&mut entry.wakers)
            })
            .collect();
        drop(entries);
        wakers.into_iter().for_each(Waker::wake);
        *self.table.partition.lock() = None;
    }
}

impl PartitionActor {
    /// Begins as many waiting activities as may run.
    pub(super) fn dispatch(&mut self, context: &Context<Self>) {
        let Self { attempts, machine, .. } = self;
        attempts.next_by_rate = None;
        if !attempts.has_waiting() || self.stopping.is_some() || machine.is_overloaded() {
            return;
        }
        let free = attempts.running_max.saturating_sub(attempts.running);
        let mut next = Vec::with_capacity(free.min(attempts.waiting.len()));
        let id = machine.id();
        let (limits, next_by_rate) = (&attempts.limits, &mut attempts.next_by_rate);
        let mut permit = |name: &SmolStr| match limits.permit(name, id, self.shared.clock.now()) {
            Ok(permit) => Some(permit),
            Err(Refusal::Full) => None,
            Err(Refusal::Until(at)) => {
                *next_by_rate = Some(next_by_rate.map_or(at, |known| known.min(at)));
                None
            }
        };
        let mut void = Vec::new();
        while next.len() < free
            && let Some(NextActivity { task, permit }) = attempts.waiting.pop(&mut permit)
        {
            if machine.is_activity_wanted(task.id) {
                next.push(Attempt { task, permit });
            } else {
                void.push(task.id);
            }
        }
        let mut given = Vec::new();
        while let Some(NextActivity { task, permit }) = attempts.elsewhere.waiting.pop(&mut permit) {
            if machine.is_activity_wanted(task.id) {
                given.push((task, permit));
            } else {
                void.push(task.id);
            }
        }
        for id in void {
            attempts.table.remove(id);
        }
        self.give_to_workers(given, context);
        let attempts = &mut self.attempts;
        if !next.is_empty() {
            attempts.running += next.len();
            let reports = self.reports(context);
            self.shared.runner.run(next, &reports);
        }
    }

    /// Nobody waits for the activity any more. It is told, unless it has ended meanwhile.
    pub(super) fn cancel_attempt(&mut self, id: ActivityId, reason: CancelReason) {
        self.take_back_from_workers(id);
        if self.machine.activity(id).is_some() {
            self.attempts.cancel(id, reason);
            self.tell_worker(id, reason);
        }
    }

    pub(super) fn reports(&self, context: &Context<Self>) -> Reports {
        Reports { partition: context.address(), table: self.attempts.table.clone() }
    }

    /// Ends the attempts that have taken too long: the orchestration is told that they failed, and they themselves that
    /// they are cancelled. Each keeps its place until its code really ends.
    pub(super) fn expire_attempts(&mut self) {
        if self.attempts.deadlines.next_due().is_none() {
            return;
        }
        let table = self.attempts.table.clone();
        let beaten =
            |id| table.entries.lock().get(&id).and_then(|entry| entry.heartbeat.as_ref()).map(|(_, at)| *at);
        for expired in self.attempts.deadlines.expire(self.shared.clock.now(), beaten) {
            let heartbeat = table.heartbeat_of(expired.id);
            let failure = self.with_heartbeat(expired.id, expired.failure(), heartbeat);
            table.cancel(expired.id, expired.reason);
            self.tell_worker(expired.id, expired.reason);
            self.machine.complete_activity(expired.id, Err(failure));
        }
    }

    /// The failure of an attempt, with how far it had come, or the one before it: a retry hands that to the next attempt.
    fn with_heartbeat(
        &self,
        id: ActivityId,
        failure: FailureDetails,
        heartbeat: Option<(Payload, Timestamp)>,
    ) -> FailureDetails {
        let earlier = || self.machine.activity(id)?.options.as_ref()?.last_heartbeat.clone();
        match heartbeat.map(|(detail, _)| detail).or_else(earlier) {
            Some(detail) => failure.with_property(LAST_HEARTBEAT, detail.as_str()),
            None => failure,
        }
    }
}

impl Handler<ActivityResults> for PartitionActor {
    type Result = ();

    fn handle(&mut self, ActivityResults(results): ActivityResults, context: &mut Context<Self>) {
        self.mail.note();
        self.machine.set_now(self.shared.clock.now());
        for (id, mut outcome) in results {
            let attempts = &mut self.attempts;
            if !attempts.elsewhere.end(id) {
                attempts.running = attempts.running.saturating_sub(1);
            }
            attempts.deadlines.end(id);
            let heartbeat = attempts.table.remove(id).and_then(|entry| entry.heartbeat);
            if let Err(failure) = outcome {
                outcome = Err(self.with_heartbeat(id, failure, heartbeat));
            }
            self.machine.complete_activity(id, outcome);
        }
        if self.attempts.table.count.load(Ordering::Acquire) > 2 * self.attempts.running + STRAY_ENTRIES_MAX {
            self.attempts.table.prune(|id| self.machine.activity(id).is_some());
        }
        self.pump_soon(context);
    }
}

impl Handler<AttemptBegan> for PartitionActor {
    type Result = ();

    fn handle(&mut self, AttemptBegan { id, at }: AttemptBegan, context: &mut Context<Self>) {
        self.mail.note();
        if let Some(options) = self.machine.activity(id).and_then(|task| task.options.as_deref()) {
            self.attempts.deadlines.begin(id, options, at);
        }
        self.pump_soon(context);
    }
}

impl Handler<Heartbeat> for PartitionActor {
    type Result = ();

    fn handle(&mut self, Heartbeat { id, detail }: Heartbeat, _context: &mut Context<Self>) {
        self.mail.note();
        self.machine.note_heartbeat(id, detail);
    }
}

impl Handler<PlaceFree> for PartitionActor {
    type Result = ();

    fn handle(&mut self, _place: PlaceFree, context: &mut Context<Self>) {
        self.mail.note();
        self.pump_soon(context);
    }
}

impl Handler<ActivitiesRead> for PartitionActor {
    type Result = ();

    fn handle(&mut self, ActivitiesRead { instance, answer }: ActivitiesRead, _context: &mut Context<Self>) {
        self.mail.note();
        let waiting: std::collections::BTreeSet<_> = self
            .attempts
            .waiting
            .tasks()
            .filter(|task| task.instance == instance)
            .map(|task| task.id)
            .collect();
        let entries = self.attempts.table.entries.lock();
        let progress = self.machine.activities_of(&instance).into_iter().map(|task| {
            let live = entries.get(&task.id).and_then(|entry| entry.heartbeat.clone());
            let earlier = || task.options.as_ref()?.last_heartbeat.clone();
            ActivityProgress {
                task_id: task.task_id,
                name: task.name.clone(),
                state: if waiting.contains(&task.id) {
                    ActivityState::Waiting
                } else {
                    ActivityState::Running
                },
                heartbeat: live.as_ref().map(|(detail, _)| detail.clone()).or_else(earlier),
                heartbeat_at: live.map(|(_, at)| at),
                cancelled: task.cancelled,
            }
        });
        let _ = answer.send(Ok(progress.collect()));
    }
}
