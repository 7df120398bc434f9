//! The orchestrations and activities that the scenarios run. What they return does not depend on the order in which
//! things happen at once.

use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use steadfast_core::model::{
    ActivityContext, ActivityName, CallOptions, OrchestrationContext, OrchestrationName, RetryPolicy,
    SubOrchestrationOptions, activity, orchestration,
};
use steadfast_core::{Error, Result, TaskError};
use steadfast_testkit::Simulation;

pub(crate) fn register_all(hub: &mut Simulation) {
    crate::entities::register(hub);
    crate::rewinds::register(hub);
    hub.register(activity("double", |_: ActivityContext, n: u64| async move { Result::<_>::Ok(n * 2) }));
    hub.register(activity("refuse", |_: ActivityContext, why: String| async move {
        Result::<()>::Err(Error::msg(why))
    }));
    hub.register(activity("echo", |_: ActivityContext, text: String| async move { Result::<_>::Ok(text) }));
    hub.register(orchestration("bulky", bulky));
    hub.register(orchestration("bulky_child", bulky_child));
    hub.register(orchestration("three_steps", three_steps));
    hub.register(orchestration("fan_out", fan_out));
    hub.register(orchestration("timer_race", timer_race));
    hub.register(orchestration("collect", collect));
    hub.register(orchestration("family", family));
    hub.register(orchestration("child", child));
    hub.register(orchestration("counter", counter));
    hub.register(orchestration("sum_up", sum_up));
    hub.register(orchestration("ping", ping));
    hub.register(orchestration("pong", pong));
    hub.register(orchestration("patient", patient));
    hub.register(orchestration("parent_of_patients", parent_of_patients));
    hub.register(orchestration("idle_timers", idle_timers));
    hub.register(orchestration("loop", endless));
    hub.register(orchestration("hurried", hurried));
}

pub(crate) fn double() -> ActivityName<u64, u64> {
    ActivityName::dynamic("double")
}

pub(crate) fn named<I, O>(name: &str) -> OrchestrationName<I, O> {
    OrchestrationName::dynamic(name)
}

/// Three activities, one after the other.
async fn three_steps(ctx: OrchestrationContext, mut n: u64) -> Result<u64> {
    for step in 0..3 {
        ctx.set_custom_status(&step)?;
        n = ctx.call(double(), n).await?;
    }
    Ok(n)
}

/// Many activities at once.
async fn fan_out(ctx: OrchestrationContext, width: u64) -> Result<u64> {
    let results = join_all((0..width).map(|n| ctx.call(double(), n))).await;
    results.into_iter().try_fold(0, |sum, result| Ok(sum + result?))
}

/// Attempts that may take too long, activities that lose a race, and one that is left behind.
async fn hurried(ctx: OrchestrationContext, rounds: u64) -> Result<u64> {
    let mut sum = 0;
    for n in 0..rounds {
        let options = CallOptions {
            // More attempts than can fail in a row.
            retry: Some(RetryPolicy::new(1000, Duration::ZERO)),
            start_to_close_timeout: Some(Duration::from_secs(10)),
            heartbeat_timeout: Some(Duration::from_secs(5)),
            priority: n as i32,
            ..CallOptions::default()
        };
        sum += ctx.call_with(double(), n, options).await?;
        // Whoever wins, nobody looks at what the other one does.
        select(ctx.call(double(), n), ctx.timer(Duration::from_millis(1))).await;
        drop(ctx.call(double(), n));
    }
    let left_behind = ctx.call(double(), 99);
    if ctx.generation() == 0 {
        ctx.continue_as_new(&rounds)?;
    }
    drop(left_behind);
    Ok(sum)
}

/// Timers that race with each other and with an event that never comes; the losers are cancelled.
async fn timer_race(ctx: OrchestrationContext, rounds: u64) -> Result<Vec<String>> {
    let mut winners = Vec::new();
    for round in 0..rounds {
        let (short, long) = (ctx.timer(Duration::from_secs(1 + round)), ctx.timer(Duration::from_secs(3600)));
        winners.push(match select(short, long).await {
            Either::Left(_) => "short".to_owned(),
            Either::Right(_) => "long".to_owned(),
        });
        let waited: Result<u64, TaskError> =
            ctx.wait_for_event_timeout("never", Duration::from_secs(5)).await;
        winners.push(waited.map_or_else(|error| error.details.error_type.to_string(), |n| n.to_string()));
    }
    Ok(winners)
}

/// Waits for events until it has seen every number below the input; those that come twice do not matter.
async fn collect(ctx: OrchestrationContext, count: u64) -> Result<u64> {
    let mut seen = std::collections::BTreeSet::new();
    while (seen.len() as u64) < count {
        seen.insert(ctx.wait_for_event::<u64>("number").await?);
        ctx.set_custom_status(&seen.len())?;
    }
    Ok(seen.into_iter().sum())
}

/// Children in whatever partition their ids belong to; one of them fails, one is tried again, one has a child itself.
async fn family(ctx: OrchestrationContext, depth: u64) -> Result<Vec<String>> {
    let child = || named::<u64, u64>("child");
    let good = ctx.call_orchestration(child(), depth * 10);
    let bad = ctx.call_orchestration(child(), 13);
    let own_id = SubOrchestrationOptions {
        instance_id: Some(format!("{}/named", ctx.instance_id())),
        ..SubOrchestrationOptions::default()
    };
    let with_id = ctx.call_orchestration_with(child(), 3, own_id);
    let mut results = Vec::new();
    for result in [good.await, bad.await, with_id.await] {
        results.push(match result {
            Ok(value) => value.to_string(),
            Err(error) => error.details.message,
        });
    }
    if depth > 0 {
        results.extend(ctx.call_orchestration(named::<u64, Vec<String>>("family"), depth - 1).await?);
    }
    Ok(results)
}

async fn child(ctx: OrchestrationContext, n: u64) -> Result<u64> {
    if n == 13 {
        return Ok(ctx.call(ActivityName::<String, u64>::dynamic("refuse"), "thirteen".to_owned()).await?);
    }
    Ok(ctx.call(double(), n).await? + 1)
}

/// Continues as new until it has counted down, doubling something in each generation.
async fn counter(ctx: OrchestrationContext, left: u64) -> Result<u64> {
    ctx.call(double(), left).await?;
    ctx.set_custom_status(&left)?;
    if left > 0 {
        ctx.continue_as_new(&(left - 1))?;
    }
    Ok(left)
}

/// Takes one event in each generation, until it has seen every number below the target; what comes meanwhile is carried.
async fn sum_up(ctx: OrchestrationContext, (target, mut seen): (u64, Vec<u64>)) -> Result<Vec<u64>> {
    let number: u64 = ctx.wait_for_event("number").await?;
    if !seen.contains(&number) {
        seen.push(number);
        seen.sort_unstable();
    }
    if (seen.len() as u64) < target {
        ctx.continue_as_new(&(target, &seen))?;
    }
    Ok(seen)
}

/// Plays ping-pong with the instance `other`, a number of times.
async fn ping(ctx: OrchestrationContext, (other, times): (String, u64)) -> Result<u64> {
    let me = ctx.instance_id().to_string();
    ctx.start_orchestration(named::<(String, u64), u64>("pong"), (me, times), Some(&other))?;
    for n in 0..times {
        ctx.raise_event(&other, "ping", &n)?;
        let back: u64 = ctx.wait_for_event("pong").await?;
        if back != n {
            return Err(Error::msg(format!("expected {n}, got {back}")));
        }
    }
    Ok(times)
}

async fn pong(ctx: OrchestrationContext, (other, times): (String, u64)) -> Result<u64> {
    for n in 0..times {
        let got: u64 = ctx.wait_for_event("ping").await?;
        if got != n {
            return Err(Error::msg(format!("expected {n}, got {got}")));
        }
        ctx.raise_event(&other, "pong", &n)?;
    }
    Ok(times)
}

/// Waits for the event `go`.
async fn patient(ctx: OrchestrationContext, n: u64) -> Result<u64> {
    ctx.set_custom_status("waiting")?;
    let go: u64 = ctx.wait_for_event("go").await?;
    Ok(ctx.call(double(), n + go).await?)
}

async fn parent_of_patients(ctx: OrchestrationContext, children: u64) -> Result<u64> {
    let id = ctx.instance_id();
    let options = |n| SubOrchestrationOptions {
        instance_id: Some(format!("{id}/{n}")),
        ..SubOrchestrationOptions::default()
    };
    let all = (0..children).map(|n| ctx.call_orchestration_with(named::<u64, u64>("patient"), n, options(n)));
    join_all(all).await.into_iter().try_fold(0, |sum, result| Ok(sum + result?))
}

/// Makes timers and ends while they are armed.
async fn idle_timers(ctx: OrchestrationContext, count: u64) -> Result<u64> {
    let timers: Vec<_> = (0..count).map(|n| ctx.timer(Duration::from_secs(100 + n))).collect();
    let doubled = ctx.call(double(), count).await?;
    drop(timers);
    Ok(doubled)
}

/// Continues as new at once.
async fn endless(ctx: OrchestrationContext, left: u64) -> Result<u64> {
    if left > 0 {
        ctx.continue_as_new(&(left - 1))?;
    }
    Ok(left)
}

/// A payload large enough to be compressed goes all the ways that there are: input, custom status, activity, child, event
/// to another instance, event from outside, next execution, result.
async fn bulky(ctx: OrchestrationContext, (round, text): (u32, String)) -> Result<String> {
    ctx.set_custom_status(&text)?;
    let echo = ActivityName::<String, String>::new("echo");
    let text = ctx.call(echo, text).await?;
    let arrived: String = match round {
        0 => ctx.wait_for_event("cargo").await?,
        _ => text.clone(),
    };
    let id = format!("{}/child{round}", ctx.instance_id());
    let options = SubOrchestrationOptions { instance_id: Some(id.clone()), ..Default::default() };
    let child = ctx.call_orchestration_with(named("bulky_child"), arrived, options);
    ctx.raise_event(&id, "cargo", &text)?;
    let text: String = child.await?;
    if round == 0 {
        ctx.continue_as_new(&(1, &text))?;
    }
    Ok(text)
}

async fn bulky_child(ctx: OrchestrationContext, text: String) -> Result<String> {
    let cargo: String = ctx.wait_for_event("cargo").await?;
    Ok(if cargo == text { cargo } else { format!("{} bytes are not {} bytes", cargo.len(), text.len()) })
}
