//! Entities, and orchestrations that call and lock them. What clients signal may come twice when an answer was lost, so
//! it is such that twice is as good as once; what orchestrations and entities ask for comes exactly once, and is
//! counted.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use steadfast_core::entity::EntityId;
use steadfast_core::model::{
    EntityCall, EntityContext, EntityStartOptions, OrchestrationContext, OrchestrationName, entity,
    orchestration,
};
use steadfast_core::{Error, Result};
use steadfast_testkit::Simulation;

use crate::programs::double;

pub(crate) fn register(hub: &mut Simulation) {
    hub.register(
        entity::<BTreeSet<u64>>("set")
            .operation("insert", |set: &mut BTreeSet<u64>, _: &EntityContext, n: u64| {
                set.insert(n);
                Ok::<_, Error>(set.len())
            })
            .operation("insert_and_fail", |set: &mut BTreeSet<u64>, ctx: &EntityContext, n: u64| {
                set.insert(n);
                ctx.signal(EntityCall::<()>::new(ctx.id(), "insert", n))?;
                if n.is_multiple_of(2) {
                    panic!("even numbers are too much");
                }
                Err::<(), _>(Error::msg("odd numbers are refused"))
            })
            .operation_async("insert_slowly", |set: &mut BTreeSet<u64>, _: &EntityContext, n: u64| {
                Box::pin(async move {
                    set.insert(n + 1000);
                    pause().await;
                    set.insert(n);
                    pause().await;
                    set.remove(&(n + 1000));
                    Ok::<_, Error>(set.len())
                })
            })
            // Passes a number on to the entities below, down to 0, each of which starts an orchestration.
            .operation("spread", |set: &mut BTreeSet<u64>, ctx: &EntityContext, n: u64| {
                if set.insert(n) {
                    if n > 0 {
                        let next = EntityId::new("set", format!("spread-{}", n - 1))?;
                        ctx.signal(EntityCall::<()>::new(&next, "spread", n - 1))?;
                        let later = ctx.now().after(Duration::from_secs(n));
                        ctx.signal_at(EntityCall::<()>::new(&next, "insert", n + 100), later)?;
                    }
                    let id = Some(format!("started-{n}"));
                    let options = EntityStartOptions { instance_id: id, ..EntityStartOptions::default() };
                    ctx.start_with(OrchestrationName::<u64, u64>::new("three_steps"), n, options)?;
                }
                Ok::<_, Error>(())
            }),
    );
    hub.register(
        entity::<i64>("account")
            .operation("deposit", |balance: &mut i64, _: &EntityContext, amount: i64| {
                *balance += amount;
                Ok::<_, Error>(*balance)
            })
            .operation("withdraw", |balance: &mut i64, _: &EntityContext, amount: i64| {
                *balance -= amount;
                if *balance < 0 {
                    return Err(Error::new("Overdrawn", "there is not so much"));
                }
                Ok(*balance)
            })
            .query("balance", |balance: &i64, _: &EntityContext, ()| Ok::<_, Error>(*balance)),
    );
    hub.register(orchestration("save", save));
    hub.register(orchestration("transfer", transfer));
    hub.register(orchestration("overdraw", overdraw));
    hub.register(orchestration("hold", hold));
    hub.register(orchestration("hold_and_fail", hold_and_fail));
    hub.register(orchestration("hold_and_go_on", hold_and_go_on));
    hub.register(orchestration("give_up_waiting", give_up_waiting));
}

/// Pending once, like something that is not ready at once.
async fn pause() {
    let mut paused = false;
    poll_fn(|_| match std::mem::replace(&mut paused, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

fn account(key: &str) -> EntityId {
    EntityId::new("account", key).unwrap()
}

fn ask<O>(key: &str, operation: &'static str, amount: i64) -> EntityCall<O> {
    EntityCall::new(account(key), operation, amount)
}

/// Puts 1 into each of the accounts, a number of times, by call and by signal.
async fn save(ctx: OrchestrationContext, (keys, times): (Vec<String>, u64)) -> Result<()> {
    for _ in 0..times {
        let calls = keys.iter().map(|key| ctx.call_entity(ask::<i64>(key, "deposit", 1)));
        for balance in join_all(calls).await {
            balance?;
        }
        for key in &keys {
            ctx.signal_entity(ask::<i64>(key, "deposit", 1))?;
        }
    }
    Ok(())
}

/// Takes from one account and puts into another, in a critical section in which nobody else changes either.
async fn transfer(ctx: OrchestrationContext, (from, to, amount): (String, String, i64)) -> Result<()> {
    let section = ctx.lock_entities([account(&from), account(&to)]).await?;
    let read = |key: &str| ctx.call_entity(EntityCall::<i64>::new(account(key), "balance", ()));
    let (before, other) = (read(&from).await?, read(&to).await?);
    ctx.call(double(), 1).await?;
    ctx.call_entity(ask::<i64>(&from, "deposit", -amount)).await?;
    ctx.call_entity(ask::<i64>(&to, "deposit", amount)).await?;
    let after = (read(&from).await?, read(&to).await?);
    section.release();
    if after != (before - amount, other + amount) {
        return Err(Error::msg(format!("somebody came between: {before} {other} {after:?}")));
    }
    Ok(())
}

/// An operation that fails changes nothing and is no failure of the orchestration.
async fn overdraw(ctx: OrchestrationContext, key: String) -> Result<String> {
    let refused = ctx.call_entity(ask::<i64>(&key, "withdraw", 1_000_000)).await.unwrap_err();
    Ok(refused.details.error_type.to_string())
}

/// Locks the accounts and waits for an event that never comes.
async fn hold(ctx: OrchestrationContext, keys: Vec<String>) -> Result<()> {
    let _section = ctx.lock_entities(keys.iter().map(|key| account(key))).await?;
    ctx.set_custom_status("holding")?;
    Ok(ctx.wait_for_event("never").await?)
}

async fn hold_and_fail(ctx: OrchestrationContext, keys: Vec<String>) -> Result<()> {
    let section = ctx.lock_entities(keys.iter().map(|key| account(key))).await?;
    ctx.call_entity(ask::<i64>(&keys[0], "deposit", 100)).await?;
    std::mem::forget(section);
    Err(Error::msg("fails in the critical section"))
}

async fn hold_and_go_on(ctx: OrchestrationContext, (keys, left): (Vec<String>, u64)) -> Result<()> {
    let section = ctx.lock_entities(keys.iter().map(|key| account(key))).await?;
    ctx.call_entity(ask::<i64>(&keys[0], "deposit", 10)).await?;
    if left > 0 {
        ctx.continue_as_new(&(keys, left - 1))?;
        std::mem::forget(section);
    }
    Ok(())
}

/// Takes its request for the locks back after a while, and locks another account.
async fn give_up_waiting(ctx: OrchestrationContext, (keys, instead): (Vec<String>, String)) -> Result<i64> {
    let lock = ctx.lock_entities(keys.iter().map(|key| account(key)));
    match select(lock, ctx.timer(Duration::from_secs(5))).await {
        Either::Left(_) => return Err(Error::msg("the locks are held by somebody else")),
        Either::Right(((), lock)) => drop(lock),
    }
    let _section = ctx.lock_entities([account(&instead)]).await?;
    Ok(ctx.call_entity(ask(&instead, "deposit", 1)).await?)
}

pub(crate) fn signals(hub: &mut Simulation) {
    hub.signal("@set@a", "insert", &1);
    hub.signal("@set@a", "INSERT", &2);
    hub.signal("@set@a", "insert_slowly", &50);
    hub.signal("@set@a", "insert_and_fail", &70);
    hub.signal("@set@a", "insert_and_fail", &71);
    hub.signal("@set@a", "there is no such operation", &1);
    hub.signal("@set@gone", "insert", &1);
    hub.signal("@nobody@registered@this", "insert", &1);
    hub.when_at_rest();
    hub.signal("@set@gone", "delete", &());
    hub.signal("@set@never", "delete", &());
}

pub(crate) fn delayed(hub: &mut Simulation) {
    hub.signal_later("@set@later", "insert", &1, Duration::from_secs(100));
    hub.signal_later("@set@later", "insert_slowly", &2, Duration::from_secs(50));
    hub.signal_later("@set@now", "insert", &3, Duration::ZERO);
    hub.signal("@set@spread-1", "spread", &1);
}

pub(crate) fn calls(hub: &mut Simulation) {
    hub.start("save", "saver-1", &(["a", "b"], 1));
    hub.start("save", "saver-2", &(["b"], 2));
    hub.when_at_rest();
    hub.start("overdraw", "overdraw", "a");
}

pub(crate) fn transfers(hub: &mut Simulation) {
    for (from, to, amount) in [("a", "b", 1), ("c", "a", 10)] {
        hub.start("transfer", &format!("{from}-{to}"), &(from, to, amount));
    }
    hub.start("save", "between", &(["a"], 1));
}

pub(crate) fn owners_that_end(hub: &mut Simulation) {
    hub.start("hold", "holder", &["a", "b"]);
    hub.when_idle();
    hub.start("hold", "waiter", &["b", "c"]);
    hub.start("give_up_waiting", "impatient", &(["b", "d"], "d"));
    hub.start("save", "between", &(["a"], 1));
    hub.when_at_rest();
    hub.terminate("waiter", false);
    hub.terminate("holder", false);
}

pub(crate) fn owners_that_fail_or_go_on(hub: &mut Simulation) {
    hub.start("hold_and_go_on", "again", &(["a", "c"], 1));
    hub.start("hold_and_fail", "failing", &["c", "a"]);
    hub.start("save", "between", &(["a"], 1));
}
