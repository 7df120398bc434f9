//! Entities, and a critical section over two of them.
//!
//! Each account is an entity: a balance, and operations that run one at a time. Clients signal deposits. A transfer is
//! an orchestration that locks both accounts, so that nobody changes either between its look at the balance and its last
//! booking; if it fails in between, or the process dies, the locks are freed and nothing is booked twice.
//!
//! ```sh
//! cargo run --release --example bank_accounts
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use serde::{Deserialize, Serialize};
use steadfast::prelude::*;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Account {
    cents: i64,
    bookings: u32,
}

#[entity]
impl Account {
    fn deposit(&mut self, cents: i64) -> i64 {
        self.cents += cents;
        self.bookings += 1;
        self.cents
    }

    /// What fails here leaves the account as it was.
    fn withdraw(&mut self, cents: i64) -> Result<i64> {
        self.cents -= cents;
        self.bookings += 1;
        if self.cents < 0 {
            return Err(Error::new("Overdrawn", format!("{} cents are missing", -self.cents)));
        }
        Ok(self.cents)
    }

    fn balance(&self) -> i64 {
        self.cents
    }
}

#[orchestration]
async fn transfer(ctx: OrchestrationContext, from: String, to: String, cents: i64) -> Result<String> {
    let (source, target) = (Account::at(&from), Account::at(&to));
    // From here on the two accounts do only what this transfer asks of them.
    let section = ctx.lock_entities([&source, &target]).await?;
    let outcome = match ctx.call_entity(source.withdraw(cents)).await {
        Ok(left) => {
            ctx.call_entity(target.deposit(cents)).await?;
            format!("{from} gave {to} {cents} cents and has {left} left")
        }
        Err(refused) => format!("{from} could not give {to} {cents} cents: {}", refused.details.message),
    };
    // Dropping it would do the same, as does the end of the orchestration.
    section.release();
    Ok(outcome)
}

#[orchestration]
async fn add_up(ctx: OrchestrationContext, keys: Vec<String>) -> Result<i64> {
    let _section = ctx.lock_entities(keys.iter().map(Account::at)).await?;
    let mut total = 0;
    for key in &keys {
        total += ctx.call_entity(Account::at(key).balance()).await?;
    }
    Ok(total)
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "./data/bank_accounts".to_owned());
    let hub = TaskHub::builder(&folder)
        .register(Account::entity())
        .register(transfer)
        .register(add_up)
        .start()
        .await?;
    let client = hub.client();

    println!("Everybody gets 100 cents.");
    let people = ["ada", "bob", "eve"];
    for person in people {
        client.signal_entity(Account::at(person).deposit(100)).await?;
    }

    println!("Transfers in a circle, all at once:");
    let mut runs = Vec::new();
    for (from, to, cents) in
        [("ada", "bob", 30), ("bob", "eve", 40), ("eve", "ada", 50), ("ada", "eve", 5000)]
    {
        runs.push(client.start(transfer, (from.into(), to.into(), cents)).await?);
    }
    for run in runs {
        println!("  {}", run.result().await?);
    }

    let everybody = people.map(str::to_owned).to_vec();
    println!("Together they have {} cents.", client.start(add_up, everybody).await?.result().await?);
    hub.stop().await?;
    Ok(())
}
