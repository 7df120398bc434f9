//! What can go on beside a load: pages that are asked for, and a purge of what ended some time ago.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use steadfast_core::{InstanceFilter, OrchestrationStatus, Result, TimeRange, Timestamp};
use steadfast_engine::{Client, InstanceQuery};
use tokio::task::JoinHandle;

use super::BenchArguments;
use super::report::PageFigures;

/// How often what ended is purged.
const PURGE_EVERY: Duration = Duration::from_secs(1);

/// The loads that go on until they are ended.
pub(super) struct Beside {
    ending: Arc<AtomicBool>,
    pages: Option<JoinHandle<Result<PageFigures>>>,
    purge: Option<JoinHandle<Result<u64>>>,
}

/// What came of them.
#[derive(Default)]
pub(super) struct BesideFigures {
    pub(super) pages: Option<PageFigures>,
    pub(super) purged: Option<u64>,
}

impl Beside {
    pub(super) fn start(client: &Client, arguments: &BenchArguments) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let pages =
            arguments.pages_per_second.map(|rate| tokio::spawn(pages(client.clone(), rate, ending.clone())));
        let purge = arguments
            .retain_seconds
            .map(|seconds| tokio::spawn(purge(client.clone(), Duration::from_secs(seconds), ending.clone())));
        Self { ending, pages, purge }
    }

    pub(super) async fn end(self) -> Result<BesideFigures> {
        self.ending.store(true, Ordering::Relaxed);
        let mut figures = BesideFigures::default();
        if let Some(pages) = self.pages {
            figures.pages = Some(pages.await??);
        }
        if let Some(purge) = self.purge {
            figures.purged = Some(purge.await??);
        }
        Ok(figures)
    }
}

/// Asks for pages of completed instances, one after the other, at a fixed rate.
async fn pages(client: Client, rate: f64, ending: Arc<AtomicBool>) -> Result<PageFigures> {
    let filter =
        InstanceFilter { statuses: vec![OrchestrationStatus::Completed], ..InstanceFilter::default() };
    let mut query = InstanceQuery { filter, page_size: 100, ..InstanceQuery::default() };
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    let (mut times, mut shown) = (Vec::new(), 0);
    while !ending.load(Ordering::Relaxed) {
        ticks.tick().await;
        let began = Instant::now();
        let page = client.query(&query).await?;
        times.push(began.elapsed());
        shown += page.instances.len();
        query.continuation = page.continuation;
    }
    let shown = shown / times.len().max(1);
    Ok(PageFigures::new("status, beside the load", shown, times))
}

/// Purges what ended longer ago than `retain`, again and again.
async fn purge(client: Client, retain: Duration, ending: Arc<AtomicBool>) -> Result<u64> {
    let mut ticks = tokio::time::interval(PURGE_EVERY);
    let mut purged = 0;
    while !ending.load(Ordering::Relaxed) {
        ticks.tick().await;
        let filter =
            InstanceFilter { completed: TimeRange::before(ago(retain)), ..InstanceFilter::default() };
        purged += client.purge_matching(&filter, Some(PURGE_EVERY)).await?.deleted;
    }
    Ok(purged)
}

fn ago(time: Duration) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(now.saturating_sub(time).as_micros()).unwrap_or(i64::MAX))
}
