//! One turn of one system.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use crate::{Result, Scenario, System};

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
pub(crate) async fn measure<S: System>(
    folder: &Path,
    scenario: Scenario,
    burst: u64,
    window: Duration,
) -> Result<Round> {
    let system = S::open(folder).await?;
    let mut numbers = 0..;
    run_burst(&system, scenario, numbers.by_ref().take(burst.min(WARM_UP) as usize)).await?;
    let (mut times, mut completed) = (Vec::new(), 0);
    let began = Instant::now();
    while began.elapsed() < window {
        let began = Instant::now();
        completed += run_burst(&system, scenario, numbers.by_ref().take(burst as usize)).await?;
        times.push(began.elapsed());
    }
    let elapsed = began.elapsed();
    system.close().await?;
    let failed = times.len() as u64 * burst - completed;
    let per_second = completed as f64 / elapsed.as_secs_f64();
    times.sort_unstable();
    Ok(Round { per_second, failed, burst_p50: times[times.len() / 2] })
}

/// All are started at once, and then waited for one after the other: a system whose waits poll is not burdened with as
/// many of them as there are instances. Returns how many completed.
async fn run_burst<S: System>(
    system: &S,
    scenario: Scenario,
    numbers: impl Iterator<Item = u64>,
) -> Result<u64> {
    let ids = try_join_all(numbers.map(|number| system.start(scenario, number))).await?;
    let mut completed = 0;
    for id in ids {
        completed += u64::from(system.wait(&id).await?);
    }
    Ok(completed)
}
