//! What the tests share: hubs on a store in memory, code to run in them, and gates that hold things back.

mod gate;
mod store;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use steadfast_core::model::{
    ActivityContext, ActivityDefinition, ActivityName, OrchestrationContext, OrchestrationDefinition,
    OrchestrationName, activity, orchestration,
};
use steadfast_core::{Error, EventKind, HistoryEvent, InstanceId, InstanceState};
use steadfast_engine::{Client, Hub, HubBuilder, StartOptions};
use steadfast_store::MemoryStore;
use steadfast_testkit::check_history;

pub(crate) use gate::{Gate, Latch};
pub(crate) use store::GatedStore;

/// No wait in these tests is long; this only keeps a lost wake-up from hanging the suite.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} never happened"))
}

/// A hub on a store in memory; the test keeps a handle to what the store holds.
pub(crate) fn hub_on(store: &MemoryStore) -> HubBuilder {
    let store = store.clone();
    HubBuilder::new(move |_| Ok(Arc::new(store)))
}

/// A hub on a new store in memory.
pub(crate) fn hub(partitions: u16) -> HubBuilder {
    hub_on(&MemoryStore::new(partitions))
}

pub(crate) const ECHO: ActivityName<String, String> = ActivityName::new("echo");
pub(crate) const WAITER: OrchestrationName<(), String> = OrchestrationName::new("waiter");
pub(crate) const STEPS: OrchestrationName<u32, u32> = OrchestrationName::new("steps");

/// Returns its input.
pub(crate) fn echo() -> ActivityDefinition<String, String> {
    activity("echo", |_: ActivityContext, text: String| async move { Ok::<_, Error>(text) })
}

/// Waits for the event "go" and returns its payload.
pub(crate) fn waiter() -> OrchestrationDefinition<(), String> {
    orchestration("waiter", |ctx: OrchestrationContext, ()| async move {
        Ok::<_, Error>(ctx.wait_for_event::<String>("go").await?)
    })
}

/// Runs so many activities, one after the other, and returns how many.
pub(crate) fn steps() -> OrchestrationDefinition<u32, u32> {
    orchestration("steps", |ctx: OrchestrationContext, count: u32| async move {
        for step in 0..count {
            ctx.call(ECHO, step.to_string()).await?;
        }
        Ok::<_, Error>(count)
    })
}

/// Start options with an id.
pub(crate) fn with_id(id: &str) -> StartOptions {
    StartOptions { instance_id: Some(id.to_owned()), ..StartOptions::default() }
}

/// Ids that begin with `prefix` and belong to `partition`.
pub(crate) fn ids_in(prefix: &str, partition: u16, count: u16) -> impl Iterator<Item = String> {
    let ids = (0..).map(move |n| format!("{prefix}-{n}"));
    ids.filter(move |id| InstanceId::from_trusted(id.as_str()).partition(count).0 == partition)
}

/// One id that belongs to `partition`.
pub(crate) fn id_in(prefix: &str, partition: u16, count: u16) -> String {
    ids_in(prefix, partition, count).next().unwrap()
}

/// Waits until the instance has ended.
pub(crate) async fn end_of(client: &Client, id: &str) -> InstanceState {
    soon("the end", client.wait_for_completion(id, None)).await.unwrap()
}

/// The instance's history, which has to be well formed.
pub(crate) async fn history_of(client: &Client, id: &str) -> Vec<HistoryEvent> {
    let history = client.history(id).await.unwrap();
    check_history(&history).unwrap();
    history
}

/// How many events of the history `wanted` is true of.
pub(crate) fn count_events(history: &[HistoryEvent], wanted: impl Fn(&EventKind) -> bool) -> usize {
    history.iter().filter(|event| wanted(&event.kind)).count()
}

/// Returns once everything that was sent to the partition that owns `id` before has been handled by it.
pub(crate) async fn fence(client: &Client, id: &str) {
    for _ in 0..3 {
        let _ = soon("an answer", client.state(id)).await;
    }
}

pub(crate) async fn stop(hub: Hub) {
    soon("the stop", hub.stop()).await.unwrap();
}

/// Counts from several threads.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn subtract(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn raise(&self, to: usize) {
        self.0.fetch_max(to, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
