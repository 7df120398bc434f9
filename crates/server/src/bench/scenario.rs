//! The orchestrations and activities that are measured.

use std::time::Duration;

use futures_util::future::try_join_all;
use steadfast_core::Error;
use steadfast_core::model::{
    ActivityContext, ActivityDefinition, ActivityName, OrchestrationContext, OrchestrationDefinition,
    OrchestrationName, activity, orchestration,
};
use steadfast_engine::HubBuilder;

pub(crate) const GREET: ActivityName<String, String> = ActivityName::new("greet");
const CARRIED: ActivityName<String, String> = ActivityName::new("carried");
pub(crate) const STAMP: ActivityName<u64, u64> = ActivityName::new("stamp");
pub(crate) const HELLO: OrchestrationName<(), Vec<String>> = OrchestrationName::new("hello");
pub(crate) const PING: OrchestrationName<(), String> = OrchestrationName::new("ping");
/// Its input goes through one activity, and is its result.
pub(crate) const CARRY: OrchestrationName<String, String> = OrchestrationName::new("carry");
pub(crate) const CHAIN: OrchestrationName<u64, Vec<u64>> = OrchestrationName::new("chain");
pub(crate) const FANOUT: OrchestrationName<u64, u64> = OrchestrationName::new("fanout");
pub(crate) const TIMER: OrchestrationName<u64, ()> = OrchestrationName::new("timer");
pub(crate) const WAITING: OrchestrationName<(), u64> = OrchestrationName::new("waiting");

/// The name of the event that [`WAITING`] waits for.
pub(crate) const GO: &str = "go";

/// The three-activity sequence, also for the bare kernel.
pub(crate) fn hello() -> OrchestrationDefinition<(), Vec<String>> {
    orchestration("hello", |ctx: OrchestrationContext, ()| async move {
        let mut greetings = Vec::new();
        for city in ["Tokyo", "Seattle", "London"] {
            greetings.push(ctx.call(GREET, city.to_owned()).await?);
        }
        Ok::<_, Error>(greetings)
    })
}

pub(crate) fn greet(city: &str) -> String {
    format!("Hello, {city}!")
}

/// The time in microseconds of some clock that only goes forward.
pub(crate) fn micros() -> u64 {
    static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    u64::try_from(BEGAN.get_or_init(std::time::Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The one-activity orchestration.
pub(crate) fn ping() -> OrchestrationDefinition<(), String> {
    orchestration("ping", |ctx: OrchestrationContext, ()| async move {
        Ok::<_, Error>(ctx.call(GREET, "Tokyo".to_owned()).await?)
    })
}

/// The activity of both.
pub(crate) fn greeting() -> ActivityDefinition<String, String> {
    activity("greet", |_: ActivityContext, city: String| async move { Ok::<_, Error>(greet(&city)) })
}

/// Text of so many bytes that cannot be compressed.
pub(crate) fn payload(bytes: usize) -> String {
    // Different ones are not needed: nothing looks for what they have in common.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let letters = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state % 74) as u8)
    });
    // JSON would write a backslash as two.
    letters.filter(|letter| *letter != '\\').take(bytes).collect()
}

pub(crate) fn register(builder: HubBuilder) -> HubBuilder {
    builder
        .register(activity("carried", |_: ActivityContext, payload: String| async move {
            Ok::<_, Error>(payload)
        }))
        .register(orchestration("carry", |ctx: OrchestrationContext, payload: String| async move {
            Ok::<_, Error>(ctx.call(CARRIED, payload).await?)
        }))
        .register(hello())
        .register(ping())
        .register(greeting())
        .register(activity("stamp", |_: ActivityContext, _: u64| async move { Ok::<_, Error>(micros()) }))
        .register(orchestration("chain", |ctx: OrchestrationContext, steps: u64| async move {
            let mut stamps = Vec::new();
            for step in 0..steps {
                stamps.push(ctx.call(STAMP, step).await?);
            }
            Ok::<_, Error>(stamps)
        }))
        .register(orchestration("fanout", |ctx: OrchestrationContext, width: u64| async move {
            let results = try_join_all((0..width).map(|n| ctx.call(STAMP, n))).await?;
            Ok::<_, Error>(results.len() as u64)
        }))
        .register(orchestration("timer", |ctx: OrchestrationContext, millis: u64| async move {
            ctx.timer(Duration::from_millis(millis)).await;
            Ok::<_, Error>(())
        }))
        .register(orchestration("waiting", |ctx: OrchestrationContext, ()| async move {
            Ok::<u64, Error>(ctx.wait_for_event(GO).await?)
        }))
}
