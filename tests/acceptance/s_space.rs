//! Group S: disk space is given back. A week of load on the embedded store in virtual time, in which what ended more than a day
//! ago is purged every hour, as users do who keep what has ended for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use steadfast::prelude::*;
use steadfast::store::{SledOptions, SledStore, Store};
use steadfast::{
    Client, Clock, Hub, HubOptions, InstanceCounts, InstanceFilter, InstanceKind, InstanceQuery, TimeRange,
};
use steadfast_core::{PartitionId, Position};
use steadfast_store::Detail;
use steadfast_testkit::{SplitMix64, VirtualClock};

use crate::support::{soon, stop, with_id};

const SEED: u64 = 20_270_115;
const HOUR: Duration = Duration::from_secs(3600);
const DAY_HOURS: u32 = 24;
const DAYS: u32 = 7;

/// By the ends of these days, counted from zero, as much is purged as comes.
const STEADY_DAYS: Range<usize> = 1..3;

/// How much the instances may take on the last day, as a part of what they take on the steady days. It changes by some segments of
/// 4 MiB from day to day. Without purging it more than doubles from the third day to the last.
const GROWTH_PERCENT_MAX: u64 = 130;

/// The log keeps no more than one part of so many of what is appended in the week; it would keep all if it were not truncated.
const LOG_PART: u64 = 2;

/// Days after the week on which little happens: enough that all of the week ends, is purged, and has its room used again.
const QUIET_DAYS: u32 = 4;

/// The last of the instances that wait wakes so many hours after it began.
const WAIT_HOURS_MAX: u32 = 40;

const PARTITIONS: u16 = 4;
const INBOXES: u32 = 4;

/// Some steps that leave little.
#[orchestration]
async fn order(ctx: OrchestrationContext, number: u32) -> Result<String> {
    let mut text = String::new();
    for step in 0..3 {
        text = ctx.call(append, (text, number + step)).await?;
    }
    Ok(text)
}

#[activity]
async fn append(_ctx: ActivityContext, text: String, number: u32) -> Result<String> {
    Ok(format!("{text}{number};"))
}

/// Takes something large through an activity, so that it is in the state and several times in the history.
#[orchestration]
async fn document(ctx: OrchestrationContext, text: String) -> Result<String> {
    Ok(ctx.call(turn_round, text).await?)
}

#[activity]
async fn turn_round(_ctx: ActivityContext, text: String) -> Result<String> {
    Ok(turned(&text))
}

fn turned(text: &str) -> String {
    text.chars().rev().collect()
}

/// Waits for hours, and still has what it was given.
#[orchestration]
async fn reminder(ctx: OrchestrationContext, hours: u32, note: String) -> Result<String> {
    ctx.timer(HOUR * hours).await;
    Ok(ctx.call(turn_round, note).await?)
}

/// Begins anew every hour, with what it was given.
#[orchestration]
async fn watch(ctx: OrchestrationContext, next: Timestamp, until: Timestamp, text: String) -> Result<String> {
    ctx.timer_until(next).await;
    if next < until {
        ctx.continue_as_new(&(next.after(HOUR), until, &text))?;
    }
    Ok(text)
}

/// What came in on a day: how much, and the last of it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Inbox {
    received: u32,
    last: String,
}

#[entity]
impl Inbox {
    fn receive(&mut self, text: String) {
        self.received += 1;
        self.last = text;
    }

    fn received(&self) -> u32 {
        self.received
    }

    /// How much came in; afterwards there is no such inbox any more.
    fn close(&mut self, ctx: &EntityContext) -> u32 {
        ctx.delete_state();
        self.received
    }
}

/// A call comes after a signal from the same orchestration, so what was sent is there when this has ended.
#[orchestration]
async fn send(ctx: OrchestrationContext, inbox: String, text: String) -> Result<String> {
    ctx.signal_entity(Inbox::at(&inbox).receive(text))?;
    ctx.call_entity(Inbox::at(&inbox).received()).await?;
    Ok(inbox)
}

#[orchestration]
async fn close(ctx: OrchestrationContext, inbox: String) -> Result<String> {
    Ok(ctx.call_entity(Inbox::at(&inbox).close()).await?.to_string())
}

async fn start(folder: &Path, clock: &VirtualClock) -> Hub {
    // Little may wait for the instance store, so that the length of the log does not depend on how busy the machine is.
    let options = HubOptions {
        materialise_after_bytes: 512 << 10,
        overlay_bytes_max: 2 << 20,
        ..HubOptions::default()
    };
    let builder = TaskHub::builder(folder).partitions(PARTITIONS).options(options);
    let builder = builder.clock(Arc::new(clock.clone())).register(order).register(append);
    let builder = builder.register(document).register(turn_round).register(reminder).register(watch);
    builder.register(Inbox::entity()).register(send).register(close).start().await.unwrap()
}

/// What the two databases of a hub take on the disk, in bytes: the records of its log, and the instances.
#[derive(Debug, Clone, Copy)]
struct Space {
    log: u64,
    instances: u64,
}

impl Space {
    fn of(hub: &Path) -> Self {
        Self { log: disk_bytes(&hub.join("log")), instances: disk_bytes(&hub.join("data")) }
    }
}

/// The blocks of all files below a folder. A file may be longer than what it takes.
fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let bytes = entries.map(|entry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => disk_bytes(&entry.path()),
        metadata => metadata.blocks() * 512,
    });
    bytes.sum()
}

/// Text that compression does not make shorter.
fn noise(random: &mut SplitMix64, length: usize) -> String {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut bits = random.next_u64();
        for _ in 0..10.min(length - text.len()) {
            text.push(char::from(LETTERS[(bits % 64) as usize]));
            bits /= 64;
        }
    }
    text
}

/// What runs, and what has to come of it.
struct Load {
    client: Client,
    clock: VirtualClock,
    began: Timestamp,
    random: SplitMix64,
    /// Since it began.
    hour: u32,
    starts: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    /// Ids and results of the instances that have not ended, by the hour in which they will.
    due: BTreeMap<u32, Vec<(String, String)>>,
    /// Ids of those that have and were not purged, by the hour in which they did.
    ended: BTreeMap<u32, Vec<String>>,
    /// How much came into each inbox that is open.
    inboxes: BTreeMap<String, u32>,
}

impl Load {
    fn new(client: Client, clock: VirtualClock) -> Self {
        Self {
            client,
            began: clock.now(),
            clock,
            random: SplitMix64::new(SEED),
            hour: 0,
            starts: Vec::new(),
            due: BTreeMap::new(),
            ended: BTreeMap::new(),
            inboxes: BTreeMap::new(),
        }
    }

    fn moment(&self, hour: u32) -> Timestamp {
        self.began.after(HOUR * hour)
    }

    /// Starts an instance that will end after so many hours.
    fn begin<H>(&mut self, id: String, orchestration: H, input: H::Input, hours: u32, result: String)
    where
        H: OrchestrationHandle + 'static,
    {
        self.due.entry(self.hour + hours).or_default().push((id.clone(), result));
        let client = self.client.clone();
        self.starts.push(Box::pin(async move {
            let run = client.start_with(orchestration, input, with_id(&id)).await.unwrap();
            // Its timer is set then, before time goes on.
            run.wait_for_start().await.unwrap();
        }));
    }

    fn id(&self, kind: &str, n: u32) -> String {
        format!("{kind}-{:03}-{n:02}", self.hour)
    }

    fn begin_orders(&mut self, count: u32) {
        for n in 0..count {
            let number = self.hour * 1000 + n;
            let result = format!("{};{};{};", number, number + 1, number + 2);
            self.begin(self.id("order", n), order, number, 0, result);
        }
    }

    fn begin_documents(&mut self, count: u32) {
        for n in 0..count {
            let length = 20_000 + self.random.below(80_000);
            let text = noise(&mut self.random, length);
            let result = turned(&text);
            self.begin(self.id("document", n), document, text, 0, result);
        }
    }

    fn begin_reminders(&mut self, count: u32) {
        for n in 0..count {
            let hours = 2 + self.random.below(WAIT_HOURS_MAX as usize - 1) as u32;
            let length =
                if n == 0 { 20_000 + self.random.below(40_000) } else { 100 + self.random.below(3_000) };
            let note = noise(&mut self.random, length);
            let result = turned(&note);
            self.begin(self.id("reminder", n), reminder, (hours, note), hours, result);
        }
    }

    fn begin_watches(&mut self, count: u32) {
        for n in 0..count {
            let hours = 1 + self.random.below(6) as u32;
            let text = noise(&mut self.random, 2_000);
            let input = (self.moment(self.hour + 1), self.moment(self.hour + hours), text.clone());
            self.begin(self.id("watch", n), watch, input, hours, text);
        }
    }

    /// Sends something into today's inboxes.
    fn begin_sending(&mut self, count: u32) {
        for n in 0..count {
            let inbox = format!("{}-{}", self.hour / DAY_HOURS, n % INBOXES);
            let text = noise(&mut self.random, 500);
            *self.inboxes.entry(inbox.clone()).or_default() += 1;
            self.begin(self.id("send", n), send, (inbox.clone(), text), 0, inbox);
        }
    }

    /// Closes the inboxes of the days before.
    fn begin_closing(&mut self) {
        let todays = format!("{}-", self.hour / DAY_HOURS);
        let before: Vec<_> = self.inboxes.extract_if(.., |inbox, _| !inbox.starts_with(&todays)).collect();
        for (inbox, received) in before {
            self.begin(format!("close-{inbox}"), close, inbox, 0, received.to_string());
        }
    }

    /// An hour: what was begun starts, what is due ends, what ended more than a day ago is purged, and time goes on.
    async fn pass_hour(&mut self) {
        soon("the starts", join_all(self.starts.drain(..))).await;
        let due = self.due.remove(&self.hour).unwrap_or_default();
        let ends = due.iter().map(|(id, _)| self.client.wait_for_completion(id, None));
        for ((id, result), state) in due.iter().zip(soon("the ends", join_all(ends)).await) {
            let state = state.unwrap();
            assert_eq!(state.status, OrchestrationStatus::Completed, "{id}: {:?}", state.failure);
            assert_eq!(state.completed_at, Some(self.moment(self.hour)), "{id}");
            assert!(state.output.unwrap().decode::<String>().unwrap() == *result, "the result of {id}");
        }
        self.ended.insert(self.hour, due.into_iter().map(|(id, _)| id).collect());
        self.purge(self.hour.saturating_sub(DAY_HOURS)).await;
        self.hour += 1;
        self.clock.advance(HOUR);
    }

    /// Purges what ended before an hour.
    async fn purge(&mut self, hour: u32) {
        let kept = self.ended.split_off(&hour);
        let old = std::mem::replace(&mut self.ended, kept);
        let completed = TimeRange::before(self.moment(hour));
        let filter = InstanceFilter { completed, ..InstanceFilter::default() };
        let purged = soon("the purge", self.client.purge_matching(&filter, None)).await.unwrap();
        assert!(purged.complete);
        assert_eq!(purged.deleted, old.values().map(Vec::len).sum::<usize>() as u64);
    }

    /// Just those instances are stored that must be.
    async fn check_stored(&self) {
        let waiting = self.due.values().flatten().map(|(id, _)| id);
        let expected: BTreeSet<_> = waiting.chain(self.ended.values().flatten()).cloned().collect();
        let mut query = InstanceQuery { page_size: 1000, omit_payloads: true, ..InstanceQuery::default() };
        let mut found = BTreeSet::new();
        loop {
            let page = soon("a page", self.client.query(&query)).await.unwrap();
            found.extend(page.instances.iter().map(|state| state.instance.as_str().to_owned()));
            query.continuation = page.continuation;
            if query.continuation.is_none() {
                break;
            }
        }
        let differences: Vec<_> = found.symmetric_difference(&expected).collect();
        assert!(differences.is_empty(), "there without reason, or missing: {differences:?}");
        let counts = soon("the counts", self.client.counts()).await.unwrap();
        assert_eq!(counts.orchestrations(), expected.len() as u64);
        assert_eq!(counts.entities(), self.inboxes.len() as u64);
    }
}

/// The store of a hub in which nothing is left any more has nothing left of it.
fn check_empty(folder: &Path) {
    let store = SledStore::open(folder, SledOptions::default()).unwrap();
    let all = InstanceFilter { kind: InstanceKind::All, ..InstanceFilter::default() };
    assert!(store.find_instances(&all, None, 10, Detail::State).unwrap().instances.is_empty());
    for partition in (0..PARTITIONS).map(PartitionId) {
        let mut records = 0;
        let mut count = |_, _| {
            records += 1;
            Ok(())
        };
        store.read_log(partition, Position::ZERO, &mut count).unwrap();
        assert_eq!(records, 0, "the log of {partition}");
        // What it knows of the other partitions, and how it stands itself.
        let rows = store.load_partition(partition).unwrap().rows;
        let bytes: usize = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(bytes < 100 * usize::from(PARTITIONS), "{partition} has {} rows: {rows:?}", rows.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_week_of_load_does_not_grow_the_store_of_a_hub_that_purges_what_ended_a_day_ago() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), VirtualClock::default());
    let folder = folder.path();
    let hub = start(folder, &clock).await;
    let mut load = Load::new(hub.client(), clock.clone());
    let mut days = Vec::new();
    for _ in 0..DAYS {
        for _ in 0..DAY_HOURS {
            load.begin_orders(60);
            load.begin_documents(4);
            load.begin_reminders(10);
            load.begin_watches(6);
            load.begin_sending(20);
            load.begin_closing();
            load.pass_hour().await;
        }
        load.check_stored().await;
        days.push(Space::of(folder));
    }
    let appended = hub.store_metrics().log_bytes;
    stop(hub).await;
    let steady = days[STEADY_DAYS].iter().map(|space| space.instances).max().unwrap();
    let last = days.last().unwrap();
    assert!(
        last.instances * 100 <= steady * GROWTH_PERCENT_MAX,
        "the instances take more and more: {days:?}"
    );
    assert!(last.log <= appended / LOG_PART, "{appended} bytes were appended to a log that kept {days:?}");

    // What waits goes on with the next hub, and all of it comes to its end.
    let hub = start(folder, &clock).await;
    load.client = hub.client();
    for _ in 0..QUIET_DAYS * DAY_HOURS {
        load.begin_orders(60);
        load.begin_closing();
        load.pass_hour().await;
    }
    load.check_stored().await;
    load.purge(load.hour).await;
    assert_eq!(soon("the counts", load.client.counts()).await.unwrap(), InstanceCounts::default());
    stop(hub).await;
    check_empty(folder);

    let hub = start(folder, &clock).await;
    load.client = hub.client();
    load.begin_orders(1);
    load.pass_hour().await;
    load.check_stored().await;
    stop(hub).await;
    let end = Space::of(folder);
    assert!(end.instances <= last.instances / 2, "{end:?} are left of {days:?}, for one small instance");
}
