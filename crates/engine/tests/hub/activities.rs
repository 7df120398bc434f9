//! How activities share the runtime.

use std::sync::mpsc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use steadfast_core::model::{
    ActivityContext, ActivityDefinition, ActivityName, OrchestrationContext, OrchestrationDefinition,
    OrchestrationName, activity, orchestration,
};
use steadfast_core::{Error, EventKind};
use steadfast_engine::HubOptions;

use crate::support::{Counter, Latch, hub, soon, stop, with_id};

const WORK: ActivityName<u32, u32> = ActivityName::new("work");
const FAN: OrchestrationName<u32, u32> = OrchestrationName::new("fan");

/// Calls "work" with 0, 1, 2 and so on, all at once.
fn fan() -> OrchestrationDefinition<u32, u32> {
    orchestration("fan", |ctx: OrchestrationContext, count: u32| async move {
        let mut sum = 0;
        for result in join_all((0..count).map(|n| ctx.call(WORK, n))).await {
            sum += result?;
        }
        Ok::<_, Error>(sum)
    })
}

fn waiting_work(latch: &Latch) -> ActivityDefinition<u32, u32> {
    let latch = latch.clone();
    activity("work", move |_: ActivityContext, _: u32| {
        let latch = latch.clone();
        async move {
            latch.wait().await;
            Ok::<_, Error>(1)
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activity_that_blocks_its_thread_holds_up_no_others() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(Some(released));
    let others = Counter::default();
    let (last, is_last) = tokio::sync::watch::channel(());
    let seen = others.clone();
    let work = activity("work", move |_: ActivityContext, n: u32| {
        let blocks = if n == 0 { released.lock().take() } else { None };
        let (seen, last) = (seen.clone(), last.clone());
        async move {
            if let Some(released) = blocks {
                // What should not be done in async code: the thread stands still.
                let _ = released.recv();
            } else if seen.add() == 39 {
                last.send_replace(());
            }
            Ok::<_, Error>(1)
        }
    });
    let hub = hub(1).register(fan()).register(work).start().await.unwrap();
    let client = hub.client();
    let run = client.start_with(FAN, 40, with_id("fan")).await.unwrap();
    let mut is_last = is_last;
    soon("the end of the others", is_last.changed()).await.unwrap();
    let noted = async {
        loop {
            let history = client.history("fan").await.unwrap();
            let done =
                history.iter().filter(|event| matches!(event.kind, EventKind::TaskCompleted { .. })).count();
            if done == 39 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("the results of the others", noted).await;
    release.send(()).unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), 40);
    stop(hub).await;
}

async fn most_at_once(max: usize, partitions: u16) -> usize {
    let (now, most) = (Counter::default(), Counter::default());
    let (current, seen) = (now.clone(), most.clone());
    let work = activity("work", move |_: ActivityContext, _: u32| {
        let (now, most) = (current.clone(), seen.clone());
        async move {
            most.raise(now.add());
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            now.subtract();
            Ok::<_, Error>(1)
        }
    });
    let options = HubOptions { concurrent_activities_max: max, ..HubOptions::default() };
    let hub = hub(partitions).register(fan()).register(work).options(options).start().await.unwrap();
    let client = hub.client();
    let runs = join_all((0..16).map(|_| client.start(FAN, 25))).await;
    for run in runs {
        assert_eq!(soon("the result", run.unwrap().result()).await.unwrap(), 25);
    }
    stop(hub).await;
    assert_eq!(now.get(), 0);
    most.get()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_activities_run_at_once_than_allowed() {
    for (max, partitions) in [(1, 1), (7, 1), (1, 4), (3, 4), (10, 4)] {
        let most = most_at_once(max, partitions).await;
        assert!(most <= max, "{most} ran at once where {max} may, with {partitions} partitions");
        assert!(most > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_activities_wait_at_the_same_time() {
    let latch = Latch::default();
    let hub = hub(2).register(fan()).register(waiting_work(&latch)).start().await.unwrap();
    let run = hub.client().start(FAN, 800).await.unwrap();
    latch.arrived(800).await;
    latch.open();
    assert_eq!(soon("the result", run.result()).await.unwrap(), 800);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn activities_beyond_the_bound_wait_their_turn() {
    let latch = Latch::default();
    let options = HubOptions { concurrent_activities_max: 10, ..HubOptions::default() };
    let hub = hub(1).register(fan()).register(waiting_work(&latch)).options(options).start().await.unwrap();
    let client = hub.client();
    let run = client.start_with(FAN, 30, with_id("fan")).await.unwrap();
    latch.arrived(10).await;
    crate::support::fence(&client, "fan").await;
    assert_eq!(latch.arrivals(), 10);
    latch.open();
    assert_eq!(soon("the result", run.result()).await.unwrap(), 30);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_a_terminated_instance_that_has_not_begun_is_not_done() {
    let latch = Latch::default();
    let options = HubOptions { concurrent_activities_max: 1, ..HubOptions::default() };
    let hub = hub(1).register(fan()).register(waiting_work(&latch)).options(options).start().await.unwrap();
    let client = hub.client();
    client.start_with(FAN, 30, with_id("fan")).await.unwrap();
    latch.arrived(1).await;
    client.terminate("fan", "never mind", false).await.unwrap();
    crate::support::end_of(&client, "fan").await;
    latch.open();
    client.start_with(FAN, 1, with_id("next")).await.unwrap();
    crate::support::end_of(&client, "next").await;
    assert_eq!(latch.arrivals(), 2);
    stop(hub).await;
}
