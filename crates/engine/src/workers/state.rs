//! Which worker gets which item, and when an item is handed out again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::fast::FixedState;
use smol_str::SmolStr;
use steadfast_core::Timestamp;
use steadfast_core::model::CancelReason;
use tokio::sync::mpsc;

use super::WorkerProfile;
use super::item::{Item, Key, WorkItem, WorkKind};
use super::lanes::Lanes;
use super::options::WorkersOptions;

/// So many tokens of one item are valid; of more, the oldest is forgotten.
const TOKENS_PER_ITEM_MAX: usize = 4;

/// One value for each kind of work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerKind<T> {
    /// For turns of orchestrations.
    pub orchestrations: T,
    /// For activities.
    pub activities: T,
    /// For batches of entities' operations.
    pub entities: T,
}

impl<T> PerKind<T> {
    pub(super) fn of(&self, kind: WorkKind) -> &T {
        match kind {
            WorkKind::Orchestration => &self.orchestrations,
            WorkKind::Activity => &self.activities,
            WorkKind::Entity => &self.entities,
        }
    }

    pub(super) fn of_mut(&mut self, kind: WorkKind) -> &mut T {
        match kind {
            WorkKind::Orchestration => &mut self.orchestrations,
            WorkKind::Activity => &mut self.activities,
            WorkKind::Entity => &mut self.entities,
        }
    }
}

const KINDS: [WorkKind; 3] = [WorkKind::Orchestration, WorkKind::Activity, WorkKind::Entity];

/// What waits, what is under way and who is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkersStatus {
    /// The connected workers: their names and how many items each has.
    pub workers: Vec<(SmolStr, PerKind<usize>)>,
    /// How many items wait for a place.
    pub waiting: PerKind<usize>,
    /// What waits although no connected worker takes it: kind, name, version and how many. Somebody has to start a worker
    /// for it.
    pub without_worker: Vec<(WorkKind, SmolStr, SmolStr, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WorkerId(u64);

struct Worker {
    profile: WorkerProfile,
    /// How many items it has.
    busy: PerKind<usize>,
    sender: mpsc::UnboundedSender<WorkItem>,
}

impl Worker {
    fn takes(&self, key: &Key) -> bool {
        self.profile.filters.as_ref().is_none_or(|filters| filters.takes(key))
    }

    fn free(&self, kind: WorkKind) -> usize {
        self.profile.places.of(kind).saturating_sub(*self.busy.of(kind))
    }
}

/// An item that a worker has.
struct HandedOut {
    item: Arc<Item>,
    /// None when it has gone away.
    worker: Option<WorkerId>,
    due: Timestamp,
}

/// An item that waits for a time.
struct Delayed {
    item: Arc<Item>,
    why: Why,
}

/// Why an item waits for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// A worker has given it back.
    GivenBack,
    /// Its worker has gone away, and may complete it yet.
    Grace,
}

#[derive(Default)]
pub(super) struct State {
    workers: BTreeMap<WorkerId, Worker>,
    lanes: PerKind<Lanes>,
    handed_out: HashMap<u64, HandedOut, FixedState>,
    /// When items have been with their workers for too long.
    leases: BTreeSet<(Timestamp, u64)>,
    /// Items that are offered again at a time.
    delayed: BTreeMap<(Timestamp, u64), Delayed>,
    /// Who gets what, not sent yet.
    decided: Vec<(WorkerId, Arc<Item>)>,
    next: u64,
    /// Results on their way to whoever waits for them.
    delivering: usize,
    draining: bool,
    closed: bool,
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn connect(
        &mut self,
        profile: WorkerProfile,
        sender: mpsc::UnboundedSender<WorkItem>,
    ) -> WorkerId {
        let id = WorkerId(self.number());
        if self.closed {
            // Its stream ends at once.
            return id;
        }
        self.workers.insert(id, Worker { profile, busy: PerKind::default(), sender });
        self.fill(id);
        // What another one has given back is for this one to try.
        let given_back: Vec<_> = self
            .delayed
            .extract_if(.., |_, delayed| delayed.why == Why::GivenBack)
            .map(|(_, delayed)| delayed.item)
            .collect();
        for item in given_back {
            self.offer(item, None);
        }
        id
    }

    /// Its orchestrations go to others at once, which harms nobody. What has effects waits a little: it may be completed yet.
    pub(super) fn disconnect(&mut self, id: WorkerId, options: &WorkersOptions, now: Timestamp) {
        if self.workers.remove(&id).is_none() {
            return;
        }
        self.handed_out.retain(|token, handed| {
            let is_over = handed.worker == Some(id) && !handed.item.is_wanted();
            if is_over {
                self.leases.remove(&(handed.due, *token));
            }
            !is_over
        });
        let mut left: Vec<_> = self
            .handed_out
            .iter_mut()
            .filter(|(_, handed)| handed.worker == Some(id))
            .map(|(token, handed)| {
                handed.worker = None;
                (*token, handed.due, handed.item.clone())
            })
            .collect();
        left.sort_unstable_by_key(|(token, ..)| *token);
        // Decided and not sent.
        let (mine, others) = std::mem::take(&mut self.decided).into_iter().partition(|(to, _)| *to == id);
        self.decided = others;
        let unsent: Vec<(WorkerId, Arc<Item>)> = mine;
        for (_, item) in unsent {
            self.offer(item, None);
        }
        for (token, due, item) in left {
            self.leases.remove(&(due, token));
            if item.key.kind == WorkKind::Orchestration {
                self.offer(item, None);
            } else {
                self.delay(item, now.after(options.disconnect_grace), Why::Grace);
            }
        }
    }

    pub(super) fn delay(&mut self, item: Arc<Item>, until: Timestamp, why: Why) {
        let number = self.number();
        self.delayed.insert((until, number), Delayed { item, why });
    }

    /// Gives an item to a worker that has a free place, or lets it wait.
    pub(super) fn offer(&mut self, item: Arc<Item>, avoid: Option<WorkerId>) {
        if self.closed || !item.is_wanted() {
            return;
        }
        let waits = self.lanes.of(item.key.kind).has(&item.key);
        match self.pick(&item, avoid).filter(|_| !waits) {
            Some(worker) => self.decide(worker, item),
            None => self.lanes.of_mut(item.key.kind).push(item),
        }
    }

    /// Whoever has the session, or else the worker with the most free places that takes it.
    fn pick(&self, item: &Item, avoid: Option<WorkerId>) -> Option<WorkerId> {
        if self.draining {
            return None;
        }
        let key = &item.key;
        let is_free = |id: &WorkerId| self.workers.get(id).is_some_and(|worker| worker.free(key.kind) > 0);
        if let Some(keeper) = item.keeper().filter(|id| Some(*id) != avoid).filter(is_free) {
            return Some(keeper);
        }
        let able = self.workers.iter().filter(|(id, worker)| Some(**id) != avoid && worker.takes(key));
        let best = able.map(|(id, worker)| (worker.free(key.kind), *id)).max_by_key(|(free, _)| *free);
        best.filter(|(free, _)| *free > 0).map(|(_, id)| id)
    }

    fn decide(&mut self, worker: WorkerId, item: Arc<Item>) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            *worker.busy.of_mut(item.key.kind) += 1;
        }
        self.decided.push((worker, item));
    }

    /// Gives a worker what waits, as long as it has free places.
    fn fill(&mut self, id: WorkerId) {
        for kind in KINDS {
            while !self.draining
                && let Some(worker) = self.workers.get(&id).filter(|worker| worker.free(kind) > 0)
                && let Some(item) = self.lanes.of_mut(kind).pop(|key| worker.takes(key))
            {
                self.decide(id, item);
            }
        }
    }

    /// Sends what was decided.
    pub(super) fn hand_out(
        &mut self,
        options: &WorkersOptions,
        now: Timestamp,
        token_text: impl Fn(u64) -> String,
    ) {
        while !self.decided.is_empty() {
            for (id, item) in std::mem::take(&mut self.decided) {
                let token = self.number();
                let due = now.after(lease(item.key.kind, options));
                let Some(worker) = self.workers.get(&id) else { continue };
                let Some(work) = item.work(token_text(token), Some(id)) else {
                    self.free(id, item.key.kind);
                    continue;
                };
                // If the receiver is gone, the worker is about to be disconnected, and the item goes to another one.
                let _ = worker.sender.send(work);
                item.begins();
                self.leases.insert((due, token));
                self.remember_token(&item, token);
                self.handed_out.insert(token, HandedOut { item, worker: Some(id), due });
            }
        }
    }

    fn remember_token(&mut self, item: &Item, token: u64) {
        let mut tokens = item.tokens.lock();
        tokens.push(token);
        if tokens.len() > TOKENS_PER_ITEM_MAX {
            let oldest = tokens.remove(0);
            drop(tokens);
            self.forget(oldest);
        }
    }

    /// A place of a worker is free again.
    fn free(&mut self, id: WorkerId, kind: WorkKind) {
        if let Some(worker) = self.workers.get_mut(&id) {
            let busy = worker.busy.of_mut(kind);
            *busy = busy.saturating_sub(1);
        }
        self.fill(id);
    }

    fn forget(&mut self, token: u64) -> Option<(Arc<Item>, Option<WorkerId>)> {
        let HandedOut { item, worker, due } = self.handed_out.remove(&token)?;
        self.leases.remove(&(due, token));
        Some((item, worker))
    }

    /// A result has come. Gives the item, if this is the first one that counts, and the worker, if it is there and keeps
    /// sessions.
    pub(super) fn settle(&mut self, token: u64, kind: WorkKind) -> Option<(Arc<Item>, Option<WorkerId>)> {
        let HandedOut { item, worker, .. } = self.handed_out.get(&token)?;
        let (item, worker) = (item.clone(), *worker);
        let keeps = |id: &WorkerId| self.workers.get(id).is_some_and(|worker| worker.profile.extended);
        let keeper = worker.filter(keeps);
        if item.key.kind != kind {
            return None;
        }
        let wanted = item.is_wanted();
        item.finish();
        let tokens = std::mem::take(&mut *item.tokens.lock());
        for token in tokens {
            if let Some((_, Some(worker))) = self.forget(token) {
                self.free(worker, kind);
            }
        }
        self.delivering += usize::from(wanted);
        wanted.then_some((item, keeper))
    }

    pub(super) fn delivered(&mut self, count: usize) {
        self.delivering = self.delivering.saturating_sub(count);
    }

    /// Tells the workers that have the item that nobody waits for it any more, if they want to know. One that is gone misses
    /// nothing.
    pub(super) fn cancel(&self, item: &Item, reason: CancelReason, token_text: impl Fn(u64) -> String) {
        for number in item.tokens.lock().iter() {
            let worker = self.handed_out.get(number).and_then(|handed| handed.worker);
            let worker = worker.and_then(|id| self.workers.get(&id)).filter(|it| it.profile.extended);
            if let Some(worker) = worker {
                let _ = worker.sender.send(WorkItem::Cancelled { token: token_text(*number), reason });
            }
        }
    }

    /// A worker gives an item back. False if it does not have it.
    pub(super) fn abandon(&mut self, token: u64, options: &WorkersOptions, now: Timestamp) -> bool {
        let Some((item, worker)) = self.forget(token) else { return false };
        item.tokens.lock().retain(|known| *known != token);
        let times = item.abandoned.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        match self.pick(&item, worker) {
            Some(other) => self.decide(other, item.clone()),
            None => self.delay(item.clone(), now.after(options.abandon_pause(times)), Why::GivenBack),
        }
        if let Some(worker) = worker {
            self.free(worker, item.key.kind);
        }
        true
    }

    /// When there is something to do although nothing has come in.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let lease = self.leases.first().map(|(due, _)| *due);
        let delayed = self.delayed.first_key_value().map(|((due, _), _)| *due);
        lease.into_iter().chain(delayed).min()
    }

    /// Time has passed: items that have been with their workers for too long, and those whose pause is over, are offered.
    pub(super) fn tick(&mut self, now: Timestamp) {
        while let Some((due, token)) = self.leases.first().copied().filter(|(due, _)| *due <= now) {
            self.leases.remove(&(due, token));
            if let Some(handed) = self.handed_out.get(&token) {
                let (item, worker) = (handed.item.clone(), handed.worker);
                let Key { kind, name, version } = &item.key;
                if !item.is_wanted() {
                    // Its result got lost, or never comes. The worker has the place for something else.
                    self.forget(token);
                    worker.inspect(|id| self.free(*id, *kind));
                    continue;
                }
                tracing::warn!(target: "steadfast::workers", instance = %item.instance, %name, %version, "a worker takes too long; its work is given to another one as well");
                self.offer(item, worker);
            }
        }
        while let Some(first) = self.delayed.first_entry().filter(|first| first.key().0 <= now) {
            let Delayed { item, .. } = first.remove();
            self.offer(item, None);
        }
    }

    pub(super) fn latest_token(&self, is_it: impl Fn(&Item) -> bool) -> Option<u64> {
        self.handed_out.iter().filter(|(_, handed)| is_it(&handed.item)).map(|(token, _)| *token).max()
    }

    pub(super) fn item(&self, token: u64) -> Option<Arc<Item>> {
        self.handed_out.get(&token).map(|handed| handed.item.clone())
    }

    pub(super) fn begin_draining(&mut self) {
        self.draining = true;
    }

    /// Whether no worker does anything that somebody waits for, and all results have been delivered. What was withdrawn keeps
    /// its worker's place, and nobody waiting.
    pub(super) fn is_idle(&self) -> bool {
        let awaited = |handed: &HandedOut| handed.worker.is_some() && handed.item.is_wanted();
        !self.handed_out.values().any(awaited) && self.decided.is_empty() && self.delivering == 0
    }

    pub(super) fn close(&mut self) {
        *self = Self { closed: true, draining: true, next: self.next, ..Self::default() };
    }

    pub(super) fn status(&self) -> WorkersStatus {
        let mut status = WorkersStatus::default();
        for worker in self.workers.values() {
            status.workers.push((worker.profile.name.clone(), worker.busy));
        }
        for kind in KINDS {
            for (key, count) in self.lanes.of(kind).waiting() {
                *status.waiting.of_mut(kind) += count;
                if !self.workers.values().any(|worker| worker.takes(key)) {
                    status.without_worker.push((kind, key.name.clone(), key.version.clone(), count));
                }
            }
        }
        for Delayed { item, .. } in self.delayed.values().filter(|delayed| delayed.item.is_wanted()) {
            *status.waiting.of_mut(item.key.kind) += 1;
        }
        status
    }
}

fn lease(kind: WorkKind, options: &WorkersOptions) -> Duration {
    match kind {
        WorkKind::Orchestration => options.orchestration_lease,
        WorkKind::Activity => options.activity_lease,
        WorkKind::Entity => options.entity_lease,
    }
}
