//! The same program against a hub that is served elsewhere. Only how it connects differs: see `hello_sequence` for a hub in the
//! process.
//!
//! ```sh
//! cargo run --release -- serve --data-dir ./data/server --listen 127.0.0.1:4001
//! cargo run --release --features remote --example remote_program -- worker http://127.0.0.1:4001
//! cargo run --release --features remote --example remote_program -- client http://127.0.0.1:4001
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use steadfast::prelude::*;
use steadfast::remote::{Client, Worker};

#[orchestration]
async fn hello_cities(ctx: OrchestrationContext, cities: Vec<String>) -> Result<Vec<String>> {
    let mut greetings = Vec::new();
    for city in cities {
        greetings.push(ctx.call(greet, city).await?);
    }
    Ok(greetings)
}

#[activity]
async fn greet(_ctx: ActivityContext, city: String) -> Result<String> {
    Ok(format!("Hello, {city}!"))
}

/// Runs the code, until it is interrupted or its input ends.
async fn work(server: String) -> Result<()> {
    let worker = Worker::builder(server).register(hello_cities).register(greet).start().await?;
    println!("The worker runs; press Enter to stop it.");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    // What it has begun is finished first.
    worker.stop().await;
    Ok(())
}

/// Starts an instance, and waits for its result. The worker may be started before or after.
async fn ask(server: String) -> Result<()> {
    let client = Client::connect(server).await?;
    let cities = ["Tokyo", "Seattle", "London"].map(str::to_owned).to_vec();
    let run = client.start(hello_cities, cities).await?;
    println!("{} runs", run.id());
    for greeting in run.result().await? {
        println!("{greeting}");
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next().unwrap_or_default();
    let server = arguments.next().unwrap_or_else(|| "http://127.0.0.1:4001".to_owned());
    match role.as_str() {
        "worker" => work(server).await,
        "client" => ask(server).await,
        _ => Err(Error::msg("say 'worker' or 'client', and the address of the server")),
    }
}
