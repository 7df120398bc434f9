//! Workers: other processes that run the code which is not registered in this one.
//!
//! What needs such code becomes a work item: a turn of an orchestration, an activity, a batch of an entity's operations.
//! Items wait in lanes by name and version until a connected worker that takes them has a free place. Each time an item is
//! handed out it gets a token, which the worker gives back with the result; the first result with a valid token counts, and
//! any other one is ignored. An item whose worker goes away, or takes too long, is handed out again.
//!
//! Nothing of this is durable, and nothing need be: an item stands for messages and activities that are in the store, and is
//! made anew from them after a restart.

mod entities;
mod filters;
mod item;
mod keeper;
mod lanes;
mod options;
mod state;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smol_str::SmolStr;
use steadfast_core::model::CancelReason;
use steadfast_core::turn::TurnAnswer;
use steadfast_core::{FailureDetails, InstanceId, Payload, Timestamp};
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

pub use entities::EntityAnswer;
pub use filters::{NameFilter, WorkFilters};
pub use item::{EntityWork, Resident, WorkItem, WorkKind, WorkResult};
pub(crate) use item::{Item, Keeper, Kept, TurnAnswered};
pub use options::WorkersOptions;
pub use state::{PerKind, WorkersStatus};
use state::{State, Why, WorkerId};

use crate::clock::Clock;
use crate::partition::Reports;

/// The workers of a hub, and what waits for them. Clones are cheap and stand for the same.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    options: WorkersOptions,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Something became due earlier than before.
    rescheduled: Notify,
    /// An item was settled or withdrawn, or its worker is gone.
    settled: Notify,
    closed: watch::Sender<bool>,
    /// Tells tokens of this hub's run from those of others.
    run: Uuid,
}

/// What a worker is and takes.
#[derive(Debug, Clone, Default)]
pub struct WorkerProfile {
    /// How it calls itself, for people.
    pub name: SmolStr,
    /// How many items of each kind it takes at once.
    pub places: PerKind<usize>,
    /// What it takes; everything when absent.
    pub filters: Option<WorkFilters>,
    /// It keeps sessions from one turn to the next, and wants to know of activities that nobody waits for any more.
    pub extended: bool,
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It was the first one, and counts.
    Taken,
    /// The token is unknown: another result was first, or the item is gone. It changes nothing.
    Stale,
}

/// A connected worker: its work items. Dropping it disconnects the worker; items that it has not completed are handed out
/// again, but its results still count until another one is first.
#[derive(Debug)]
pub struct WorkerConnection {
    id: WorkerId,
    workers: Workers,
    /// Bounded by the places of the worker: an item is only sent when one is free, and cancelled once at most.
    items: mpsc::UnboundedReceiver<WorkItem>,
}

impl Workers {
    pub(crate) fn new(options: WorkersOptions, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                clock,
                state: Mutex::new(State::default()),
                rescheduled: Notify::new(),
                settled: Notify::new(),
                closed: watch::Sender::new(false),
                run: Uuid::now_v7(),
            }),
        }
    }

    /// The settings.
    pub fn options(&self) -> &WorkersOptions {
        &self.shared.options
    }

    /// Connects a worker.
    pub fn connect(&self, profile: WorkerProfile) -> WorkerConnection {
        let (sender, items) = mpsc::unbounded_channel();
        let id = self.change(|state, _| state.connect(profile, sender));
        WorkerConnection { id, workers: self.clone(), items }
    }

    /// What waits, what is under way and who is connected.
    pub fn status(&self) -> WorkersStatus {
        self.shared.state.lock().status()
    }

    /// A worker's answer to a turn.
    pub fn complete_turn(&self, token: &str, answer: TurnAnswer) -> Delivered {
        self.complete_one(token, WorkResult::Turn(answer))
    }

    /// What became of an activity.
    pub fn complete_activity(&self, token: &str, outcome: Result<Payload, FailureDetails>) -> Delivered {
        self.complete_one(token, WorkResult::Activity(outcome))
    }

    /// A worker's answer to a batch of an entity's operations.
    pub fn complete_entity(&self, token: &str, answer: EntityAnswer) -> Delivered {
        self.complete_one(token, WorkResult::Entity(answer))
    }

    /// Many results at once, each with its token. Gives how many of them count.
    pub fn complete(&self, results: impl IntoIterator<Item = (String, WorkResult)>) -> usize {
        let settled: Vec<_> = self.change(|state, _| {
            let settle = |(token, result): (String, WorkResult)| {
                let (item, worker) = state.settle(self.parse(&token)?, result.kind())?;
                Some((item, worker.map(|worker| Keeper { worker, token }), result))
            };
            results.into_iter().filter_map(settle).collect()
        });
        let count = settled.len();
        let mut activities: Vec<(Reports, Vec<_>)> = Vec::new();
        for (item, keeper, result) in settled {
            match result {
                WorkResult::Turn(answer) => item.answer_turn(answer, keeper),
                WorkResult::Entity(answer) => item.answer_entity(answer),
                WorkResult::Activity(outcome) => {
                    let Some((reports, id, outcome)) = item.end_activity(outcome) else { continue };
                    match activities.iter_mut().find(|(known, _)| known.go_to_same(&reports)) {
                        Some((_, results)) => results.push((id, outcome)),
                        None => activities.push((reports, vec![(id, outcome)])),
                    }
                }
            }
        }
        // Each answers one activity that was given out, of which there are only so many.
        activities.into_iter().for_each(|(reports, results)| reports.done(results));
        if count > 0 {
            self.shared.state.lock().delivered(count);
        }
        self.shared.settled.notify_waiters();
        count
    }

    fn complete_one(&self, token: &str, result: WorkResult) -> Delivered {
        match self.complete([(token.to_owned(), result)]) {
            0 => Delivered::Stale,
            _ => Delivered::Taken,
        }
    }

    /// An activity that a worker has is alive, and `detail` says how far it has come.
    ///
    /// # Errors
    /// When the detail is larger than the hub allows.
    pub fn heartbeat(&self, token: &str, detail: Payload) -> Result<(), FailureDetails> {
        let number = self.parse(token);
        let item = number.and_then(|number| self.shared.state.lock().item(number));
        item.map_or(Ok(()), |item| item.heartbeat(detail))
    }

    /// Nobody waits for the activity any more: workers that have it are told.
    pub(crate) fn cancel(&self, item: &Item, reason: CancelReason) {
        self.shared.state.lock().cancel(item, reason, |token| self.token_text(token));
    }

    /// The worker does not do it. Others are asked at once, and the same one later.
    pub fn abandon(&self, token: &str) -> Delivered {
        let Some(token) = self.parse(token) else { return Delivered::Stale };
        let taken = self.change(|state, now| state.abandon(token, &self.shared.options, now));
        self.shared.settled.notify_waiters();
        if taken { Delivered::Taken } else { Delivered::Stale }
    }

    /// The token of the turn that an instance has under way, for workers that do not give tokens back.
    pub fn token_of_turn(&self, instance: &InstanceId) -> Option<String> {
        self.token_of(|item| item.key.kind == WorkKind::Orchestration && item.instance == *instance)
    }

    /// The token of an activity under way, for workers that do not give tokens back.
    pub fn token_of_activity(&self, instance: &InstanceId, task_id: i32) -> Option<String> {
        self.token_of(|item| item.instance == *instance && item.task_id() == Some(task_id))
    }

    /// The token of the batch that an entity has under way, for workers that do not give tokens back.
    pub fn token_of_batch(&self, entity: &InstanceId) -> Option<String> {
        self.token_of(|item| item.key.kind == WorkKind::Entity && item.instance == *entity)
    }

    /// It looks at all items under way, of which there are as many as places at most.
    fn token_of(&self, is_it: impl Fn(&Item) -> bool) -> Option<String> {
        let token = self.shared.state.lock().latest_token(is_it)?;
        Some(self.token_text(token))
    }

    /// The item that a token stands for, as it was handed out.
    pub fn item(&self, token: &str) -> Option<WorkItem> {
        let number = self.parse(token)?;
        let item = self.shared.state.lock().item(number)?;
        item.work(token.to_owned(), None)
    }

    /// Nobody waits for the result of an item any more.
    pub(crate) fn withdraw(&self, item: &Item) {
        item.withdraw();
        self.shared.settled.notify_waiters();
    }

    pub(crate) fn offer(&self, item: Arc<Item>) {
        self.change(|state, _| state.offer(item, None));
    }

    /// Offers an item that has failed so many times, after a pause if there were any.
    fn offer_after(&self, item: Arc<Item>, failures: u32) {
        if failures == 0 {
            return self.offer(item);
        }
        let pause = self.shared.options.abandon_pause(failures);
        self.change(|state, now| state.delay(item, now.after(pause), Why::GivenBack));
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.shared.closed.borrow()
    }

    /// Ends when no more work is given out.
    pub(crate) async fn closed(&self) {
        let mut closed = self.shared.closed.subscribe();
        // The sender lives as long as this.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Gives out no more work, waits until what is under way is done or `timeout` is over, and disconnects all workers.
    pub(crate) async fn drain(&self, timeout: Duration) {
        self.shared.state.lock().begin_draining();
        let all_settled = async {
            loop {
                let settled = self.shared.settled.notified();
                if self.shared.state.lock().is_idle() {
                    return;
                }
                settled.await;
            }
        };
        // Only how long to wait is cut off by it.
        let _ = tokio::time::timeout(timeout, all_settled).await;
        self.close();
    }

    /// Disconnects all workers; what they still do is done again after the next start.
    pub(crate) fn close(&self) {
        self.shared.state.lock().close();
        self.shared.closed.send_replace(true);
    }

    /// Changes the state, and sends what it decides to hand out.
    fn change<T>(&self, change: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.lock();
        let due = state.next_due();
        let changed = change(&mut state, now);
        state.hand_out(&self.shared.options, now, |token| self.token_text(token));
        let earlier = state.next_due().is_some_and(|next| due.is_none_or(|due| next < due));
        drop(state);
        if earlier {
            self.shared.rescheduled.notify_one();
        }
        changed
    }

    fn token_text(&self, number: u64) -> String {
        format!("{}-{number:x}", self.shared.run.as_simple())
    }

    fn parse(&self, token: &str) -> Option<u64> {
        let (run, number) = token.split_once('-')?;
        let run = Uuid::try_parse(run).ok().filter(|run| *run == self.shared.run);
        run.and_then(|_| u64::from_str_radix(number, 16).ok())
    }
}

impl WorkerConnection {
    /// The next item; none when the hub gives out no more work.
    pub async fn next(&mut self) -> Option<WorkItem> {
        self.items.recv().await
    }

    /// An item that is there already.
    pub fn try_next(&mut self) -> Option<WorkItem> {
        self.items.try_recv().ok()
    }
}

impl Drop for WorkerConnection {
    fn drop(&mut self) {
        let (id, shared) = (self.id, self.workers.shared.clone());
        self.workers.change(|state, now| state.disconnect(id, &shared.options, now));
        shared.settled.notify_waiters();
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("options", &self.shared.options).finish_non_exhaustive()
    }
}
