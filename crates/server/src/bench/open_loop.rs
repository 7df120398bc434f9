//! Orchestrations that begin at a fixed rate, whatever becomes of those before: what a caller sees who does not wait for
//! others. Latencies count from when each was due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use steadfast_core::{Error, Result};
use steadfast_engine::Client;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::load::{RunsShort, Short};
use super::report::{Measured, Progress};
use super::stalls;
use super::watch::{ProcessorWatch, Watch};

/// With so many under way the rate is more than the hub can do.
const UNDER_WAY_MAX: u64 = 100_000;

/// Those that are due within so long begin together, the first of them late by that. Waking up for each would take processor time
/// from the hub that is measured.
const TICK: Duration = Duration::from_micros(500);

/// What the tasks share.
struct Shared {
    began: Instant,
    interval: Duration,
    /// By number: how long each took, in microseconds.
    took: Vec<AtomicU32>,
    under_way: AtomicU64,
}

impl Shared {
    fn due(&self, number: usize) -> Instant {
        self.began + self.interval.mul_f64(number as f64)
    }
}

/// Starts `rate` a second for so long, and waits until all have ended.
pub(super) async fn run(
    client: &Client,
    which: Short,
    rate: f64,
    length: Duration,
    watch: &Arc<Watch>,
    progress: &Progress,
) -> Result<Measured> {
    let activities = which.activities();
    let instances = (rate * length.as_secs_f64()).ceil() as usize;
    let shared = Arc::new(Shared {
        began: Instant::now(),
        interval: Duration::from_secs_f64(1.0 / rate),
        took: std::iter::repeat_with(|| AtomicU32::new(0)).take(instances).collect(),
        under_way: AtomicU64::new(0),
    });
    let processor = ProcessorWatch::start(watch);
    // Whoever holds the sender is under way; what is sent is a failure.
    let (ended, mut all_ended) = mpsc::unbounded_channel::<Error>();
    let starting = {
        let (shared, client, progress, runtime) =
            (shared.clone(), client.clone(), progress.clone(), Handle::current());
        // A thread of its own: the runtime's timers are too coarse.
        tokio::task::spawn_blocking(move || start_all(&shared, &client, &which, &progress, &runtime, &ended))
    };
    let failure = all_ended.recv().await;
    all_ended.close();
    starting.await??;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let elapsed = shared.began.elapsed();
    drop(processor);
    let latencies: Vec<_> = shared
        .took
        .iter()
        .map(|micros| Duration::from_micros(u64::from(micros.load(Ordering::Relaxed))))
        .collect();
    let stalls = stalls::find(&latencies, shared.interval, shared.began, watch);
    let instances = instances as u64;
    let mut measured = Measured::new(instances, activities * instances, elapsed, latencies);
    measured.stalls = Some(stalls);
    Ok(measured)
}

fn start_all(
    shared: &Arc<Shared>,
    client: &Client,
    which: &Short,
    progress: &Progress,
    runtime: &Handle,
    ended: &mpsc::UnboundedSender<Error>,
) -> Result<()> {
    for number in 0..shared.took.len() {
        let due = shared.due(number);
        let early = due.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            std::thread::sleep(early.max(TICK));
        }
        if ended.is_closed() {
            return Ok(());
        }
        if shared.under_way.fetch_add(1, Ordering::Relaxed) > UNDER_WAY_MAX {
            return Err(Error::msg("the hub cannot keep up with this rate; ask for less with --rate"));
        }
        let (shared, client, which) = (shared.clone(), client.clone(), which.clone());
        let (progress, ended) = (progress.clone(), ended.clone());
        runtime.spawn(async move {
            if let Err(error) = client.run(which).await {
                // The first failure is enough.
                let _ = ended.send(error);
            }
            let micros = u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX);
            shared.took[number].store(micros, Ordering::Relaxed);
            shared.under_way.fetch_sub(1, Ordering::Relaxed);
            progress.advance();
        });
    }
    Ok(())
}
