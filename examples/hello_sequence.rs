//! Activities in sequence, and the history they leave.
//!
//! Run it twice. The first run greets three cities, one after the other, and prints what was recorded. The second run
//! opens the same data folder and finds the finished instance there: nothing is run again.
//!
//! ```sh
//! cargo run --release --example hello_sequence
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use steadfast::prelude::*;
use steadfast::{ClientError, EventKind, HistoryEvent, StartOptions};

/// The instance has an id of our choice, so that the second run finds it.
const INSTANCE: &str = "hello";

/// An activity may do anything: call a service, write a file, take its time.
#[activity]
async fn greet(_ctx: ActivityContext, city: String) -> Result<String> {
    Ok(format!("Hello, {city}!"))
}

/// An orchestration only coordinates. Each result is on disk before the next activity begins.
#[orchestration(version = "1.0")]
async fn hello_sequence(ctx: OrchestrationContext, cities: Vec<String>) -> Result<Vec<String>> {
    let mut greetings = Vec::new();
    for city in cities {
        greetings.push(ctx.call(greet, city).await?);
    }
    Ok(greetings)
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "./data/hello_sequence".to_owned());
    let hub = TaskHub::builder(&folder).register(hello_sequence).register(greet).start().await?;
    let client = hub.client();

    match client.state(INSTANCE).await {
        Ok(_) => println!("{folder} holds instance '{INSTANCE}' from an earlier run."),
        Err(ClientError::InstanceNotFound { .. }) => {
            println!("Starting instance '{INSTANCE}' in {folder}.");
            let cities = ["Tokyo", "Seattle", "London"].map(str::to_owned).to_vec();
            let options = StartOptions { instance_id: Some(INSTANCE.to_owned()), ..StartOptions::default() };
            client.start_with(hello_sequence, cities, options).await?;
        }
        Err(other) => return Err(other.into()),
    }

    // Also right for an instance that an earlier run left unfinished.
    let state = client.wait_for_completion(INSTANCE, None).await?;
    println!("Status: {}", state.status);
    if let Some(output) = state.output {
        for greeting in output.decode::<Vec<String>>()? {
            println!("  {greeting}");
        }
    }

    println!("History:");
    for event in client.history(INSTANCE).await? {
        let line = format!("{}  {:<22}{}", event.timestamp, event.kind.type_name(), detail(&event));
        println!("  {}", line.trim_end());
    }
    hub.stop().await?;
    Ok(())
}

/// What is worth showing of an event.
fn detail(event: &HistoryEvent) -> String {
    match &event.kind {
        EventKind::ExecutionStarted(started) => format!("{} {}", started.name, started.input),
        EventKind::TaskScheduled { name, input, .. } => format!("#{} {name}({input})", event.event_id),
        EventKind::TaskCompleted { task_scheduled_id, result } => format!("#{task_scheduled_id} = {result}"),
        EventKind::ExecutionCompleted { status, .. } => status.to_string(),
        _ => String::new(),
    }
}
