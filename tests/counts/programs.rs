//! The code whose cost is counted.

use std::time::Duration;

use futures_util::future::try_join_all;
use steadfast::{
    ActivityContext, ActivityDefinition, ActivityName, EntityContext, EntityDefinition, Error,
    OrchestrationContext, OrchestrationDefinition, OrchestrationName, activity, entity, orchestration,
};

const GREET: ActivityName<String, String> = ActivityName::new("greet");

pub(crate) const STEPS: OrchestrationName<u64, u64> = OrchestrationName::new("steps");

pub(crate) fn greet() -> ActivityDefinition<String, String> {
    activity(
        "greet",
        |_: ActivityContext, city: String| async move { Ok::<_, Error>(format!("Hello, {city}!")) },
    )
}

/// So many activities, one after the other; three of them are a `hello`.
pub(crate) fn steps() -> OrchestrationDefinition<u64, u64> {
    orchestration("steps", |ctx: OrchestrationContext, steps: u64| async move {
        for _ in 0..steps {
            ctx.call(GREET, "Tokyo".to_owned()).await?;
        }
        Ok::<_, Error>(steps)
    })
}

/// So many activities at once.
pub(crate) fn fanout() -> OrchestrationDefinition<u64, u64> {
    orchestration("fanout", |ctx: OrchestrationContext, width: u64| async move {
        let greetings = try_join_all((0..width).map(|_| ctx.call(GREET, "Tokyo".to_owned()))).await?;
        Ok::<_, Error>(greetings.len() as u64)
    })
}

/// A timer.
pub(crate) fn timer() -> OrchestrationDefinition<u64, ()> {
    orchestration("timer", |ctx: OrchestrationContext, seconds: u64| async move {
        ctx.timer(Duration::from_secs(seconds)).await;
        Ok::<_, Error>(())
    })
}

/// An event.
pub(crate) fn waiting() -> OrchestrationDefinition<(), u64> {
    orchestration("waiting", |ctx: OrchestrationContext, ()| async move {
        Ok::<_, Error>(ctx.wait_for_event::<u64>("go").await?)
    })
}

/// Another orchestration.
pub(crate) fn parent() -> OrchestrationDefinition<u64, u64> {
    orchestration("parent", |ctx: OrchestrationContext, steps: u64| async move {
        Ok::<_, Error>(ctx.call_orchestration(STEPS, steps).await?)
    })
}

/// A sum that signals change.
pub(crate) fn counter() -> EntityDefinition<i64> {
    entity::<i64>("counter").operation("add", |sum: &mut i64, _: &EntityContext, amount: i64| {
        *sum += amount;
        Ok::<_, Error>(*sum)
    })
}
