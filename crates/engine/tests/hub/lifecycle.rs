//! Starting and stopping hubs.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use steadfast_core::model::{
    ActivityContext, ActivityDefinition, ActivityName, OrchestrationContext, OrchestrationName, activity,
    orchestration,
};
use steadfast_core::{Error, OrchestrationStatus};
use steadfast_engine::{ClientError, HubBuilder, HubError, HubOptions};
use steadfast_store::{MemoryStore, Store, Survival};

use crate::support::{
    Counter, GatedStore, Latch, STEPS, WAITER, echo, end_of, fence, history_of, hub, hub_on, id_in, soon,
    steps, stop, waiter, with_id,
};

const HOLD: ActivityName<(), u32> = ActivityName::new("hold");
const HOLDER: OrchestrationName<(), u32> = OrchestrationName::new("holder");

/// Ends when the latch is opened.
fn hold(latch: &Latch) -> ActivityDefinition<(), u32> {
    let latch = latch.clone();
    activity("hold", move |_: ActivityContext, ()| {
        let latch = latch.clone();
        async move {
            latch.wait().await;
            Ok::<_, Error>(1)
        }
    })
}

fn with_holder(builder: HubBuilder, latch: &Latch) -> HubBuilder {
    let holder = orchestration("holder", |ctx: OrchestrationContext, ()| async move {
        Ok::<_, Error>(ctx.call(HOLD, ()).await?)
    });
    builder.register(holder).register(hold(latch))
}

async fn run_some(hub: &steadfast_engine::Hub) {
    let client = hub.client();
    for run in join_all((0..50).map(|_| client.start(STEPS, 3))).await {
        assert_eq!(soon("the result", run.unwrap().result()).await.unwrap(), 3);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_hub_runs_in_a_runtime_of_one_thread() {
    let hub = hub(3).register(steps()).register(echo()).start().await.unwrap();
    run_some(&hub).await;
    stop(hub).await;
    let hub = self::hub(3).register(steps()).register(echo()).start().await.unwrap();
    run_some(&hub).await;
    drop(hub);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_hubs_live_in_one_process() {
    let hubs =
        join_all((1..5).map(|partitions| hub(partitions).register(steps()).register(echo()).start())).await;
    let hubs: Vec<_> = hubs.into_iter().map(Result::unwrap).collect();
    join_all(hubs.iter().map(run_some)).await;
    hubs[0].client().start_with(STEPS, 1, with_id("mine")).await.unwrap();
    assert!(hubs[1].client().state("mine").await.is_err());
    for hub in hubs {
        stop(hub).await;
    }
}

#[test]
fn a_hub_that_is_started_without_a_runtime_is_an_error() {
    let error = futures_util::FutureExt::now_or_never(hub(1).start()).unwrap().map(|_| ()).unwrap_err();
    assert!(matches!(error, HubError::Threads { .. }), "{error}");
    assert!(error.to_string().contains("tokio runtime"), "{error}");
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    let refused = async |change: fn(&mut HubOptions)| {
        let mut options = HubOptions::default();
        change(&mut options);
        let error = hub(1).options(options).start().await.map(|_| ()).unwrap_err();
        assert!(matches!(error, HubError::Options { .. }), "{error}");
        error.to_string()
    };
    assert!(
        refused(|options| options.concurrent_activities_max = 0)
            .await
            .contains("concurrent_activities_max is 0")
    );
    assert!(refused(|options| options.pending_calls_max = 0).await.contains("at least 1"));
    assert!(refused(|options| options.overlay_bytes_max = 1).await.contains("materialise_after_bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_may_be_as_large_as_can_be() {
    let options = HubOptions {
        session_idle_timeout: Duration::MAX,
        resident_sessions_max: usize::MAX,
        concurrent_activities_max: usize::MAX,
        pending_calls_max: usize::MAX,
        payload_bytes_max: usize::MAX,
        materialise_interval: Duration::MAX,
        materialise_after_bytes: usize::MAX,
        overlay_bytes_max: usize::MAX,
        stop_timeout: Duration::MAX,
        unavailable_timeout: Duration::MAX,
        ..HubOptions::default()
    };
    let hub = hub(2).register(steps()).register(echo()).options(options).start().await.unwrap();
    run_some(&hub).await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_running_activities_and_keeps_their_results() {
    let (store, latch) = (MemoryStore::new(2), Latch::default());
    let hub = with_holder(hub_on(&store), &latch).start().await.unwrap();
    hub.client().start_with(HOLDER, (), with_id("holder")).await.unwrap();
    latch.arrived(1).await;
    let client = hub.client();
    let mut stopping = tokio::spawn(hub.stop());
    // New calls are refused before the stop is done.
    let closed = async { while !matches!(client.state("holder").await, Err(ClientError::HubClosed)) {} };
    soon("the refusal", closed).await;
    assert!(futures_util::FutureExt::now_or_never(&mut stopping).is_none());
    latch.open();
    soon("the stop", stopping).await.unwrap().unwrap();
    let hub = with_holder(hub_on(&store), &latch).start().await.unwrap();
    let state = end_of(&hub.client(), "holder").await;
    assert_eq!(state.status, OrchestrationStatus::Completed);
    assert_eq!(latch.arrivals(), 1, "it was not run again");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn activities_that_outlast_the_stop_are_run_again() {
    let (store, stuck) = (MemoryStore::new(2), Latch::default());
    let options = HubOptions { stop_timeout: Duration::from_millis(1), ..HubOptions::default() };
    let hub = with_holder(hub_on(&store), &stuck).options(options).start().await.unwrap();
    hub.client().start_with(HOLDER, (), with_id("holder")).await.unwrap();
    stuck.arrived(1).await;
    stop(hub).await;
    let open = Latch::default();
    open.open();
    let hub = with_holder(hub_on(&store), &open).start().await.unwrap();
    assert_eq!(end_of(&hub.client(), "holder").await.status, OrchestrationStatus::Completed);
    assert_eq!(open.arrivals(), 1);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_answered_when_the_hub_is_stopped_or_dropped() {
    for dropped in [false, true] {
        let hub = hub(2).register(waiter()).start().await.unwrap();
        let client = hub.client();
        let mut waiting = Vec::new();
        for n in 0..20 {
            let id = format!("waiter-{n}");
            client.start_with(WAITER, (), with_id(&id)).await.unwrap();
            let client = client.clone();
            waiting.push(tokio::spawn(async move { client.wait_for_completion(&id, None).await }));
        }
        fence(&client, "waiter-0").await;
        if dropped {
            drop(hub)
        } else {
            stop(hub).await
        }
        for wait in waiting {
            let outcome = soon("the answer", wait).await.unwrap();
            assert!(matches!(outcome, Err(ClientError::HubClosed)), "dropped: {dropped}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_although_instances_keep_themselves_and_each_other_busy() {
    let store = MemoryStore::new(2);
    let restless: OrchestrationName<u64, u64> = OrchestrationName::new("restless");
    let restless_code = orchestration("restless", |ctx: OrchestrationContext, rounds: u64| async move {
        ctx.continue_as_new(&(rounds + 1))?;
        Ok::<_, Error>(rounds)
    });
    let player: OrchestrationName<String, ()> = OrchestrationName::new("player");
    let player_code = orchestration("player", |ctx: OrchestrationContext, other: String| async move {
        let ball = ctx.wait_for_event::<u64>("ball").await?;
        ctx.raise_event(&other, "ball", &(ball + 1))?;
        ctx.continue_as_new(&other)?;
        Ok::<_, Error>(())
    });
    let hub = hub_on(&store).register(restless_code).register(player_code).start().await.unwrap();
    let client = hub.client();
    client.start_with(restless, 0, with_id("restless")).await.unwrap();
    let (left, right) = (id_in("left", 0, 2), id_in("right", 1, 2));
    client.start_with(&player, right.clone(), with_id(&left)).await.unwrap();
    client.start_with(&player, left.clone(), with_id(&right)).await.unwrap();
    client.raise_event(&left, "ball", &0_u64).await.unwrap();
    let busy = async {
        while client.state("restless").await.unwrap().generation < 100
            || client.state(&right).await.unwrap().generation < 10
        {}
    };
    soon("some rounds", busy).await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_instances_under_way_complete_after_a_stop() {
    let store = MemoryStore::new(3);
    let build = || hub_on(&store).register(steps()).register(echo());
    let hub = build().start().await.unwrap();
    let client = hub.client();
    let ids: Vec<_> = (0..2000).map(|n| format!("steps-{n}")).collect();
    for outcome in join_all(ids.iter().map(|id| client.start_with(STEPS, 8, with_id(id)))).await {
        outcome.unwrap();
    }
    stop(hub).await;
    let hub = build().start().await.unwrap();
    let client = hub.client();
    for state in join_all(ids.iter().map(|id| end_of(&client, id))).await {
        assert_eq!(state.status, OrchestrationStatus::Completed);
    }
    for id in ids.iter().step_by(97) {
        history_of(&client, id).await;
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_and_stops_in_quick_succession_lose_nothing() {
    let store = MemoryStore::new(2);
    let build = || hub_on(&store).register(steps()).register(echo());
    let mut ids = Vec::new();
    for round in 0..12 {
        let hub = build().start().await.unwrap();
        let client = hub.client();
        for n in 0..40 {
            let id = format!("round-{round}-{n}");
            client.start_with(STEPS, 5, with_id(&id)).await.unwrap();
            ids.push(id);
        }
        if round % 2 == 0 { stop(hub).await } else { drop(hub) }
    }
    let hub = build().start().await.unwrap();
    let client = hub.client();
    for id in &ids {
        assert_eq!(end_of(&client, id).await.status, OrchestrationStatus::Completed);
        history_of(&client, id).await;
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_acknowledged_survives_a_loss_of_power_after_a_drop() {
    let store = MemoryStore::new(2);
    let hub = hub_on(&store).register(steps()).register(waiter()).register(echo()).start().await.unwrap();
    let client = hub.client();
    for n in 0..200 {
        client.start_with(STEPS, 4, with_id(&format!("steps-{n}"))).await.unwrap();
        client.start_with(WAITER, (), with_id(&format!("waiter-{n}"))).await.unwrap();
        client.raise_event(&format!("waiter-{n}"), "go", &n.to_string()).await.unwrap();
    }
    // While everything is under way, and again after the drop.
    let images = [store.crash_image(Survival::Synced), {
        drop(hub);
        store.crash_image(Survival::Synced)
    }];
    for image in images {
        let builder = hub_on(&image).register(steps()).register(waiter());
        let hub = builder.register(echo()).start().await.unwrap();
        let client = hub.client();
        for n in 0..200 {
            assert_eq!(end_of(&client, &format!("steps-{n}")).await.status, OrchestrationStatus::Completed);
            let state = end_of(&client, &format!("waiter-{n}")).await;
            assert_eq!(state.output.unwrap().as_str(), format!("\"{n}\""));
            history_of(&client, &format!("waiter-{n}")).await;
        }
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_runs_that_are_kept_do_not_keep_the_store() {
    for dropped in [false, true] {
        let store = GatedStore::new(2);
        let weak = Arc::new(Mutex::new(None));
        let (handed, keep) = (store.clone(), weak.clone());
        let latch = Latch::default();
        let builder = HubBuilder::new(move |_| {
            let store: Arc<dyn Store> = Arc::new(handed);
            *keep.lock() = Some(Arc::downgrade(&store));
            Ok(store)
        });
        let options = HubOptions { stop_timeout: Duration::from_millis(1), ..HubOptions::default() };
        let hub = with_holder(builder, &latch).options(options).start().await.unwrap();
        let client = hub.client();
        // An activity that is still running does not keep it either.
        let run = client.start(HOLDER, ()).await.unwrap();
        latch.arrived(1).await;
        if dropped {
            drop(hub)
        } else {
            stop(hub).await
        }
        let weak = weak.lock().take().unwrap();
        assert!(weak.upgrade().is_none(), "dropped: {dropped}");
        assert!(matches!(run.state().await, Err(ClientError::HubClosed)));
        assert!(matches!(client.query(&Default::default()).await, Err(ClientError::HubClosed)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_hub_has_moved_everything_out_of_the_log() {
    let store = MemoryStore::new(2);
    let hub = hub_on(&store).register(steps()).register(echo()).start().await.unwrap();
    run_some(&hub).await;
    stop(hub).await;
    for partition in 0..2 {
        let partition = steadfast_core::PartitionId(partition);
        let upto = store.load_partition(partition).unwrap().upto;
        store.read_log(partition, upto, &mut |position, _| panic!("record {position} is left")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_can_be_dropped_while_everything_is_under_way_again_and_again() {
    let store = MemoryStore::new(2);
    let done = Counter::default();
    let seen = done.clone();
    let build = move || {
        let done = seen.clone();
        hub_on(&store).register(steps()).register(activity(
            "echo",
            move |_: ActivityContext, text: String| {
                done.add();
                async move { Ok::<_, Error>(text) }
            },
        ))
    };
    let hub = build().start().await.unwrap();
    for n in 0..100 {
        hub.client().start_with(STEPS, 30, with_id(&format!("steps-{n}"))).await.unwrap();
    }
    let mut hub = Some(hub);
    for round in 1..=6 {
        let progress = async {
            while done.get() < round * 300 {
                tokio::task::yield_now().await;
            }
        };
        soon("some steps", progress).await;
        drop(hub.take());
        hub = Some(build().start().await.unwrap());
    }
    let hub = hub.unwrap();
    let client = hub.client();
    for n in 0..100 {
        assert_eq!(end_of(&client, &format!("steps-{n}")).await.status, OrchestrationStatus::Completed);
        history_of(&client, &format!("steps-{n}")).await;
    }
    stop(hub).await;
}
