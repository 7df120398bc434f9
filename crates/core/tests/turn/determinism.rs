//! Time, ids, randomness and logging that are the same at every replay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast_core::Timestamp;
use steadfast_core::model::{ActivityName, OrchestrationContext, Registry};

use crate::support::{code, done, raised, scenario};

const STEP: ActivityName<Sample, u32> = ActivityName::new("step");

/// Everything that must not change when code is run again. It goes into the inputs of calls, so that a kept and a
/// replaying session can be compared by what they emit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sample {
    now: i64,
    uuid: String,
    random: u64,
}

fn sample(ctx: &OrchestrationContext) -> Sample {
    Sample { now: ctx.now().as_micros(), uuid: ctx.new_uuid().to_string(), random: ctx.random() }
}

/// Samples in each of several turns; returns all of them.
fn samples() -> Registry {
    code(|ctx: OrchestrationContext, generation: u32| async move {
        let mut samples = vec![sample(&ctx)];
        for _ in 0..2 {
            let one = sample(&ctx);
            samples.push(one.clone());
            ctx.call(STEP, one).await?;
        }
        samples.push(sample(&ctx));
        ctx.wait_for_event::<()>("next").await?;
        if generation < 2 {
            ctx.continue_as_new(&(generation + 1))?;
        }
        Ok(samples)
    })
}

#[test]
fn time_ids_and_randomness_are_equal_at_every_replay() {
    let run = scenario(samples(), |run| {
        run.start(9);
        run.send([done(0, 0)]);
        run.send([done(1, 0)]);
        run.send([raised("next", ())]);
    });
    let samples: Vec<Sample> = run.output();
    for (at, one) in samples.iter().enumerate() {
        for other in &samples[..at] {
            assert_ne!((&one.uuid, one.random), (&other.uuid, other.random));
            assert!(one.uuid != other.uuid && one.random != other.random);
        }
    }
    // Its time is that of the turn in which it first ran.
    let turns: Vec<_> = run.turns.iter().map(|turn| turn.events[0].timestamp.as_micros()).collect();
    let seen: Vec<_> = samples.iter().map(|sample| sample.now).collect();
    assert_eq!(seen, [turns[0], turns[0], turns[1], turns[2]]);
}

#[test]
fn executions_and_instances_differ_in_what_they_draw() {
    let ids = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = ids.clone();
    scenario(
        code(move |ctx: OrchestrationContext, n: u32| {
            let sample = sample(&ctx);
            seen.lock().unwrap().push((ctx.execution_id(), sample.uuid, sample.random));
            async move {
                if n < 3 {
                    ctx.continue_as_new(&(n + 1))?;
                }
                Ok(())
            }
        }),
        |run| {
            let now = run.now;
            run.start(0);
            for _ in 0..3 {
                // Even if a generation begins at the time of the one before.
                run.now = now;
                run.next_generation([]);
            }
        },
    );
    let mut drawn = ids.lock().unwrap().clone();
    drawn.sort();
    drawn.dedup();
    assert_eq!(drawn.len(), 4);
    drawn.dedup_by(|a, b| a.1 == b.1);
    assert_eq!(drawn.len(), 4, "{drawn:?}");
}

#[test]
fn the_uuid_of_an_instance_is_that_of_the_net_sdk() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.new_uuid().to_string()) }),
        |run| {
            run.now = Timestamp::from_micros(1_700_000_000_123_456);
            run.start(());
        },
    );
    let namespace = uuid::Uuid::parse_str("9e952958-5e33-4daf-827f-2fa12937b875").unwrap();
    let expected = uuid::Uuid::new_v5(&namespace, b"the-instance_2023-11-14T22:13:20.1234560Z_0");
    assert_eq!(run.output::<String>(), expected.to_string());
}

#[test]
fn time_never_goes_back_within_an_instance_even_if_the_clock_does() {
    let run = scenario(
        code(|ctx: OrchestrationContext, first: i64| async move {
            let mut times = vec![ctx.now().as_micros()];
            for _ in 0..2 {
                ctx.wait_for_event::<()>("e").await?;
                times.push(ctx.now().as_micros());
            }
            assert!(times.is_sorted());
            if first == 0 {
                ctx.continue_as_new(times.last().unwrap())?;
            }
            Ok((first, times))
        }),
        |run| {
            let noon = run.now.after(Duration::from_secs(10_000));
            run.now = noon;
            run.start(0);
            for minute in [-1, -2] {
                run.now = Timestamp::from_micros(noon.as_micros() + minute * 60_000_000);
                run.send([raised("e", ())]);
            }
            run.now = Timestamp::default();
            run.next_generation([]);
            run.now = Timestamp::from_micros(7);
            run.send([raised("e", ()), raised("e", ())]);
        },
    );
    let (first, times): (i64, Vec<i64>) = run.output();
    assert!(times.iter().all(|time| *time >= first), "{times:?} after {first}");
}

#[test]
fn time_stands_still_within_a_turn() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let mut times = Vec::new();
            for _ in 0..3 {
                ctx.wait_for_event::<()>("e").await?;
                times.push(ctx.now().as_micros());
            }
            Ok(times)
        }),
        |run| {
            run.start(());
            run.send([raised("e", ()), raised("e", ())]);
            run.send([raised("e", ())]);
        },
    );
    let times: Vec<i64> = run.output();
    assert!(times[0] == times[1] && times[1] < times[2], "{times:?}");
}

/// Counts what is logged.
struct Counter(AtomicU32);

struct CountingSubscriber(Arc<Counter>);

impl tracing::Subscriber for CountingSubscriber {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        if event.metadata().target() == "steadfast::orchestration" {
            self.0.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn each_line_is_logged_once_and_replaying_is_said_only_while_it_is_true() {
    let counter = Arc::new(Counter(AtomicU32::new(0)));
    let live = Arc::new(AtomicU32::new(0));
    let live_lines = live.clone();
    tracing::subscriber::with_default(CountingSubscriber(counter.clone()), || {
        scenario(
            code(move |ctx: OrchestrationContext, (): ()| {
                let live = live_lines.clone();
                let say = move |ctx: &OrchestrationContext| {
                    for level in [tracing::Level::ERROR, tracing::Level::INFO, tracing::Level::TRACE] {
                        ctx.log(level, "here");
                    }
                    live.fetch_add(u32::from(!ctx.is_replaying()), Ordering::Relaxed);
                };
                async move {
                    for _ in 0..4 {
                        say(&ctx);
                        ctx.wait_for_event::<()>("e").await?;
                    }
                    say(&ctx);
                    Ok(())
                }
            }),
            |run| {
                run.start(());
                run.send([raised("e", ())]);
                run.evict();
                run.send([raised("e", ()), raised("e", ())]);
                run.send([raised("e", ())]);
                run.evict();
            },
        );
    });
    // Two scenarios (kept, replaying) of five places each.
    assert_eq!(live.load(Ordering::Relaxed), 2 * 5);
    assert_eq!(counter.0.load(Ordering::Relaxed), 2 * 5 * 3);
}

#[test]
fn what_the_context_says_of_the_instance_is_that_of_its_start() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let id = ctx.execution_id() == ctx.clone().execution_id();
            assert!(id && ctx.parent().is_none() && ctx.tags().is_empty());
            Ok((
                ctx.instance_id().to_string(),
                ctx.name().to_string(),
                ctx.version().to_string(),
                ctx.generation(),
            ))
        }),
        |run| {
            run.start(());
        },
    );
    let facts: (String, String, String, u32) = run.output();
    assert_eq!(facts, ("the-instance".to_owned(), "test".to_owned(), String::new(), 0));
}
