//! An orchestration that never ends by itself.
//!
//! A monitor reads a temperature, waits, and reads again. Its history would grow for ever, so after each reading it
//! continues as new: the execution ends, and the next one begins with an empty history and the state as its input. The
//! instance id stays the same. An event stops it.
//!
//! If this program is killed, the next run finds the monitor still running and goes on with it.
//!
//! ```sh
//! cargo run --release --example eternal_monitor
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::prelude::*;
use steadfast::{ClientError, StartOptions, failure};

const INSTANCE: &str = "greenhouse";
const GENERATIONS: u32 = 20;

/// In real life this would be minutes.
const INTERVAL: Duration = Duration::from_millis(20);

/// All that one generation hands to the next.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Summary {
    readings: u32,
    hottest: i32,
    alarms: u32,
}

#[activity]
async fn read_temperature(_ctx: ActivityContext, reading: u32) -> Result<i32> {
    // A warm day with a heat wave every seventh reading.
    Ok(if reading % 7 == 6 { 41 } else { 20 + i32::try_from(reading % 7)? })
}

#[activity]
async fn sound_alarm(_ctx: ActivityContext, degrees: i32) -> Result<()> {
    println!("  alarm: {degrees} degrees");
    Ok(())
}

#[orchestration]
async fn monitor(ctx: OrchestrationContext, mut summary: Summary) -> Result<Summary> {
    let degrees = ctx.call(read_temperature, summary.readings).await?;
    summary.readings += 1;
    summary.hottest = summary.hottest.max(degrees);
    if degrees > 40 {
        ctx.call(sound_alarm, degrees).await?;
        summary.alarms += 1;
    }
    ctx.set_custom_status(&summary)?;

    match ctx.wait_for_event_timeout::<String>("stop", INTERVAL).await {
        Ok(who) => ctx.set_custom_status(&format!("stopped by {who}"))?,
        Err(error) if error.details.error_type == failure::kinds::TIMED_OUT => {
            ctx.continue_as_new(&summary)?
        }
        Err(error) => return Err(error.into()),
    }
    Ok(summary)
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "./data/eternal_monitor".to_owned());
    let hub = TaskHub::builder(folder)
        .register(monitor)
        .register(read_temperature)
        .register(sound_alarm)
        .start()
        .await?;
    let client = hub.client();

    match client.state(INSTANCE).await {
        Ok(state) if !state.status.is_terminal() => {
            println!("The monitor of an earlier run is in generation {}.", state.generation);
        }
        Err(other) if !matches!(other, ClientError::InstanceNotFound { .. }) => return Err(other.into()),
        // There is none yet, or it has ended: then its id can be used again.
        _ => {
            println!("Starting the monitor.");
            let options = StartOptions { instance_id: Some(INSTANCE.to_owned()), ..StartOptions::default() };
            client.start_with(monitor, Summary::default(), options).await?;
        }
    }

    // Watch it for some generations. Its state is there to be read at any time.
    while client.state(INSTANCE).await?.generation < GENERATIONS {
        tokio::time::sleep(INTERVAL).await;
    }
    client.raise_event(INSTANCE, "stop", "the gardener").await?;

    let state = client.wait_for_completion(INSTANCE, Some(Duration::from_secs(30))).await?;
    let history = client.history(INSTANCE).await?;
    println!("Stopped after {} generations.", state.generation);
    println!("The last history has {} events.", history.len());
    if let Some(output) = state.output {
        let Summary { readings, hottest, alarms } = output.decode()?;
        println!("{readings} readings, {alarms} alarms, hottest: {hottest} degrees.");
    }
    hub.stop().await?;
    Ok(())
}
