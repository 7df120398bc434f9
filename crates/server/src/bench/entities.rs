//! The scenarios with entities.

use std::sync::Arc;
use std::time::{Duration, Instant};

use steadfast_core::entity::EntityId;
use steadfast_core::model::{
    EntityCall, EntityContext, OrchestrationContext, OrchestrationName, entity, orchestration,
};
use steadfast_core::{Error, Result};
use steadfast_engine::{Client, HubBuilder};

use super::load::each;
use super::report::{Measured, Progress};
use super::scenario::micros;

/// Calls one counter a number of times, and tells how long each took, in microseconds.
const CALLS: OrchestrationName<u64, Vec<u64>> = OrchestrationName::new("entity-calls");
/// Enters a critical section over three counters a number of times, likewise.
const SECTIONS: OrchestrationName<u64, Vec<u64>> = OrchestrationName::new("entity-sections");

/// An orchestration ends, and goes on as new, after so many steps, as one would in real life.
const STEPS: u64 = 200;

fn counter(key: impl std::fmt::Display) -> Result<EntityId> {
    Ok(EntityId::new("counter", key.to_string())?)
}

fn add(entity: &EntityId) -> EntityCall<i64> {
    EntityCall::new(entity, "add", 1)
}

pub(super) fn register(builder: HubBuilder) -> HubBuilder {
    let counting =
        entity::<i64>("counter").operation("add", |sum: &mut i64, _: &EntityContext, amount: i64| {
            *sum += amount;
            Ok::<_, Error>(*sum)
        });
    builder
        .register(counting)
        .register(orchestration("entity-calls", |ctx: OrchestrationContext, steps: u64| async move {
            let entity = counter("called")?;
            let mut taken = Vec::new();
            for _ in 0..steps {
                // A clock that only measures does not have to be the same at every replay: sessions stay in memory here.
                let began = micros();
                ctx.call_entity(add(&entity)).await?;
                taken.push(micros() - began);
            }
            Ok::<_, Error>(taken)
        }))
        .register(orchestration("entity-sections", |ctx: OrchestrationContext, steps: u64| async move {
            let entities = [counter("a")?, counter("b")?, counter("c")?];
            let mut taken = Vec::new();
            for _ in 0..steps {
                let began = micros();
                let section = ctx.lock_entities(&entities).await?;
                ctx.call_entity(add(&entities[0])).await?;
                section.release();
                taken.push(micros() - began);
            }
            Ok::<_, Error>(taken)
        }))
}

/// Signals, each durable when it is answered, to some entities in turn; ends when all of them are applied.
pub(super) async fn signals(
    client: &Client,
    signals: u64,
    entities: u64,
    concurrency: u64,
    progress: &Progress,
) -> Result<Measured> {
    let ids: Result<Vec<_>> = (0..entities.max(1)).map(counter).collect();
    let ids = Arc::new(ids?);
    let began = Instant::now();
    let targets = ids.clone();
    let latencies = each(client, signals, concurrency, progress, move |client, number| {
        let call = add(&targets[(number % targets.len() as u64) as usize]);
        async move { Ok(client.signal_entity(call).await?) }
    })
    .await?;
    let mut sum = 0;
    while sum != signals as i64 {
        sum = 0;
        for id in ids.iter() {
            sum += client.entity_state::<i64>(id).await?.unwrap_or_default();
        }
    }
    Ok(Measured::new(signals, 0, began.elapsed(), latencies))
}

/// Calls of an entity, or critical sections, by one orchestration after the other.
pub(super) async fn steps(client: &Client, steps: u64, sections: bool) -> Result<Measured> {
    let began = Instant::now();
    let mut latencies = Vec::new();
    let mut left = steps;
    while left > 0 {
        let now = left.min(STEPS);
        let run = client.start(if sections { SECTIONS } else { CALLS }, now).await?;
        latencies.extend(run.result().await?.into_iter().map(Duration::from_micros));
        left -= now;
    }
    Ok(Measured::new(steps, 0, began.elapsed(), latencies))
}
