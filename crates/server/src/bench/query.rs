//! The scenario `query`: pages by each filter from a store full of finished instances, while `hello` runs beside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use steadfast_core::model::{OrchestrationContext, OrchestrationName, orchestration};
use steadfast_core::{
    Error, InstanceFilter, InstanceKind, OrchestrationStatus, Result, TimeRange, Timestamp,
};
use steadfast_engine::{Client, HubBuilder, InstanceQuery, StartOptions};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::load;
use super::report::{Measured, PageFigures, Progress};
use super::scenario::HELLO;

/// How often each page is asked for.
const ROUNDS: usize = 100;

/// How many instances a page shows.
const PAGE_SIZE: usize = 100;

/// How many orchestrations are under way beside the queries.
const LOAD_CONCURRENCY: usize = 100;

/// One of so many instances has a rare name, version and tag.
const RARE: u64 = 20_000;

const COMMON: OrchestrationName<u64, u64> = OrchestrationName::new("common");
const SELDOM: OrchestrationName<u64, u64> = OrchestrationName::new("seldom");

pub(super) fn register(builder: HubBuilder) -> HubBuilder {
    let run = |_: OrchestrationContext, number: u64| async move {
        // Some fail: few, so that they are hard to find.
        if number % RARE == 1 { Err(Error::msg("as asked for")) } else { Ok::<_, Error>(number) }
    };
    ["1.0", "2.0", "3.0-rare"].into_iter().fold(builder, |builder, version| {
        builder
            .register(orchestration("common", run).version(version))
            .register(orchestration("seldom", run).version(version))
    })
}

/// Every second id is that of the runtime, in the order of time; the others are in no order.
fn options(number: u64) -> StartOptions {
    let rare = number.is_multiple_of(RARE);
    let scattered = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let customer = if rare { "rare".to_owned() } else { (number % 10).to_string() };
    StartOptions {
        instance_id: (number % 2 == 1).then(|| Uuid::from_u128(scattered).as_simple().to_string()),
        version: Some(if rare { "3.0-rare" } else { ["1.0", "2.0"][number as usize % 2] }.to_owned()),
        tags: [("customer".to_owned(), customer)].into(),
        ..StartOptions::default()
    }
}

pub(super) async fn run(
    client: &Client,
    instances: u64,
    concurrency: u64,
    progress: &Progress,
) -> Result<Measured> {
    // A folder that a run before has filled is only asked again.
    let present = client.counts().await?.orchestrations();
    let began = Instant::now();
    let missing = if present < instances { instances } else { 0 };
    load::each(client, missing, concurrency, progress, |client, number| async move {
        let handle = if number.is_multiple_of(RARE) { SELDOM } else { COMMON };
        // Those that fail do so on purpose.
        let _ = client.start_with(handle, number, options(number)).await?.result().await;
        Ok(())
    })
    .await?;
    let filled = began.elapsed();
    let stopping = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let mut load = JoinSet::new();
    for _ in 0..LOAD_CONCURRENCY {
        let (client, stopping, done) = (client.clone(), stopping.clone(), done.clone());
        load.spawn(async move {
            while !stopping.load(Ordering::Relaxed) {
                client.start(HELLO, ()).await?.result().await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Error>(())
        });
    }
    let began = Instant::now();
    let mut pages = Vec::new();
    for (name, filter) in filters(client).await? {
        pages.push(measure(client, name, filter).await?);
    }
    pages.push(measure_counts(client).await?);
    let elapsed = began.elapsed();
    stopping.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended??;
    }
    let mut measured = Measured::new(missing, 0, filled, Vec::new());
    measured.load_per_second = Some(done.load(Ordering::Relaxed) as f64 / elapsed.as_secs_f64());
    measured.pages = pages;
    Ok(measured)
}

/// Filters that match much and such that match little, one condition each.
async fn filters(client: &Client) -> Result<Vec<(&'static str, InstanceFilter)>> {
    let all = || InstanceFilter { kind: InstanceKind::All, ..InstanceFilter::default() };
    let status = |status| InstanceFilter { statuses: vec![status], ..all() };
    let tag = |value: &str| InstanceFilter { tags: [("customer".into(), value.into())].into(), ..all() };
    // Moments between the first instance and the last, as the store knows them.
    let failed = InstanceQuery {
        filter: status(OrchestrationStatus::Failed),
        page_size: 1000,
        ..InstanceQuery::default()
    };
    let failed = client.query(&failed).await?.instances;
    let micros = failed.iter().map(|state| state.created_at.as_micros());
    let (first, last) = (micros.clone().min().unwrap_or(0), micros.max().unwrap_or(0));
    let at = |share: f64| Timestamp::from_micros(first + ((last - first) as f64 * share) as i64);
    let broad = TimeRange::between(at(0.25), at(0.75));
    // A hundredth of a second, with a few hundred instances.
    let narrow = TimeRange::between(at(0.5), at(0.5).after(Duration::from_millis(10)));
    Ok(vec![
        ("everything", all()),
        ("status, most", status(OrchestrationStatus::Completed)),
        ("status, few", status(OrchestrationStatus::Failed)),
        ("status, none", status(OrchestrationStatus::Suspended)),
        ("name, most", InstanceFilter { name: Some("common".into()), ..all() }),
        ("name, few", InstanceFilter { name: Some("seldom".into()), ..all() }),
        ("version, half", InstanceFilter { version: Some("1.0".into()), ..all() }),
        ("version, few", InstanceFilter { version: Some("3.0-rare".into()), ..all() }),
        ("tag, a tenth", tag("7")),
        ("tag, few", tag("rare")),
        ("created, half", InstanceFilter { created: broad, ..all() }),
        ("created, 10 ms", InstanceFilter { created: narrow, ..all() }),
        ("updated, half", InstanceFilter { updated: broad, ..all() }),
        ("updated, 10 ms", InstanceFilter { updated: narrow, ..all() }),
        ("completed, half", InstanceFilter { completed: broad, ..all() }),
        ("completed, 10 ms", InstanceFilter { completed: narrow, ..all() }),
        ("id prefix, a 16th", InstanceFilter { id_prefix: "7".to_owned(), ..all() }),
        ("id prefix, few", InstanceFilter { id_prefix: "7777".to_owned(), ..all() }),
        ("entities, none", InstanceFilter { kind: InstanceKind::Entities, ..all() }),
    ])
}

async fn measure(client: &Client, name: &'static str, filter: InstanceFilter) -> Result<PageFigures> {
    let mut times = Vec::with_capacity(ROUNDS);
    let mut shown = 0;
    let mut query = InstanceQuery { filter, page_size: PAGE_SIZE, ..InstanceQuery::default() };
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let page = client.query(&query).await?;
        times.push(began.elapsed());
        shown += page.instances.len();
        // On to the next page, and from the last one to the first.
        query.continuation = page.continuation;
    }
    Ok(PageFigures::new(name, shown / ROUNDS, times))
}

async fn measure_counts(client: &Client) -> Result<PageFigures> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        client.counts().await?;
        times.push(began.elapsed());
    }
    Ok(PageFigures::new("counts by status", 0, times))
}
