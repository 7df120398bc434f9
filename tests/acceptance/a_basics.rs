//! Group A: orchestrations and activities, one after the other and side by side.

use futures_util::future::join_all;
use steadfast::prelude::*;
use steadfast::{EventKind, OrchestrationStatus};

use crate::support::{end_of, hub, soon, stop, with_and_without_sessions, with_id};

#[activity]
async fn greet(_ctx: ActivityContext, name: String) -> Result<String> {
    Ok(format!("Hello, {name}!"))
}

#[activity]
async fn multiply(_ctx: ActivityContext, (left, right): (u64, u64)) -> Result<u64> {
    Ok(left * right)
}

#[orchestration]
async fn hello_inline(_ctx: OrchestrationContext, name: String) -> Result<String> {
    Ok(format!("Hello, {name}!"))
}

#[orchestration]
async fn hello_by_activity(ctx: OrchestrationContext, name: String) -> Result<String> {
    Ok(ctx.call(greet, name).await?)
}

#[orchestration]
async fn factorial(ctx: OrchestrationContext, n: u64) -> Result<u64> {
    let mut product = 1;
    for factor in 1..=n {
        product = ctx.call(multiply, (product, factor)).await?;
    }
    Ok(product)
}

#[orchestration]
async fn parent_of_factorial(ctx: OrchestrationContext, n: u64) -> Result<u64> {
    Ok(ctx.call_orchestration(factorial, n).await?)
}

#[orchestration]
async fn side_by_side(ctx: OrchestrationContext, names: Vec<String>) -> Result<Vec<String>> {
    let greetings = join_all(names.into_iter().map(|name| ctx.call(greet, name))).await;
    Ok(greetings.into_iter().collect::<Result<Vec<_>, _>>()?)
}

#[orchestration]
async fn replays_seen(ctx: OrchestrationContext, steps: u32) -> Result<u32> {
    let mut replayed = 0;
    for _ in 0..steps {
        ctx.call(greet, "anybody".into()).await?;
        replayed += u32::from(ctx.is_replaying());
    }
    Ok(replayed)
}

with_and_without_sessions! {
    async fn an_orchestration_without_activities_returns_what_its_code_returns(sessions: bool) {
        let hub = hub(sessions).register(hello_inline).start().await.unwrap();
        let run = hub.client().start_with(hello_inline, "World".into(), with_id("inline")).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), "Hello, World!");
        let state = end_of(&hub.client(), "inline").await;
        assert_eq!(state.status, OrchestrationStatus::Completed);
        assert_eq!(state.input.as_str(), "\"World\"");
        assert_eq!(state.output.unwrap().as_str(), "\"Hello, World!\"");
        stop(hub).await;
    }

    async fn an_activitys_result_comes_back_to_the_orchestration(sessions: bool) {
        let hub = hub(sessions).register(hello_by_activity).register(greet).start().await.unwrap();
        let run = hub.client().start(hello_by_activity, "World".into()).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), "Hello, World!");
        stop(hub).await;
    }

    async fn activities_one_after_the_other_pass_results_on(sessions: bool) {
        let hub = hub(sessions).register(factorial).register(multiply).start().await.unwrap();
        let run = hub.client().start(factorial, 10).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), 3_628_800);
        stop(hub).await;
    }

    async fn a_sub_orchestrations_result_comes_back_to_its_parent(sessions: bool) {
        let hub = hub(sessions).register(parent_of_factorial).register(factorial).register(multiply);
        let hub = hub.start().await.unwrap();
        let run = hub.client().start(parent_of_factorial, 10).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), 3_628_800);
        stop(hub).await;
    }

    async fn activities_side_by_side_come_back_in_the_order_of_their_calls(sessions: bool) {
        let hub = hub(sessions).register(side_by_side).register(greet).start().await.unwrap();
        let names: Vec<_> = (0..20).map(|n| format!("number {n}")).collect();
        let greetings: Vec<_> = names.iter().map(|name| format!("Hello, {name}!")).collect();
        let run = hub.client().start(side_by_side, names).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), greetings);
        stop(hub).await;
    }

    async fn a_history_begins_with_the_start_and_ends_with_the_completion(sessions: bool) {
        let hub = hub(sessions).register(hello_by_activity).register(greet).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(hello_by_activity, "World".into(), with_id("told")).await.unwrap();
        soon("the result", run.result()).await.unwrap();
        let history = client.history("told").await.unwrap();
        let names: Vec<_> = history.iter().map(|event| event.kind.type_name()).collect();
        let expected = [
            "OrchestratorStarted", "ExecutionStarted", "TaskScheduled", "OrchestratorCompleted",
            "OrchestratorStarted", "TaskCompleted", "ExecutionCompleted", "OrchestratorCompleted",
        ];
        assert_eq!(names, expected);
        let EventKind::TaskCompleted { task_scheduled_id, .. } = &history[5].kind else { panic!("{history:?}") };
        assert_eq!(history[2].event_id, *task_scheduled_id);
        stop(hub).await;
    }

    async fn a_hundred_orchestrations_at_once_all_come_to_their_end(sessions: bool) {
        let hub = hub(sessions).register(factorial).register(multiply).start().await.unwrap();
        let client = hub.client();
        let runs = (0..100).map(|n| {
            let client = client.clone();
            async move { client.start(factorial, n % 12).await.unwrap().result().await.unwrap() }
        });
        let results = soon("all results", join_all(runs)).await;
        let expected = (0..100_u64).map(|n| (1..=n % 12).product::<u64>());
        assert!(results.into_iter().eq(expected));
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_sees_no_replay_as_long_as_its_session_stays_in_memory() {
    let hub = hub(true).register(replays_seen).register(greet).start().await.unwrap();
    let run = hub.client().start(replays_seen, 10).await.unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), 0);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_in_memory_code_sees_each_earlier_step_replayed() {
    let hub = hub(false).register(replays_seen).register(greet).start().await.unwrap();
    let run = hub.client().start(replays_seen, 10).await.unwrap();
    // The last turn replays all steps but its own.
    assert_eq!(soon("the result", run.result()).await.unwrap(), 9);
    stop(hub).await;
}
