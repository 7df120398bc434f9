//! Connections that are lost, servers and workers that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use steadfast_core::Error;
use steadfast_core::model::{
    ActivityContext, ActivityName, OrchestrationContext, OrchestrationName, activity, orchestration,
};
use tokio::sync::Notify;

use crate::orchestrations::{greet, hello};
use crate::support::{Over, Served, over_each_protocol, soon};

over_each_protocol!(
    a_server_that_comes_back_finds_its_worker_and_its_waiting_clients,
    a_worker_that_stops_finishes_what_it_has_begun_and_another_one_goes_on,
    a_worker_that_vanishes_is_replaced,
    two_workers_share_the_work,
);

async fn a_server_that_comes_back_finds_its_worker_and_its_waiting_clients(over: Over) {
    let mut served = Served::start().await;
    let code = orchestration("waits", |ctx: OrchestrationContext, ()| async move {
        let first = ctx.wait_for_event::<u32>("go").await?;
        Ok::<_, Error>(first + ctx.wait_for_event::<u32>("go").await?)
    });
    let handle = code.handle();
    let worker = served.worker(over).register(code).start().await.unwrap();
    let client = served.client(over).await;
    let run = client.start(handle, ()).await.unwrap();
    soon(run.wait_for_start()).await.unwrap();
    client.raise_event(run.id().as_str(), "go", &1).await.unwrap();
    let id = run.id().as_str().to_owned();
    let waiting = tokio::spawn(async move { run.result().await });
    served.stop().await;
    served.start_again().await;
    soon(client.raise_event(&id, "go", &2)).await.unwrap();
    assert_eq!(soon(waiting).await.unwrap().unwrap(), 3);
    worker.stop().await;
    served.stop().await;
}

async fn a_worker_that_stops_finishes_what_it_has_begun_and_another_one_goes_on(over: Over) {
    const SLOW: ActivityName<(), u32> = ActivityName::new("slow");
    let mut served = Served::start().await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let runs = Arc::new(AtomicU32::new(0));
    let code = || {
        orchestration("slowly", |ctx: OrchestrationContext, ()| async move {
            let first = ctx.call(SLOW, ()).await?;
            ctx.wait_for_event::<()>("go").await?;
            Ok::<_, Error>(first)
        })
    };
    let slow = || {
        let (begun, go, runs) = (begun.clone(), go.clone(), runs.clone());
        activity("slow", move |_: ActivityContext, ()| {
            let (begun, go, runs) = (begun.clone(), go.clone(), runs.clone());
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                begun.notify_one();
                go.notified().await;
                Ok::<_, Error>(7)
            }
        })
    };
    let first = served.worker(over).register(code()).register(slow()).start().await.unwrap();
    let client = served.client(over).await;
    let run = client.start(code().handle(), ()).await.unwrap();
    soon(begun.notified()).await;
    let stopping = tokio::spawn(first.stop());
    go.notify_one();
    soon(stopping).await.unwrap();
    let second = served.worker(over).register(code()).register(slow()).start().await.unwrap();
    client.raise_event(run.id().as_str(), "go", &()).await.unwrap();
    assert_eq!(soon(run.result()).await.unwrap(), 7);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    second.stop().await;
    served.stop().await;
}

async fn a_worker_that_vanishes_is_replaced(over: Over) {
    const STUCK: ActivityName<(), u32> = ActivityName::new("stuck");
    let mut served = Served::start().await;
    let code = || {
        orchestration("tries", |ctx: OrchestrationContext, ()| async move {
            Ok::<_, Error>(ctx.call(STUCK, ()).await?)
        })
    };
    let begun = Arc::new(Notify::new());
    let told = begun.clone();
    let stuck = activity("stuck", move |_: ActivityContext, ()| {
        let told = told.clone();
        async move {
            told.notify_one();
            std::future::pending::<Result<u32, Error>>().await
        }
    });
    let first = served.worker(over).register(code()).register(stuck).start().await.unwrap();
    let run = served.client(over).await.start(code().handle(), ()).await.unwrap();
    soon(begun.notified()).await;
    drop(first);
    let quick = activity("stuck", |_: ActivityContext, ()| async move { Ok::<_, Error>(5) });
    let second = served.worker(over).register(code()).register(quick).start().await.unwrap();
    assert_eq!(soon(run.result()).await.unwrap(), 5);
    second.stop().await;
    served.stop().await;
}

async fn two_workers_share_the_work(over: Over) {
    let mut served = Served::start().await;
    let first = served.worker(over).register(hello()).register(greet()).start().await.unwrap();
    let second = served.worker(over).register(hello()).register(greet()).start().await.unwrap();
    let client = served.client(over).await;
    let mut runs = Vec::new();
    for _ in 0..50 {
        runs.push(client.start(OrchestrationName::<(), Vec<String>>::new("hello"), ()).await.unwrap());
    }
    for run in &runs[..25] {
        assert_eq!(soon(run.result()).await.unwrap().len(), 3);
    }
    // Sessions move to the other one.
    first.stop().await;
    for run in &runs[25..] {
        assert_eq!(soon(run.result()).await.unwrap().len(), 3);
    }
    second.stop().await;
    served.stop().await;
}
