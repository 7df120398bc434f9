//! Nothing leaves before it is durable (invariant I1), and nothing piles up without bound (invariant I6).

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use steadfast_core::model::{
    ActivityContext, OrchestrationContext, OrchestrationName, Register, Registry, SubOrchestrationOptions,
    activity, orchestration,
};
use steadfast_core::partition::{Effect, PartitionOptions, SessionSource, Token, Work};
use steadfast_core::turn::Session;
use steadfast_core::{
    Error, EventKind, ExecutionId, ExecutionStarted, HistoryEvent, InstanceId, OrchestrationStatus, Origin,
    PartitionId, Payload, TaskMessage, Timestamp,
};
use steadfast_engine::HubOptions;
use steadfast_store::{MemoryStore, Survival, bridge};
use uuid::Uuid;

use crate::support::{
    Counter, ECHO, GatedStore, STEPS, echo, end_of, fence, hub_on, id_in, soon, steps, stop, with_id,
};

const PARENT: OrchestrationName<String, u32> = OrchestrationName::new("parent");
const CHILD: OrchestrationName<(), u32> = OrchestrationName::new("child");

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_a_partition_before_its_record_is_durable() {
    let store = GatedStore::new(2);
    let (worked, born, told) = (Counter::default(), Counter::default(), Counter::default());
    let parent = orchestration("parent", |ctx: OrchestrationContext, child: String| async move {
        ctx.wait_for_event::<()>("begin").await?;
        let work = ctx.call(ECHO, String::new());
        ctx.raise_event(&format!("{child}-told"), "news", &())?;
        let options = SubOrchestrationOptions { instance_id: Some(child), ..Default::default() };
        let result = ctx.call_orchestration_with(CHILD, (), options).await?;
        work.await?;
        Ok::<_, Error>(result)
    });
    let seen = born.clone();
    let child = orchestration("child", move |_: OrchestrationContext, ()| {
        seen.add();
        async move { Ok::<_, Error>(1) }
    });
    let told_name: OrchestrationName<(), ()> = OrchestrationName::new("told");
    let seen = told.clone();
    let told_code = orchestration("told", move |ctx: OrchestrationContext, ()| {
        let told = seen.clone();
        async move {
            ctx.wait_for_event::<()>("news").await?;
            told.add();
            Ok::<_, Error>(())
        }
    });
    let seen = worked.clone();
    let work = activity("echo", move |_: ActivityContext, text: String| {
        seen.add();
        async move { Ok::<_, Error>(text) }
    });
    let builder = store.hub().register(parent).register(child).register(told_code).register(work);
    let hub = builder.start().await.unwrap();
    let client = hub.client();
    // The child's helper has to be in the other partition as well.
    let mut children = crate::support::ids_in("child", 1, 2);
    let in_one = |id: &String| InstanceId::from_trusted(format!("{id}-told")).partition(2) == PartitionId(1);
    let child = children.find(in_one).unwrap();
    let parent = id_in("parent", 0, 2);
    client.start_with(told_name, (), with_id(&format!("{child}-told"))).await.unwrap();
    let run = client.start_with(PARENT, child.clone(), with_id(&parent)).await.unwrap();
    soon("the start", run.wait_for_start()).await.unwrap();

    store.append.close();
    let mut raising = Box::pin(client.raise_event(&parent, "begin", &()));
    assert!(raising.as_mut().now_or_never().is_none());
    store.append.reached().await;
    let mut starting = Box::pin(client.start(CHILD, ()));
    assert!(starting.as_mut().now_or_never().is_none());
    let mut waiting = Box::pin(run.state());
    assert!(waiting.as_mut().now_or_never().is_none());
    for _ in 0..20 {
        for partition in 0..2 {
            fence(&client, &id_in("nobody", partition, 2)).await;
        }
    }
    assert!(raising.as_mut().now_or_never().is_none(), "the client was told too early");
    assert!(starting.as_mut().now_or_never().is_none(), "the starter was told too early");
    assert_eq!(worked.get(), 0, "the activity began too early");
    assert_eq!((born.get() > 1, told.get()), (false, 0), "a message crossed too early");

    store.append.open();
    soon("the answer", raising).await.unwrap();
    soon("the answer", starting).await.unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), 1);
    end_of(&client, &format!("{child}-told")).await;
    assert_eq!((worked.get(), told.get()), (1, 1));
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_client_was_told_is_true_after_a_loss_of_power() {
    let store = MemoryStore::new(2);
    let hub = hub_on(&store).register(steps()).register(echo()).start().await.unwrap();
    let client = hub.client();
    for n in 0..15 {
        let id = format!("steps-{n}");
        client.start_with(STEPS, 2, with_id(&id)).await.unwrap();
        let started = store.crash_image(Survival::Synced);
        let ended = end_of(&client, &id).await;
        let completed = store.crash_image(Survival::Synced);
        client.purge(&id).await.unwrap();
        let purged = store.crash_image(Survival::Synced);
        for (image, there) in [(started, true), (completed, true), (purged, false)] {
            let hub = hub_on(&image).register(steps()).register(echo()).start().await.unwrap();
            let client = hub.client();
            if there {
                assert_eq!(end_of(&client, &id).await.execution, ended.execution);
            } else {
                assert!(client.state(&id).await.is_err());
            }
            drop(hub);
        }
    }
    stop(hub).await;
}

#[test]
fn a_partition_that_is_asked_to_send_again_keeps_back_what_is_not_durable() {
    let child = id_in("child", 1, 2);
    let mut registry = Registry::default();
    let parent = orchestration("parent", move |ctx: OrchestrationContext, ()| {
        ctx.raise_event(&child, "news", &()).unwrap();
        async move { Ok::<_, Error>(()) }
    });
    parent.register(&mut registry).unwrap();
    let store = MemoryStore::new(2);
    let mut partition = bridge::recover_partition(&store, PartitionOptions::new(PartitionId(0), 2)).unwrap();
    let instance = InstanceId::from_trusted(id_in("parent", 0, 2));
    let execution = ExecutionId::new(Uuid::from_u128(1));
    let started = ExecutionStarted::new("parent".into(), "".into(), Payload::null(), execution);
    let event =
        HistoryEvent::message(Timestamp::from_micros(1), EventKind::ExecutionStarted(Box::new(started)));
    let message = TaskMessage { instance: instance.clone(), execution: None, event, origin: Origin::Client };
    partition.submit(Token(1), message, true);
    let Some(Work::Turn(request)) = partition.next_work() else { panic!("a turn is due") };
    assert_eq!(request.session, SessionSource::New);
    let mut session = Session::new(Arc::new(registry), instance.clone(), 1 << 20);
    partition.on_turn(&instance, session.turn(request.batch, request.now));

    let peer = PartitionId(1);
    assert!(partition.unacknowledged(peer).is_empty(), "its record is still being collected");
    let record = partition.commit().record.unwrap();
    assert!(partition.unacknowledged(peer).is_empty(), "its record is on the way to the log");
    partition.on_durable(record.position);
    assert_eq!(partition.unacknowledged(peer).len(), 1);
    let effects = partition.commit().effects;
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Send(receiver, _) if *receiver == peer)));
}

#[tokio::test(flavor = "multi_thread")]
async fn intake_is_held_back_while_the_instance_store_is_behind_and_nothing_is_lost() {
    const CALLS: usize = 2000;
    let store = GatedStore::new(1);
    let (began, text) = (Counter::default(), "x".repeat(1000));
    let name: OrchestrationName<String, ()> = OrchestrationName::new("keeper");
    let seen = began.clone();
    let code = orchestration("keeper", move |_: OrchestrationContext, _: String| {
        seen.add();
        async move { Ok::<_, Error>(()) }
    });
    let options = HubOptions {
        materialise_interval: Duration::from_millis(1),
        materialise_after_bytes: 16 << 10,
        overlay_bytes_max: 64 << 10,
        pending_calls_max: 50,
        ..HubOptions::default()
    };
    let hub = store.hub().register(code).options(options).start().await.unwrap();
    let client = hub.client();
    store.materialise.close();
    let acknowledged = Counter::default();
    let callers: Vec<_> = (0..CALLS)
        .map(|n| {
            let (client, name, text) = (client.clone(), name.clone(), text.clone());
            let acknowledged = acknowledged.clone();
            tokio::spawn(async move {
                client.start_with(name, text, with_id(&format!("keeper-{n}"))).await.unwrap();
                acknowledged.add();
            })
        })
        .collect();
    store.materialise.reached().await;
    let mut before = usize::MAX;
    while before != acknowledged.get() {
        before = acknowledged.get();
        for _ in 0..50 {
            fence(&client, "nobody").await;
        }
    }
    // Each instance counts with more than a kilobyte, and one group of calls may go beyond the bound.
    assert!(began.get() <= 64 + 16 + 50, "{} began", began.get());
    assert!(acknowledged.get() < CALLS / 10, "{} were acknowledged", acknowledged.get());
    assert!(callers.iter().any(|caller| !caller.is_finished()));
    store.materialise.open();
    for caller in callers {
        soon("the acknowledgement", caller).await.unwrap();
    }
    for n in 0..CALLS {
        assert_eq!(end_of(&client, &format!("keeper-{n}")).await.status, OrchestrationStatus::Completed);
    }
    assert_eq!(began.get(), CALLS);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_that_are_due_and_activities_wait_for_an_instance_store_that_is_behind() {
    let store = GatedStore::new(1);
    let name: OrchestrationName<String, String> = OrchestrationName::new("napper");
    let code = orchestration("napper", |ctx: OrchestrationContext, text: String| async move {
        ctx.timer(Duration::from_millis(1)).await;
        Ok::<_, Error>(ctx.call(ECHO, text).await?)
    });
    let options = HubOptions {
        materialise_interval: Duration::from_millis(1),
        materialise_after_bytes: 1 << 10,
        overlay_bytes_max: 4 << 10,
        ..HubOptions::default()
    };
    let hub = store.hub().register(code).register(echo()).options(options).start().await.unwrap();
    let client = hub.client();
    store.materialise.close();
    let mut runs = Vec::new();
    for n in 0..40 {
        let (client, name) = (client.clone(), name.clone());
        runs.push(tokio::spawn(async move {
            let run = client.start(name, format!("{n} {}", "x".repeat(500))).await.unwrap();
            run.result().await.unwrap().len()
        }));
    }
    store.materialise.reached().await;
    for _ in 0..50 {
        fence(&client, "nobody").await;
    }
    assert!(runs.iter().any(|run| !run.is_finished()));
    store.materialise.open();
    for run in runs {
        assert!(soon("the result", run).await.unwrap() > 500);
    }
    stop(hub).await;
}
