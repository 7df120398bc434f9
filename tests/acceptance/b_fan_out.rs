//! Group B: many activities and children at once.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};

use steadfast::{
    ActivityContext, ActivityName, Error, EventKind, OrchestrationContext, OrchestrationName,
    OrchestrationStatus, activity, orchestration,
};

use crate::support::{end_of, hub, soon, stop, with_and_without_sessions, with_id};

const SQUARE: ActivityName<u64, u64> = ActivityName::new("square");
const FAN: OrchestrationName<u64, Vec<u64>> = OrchestrationName::new("fan");

fn square() -> steadfast::ActivityDefinition<u64, u64> {
    activity("square", |_: ActivityContext, n: u64| async move { Ok::<_, Error>(n * n) })
}

/// Squares 0, 1, 2 and so on at once, and returns them in that order.
fn fan() -> steadfast::OrchestrationDefinition<u64, Vec<u64>> {
    orchestration("fan", |ctx: OrchestrationContext, width: u64| async move {
        let results = join_all((0..width).map(|n| ctx.call(SQUARE, n))).await;
        Ok::<_, Error>(results.into_iter().collect::<Result<_, _>>()?)
    })
}

fn squares(width: u64) -> Vec<u64> {
    (0..width).map(|n| n * n).collect()
}

with_and_without_sessions! {
    async fn results_come_back_in_the_order_in_which_they_were_asked_for(sessions: bool) {
        let hub = hub(sessions).register(square()).register(fan()).start().await.unwrap();
        let client = hub.client();
        for width in [0, 1, 2, 1000] {
            let run = client.start(FAN, width).await.unwrap();
            assert_eq!(soon("the result", run.result()).await.unwrap(), squares(width), "{width}");
        }
        stop(hub).await;
    }

    async fn two_rounds_in_one_instance_lose_no_result(sessions: bool) {
        let twice = orchestration("fan", |ctx: OrchestrationContext, width: u64| async move {
            let mut sums = Vec::new();
            for _ in 0..2 {
                let results = join_all((0..width).map(|n| ctx.call(SQUARE, n))).await;
                sums.push(results.into_iter().sum::<Result<u64, _>>()?);
            }
            Ok::<_, Error>(sums)
        });
        let hub = hub(sessions).register(square()).register(twice).start().await.unwrap();
        let run = hub.client().start(FAN, 300).await.unwrap();
        let sum: u64 = squares(300).into_iter().sum();
        assert_eq!(soon("the result", run.result()).await.unwrap(), [sum, sum]);
        stop(hub).await;
    }

    async fn results_can_be_taken_in_the_order_in_which_they_come(sessions: bool) {
        let as_they_come = orchestration("fan", |ctx: OrchestrationContext, width: u64| async move {
            let mut open: FuturesUnordered<_> = (0..width).map(|n| ctx.call(SQUARE, n)).collect();
            let mut results = Vec::new();
            while let Some(result) = open.next().await {
                results.push(result?);
            }
            results.sort_unstable();
            Ok::<_, Error>(results)
        });
        let hub = hub(sessions).register(square()).register(as_they_come).start().await.unwrap();
        let run = hub.client().start(FAN, 500).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), squares(500));
        stop(hub).await;
    }

    async fn one_failure_among_many_is_the_failure_of_the_whole_and_of_no_other_call(sessions: bool) {
        let picky = activity("square", |_: ActivityContext, n: u64| async move {
            if n == 77 { Err(Error::new("Odd", "seventy-seven")) } else { Ok(n * n) }
        });
        let count = orchestration("fan", |ctx: OrchestrationContext, width: u64| async move {
            let results = join_all((0..width).map(|n| ctx.call(SQUARE, n))).await;
            let failed = results.iter().filter(|result| result.is_err()).count() as u64;
            Ok::<_, Error>(vec![results.len() as u64 - failed, failed])
        });
        let hub = hub(sessions).register(picky).register(count).start().await.unwrap();
        let run = hub.client().start(FAN, 100).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), [99, 1]);
        stop(hub).await;
    }

    async fn children_fan_out_over_all_partitions(sessions: bool) {
        let parent = orchestration("parent", |ctx: OrchestrationContext, width: u64| async move {
            let children = (0..width).map(|n| ctx.call_orchestration(FAN, n % 3));
            let results = join_all(children).await;
            Ok::<_, Error>(results.into_iter().collect::<Result<Vec<_>, _>>()?.concat().len())
        });
        const PARENT: OrchestrationName<u64, usize> = OrchestrationName::new("parent");
        let hub = hub(sessions).register(square()).register(fan()).register(parent).start().await.unwrap();
        let run = hub.client().start(PARENT, 90).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), 90);
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_activities_each_run_once_and_are_all_in_the_history() {
    let ran = Arc::new(Mutex::new(vec![0u32; 10_000]));
    let counted = ran.clone();
    let square = activity("square", move |_: ActivityContext, n: u64| {
        counted.lock().unwrap()[n as usize] += 1;
        async move { Ok::<_, Error>(n * n) }
    });
    let hub = hub(true).register(square).register(fan()).start().await.unwrap();
    let client = hub.client();
    client.start_with(FAN, 10_000, with_id("wide")).await.unwrap();
    let state = end_of(&client, "wide").await;
    assert_eq!(state.status, OrchestrationStatus::Completed);
    assert_eq!(state.output.unwrap().decode::<Vec<u64>>().unwrap(), squares(10_000));
    let history = client.history("wide").await.unwrap();
    let completed =
        history.iter().filter(|event| matches!(event.kind, EventKind::TaskCompleted { .. })).count();
    assert_eq!(completed, 10_000);
    steadfast_testkit::check_history(&history).unwrap();
    // Nothing died, so nothing was run again.
    assert!(ran.lock().unwrap().iter().all(|runs| *runs == 1));
    stop(hub).await;
}
