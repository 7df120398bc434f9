//! An event against a timer.
//!
//! Each expense waits for somebody to decide on it. The decision is an external event, which may come in a second or in
//! a month. A durable timer runs beside it: when nobody decides in time, the expense goes to the manager. Waiting costs
//! nothing: the instance is on disk, and the process may stop and start meanwhile.
//!
//! ```sh
//! cargo run --release --example human_approval
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use futures_util::future::{Either, select};
use serde::{Deserialize, Serialize};
use steadfast::prelude::*;

/// In real life this would be days.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Expense {
    who: String,
    what: String,
    cents: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Decision {
    approved: bool,
    by: String,
}

#[activity]
async fn ask(_ctx: ActivityContext, expense: Expense) -> Result<()> {
    println!("  mail to the approver: {} asks for {} cents for {}", expense.who, expense.cents, expense.what);
    Ok(())
}

#[activity]
async fn escalate(_ctx: ActivityContext, expense: Expense) -> Result<Decision> {
    println!("  mail to the manager: nobody decided on {}", expense.what);
    Ok(Decision { approved: expense.cents < 10_000, by: "the manager".to_owned() })
}

#[orchestration]
async fn approve_expense(ctx: OrchestrationContext, expense: Expense) -> Result<String> {
    ctx.call(ask, expense.clone()).await?;
    ctx.set_custom_status("waiting for a decision")?;

    let decision = ctx.wait_for_event::<Decision>("decision");
    let deadline = ctx.timer(PATIENCE);
    let decision = match select(decision, deadline).await {
        // The timer is dropped here, and with that it is cancelled.
        Either::Left((decision, _deadline)) => decision?,
        Either::Right(((), _decision)) => {
            ctx.set_custom_status("escalated")?;
            ctx.call(escalate, expense.clone()).await?
        }
    };
    let verb = if decision.approved { "approved" } else { "rejected" };
    Ok(format!("{} was {verb} by {}", expense.what, decision.by))
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "./data/human_approval".to_owned());
    let hub =
        TaskHub::builder(folder).register(approve_expense).register(ask).register(escalate).start().await?;
    let client = hub.client();

    let expense = |what: &str, cents| Expense { who: "Ada".to_owned(), what: what.to_owned(), cents };
    let train = client.start(approve_expense, expense("a train ticket", 8_000)).await?;
    let yacht = client.start(approve_expense, expense("a yacht", 90_000_000)).await?;
    let lunch = client.start(approve_expense, expense("lunch", 1_500)).await?;

    // Somebody decides on two of them. An event that comes before the orchestration waits for it is kept.
    let decide = |approved| Decision { approved, by: "Grace".to_owned() };
    client.raise_event(train.id().as_str(), "decision", &decide(true)).await?;
    client.raise_event(yacht.id().as_str(), "decision", &decide(false)).await?;

    println!("{}", train.result().await?);
    println!("{}", yacht.result().await?);
    println!("{}", lunch.result().await?);
    hub.stop().await?;
    Ok(())
}
