//! Stores full of finished instances: filling one before something else is measured, and emptying it.

use std::time::{Duration, Instant};

use steadfast_core::model::{OrchestrationContext, OrchestrationName, orchestration};
use steadfast_core::{InstanceFilter, Result};
use steadfast_engine::{Client, HubBuilder};

use super::load::each;
use super::report::{Measured, Progress};

const NOTHING: OrchestrationName<u64, u64> = OrchestrationName::new("nothing");

/// How many are under way at once while a store is filled.
const FILL_CONCURRENCY: u64 = 2000;

/// For how long each call purges.
const PURGE_BUDGET: Duration = Duration::from_secs(1);

/// How long the materialiser is given for the rest.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) fn register(builder: HubBuilder) -> HubBuilder {
    let nothing = |_: OrchestrationContext, number: u64| async move { Result::<_>::Ok(number) };
    builder.register(orchestration("nothing", nothing))
}

/// Runs orchestrations that do nothing until there are so many instances; those that a run before has left count.
pub(super) async fn until(client: &Client, instances: u64) -> Result<()> {
    let missing = instances.saturating_sub(client.counts().await?.orchestrations());
    if missing == 0 {
        return Ok(());
    }
    each(client, missing, FILL_CONCURRENCY, &Progress::new(true, 0), |client, number| async move {
        client.start(NOTHING, number).await?.result().await?;
        Ok(())
    })
    .await?;
    settle().await;
    Ok(())
}

/// Waits until what was done before is probably materialised.
pub(super) async fn settle() {
    tokio::time::sleep(SETTLE).await;
}

/// Purges everything; the latencies are those of calls with a time budget.
pub(super) async fn purge(client: &Client) -> Result<Measured> {
    let began = Instant::now();
    let (mut purged, mut calls) = (0, Vec::new());
    loop {
        let began = Instant::now();
        let result = client.purge_matching(&InstanceFilter::default(), Some(PURGE_BUDGET)).await?;
        calls.push(began.elapsed());
        purged += result.deleted;
        if result.complete {
            break;
        }
    }
    Ok(Measured::new(purged, 0, began.elapsed(), calls))
}
