//! Group E: orchestrations that go on with a new execution.

use steadfast::prelude::*;
use steadfast::{ClientError, ContinueAsNewOptions, EventKind, StartOptions};

use crate::support::{hub, soon, stop, until, with_and_without_sessions, with_id};

#[orchestration(name = "counts")]
async fn counts(ctx: OrchestrationContext, left: u32) -> Result<u32> {
    if left > 0 {
        ctx.continue_as_new(&(left - 1))?;
    }
    Ok(ctx.generation())
}

/// Takes one event in each execution.
#[orchestration(name = "adds")]
async fn adds(ctx: OrchestrationContext, (left, sum): (u32, u64)) -> Result<u64> {
    let sum = sum + ctx.wait_for_event::<u64>("number").await?;
    if left > 1 {
        ctx.continue_as_new(&(left - 1, sum))?;
    }
    Ok(sum)
}

/// Drops what nobody consumed.
#[orchestration(name = "forgets")]
async fn forgets(ctx: OrchestrationContext, first: bool) -> Result<String> {
    if first {
        ctx.wait_for_event::<()>("go").await?;
        let options = ContinueAsNewOptions { preserve_events: false, ..Default::default() };
        ctx.continue_as_new_with(&false, options)?;
        return Ok(String::new());
    }
    match ctx.wait_for_event_timeout::<()>("other", std::time::Duration::ZERO).await {
        Ok(()) => Ok("kept".to_owned()),
        Err(_) => Ok("dropped".to_owned()),
    }
}

with_and_without_sessions! {
    async fn a_thousand_generations_end_with_a_short_history(sessions: bool) {
        let hub = hub(sessions).register(counts).start().await.unwrap();
        let run = hub.client().start(counts, 1000).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), 1000);
        let state = run.state().await.unwrap();
        assert_eq!((state.generation, state.incarnation), (1000, 0));
        assert!(state.history_events < 10, "{}", state.history_events);
        let history = hub.client().history(run.id().as_str()).await.unwrap();
        let started = history.iter().find_map(|event| match &event.kind {
            EventKind::ExecutionStarted(started) => Some(started.clone()),
            _ => None,
        });
        assert_ne!(started.unwrap().execution, run.execution(), "each generation has an id of its own");
        stop(hub).await;
    }

    async fn events_arrive_once_and_in_order_whatever_execution_takes_them(sessions: bool) {
        let hub = hub(sessions).register(adds).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(adds, (50, 0), with_id("sum")).await.unwrap();
        for n in 1..=50u64 {
            client.raise_event("sum", "number", &n).await.unwrap();
        }
        assert_eq!(soon("the result", run.result()).await.unwrap(), 50 * 51 / 2);
        stop(hub).await;
    }

    async fn events_that_nobody_consumed_can_be_dropped(sessions: bool) {
        let hub = hub(sessions).register(forgets).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(forgets, true, with_id("f")).await.unwrap();
        client.raise_event("f", "other", &()).await.unwrap();
        client.raise_event("f", "go", &()).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), "dropped");
        stop(hub).await;
    }

    async fn name_tags_and_the_time_of_creation_stay_and_the_custom_status_begins_anew(sessions: bool) {
        let hub = hub(sessions).register(adds).start().await.unwrap();
        let client = hub.client();
        let tags = [("tenant".to_owned(), "a".to_owned())].into();
        let options = StartOptions { tags, ..with_id("kept") };
        client.start_with(adds, (3, 0), options).await.unwrap();
        let before = until(&client, "kept", |state| state.status == OrchestrationStatus::Running).await;
        client.raise_event("kept", "number", &1).await.unwrap();
        let after = until(&client, "kept", |state| {
            state.generation == 1 && state.status == OrchestrationStatus::Running
        });
        let after = after.await;
        assert_eq!((&after.name, &after.tags, after.created_at), (&before.name, &before.tags, before.created_at));
        assert_eq!(after.custom_status, None);
        assert_eq!(after.input.as_str(), "[2,1]");
        stop(hub).await;
    }

    async fn a_termination_wins_over_continuing_as_new(sessions: bool) {
        let hub = hub(sessions).register(counts).start().await.unwrap();
        let client = hub.client();
        let run = client.start_with(counts, u32::MAX, with_id("long")).await.unwrap();
        until(&client, "long", |state| state.generation > 2).await;
        client.terminate("long", "enough", false).await.unwrap();
        let end = soon("the end", run.result()).await;
        assert!(matches!(end, Err(ClientError::Terminated { .. })), "{end:?}");
        stop(hub).await;
    }
}
