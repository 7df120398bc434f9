//! The scenario `startup`: a hub crashes with a long log, and is started again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use steadfast_core::Result;

use super::load::{Short, short};
use super::report::{Measured, Progress};
use super::watch::Watch;
use super::{BenchArguments, builder};

/// How often it is started again; a crash leaves the log as it was.
const STARTS: u32 = 5;

/// Runs `hello`s whose every step stays in the log, and counts starts: the latencies are theirs.
pub(super) async fn run(
    arguments: &BenchArguments,
    folder: &Path,
    watch: &Arc<Watch>,
    progress: &Progress,
) -> Result<Measured> {
    let hub = builder(arguments, folder, watch).start().await?;
    let BenchArguments { instances, concurrency, .. } = *arguments;
    short(&hub.client(), instances, concurrency, progress, Short::Hello).await?;
    let metrics = hub.store_metrics();
    crash(hub, watch).await?;
    let mut times = Vec::new();
    let began = Instant::now();
    for _ in 0..STARTS {
        let builder = builder(arguments, folder, watch);
        let began = Instant::now();
        let hub = builder.start().await?;
        times.push(began.elapsed());
        crash(hub, watch).await?;
    }
    let mut measured = Measured::new(u64::from(STARTS), 0, began.elapsed(), times);
    measured.log_bytes = metrics.log_bytes;
    measured.log_syncs = metrics.log_syncs;
    Ok(measured)
}

/// Dropping a hub is like a crash of the process; it waits for threads.
async fn crash(hub: steadfast_engine::Hub, watch: &Watch) -> Result<()> {
    watch.release();
    Ok(tokio::task::spawn_blocking(move || drop(hub)).await?)
}

/// So long that nothing is materialised meanwhile.
pub(super) const NEVER: Duration = Duration::from_secs(86_400);
