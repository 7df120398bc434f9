//! What orchestrations do with one another and with themselves, in large numbers and in wrong ways.

use std::time::Duration;

use futures_util::future::join_all;
use steadfast_core::failure::kinds;
use steadfast_core::model::{
    ActivityContext, ActivityName, OrchestrationContext, OrchestrationName, activity, orchestration,
};
use steadfast_core::{Error, EventKind, OrchestrationStatus};
use steadfast_engine::HubOptions;

use crate::support::{
    Counter, ECHO, STEPS, WAITER, count_events, echo, end_of, history_of, hub, id_in, soon, steps, stop,
    waiter, with_id,
};

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_generations_pass_while_others_go_on() {
    let name: OrchestrationName<u32, u32> = OrchestrationName::new("generations");
    let code = orchestration("generations", |ctx: OrchestrationContext, left: u32| async move {
        if left > 0 {
            ctx.continue_as_new(&(left - 1))?;
        }
        Ok::<_, Error>(ctx.generation())
    });
    // One partition: all share it.
    let hub = hub(1).register(code).register(steps()).register(echo()).start().await.unwrap();
    let client = hub.client();
    let run = client.start_with(name, 10_000, with_id("generations")).await.unwrap();
    let mut meanwhile = 0;
    while client.state("generations").await.unwrap().status != OrchestrationStatus::Completed {
        let other = client.start(STEPS, 2).await.unwrap();
        assert_eq!(soon("another instance's result", other.result()).await.unwrap(), 2);
        meanwhile += 1;
    }
    assert!(meanwhile > 10, "only {meanwhile} others came to their end meanwhile");
    assert_eq!(soon("the result", run.result()).await.unwrap(), 10_000);
    let history = history_of(&client, "generations").await;
    assert_eq!(history.len(), 4, "only the last generation's history is kept");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_along_from_generation_to_generation() {
    let name: OrchestrationName<Vec<u32>, Vec<u32>> = OrchestrationName::new("collector");
    let code = orchestration("collector", |ctx: OrchestrationContext, mut seen: Vec<u32>| async move {
        seen.push(ctx.wait_for_event::<u32>("number").await?);
        if seen.len() < 300 {
            ctx.continue_as_new(&seen)?;
        }
        Ok::<_, Error>(seen)
    });
    let hub = hub(2).register(code).start().await.unwrap();
    let client = hub.client();
    let run = client.start_with(name, Vec::new(), with_id("collector")).await.unwrap();
    for number in 0..300_u32 {
        client.raise_event("collector", "number", &number).await.unwrap();
    }
    assert_eq!(soon("the result", run.result()).await.unwrap(), (0..300).collect::<Vec<_>>());
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_of_five_thousand_activities_comes_together() {
    let double: ActivityName<u32, u32> = ActivityName::new("double");
    let name: OrchestrationName<u32, u64> = OrchestrationName::new("fan");
    let code = orchestration("fan", move |ctx: OrchestrationContext, count: u32| {
        let double = double.clone();
        async move {
            let mut sum = 0;
            for result in join_all((0..count).map(|n| ctx.call(&double, n))).await {
                sum += u64::from(result?);
            }
            Ok::<_, Error>(sum)
        }
    });
    let double_code = activity("double", |_: ActivityContext, n: u32| async move { Ok::<_, Error>(2 * n) });
    let hub = hub(2).register(code).register(double_code).start().await.unwrap();
    let run = hub.client().start(name, 5000).await.unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), 5000 * 4999);
    let history = history_of(&hub.client(), run.id().as_str()).await;
    assert_eq!(count_events(&history, |kind| matches!(kind, EventKind::TaskCompleted { .. })), 5000);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_in_different_partitions_play_ping_pong() {
    let name: OrchestrationName<(String, u32), u32> = OrchestrationName::new("player");
    let code =
        orchestration("player", |ctx: OrchestrationContext, (other, balls): (String, u32)| async move {
            let mut last = 0;
            for _ in 0..balls {
                last = ctx.wait_for_event::<u32>("ball").await?;
                ctx.raise_event(&other, "ball", &(last + 1))?;
            }
            Ok::<_, Error>(last)
        });
    let hub = hub(2).register(code).start().await.unwrap();
    let client = hub.client();
    let (left, right) = (id_in("left", 0, 2), id_in("right", 1, 2));
    let first = client.start_with(&name, (right.clone(), 200), with_id(&left)).await.unwrap();
    let second = client.start_with(&name, (left.clone(), 200), with_id(&right)).await.unwrap();
    client.raise_event(&left, "ball", &0_u32).await.unwrap();
    assert_eq!(soon("the first result", first.result()).await.unwrap(), 398);
    assert_eq!(soon("the second result", second.result()).await.unwrap(), 399);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_instances_over_all_partitions_comes_together() {
    const TREE: OrchestrationName<u32, u32> = OrchestrationName::new("tree");
    let code = orchestration("tree", |ctx: OrchestrationContext, depth: u32| async move {
        let mut leaves = u32::from(depth == 0);
        if depth > 0 {
            for child in join_all((0..3).map(|_| ctx.call_orchestration(TREE, depth - 1))).await {
                leaves += child?;
            }
        }
        Ok::<_, Error>(leaves)
    });
    let hub = hub(4).register(code).start().await.unwrap();
    let run = hub.client().start(TREE, 6).await.unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), 729);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn detached_orchestrations_go_on_alone_and_signals_to_nobody_are_dropped() {
    let name: OrchestrationName<(), String> = OrchestrationName::new("starter");
    let code = orchestration("starter", |ctx: OrchestrationContext, ()| async move {
        ctx.raise_event("nobody", "go", "into the void")?;
        let child = ctx.start_orchestration(WAITER, (), Some("detached"))?;
        ctx.raise_event(child.as_str(), "go", "from the starter")?;
        Ok::<_, Error>(child.as_str().to_owned())
    });
    let hub = hub(4).register(code).register(waiter()).start().await.unwrap();
    let client = hub.client();
    let run = client.start(name, ()).await.unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), "detached");
    let exists = async {
        while client.state("detached").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon("the detached start", exists).await;
    let state = end_of(&client, "detached").await;
    assert_eq!(state.output.unwrap().as_str(), "\"from the starter\"");
    assert_eq!(state.parent, None);
    assert!(client.state("nobody").await.is_err());
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn awaiting_what_is_not_durable_is_reported_with_the_last_step() {
    let name: OrchestrationName<(), ()> = OrchestrationName::new("impatient");
    let code = orchestration("impatient", |ctx: OrchestrationContext, ()| async move {
        ctx.call(ECHO, "first".to_owned()).await?;
        // No runtime is needed to wait for a channel, so it is the waiting alone that is found out.
        let (_sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let _ = receiver.await;
        Ok::<_, Error>(())
    });
    let sleeper: OrchestrationName<(), ()> = OrchestrationName::new("sleeper");
    let sleeper_code = orchestration("sleeper", |_: OrchestrationContext, ()| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, Error>(())
    });
    let hub = hub(1).register(code).register(sleeper_code).register(echo()).start().await.unwrap();
    let client = hub.client();
    client.start_with(name, (), with_id("impatient")).await.unwrap();
    let failure = end_of(&client, "impatient").await.failure.unwrap();
    assert_eq!(failure.error_type, kinds::NON_DURABLE_AWAIT);
    assert!(failure.message.contains("'impatient'") && failure.message.contains("#0"), "{failure}");
    client.start_with(sleeper, (), with_id("sleeper")).await.unwrap();
    let failure = end_of(&client, "sleeper").await.failure.unwrap();
    assert_eq!(failure.error_type, kinds::NON_DURABLE_AWAIT);
    stop(hub).await;
}

/// Panics when it is dropped, unless the thread panics anyway.
struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn panics_fail_the_instance_and_nothing_else() {
    let bomb: ActivityName<u32, u32> = ActivityName::new("bomb");
    let bomb_code = activity("bomb", |_: ActivityContext, kind: u32| {
        assert_ne!(kind, 0, "before the first poll");
        async move {
            assert_ne!(kind, 1, "at the first poll");
            tokio::task::yield_now().await;
            assert_ne!(kind, 2, "later");
            let _guard = (kind == 3).then_some(PanicsInDrop);
            Ok::<_, Error>(kind)
        }
    });
    let calls: OrchestrationName<u32, u32> = OrchestrationName::new("calls");
    let calls_code = orchestration("calls", move |ctx: OrchestrationContext, kind: u32| {
        let bomb = bomb.clone();
        async move { Ok::<_, Error>(ctx.call(bomb, kind).await?) }
    });
    let panics: OrchestrationName<u32, u32> = OrchestrationName::new("panics");
    let panics_code = orchestration("panics", |ctx: OrchestrationContext, kind: u32| {
        assert_ne!(kind, 0, "before the first poll");
        async move {
            let _guard = (kind == 3 || kind == 4).then_some(PanicsInDrop);
            assert_ne!(kind, 1, "at the first poll");
            if kind == 4 {
                ctx.wait_for_event::<()>("never").await?;
            }
            ctx.call(ECHO, String::new()).await?;
            assert_ne!(kind, 2, "later");
            Ok::<_, Error>(kind)
        }
    });
    let builder = hub(1).register(bomb_code).register(calls_code).register(panics_code);
    let hub = builder.register(waiter()).register(echo()).start().await.unwrap();
    let client = hub.client();
    client.start_with(WAITER, (), with_id("bystander")).await.unwrap();
    for kind in 0..4 {
        let id = format!("panics-{kind}");
        client.start_with(&panics, kind, with_id(&id)).await.unwrap();
        let state = end_of(&client, &id).await;
        assert_eq!(state.status, OrchestrationStatus::Failed, "{kind}");
        assert_eq!(state.failure.unwrap().error_type, kinds::PANIC, "{kind}");
        let id = format!("calls-{kind}");
        client.start_with(&calls, kind, with_id(&id)).await.unwrap();
        let state = end_of(&client, &id).await;
        assert!(state.failure.unwrap().is_caused_by(kinds::PANIC), "{kind}");
    }
    // One whose future panics when it is dropped is terminated.
    client.start_with(&panics, 4, with_id("panics-4")).await.unwrap();
    soon("the start", client.wait_for_start("panics-4", None)).await.unwrap();
    client.terminate("panics-4", "over", false).await.unwrap();
    assert_eq!(end_of(&client, "panics-4").await.status, OrchestrationStatus::Terminated);
    client.raise_event("bystander", "go", "unharmed").await.unwrap();
    assert_eq!(end_of(&client, "bystander").await.status, OrchestrationStatus::Completed);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_is_missing_or_results_that_are_too_large_are_failures_with_a_name() {
    let missing: ActivityName<(), ()> = ActivityName::new("missing");
    let large: ActivityName<(), String> = ActivityName::new("large");
    let absent: OrchestrationName<(), ()> = OrchestrationName::new("absent");
    let name: OrchestrationName<(), Vec<String>> = OrchestrationName::new("curious");
    let code = orchestration("curious", move |ctx: OrchestrationContext, ()| {
        let (missing, large, absent) = (missing.clone(), large.clone(), absent.clone());
        async move {
            let mut kinds = Vec::new();
            kinds.extend(ctx.call(missing, ()).await.err().map(|error| error.details));
            kinds.extend(ctx.call(large, ()).await.err().map(|error| error.details));
            kinds.extend(ctx.call_orchestration(absent, ()).await.err().map(|error| error.details));
            Ok::<_, Error>(
                kinds.into_iter().map(|details| details.error_type.to_string()).collect::<Vec<_>>(),
            )
        }
    });
    let large_code =
        activity("large", |_: ActivityContext, ()| async move { Ok::<_, Error>("x".repeat(2000)) });
    let options = HubOptions { payload_bytes_max: 1000, ..HubOptions::default() };
    let hub = hub(2).register(code).register(large_code).options(options).start().await.unwrap();
    let run = hub.client().start(name, ()).await.unwrap();
    let kinds = soon("the result", run.result()).await.unwrap();
    assert_eq!(kinds, ["ActivityNotRegistered", "PayloadTooLarge", "OrchestrationNotRegistered"]);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_program_runs_once_for_each_start() {
    let ran = Counter::default();
    let seen = ran.clone();
    let count: ActivityName<(), ()> = ActivityName::new("count");
    let count_code = activity("count", move |_: ActivityContext, ()| {
        seen.add();
        async move { Ok::<_, Error>(()) }
    });
    let name: OrchestrationName<(), ()> = OrchestrationName::new("once");
    let code = orchestration("once", move |ctx: OrchestrationContext, ()| {
        let count = count.clone();
        async move { Ok::<_, Error>(ctx.call(count, ()).await?) }
    });
    let hub = hub(3).register(code).register(count_code).start().await.unwrap();
    let client = hub.client();
    let runs = join_all((0..500).map(|_| client.start(&name, ()))).await;
    for run in runs {
        soon("the result", run.unwrap().result()).await.unwrap();
    }
    assert_eq!(ran.get(), 500);
    stop(hub).await;
}
