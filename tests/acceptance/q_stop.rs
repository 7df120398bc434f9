//! Group Q: what a stop waits for, what it answers, and what goes on after the next start.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use steadfast::store::MemoryStore;
use steadfast::{
    ActivityContext, ActivityName, ClientError, Error, HubBuilder, HubOptions, OrchestrationContext,
    OrchestrationName, OrchestrationStatus, TaskHub, activity, orchestration,
};
use tokio::sync::watch;

use crate::support::{end_of, soon, stop, with_id};

const WORK: ActivityName<u32, u32> = ActivityName::new("work");
const FAN: OrchestrationName<u32, u32> = OrchestrationName::new("fan");
const WAITER: OrchestrationName<(), String> = OrchestrationName::new("waiter");

/// The activity "work", which waits until it is let go and says how many have begun.
#[derive(Clone)]
struct Work {
    begun: watch::Sender<u32>,
    go: watch::Sender<bool>,
}

impl Work {
    fn new() -> Self {
        Self { begun: watch::Sender::new(0), go: watch::Sender::new(false) }
    }

    fn activity(&self) -> steadfast::ActivityDefinition<u32, u32> {
        let this = self.clone();
        activity("work", move |_: ActivityContext, n: u32| {
            let this = this.clone();
            async move {
                this.begun.send_modify(|begun| *begun += 1);
                let _ = this.go.subscribe().wait_for(|go| *go).await;
                Ok::<_, Error>(n)
            }
        })
    }

    async fn begun(&self, count: u32) {
        let mut begun = self.begun.subscribe();
        soon("the begin", begun.wait_for(|begun| *begun >= count)).await.unwrap();
    }
}

fn builder(store: &MemoryStore, work: &Work) -> HubBuilder {
    let store = store.clone();
    let fan = orchestration("fan", |ctx: OrchestrationContext, width: u32| async move {
        Ok::<_, Error>(
            join_all((0..width).map(|n| ctx.call(WORK, n))).await.into_iter().flatten().count() as u32
        )
    });
    let waiter = orchestration("waiter", |ctx: OrchestrationContext, ()| async move {
        Ok::<_, Error>(ctx.wait_for_event::<String>("go").await?)
    });
    HubBuilder::new(move |_| Ok(Arc::new(store))).register(work.activity()).register(fan).register(waiter)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_running_activities_and_keeps_their_results() {
    let (store, work) = (MemoryStore::new(2), Work::new());
    let hub = builder(&store, &work).start().await.unwrap();
    hub.client().start_with(FAN, 3, with_id("fan")).await.unwrap();
    work.begun(3).await;
    let stopped = tokio::spawn(hub.stop());
    work.go.send_replace(true);
    soon("the stop", stopped).await.unwrap().unwrap();
    let hub = builder(&store, &work).start().await.unwrap();
    assert_eq!(end_of(&hub.client(), "fan").await.output.unwrap().as_str(), "3");
    // Their results were kept, so none ran again.
    assert_eq!(*work.begun.borrow(), 3);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn activities_that_have_not_begun_begin_after_the_next_start() {
    let (store, work) = (MemoryStore::new(1), Work::new());
    let options = HubOptions { concurrent_activities_max: 2, ..HubOptions::default() };
    let hub = builder(&store, &work).options(options).start().await.unwrap();
    hub.client().start_with(FAN, 10, with_id("fan")).await.unwrap();
    work.begun(2).await;
    let client = hub.client();
    let stopping = tokio::spawn(hub.stop());
    // Calls are refused from the moment on in which the stop begins.
    let refused = async {
        while !matches!(client.state("fan").await, Err(ClientError::HubClosed)) {
            tokio::task::yield_now().await;
        }
    };
    soon("the refusal", refused).await;
    work.go.send_replace(true);
    soon("the stop", stopping).await.unwrap().unwrap();
    assert_eq!(*work.begun.borrow(), 2, "nothing begins while the hub stops");
    let hub = builder(&store, &work).start().await.unwrap();
    assert_eq!(end_of(&hub.client(), "fan").await.output.unwrap().as_str(), "10");
    assert_eq!(*work.begun.borrow(), 10);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activity_that_never_ends_holds_a_stop_up_for_its_timeout_and_is_run_again() {
    let (store, work) = (MemoryStore::new(1), Work::new());
    let options = HubOptions { stop_timeout: Duration::from_millis(10), ..HubOptions::default() };
    let hub = builder(&store, &work).options(options).start().await.unwrap();
    hub.client().start_with(FAN, 1, with_id("fan")).await.unwrap();
    work.begun(1).await;
    stop(hub).await;
    let hub = builder(&store, &work).start().await.unwrap();
    work.begun(2).await;
    work.go.send_replace(true);
    assert_eq!(end_of(&hub.client(), "fan").await.output.unwrap().as_str(), "1");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_told_that_the_hub_is_closed_and_every_later_call_as_well() {
    let (store, work) = (MemoryStore::new(4), Work::new());
    let hub = builder(&store, &work).start().await.unwrap();
    let client = hub.client();
    let runs = join_all((0..20).map(|_| client.start(WAITER, ()))).await;
    let waits: Vec<_> =
        runs.into_iter().map(|run| tokio::spawn(async move { run.unwrap().result().await })).collect();
    stop(hub).await;
    for wait in waits {
        assert!(matches!(soon("the answer", wait).await.unwrap(), Err(ClientError::HubClosed)));
    }
    assert!(matches!(client.start(WAITER, ()).await, Err(ClientError::HubClosed)));
    assert!(matches!(client.raise_event("x", "go", &()).await, Err(ClientError::HubClosed)));
    assert!(matches!(client.activities("x").await, Err(ClientError::HubClosed)));
    assert!(matches!(client.poisoned().await, Err(ClientError::HubClosed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_although_orchestrations_keep_themselves_busy_for_ever() {
    let endless = orchestration("fan", |ctx: OrchestrationContext, n: u32| async move {
        ctx.continue_as_new(&(n + 1))?;
        Ok::<_, Error>(n)
    });
    let hub = TaskHub::in_memory().register(endless).start().await.unwrap();
    for n in 0..8 {
        hub.client().start_with(FAN, 0, with_id(&format!("endless-{n}"))).await.unwrap();
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_stop_is_there_after_it_on_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    let waiter = || {
        orchestration("waiter", |ctx: OrchestrationContext, ()| async move {
            Ok::<_, Error>(ctx.wait_for_event::<String>("go").await?)
        })
    };
    let hub = TaskHub::builder(folder.path()).partitions(2).register(waiter()).start().await.unwrap();
    let client = hub.client();
    for n in 0..50 {
        client.start_with(WAITER, (), with_id(&format!("waiter-{n}"))).await.unwrap();
    }
    client.raise_event("waiter-7", "go", "seven").await.unwrap();
    stop(hub).await;
    let hub = TaskHub::builder(folder.path()).register(waiter()).start().await.unwrap();
    let client = hub.client();
    for n in 0..50 {
        let id = format!("waiter-{n}");
        assert!(!matches!(client.state(&id).await.unwrap().status, OrchestrationStatus::Failed));
        if n != 7 {
            client.raise_event(&id, "go", &n.to_string()).await.unwrap();
        }
        let expected = if n == 7 { "\"seven\"".to_owned() } else { format!("\"{n}\"") };
        assert_eq!(end_of(&client, &id).await.output.unwrap().as_str(), expected);
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_hub_loses_nothing_that_was_acknowledged() {
    let (store, work) = (MemoryStore::new(2), Work::new());
    let hub = builder(&store, &work).start().await.unwrap();
    hub.client().start_with(FAN, 2, with_id("fan")).await.unwrap();
    work.begun(2).await;
    drop(hub);
    work.go.send_replace(true);
    let hub = builder(&store, &work).start().await.unwrap();
    assert_eq!(end_of(&hub.client(), "fan").await.output.unwrap().as_str(), "2");
    stop(hub).await;
}
