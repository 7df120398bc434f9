//! One turn of one system.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use crate::{Result, Scenario, System, Waits};

/// What one turn does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Of which orchestration.
    pub(crate) scenario: Scenario,
    /// How many instances are started together.
    pub(crate) burst: u64,
    /// How these are waited for.
    pub(crate) waits: Waits,
    /// For how long bursts begin.
    pub(crate) window: Duration,
}

/// What one turn measured.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// Instances completed in a second.
    pub(crate) per_second: f64,
    /// Instances that failed instead.
    pub(crate) failed: u64,
    /// From the first start of a burst to the end of its last instance, in the middle of all bursts.
    pub(crate) burst_p50: Duration,
}

/// Instances that are run before what counts, at most.
const WARM_UP: u64 = 10;

/// Runs bursts for the length of the window, and the last of them to its end.
pub(crate) async fn measure<S: System>(folder: &Path, load: Load) -> Result<Round> {
    let system = S::open(folder).await?;
    let mut numbers = 0..;
    run_burst(&system, load, numbers.by_ref().take(load.burst.min(WARM_UP) as usize)).await?;
    let (mut times, mut completed) = (Vec::new(), 0);
    let began = Instant::now();
    while began.elapsed() < load.window {
        let began = Instant::now();
        completed += run_burst(&system, load, numbers.by_ref().take(load.burst as usize)).await?;
        times.push(began.elapsed());
    }
    let elapsed = began.elapsed();
    system.close().await?;
    let failed = times.len() as u64 * load.burst - completed;
    let per_second = completed as f64 / elapsed.as_secs_f64();
    times.sort_unstable();
    Ok(Round { per_second, failed, burst_p50: times[times.len() / 2] })
}

/// All are started at once, and then waited for. Returns how many completed.
async fn run_burst<S: System>(system: &S, load: Load, numbers: impl Iterator<Item = u64>) -> Result<u64> {
    let ids = try_join_all(numbers.map(|number| system.start(load.scenario, number))).await?;
    let waits = if load.waits == Waits::Best { S::BEST_WAITS } else { load.waits };
    let mut completed = 0;
    if waits == Waits::AtOnce {
        let ended = try_join_all(ids.iter().map(|id| system.wait(id))).await?;
        return Ok(ended.into_iter().map(u64::from).sum());
    }
    for id in ids {
        completed += u64::from(system.wait(&id).await?);
    }
    Ok(completed)
}
