//! Middleware: what the owner of a hub puts around all orchestrations, activities and entities. Here are four pieces to copy:
//! metrics, a log, an authorisation of names, and an encryption of what activities return.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use steadfast::prelude::*;
use steadfast::{
    ActivityCall, ActivityFuture, ActivityMiddleware, ActivityNext, ClientError, EntityBatchCall,
    EntityBatchFuture, EntityMiddleware, EntityNext, FailureDetails, Payload, TurnContext, TurnMiddleware,
    TurnOutcome,
};

/// Counts, for a metrics system to read.
#[derive(Clone, Default)]
struct Metrics(Arc<Counters>);

#[derive(Default)]
struct Counters {
    turns: AtomicU64,
    activities: AtomicU64,
    activity_micros: AtomicU64,
    operations: AtomicU64,
}

impl TurnMiddleware for Metrics {
    fn after(&self, _turn: &mut TurnContext<'_>, _outcome: &mut TurnOutcome<'_>) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
    }
}

impl ActivityMiddleware for Metrics {
    fn call<'a>(&'a self, call: ActivityCall, next: ActivityNext<'a>) -> ActivityFuture<'a> {
        Box::pin(async move {
            let began = Instant::now();
            let outcome = next.run(call).await;
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.0.activities.fetch_add(1, Ordering::Relaxed);
            self.0.activity_micros.fetch_add(micros, Ordering::Relaxed);
            outcome
        })
    }
}

impl EntityMiddleware for Metrics {
    fn call<'a>(&'a self, call: EntityBatchCall, next: EntityNext<'a>) -> EntityBatchFuture<'a> {
        self.0.operations.fetch_add(call.operations().len() as u64, Ordering::Relaxed);
        next.run(call)
    }
}

/// Says what ends, and how.
struct Log;

impl TurnMiddleware for Log {
    fn after(&self, turn: &mut TurnContext<'_>, outcome: &mut TurnOutcome<'_>) {
        if let Some(end) = outcome.completion() {
            println!("{} of '{}' ends: {end:?}", turn.started.name, turn.instance);
        }
    }
}

/// Who may run what: names that begin with `admin_` need the tag `role=admin`. The decision depends on nothing but the
/// instance, so it is the same whenever it is taken.
struct Authorise;

/// What [`Authorise`] found out, for the code to read.
struct Role(String);

impl TurnMiddleware for Authorise {
    fn begin(
        &self,
        _instance: &steadfast::InstanceId,
        started: &steadfast::ExecutionStarted,
        properties: &mut steadfast::Properties,
    ) {
        let role = started.tags.get("role").map_or("guest", |role| role.as_str());
        properties.insert(Role(role.to_owned()));
    }

    fn before(&self, turn: &mut TurnContext<'_>) -> std::result::Result<(), FailureDetails> {
        let role = turn.properties.get::<Role>();
        let admin = role.is_some_and(|role| role.0 == "admin");
        if turn.started.name.starts_with("admin_") && !admin {
            let problem = format!("{} needs the role admin", turn.started.name);
            return Err(FailureDetails::new("NotAuthorised", problem).non_retriable());
        }
        Ok(())
    }
}

/// Of an entity, clients may only ask for what does no harm; the rest is for orchestrations.
impl EntityMiddleware for Authorise {
    fn call<'a>(&'a self, mut call: EntityBatchCall, next: EntityNext<'a>) -> EntityBatchFuture<'a> {
        for at in 0..call.operations().len() {
            let operation = &call.operations()[at];
            if operation.caller.is_none() && operation.operation != "ring" {
                println!("a client may not {} {}", operation.operation, call.entity());
                call.refuse(at, FailureDetails::new("NotAuthorised", "ask an orchestration").non_retriable());
            }
        }
        next.run(call)
    }
}

/// Hands activities a key and hides what they return, so that histories hold only what can be opened with that key. (To
/// encrypt everything that a hub stores, see `HubBuilder::storage_codec`. And take a real cipher.)
struct Seal(u8);

impl ActivityMiddleware for Seal {
    fn call<'a>(&'a self, call: ActivityCall, next: ActivityNext<'a>) -> ActivityFuture<'a> {
        Box::pin(async move {
            let result = next.run(call).await?;
            let sealed: Vec<u8> = result.as_str().bytes().map(|byte| byte ^ self.0).collect();
            Payload::encode(&Sealed(sealed)).map_err(|error| Error::from(error).into_details())
        })
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Sealed(Vec<u8>);

#[activity]
async fn secret(_ctx: ActivityContext, number: u32) -> Result<Sealed> {
    Ok(Sealed(number.to_string().into_bytes()))
}

#[orchestration]
async fn fetch_secret(ctx: OrchestrationContext, number: u32) -> Result<usize> {
    let Sealed(bytes) = ctx.call(secret, number).await?;
    Ok(bytes.len())
}

#[orchestration]
async fn admin_report(ctx: OrchestrationContext) -> Result<String> {
    let role = ctx.property::<Role>().ok_or_else(|| Error::msg("nobody said who I am"))?;
    Ok(format!("for the {}", role.0))
}

/// A door to a room full of secrets.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Door {
    open: bool,
    rung: u32,
}

#[entity]
impl Door {
    fn ring(&mut self) {
        self.rung += 1;
    }

    fn unlock(&mut self) {
        self.open = true;
    }

    fn look(&self) -> (bool, u32) {
        (self.open, self.rung)
    }
}

#[orchestration]
async fn look_at_door(ctx: OrchestrationContext) -> Result<(bool, u32)> {
    Ok(ctx.call_entity(Door::at("front").look()).await?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "./data/middleware".to_owned());
    let metrics = Metrics::default();
    let hub = TaskHub::builder(folder)
        .register(secret)
        .register(fetch_secret)
        .register(admin_report)
        .register(Door::entity())
        .register(look_at_door)
        .turn_middleware(metrics.clone())
        .turn_middleware(Log)
        .turn_middleware(Authorise)
        .activity_middleware(metrics.clone())
        .activity_middleware(Seal(0x5a))
        .entity_middleware(metrics.clone())
        .entity_middleware(Authorise)
        .start()
        .await?;
    let client = hub.client();

    let sealed = client.start(fetch_secret, 42).await?.result().await?;
    println!("the orchestration saw {sealed} sealed bytes");

    let guest = client.start(admin_report, ()).await?.result().await;
    assert!(matches!(guest, Err(ClientError::Failed { .. })));
    let options = steadfast::StartOptions {
        tags: [("role".to_owned(), "admin".to_owned())].into(),
        ..Default::default()
    };
    println!("the report is {}", client.start_with(admin_report, (), options).await?.result().await?);

    client.signal_entity(Door::at("front").ring()).await?;
    client.signal_entity(Door::at("front").unlock()).await?;
    let (open, rung) = client.start(look_at_door, ()).await?.result().await?;
    println!("the door was rung at {rung} times and is {}", if open { "open" } else { "shut" });

    let counters = &metrics.0;
    println!(
        "{} turns, {} activities in {} µs, {} operations",
        counters.turns.load(Ordering::Relaxed),
        counters.activities.load(Ordering::Relaxed),
        counters.activity_micros.load(Ordering::Relaxed),
        counters.operations.load(Ordering::Relaxed)
    );
    hub.stop().await?;
    Ok(())
}
