//! Many activities in parallel, and their results gathered.
//!
//! The orchestration cuts a range of numbers into pieces, counts the primes of each piece in an activity of its own,
//! and adds up the results. The activities run on all cores. If the process is killed, the next run counts only the
//! pieces that had not been counted.
//!
//! ```sh
//! cargo run --release --example fan_out_fan_in
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Instant;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use steadfast::prelude::*;

/// Inputs and outputs are whatever serde can write as JSON.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Piece {
    from: u64,
    to: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Report {
    pieces: usize,
    primes: u64,
    richest: Option<(Piece, u64)>,
}

#[activity]
async fn count_primes(_ctx: ActivityContext, piece: Piece) -> Result<u64> {
    let is_prime = |n: &u64| *n >= 2 && (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    Ok((piece.from..piece.to).filter(is_prime).count() as u64)
}

#[orchestration]
async fn count_all_primes(ctx: OrchestrationContext, below: u64, pieces: u64) -> Result<Report> {
    let width = below.div_ceil(pieces);
    let pieces: Vec<_> = (0..pieces)
        .map(|n| Piece { from: (n * width).min(below), to: ((n + 1) * width).min(below) })
        .collect();

    // Fan out: each call is scheduled here, before any of them is awaited.
    let tasks: Vec<_> = pieces.iter().map(|piece| ctx.call(count_primes, *piece)).collect();

    // Fan in: the results come in the order of the tasks, whichever was done first.
    let counts = try_join_all(tasks).await?;

    let richest = pieces.iter().copied().zip(counts.iter().copied()).max_by_key(|(_, primes)| *primes);
    Ok(Report { pieces: pieces.len(), primes: counts.iter().sum(), richest })
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "./data/fan_out_fan_in".to_owned());
    let hub = TaskHub::builder(folder).register(count_all_primes).register(count_primes).start().await?;

    let began = Instant::now();
    let run = hub.client().start(count_all_primes, (200_000, 40)).await?;
    println!("Instance {} counts the primes below 200000.", run.id());
    let report = run.result().await?;

    println!("{} pieces were counted in {:.0?}.", report.pieces, began.elapsed());
    println!("There are {} primes.", report.primes);
    if let Some((piece, primes)) = report.richest {
        println!("The piece from {} to {} has the most: {primes}.", piece.from, piece.to);
    }
    hub.stop().await?;
    Ok(())
}
