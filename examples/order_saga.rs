//! Undoing finished steps when a later one fails.
//!
//! An order takes three steps in three systems: reserve the goods, charge the card, ship the parcel. There is no
//! transaction over all of them, so the orchestration keeps a list of what it has done. When a step fails, it undoes
//! the list backwards. A crash in the middle does not matter: the list comes back with the replay.
//!
//! ```sh
//! cargo run --release --example order_saga
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::ClientError;
use steadfast::prelude::*;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    item: String,
    cents: u64,
    address: String,
}

/// What has been done, with all that is needed to undo it.
enum Done {
    Reserved { reservation: String },
    Charged { payment: String },
}

#[activity]
async fn reserve(ctx: ActivityContext, item: String) -> Result<String> {
    println!("  reserve {item}");
    // The key is the same when this call is tried again after a crash, so a real warehouse would see one reservation.
    Ok(format!("reservation of {item} ({})", short(&ctx)))
}

#[activity]
async fn release(_ctx: ActivityContext, reservation: String) -> Result<()> {
    println!("  release {reservation}");
    Ok(())
}

#[activity]
async fn charge(ctx: ActivityContext, cents: u64) -> Result<String> {
    if cents > 100_000 {
        // No retry can help, so none is made.
        return Err(Error::new("CardDeclined", format!("{cents} cents are over the limit")).non_retriable());
    }
    println!("  charge {cents} cents");
    Ok(format!("payment of {cents} cents ({})", short(&ctx)))
}

#[activity]
async fn refund(_ctx: ActivityContext, payment: String) -> Result<()> {
    println!("  refund {payment}");
    Ok(())
}

#[activity]
async fn ship(_ctx: ActivityContext, address: String) -> Result<String> {
    if address.is_empty() {
        return Err(Error::new("AddressUnknown", "the carrier needs an address"));
    }
    println!("  ship to {address}");
    Ok(format!("parcel to {address}"))
}

fn short(ctx: &ActivityContext) -> String {
    ctx.idempotency_key().chars().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect()
}

#[orchestration]
async fn place_order(ctx: OrchestrationContext, order: Order) -> Result<String> {
    let mut done = Vec::new();
    match fulfil(&ctx, &order, &mut done).await {
        Ok(parcel) => Ok(parcel),
        Err(error) => {
            // Undoing must succeed in the end, so it is tried for a long time.
            let patience = RetryPolicy::new(100, Duration::from_secs(1)).backoff(2.0);
            for step in done.into_iter().rev() {
                match step {
                    Done::Reserved { reservation } => {
                        ctx.call_with_retry(release, reservation, patience.clone()).await?;
                    }
                    Done::Charged { payment } => {
                        ctx.call_with_retry(refund, payment, patience.clone()).await?;
                    }
                }
            }
            Err(error)
        }
    }
}

/// The steps of an order. What an orchestration calls may be split into functions like any other code.
async fn fulfil(ctx: &OrchestrationContext, order: &Order, done: &mut Vec<Done>) -> Result<String> {
    let reservation = ctx.call(reserve, order.item.clone()).await?;
    done.push(Done::Reserved { reservation });

    let payment = ctx.call(charge, order.cents).await?;
    done.push(Done::Charged { payment });

    let policy = RetryPolicy::new(3, Duration::from_millis(50)).backoff(2.0);
    Ok(ctx.call_with_retry(ship, order.address.clone(), policy).await?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "./data/order_saga".to_owned());
    let hub = TaskHub::builder(folder)
        .register(place_order)
        .register(reserve)
        .register(release)
        .register(charge)
        .register(refund)
        .register(ship)
        .start()
        .await?;

    let order =
        |item: &str, cents, address: &str| Order { item: item.into(), cents, address: address.into() };
    let orders = [
        ("all goes well", order("teapot", 4_900, "12 Hill Street")),
        ("the card is declined", order("grand piano", 4_200_000, "12 Hill Street")),
        ("the parcel cannot be shipped", order("tea", 700, "")),
    ];
    for (title, order) in orders {
        println!("Order of a {}: {title}", order.item);
        let run = hub.client().start(place_order, order).await?;
        match run.result().await {
            Ok(parcel) => println!("  done: {parcel}"),
            // The failure keeps the chain of its causes, as data.
            Err(ClientError::Failed { details, .. }) => {
                println!("  failed: {}", details.message);
                if details.is_caused_by("CardDeclined") {
                    println!("  the customer has to pay another way");
                }
            }
            Err(other) => return Err(other.into()),
        }
    }
    hub.stop().await?;
    Ok(())
}
