//! Running a scenario on a hub, as a program that embeds it would.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use steadfast_core::{Error, Result};
use steadfast_engine::{Client, HubBuilder, StartOptions};

use super::beside::Beside;
use super::probe::{current_rss_bytes, folder_bytes, written_bytes};
use super::report::{Disk, Measured, Progress};
use super::scenario::{CARRY, CHAIN, FANOUT, GO, HELLO, PING, TIMER, WAITING};
use super::watch::Watch;
use super::{BenchArguments, Scenario, entities, events, fill, open_loop, query, scenario};

/// How long an instance of the scenario `timers` waits.
const TIMER_MILLIS: u64 = 2000;

/// Runs the scenario on a hub, with what goes on beside it, and counts what it writes.
pub(super) async fn run(
    arguments: &BenchArguments,
    builder: HubBuilder,
    folder: &Path,
    watch: &Arc<Watch>,
    progress: &Progress,
) -> Result<Measured> {
    let hub = builder.start().await?;
    let client = hub.client();
    let purged = Some(arguments.instances).filter(|_| arguments.scenario == Scenario::Purge);
    if let Some(instances) = arguments.prefill.max(purged) {
        fill::until(&client, instances).await?;
    }
    let (before, read_before, written_before) =
        (hub.store_metrics(), watch.histories_read(), written_bytes()?);
    let beside = Beside::start(&client, arguments);
    let BenchArguments { instances, concurrency, .. } = *arguments;
    let mut measured = match arguments.scenario {
        Scenario::Chain => chain(&client, instances).await?,
        Scenario::Fanout => fanout(&client, instances).await?,
        Scenario::Timers => timers(&client, instances, concurrency, progress).await?,
        Scenario::Waiting => waiting(&client, instances, concurrency, progress).await?,
        Scenario::EntitySignals => {
            entities::signals(&client, instances, arguments.entities, concurrency, progress).await?
        }
        Scenario::EntityCall => entities::steps(&client, instances, false).await?,
        Scenario::EntityLock => entities::steps(&client, instances, true).await?,
        Scenario::Query => query::run(&client, instances, concurrency, progress).await?,
        Scenario::Events => events::run(&client, arguments, progress).await?,
        Scenario::Purge => fill::purge(&client).await?,
        scenario => {
            let which = match scenario {
                Scenario::Ping => Short::Ping,
                Scenario::Carry => Short::Carry(scenario::payload(arguments.payload_bytes).into()),
                _ => Short::Hello,
            };
            match (arguments.rate, arguments.seconds) {
                (Some(rate), seconds) => {
                    let length = Duration::from_secs_f64(seconds.unwrap_or(instances as f64 / rate));
                    open_loop::run(&client, which, rate, length, watch, progress).await?
                }
                (None, Some(seconds)) => timed(&client, concurrency, seconds, progress, which).await?,
                (None, None) => short(&client, instances, concurrency, progress, which).await?,
            }
        }
    };
    let after = hub.store_metrics();
    measured.log_bytes = after.log_bytes - before.log_bytes;
    measured.log_syncs = after.log_syncs - before.log_syncs;
    measured.histories_read = watch.histories_read() - read_before;
    measured.beside(beside.end().await?);
    let stored_instances = client.counts().await?.orchestrations();
    hub.stop().await?;
    // Only now everything has been materialised.
    let materialised = watch.metrics();
    watch.release();
    // The load beside queries, and the past of those that get events, are not among what was counted.
    if matches!(arguments.scenario, Scenario::Query | Scenario::Events) {
        return Ok(measured);
    }
    measured.disk = Some(Disk {
        materialised_bytes: materialised.materialised_bytes.saturating_sub(before.materialised_bytes),
        written_bytes: written_bytes()? - written_before,
        disk_bytes: folder_bytes(folder)?,
        stored_instances,
    });
    Ok(measured)
}

/// A short orchestration.
#[derive(Clone)]
pub(super) enum Short {
    Hello,
    Ping,
    /// One activity, with a payload that goes all the way.
    Carry(Arc<str>),
}

impl Short {
    /// How many activities it has.
    pub(super) fn activities(&self) -> u64 {
        match self {
            Self::Hello => 3,
            Self::Ping | Self::Carry(_) => 1,
        }
    }
}

/// A client, of a hub in this process or elsewhere.
pub(super) trait RunsShort: Clone + Send + Sync + 'static {
    /// Starts an instance, and waits for its result.
    fn run(self, which: Short) -> impl Future<Output = Result<()>> + Send;
}

macro_rules! runs_short {
    ($($client:ty),*) => {$(
        impl RunsShort for $client {
            async fn run(self, which: Short) -> Result<()> {
                match which {
                    Short::Hello => self.start(HELLO, ()).await?.result().await.map(drop)?,
                    Short::Ping => self.start(PING, ()).await?.result().await.map(drop)?,
                    Short::Carry(payload) => {
                        self.start(CARRY, payload.to_string()).await?.result().await.map(drop)?
                    }
                }
                Ok(())
            }
        }
    )*};
}

runs_short!(Client, steadfast_remote::Client);

/// Many short instances, some at a time.
pub(super) async fn short<C: RunsShort>(
    client: &C,
    instances: u64,
    concurrency: u64,
    progress: &Progress,
    which: Short,
) -> Result<Measured> {
    let activities = which.activities();
    let began = Instant::now();
    let latencies =
        each(client, instances, concurrency, progress, move |client: C, _| client.run(which.clone())).await?;
    Ok(Measured::new(instances, activities * instances, began.elapsed(), latencies))
}

/// Short instances for so long, some at a time.
async fn timed(
    client: &Client,
    concurrency: u64,
    seconds: f64,
    progress: &Progress,
    which: Short,
) -> Result<Measured> {
    let activities = which.activities();
    let began = Instant::now();
    let ends = began + Duration::from_secs_f64(seconds);
    let latencies =
        each_until(client, u64::MAX, Some(ends), concurrency, progress, move |client: Client, _| {
            client.run(which.clone())
        })
        .await?;
    let instances = latencies.len() as u64;
    Ok(Measured::new(instances, activities * instances, began.elapsed(), latencies))
}

/// Runs `work` for each number below `instances`, `concurrency` at a time; returns how long each took, in order of
/// their beginning.
pub(super) async fn each<C, F, Fut>(
    client: &C,
    instances: u64,
    concurrency: u64,
    progress: &Progress,
    work: F,
) -> Result<Vec<Duration>>
where
    C: Clone + Send + 'static,
    F: Fn(C, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    each_until(client, instances, None, concurrency, progress, work).await
}

/// [`each`], and begins none any more from some moment on.
async fn each_until<C, F, Fut>(
    client: &C,
    instances: u64,
    ends: Option<Instant>,
    concurrency: u64,
    progress: &Progress,
    work: F,
) -> Result<Vec<Duration>>
where
    C: Clone + Send + 'static,
    F: Fn(C, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..concurrency.min(instances) {
        let (client, next, progress, work) = (client.clone(), next.clone(), progress.clone(), work.clone());
        tasks.push(tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= instances || ends.is_some_and(|ends| Instant::now() >= ends) {
                    return Ok::<_, Error>(taken);
                }
                let began = Instant::now();
                work(client.clone(), number).await?;
                taken.push((number, began.elapsed()));
                progress.advance();
            }
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    all.sort_unstable_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, taken)| taken).collect())
}

/// One instance with many steps; the latencies are those between its activities.
async fn chain(client: &Client, steps: u64) -> Result<Measured> {
    let began = Instant::now();
    let stamps = client.start(CHAIN, steps).await?.result().await?;
    let elapsed = began.elapsed();
    let latencies: Vec<_> = stamps.windows(2).map(|pair| Duration::from_micros(pair[1] - pair[0])).collect();
    let mut measured = Measured::new(1, steps, elapsed, latencies);
    let part = (stamps.len() / 10).clamp(1, 1000);
    if stamps.len() > 2 * part {
        let first = stamps[part] - stamps[0];
        let last = stamps[stamps.len() - 1] - stamps[stamps.len() - 1 - part];
        measured.last_to_first = Some(last as f64 / first.max(1) as f64);
    }
    Ok(measured)
}

async fn fanout(client: &Client, width: u64) -> Result<Measured> {
    let began = Instant::now();
    let joined = client.start(FANOUT, width).await?.result().await?;
    if joined != width {
        return Err(Error::msg(format!("{joined} results came back, expected {width}")));
    }
    let elapsed = began.elapsed();
    Ok(Measured::new(1, width, elapsed, vec![elapsed]))
}

/// Instances that sleep on timers; the latencies are how late they end.
async fn timers(client: &Client, instances: u64, concurrency: u64, progress: &Progress) -> Result<Measured> {
    let began = Instant::now();
    let late = each(client, instances, concurrency.max(instances), progress, |client, _| async move {
        client.start(TIMER, TIMER_MILLIS).await?.result().await?;
        Ok(())
    })
    .await?;
    let wait = Duration::from_millis(TIMER_MILLIS);
    let late = late.into_iter().map(|taken| taken.saturating_sub(wait)).collect();
    Ok(Measured::new(instances, 0, began.elapsed(), late))
}

/// Instances that wait for an event: how much memory each takes once idle, and how long waking one takes then.
async fn waiting(client: &Client, instances: u64, concurrency: u64, progress: &Progress) -> Result<Measured> {
    let began = Instant::now();
    let before = current_rss_bytes()?;
    let id = |number: u64| format!("waiting-{number:012}");
    each(client, instances, concurrency, progress, move |client, number| async move {
        let options = StartOptions { instance_id: Some(id(number)), ..StartOptions::default() };
        client.start_with(WAITING, (), options).await?.wait_for_start().await?;
        Ok(())
    })
    .await?;
    // Idle is when nothing is resident and everything is materialised; the memory then settles.
    let mut idle = current_rss_bytes()?;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        idle = idle.min(current_rss_bytes()?);
    }
    let taken = each(client, instances.min(10_000), 1, progress, move |client, number| async move {
        let id = id(number);
        client.raise_event(&id, GO, &number).await?;
        client.wait_for_completion(&id, None).await?;
        Ok(())
    })
    .await?;
    let mut measured = Measured::new(instances, 0, began.elapsed(), taken);
    measured.bytes_per_instance = Some(idle.saturating_sub(before) as f64 / instances as f64);
    Ok(measured)
}
