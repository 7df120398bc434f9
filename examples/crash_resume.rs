//! A process that kills itself between two steps, and goes on when it is run again.
//!
//! The first run starts a journey of five steps. After the third it kills its own process with SIGKILL, the signal that
//! no program can catch: nothing is flushed, closed or saved. The second run opens the same data folder, and the journey
//! goes on with the fourth step. Each step appends a line to a file, which shows that none of them was run twice.
//!
//! ```sh
//! cargo run --release --example crash_resume
//! cargo run --release --example crash_resume
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::prelude::*;
use steadfast::{Client, ClientError, StartOptions};

const INSTANCE: &str = "journey";
const STEPS: u32 = 5;
const CRASH_AFTER: u32 = 3;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Step {
    number: u32,
    journal: PathBuf,
}

/// The side effect: one line in the journal for each time that this code runs.
#[activity]
async fn walk(_ctx: ActivityContext, step: Step) -> Result<String> {
    let mut journal = OpenOptions::new().create(true).append(true).open(&step.journal)?;
    writeln!(journal, "step {} in process {}", step.number, std::process::id())?;
    Ok(format!("step {}", step.number))
}

#[orchestration]
async fn journey(ctx: OrchestrationContext, journal: PathBuf) -> Result<Vec<String>> {
    let mut walked = Vec::new();
    for number in 1..=STEPS {
        walked.push(ctx.call(walk, Step { number, journal: journal.clone() }).await?);
        if number == CRASH_AFTER {
            // A pause between two steps. The timer is durable: it also ends if the process dies meanwhile.
            ctx.set_custom_status("resting")?;
            ctx.timer(Duration::from_secs(1)).await;
            ctx.set_custom_status("walking")?;
        }
    }
    Ok(walked)
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "./data/crash_resume".to_owned()));
    let journal = std::path::absolute(folder.join("journal.txt"))?;
    let hub = TaskHub::builder(folder.join("hub")).register(journey).register(walk).start().await?;
    let client = hub.client();

    match client.state(INSTANCE).await {
        Err(ClientError::InstanceNotFound { .. }) => {
            println!("Starting a journey of {STEPS} steps.");
            let options = StartOptions { instance_id: Some(INSTANCE.to_owned()), ..StartOptions::default() };
            client.start_with(journey, journal.clone(), options).await?;
            until_it_rests(&client).await?;
            println!("It rests after step {CRASH_AFTER}. Killing this process. Run me again.");
            kill_this_process()?;
        }
        Ok(state) if !state.status.is_terminal() => {
            println!("Found an unfinished journey. Going on.");
        }
        Ok(_) => println!("The journey is finished. Delete {} to begin anew.", folder.display()),
        Err(other) => return Err(other.into()),
    }

    let state = client.wait_for_completion(INSTANCE, Some(Duration::from_secs(60))).await?;
    println!("Status: {}", state.status);
    report(&journal)?;
    hub.stop().await?;
    Ok(())
}

/// What a client sees is durable, so when the state says that it rests, the first steps are on disk.
async fn until_it_rests(client: &Client) -> Result<()> {
    loop {
        let status = client.state(INSTANCE).await?.custom_status;
        if status.is_some_and(|status| status.as_str() == "\"resting\"") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn kill_this_process() -> Result<()> {
    let kill = format!("kill -9 {}", std::process::id());
    Command::new("sh").args(["-c", &kill]).status()?;
    Err(Error::msg("the process survived SIGKILL"))
}

/// Counts how often each step was run.
fn report(journal: &Path) -> Result<()> {
    let text = fs::read_to_string(journal)?;
    print!("The journal:\n{text}");
    let mut runs = BTreeMap::<&str, usize>::new();
    for line in text.lines() {
        let step = line.split(" in ").next().unwrap_or(line);
        *runs.entry(step).or_default() += 1;
    }
    if runs.len() == STEPS as usize && runs.values().all(|times| *times == 1) {
        println!("Each of the {STEPS} steps was run exactly once.");
        Ok(())
    } else {
        Err(Error::msg(format!("some steps were not run exactly once: {runs:?}")))
    }
}
