//! Group P: partitions own their instances, alone, and go on after a restart.

use std::collections::BTreeSet;
use std::path::Path;

use steadfast::prelude::*;
use steadfast::store::StoreError;
use steadfast::{Hub, HubError, InstanceId};

use crate::support::{end_of, soon, stop, until, with_id};

#[activity]
async fn echo(_ctx: ActivityContext, text: String) -> Result<String> {
    Ok(text)
}

#[orchestration]
async fn two_halves(ctx: OrchestrationContext, text: String) -> Result<String> {
    let first = ctx.call(echo, text).await?;
    ctx.set_custom_status("half")?;
    let second: String = ctx.wait_for_event("second half").await?;
    Ok(first + &ctx.call(echo, second).await?)
}

async fn open(folder: &Path) -> Result<Hub, HubError> {
    TaskHub::builder(folder).partitions(4).register(echo).register(two_halves).start().await
}

fn is_half_done(state: &steadfast::InstanceState) -> bool {
    state.custom_status.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_belongs_to_one_hub_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let hub = open(folder.path()).await.unwrap();
    let error = open(folder.path()).await.unwrap_err();
    assert!(matches!(error, HubError::Store(StoreError::Locked { .. })), "{error}");
    stop(hub).await;
    stop(open(folder.path()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_spread_over_all_partitions_and_all_run() {
    let folder = tempfile::tempdir().unwrap();
    let hub = open(folder.path()).await.unwrap();
    let client = hub.client();
    let mut partitions = BTreeSet::new();
    for number in 0..50 {
        let id = format!("spread-{number}");
        partitions.insert(InstanceId::parse(&id).unwrap().partition(4));
        client.start_with(two_halves, "a".into(), with_id(&id)).await.unwrap();
        client.raise_event(&id, "second half", "b").await.unwrap();
    }
    assert_eq!(partitions.len(), 4);
    for number in 0..50 {
        let ended = end_of(&client, &format!("spread-{number}")).await;
        assert_eq!(ended.output.unwrap().as_str(), "\"ab\"");
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_in_the_middle_goes_on_in_the_next_hub_after_a_stop_and_after_a_drop() {
    let folder = tempfile::tempdir().unwrap();
    for (round, clean) in [("stopped", true), ("dropped", false)] {
        let ids: Vec<_> = (0..20).map(|number| format!("{round}-{number}")).collect();
        let hub = open(folder.path()).await.unwrap();
        for id in &ids {
            hub.client().start_with(two_halves, id.clone(), with_id(id)).await.unwrap();
            until(&hub.client(), id, is_half_done).await;
        }
        if clean {
            stop(hub).await;
        } else {
            drop(hub);
        }
        let hub = open(folder.path()).await.unwrap();
        for id in &ids {
            hub.client().raise_event(id, "second half", "!").await.unwrap();
            let ended = end_of(&hub.client(), id).await;
            assert_eq!(ended.output.unwrap().as_str(), format!("\"{id}!\""));
        }
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_partitions_is_that_of_the_hubs_creation() {
    let folder = tempfile::tempdir().unwrap();
    stop(open(folder.path()).await.unwrap()).await;
    let error = TaskHub::builder(folder.path()).partitions(8).start().await.unwrap_err();
    assert!(matches!(error, HubError::Store(StoreError::PartitionCount { .. })), "{error}");
    let hub = TaskHub::builder(folder.path()).register(echo).register(two_halves).start().await.unwrap();
    let run = hub.client().start_with(two_halves, "c".into(), with_id("after")).await.unwrap();
    hub.client().raise_event("after", "second half", "d").await.unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), "cd");
    stop(hub).await;
}
