//! Purges.

use steadfast_grpc::wire;
use steadfast_grpc::wire::purge_instances_request::Request as Purge;
use tonic::Code;

use crate::support::{Served, assert_refused, get, serve, soon};

async fn purge(served: &mut Served, request: Purge) -> (i32, Option<bool>) {
    purge_with(served, request, false).await
}

async fn purge_with(served: &mut Served, request: Purge, recursive: bool) -> (i32, Option<bool>) {
    let request = wire::PurgeInstancesRequest { request: Some(request), recursive, ..Default::default() };
    let purged = soon(served.client.purge_instances(request)).await.unwrap().into_inner();
    (purged.deleted_instance_count, purged.is_complete)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_ended_instances_are_purged_and_counted() {
    let mut served = serve().await;
    for id in ["a1", "a2"] {
        served.start("echo", id).await;
        served.ended(id).await;
    }
    served.start("waiter", "a3").await;
    served.begun("a3").await;
    assert_eq!(purge(&mut served, Purge::InstanceId("a1".to_owned())).await, (1, Some(true)));
    assert!(!soon(served.client.get_instance(get("a1"))).await.unwrap().into_inner().exists);
    for id in ["a1", "a3", "nobody"] {
        assert_eq!(purge(&mut served, Purge::InstanceId(id.to_owned())).await, (0, Some(true)), "{id}");
    }
    let instance_ids = ["a2", "a3", "a1"].map(str::to_owned).to_vec();
    assert_eq!(purge(&mut served, Purge::InstanceBatch(wire::InstanceBatch { instance_ids })).await.0, 1);
    assert!(soon(served.client.get_instance(get("a3"))).await.unwrap().into_inner().exists);
    let nothing = soon(served.client.purge_instances(wire::PurgeInstancesRequest::default())).await;
    assert_refused(nothing, Code::InvalidArgument, &["request"]);
    served.stop().await;
}

async fn exists(served: &mut Served, id: &str) -> bool {
    soon(served.client.get_instance(get(id))).await.unwrap().into_inner().exists
}

/// An ended parent with an ended child.
async fn family(served: &mut Served, id: &str) {
    served.start("family", id).await;
    let child = format!("{id}-child");
    served.begun(&child).await;
    served.raise(&child, "\"x\"").await.unwrap();
    served.ended(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recursive_purge_takes_the_children_along_and_counts_them() {
    let mut served = serve().await;
    for id in ["p", "q", "r", "s"] {
        family(&mut served, id).await;
    }
    assert_eq!(purge(&mut served, Purge::InstanceId("p".to_owned())).await, (1, Some(true)));
    assert!(exists(&mut served, "p-child").await);
    assert_eq!(purge_with(&mut served, Purge::InstanceId("q".to_owned()), true).await, (2, Some(true)));
    assert!(!exists(&mut served, "q-child").await);
    let instance_ids = ["r", "nobody", "@not@one", ""].map(str::to_owned).to_vec();
    let batch = Purge::InstanceBatch(wire::InstanceBatch { instance_ids });
    assert_eq!(purge_with(&mut served, batch, true).await, (2, Some(true)));
    let everything = || Purge::PurgeInstanceFilter(wire::PurgeInstanceFilter::default());
    assert_eq!(purge_with(&mut served, everything(), true).await, (3, Some(true)), "s, its child, and p's");
    assert_eq!(purge(&mut served, everything()).await, (0, Some(true)));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_by_filter_takes_what_has_ended_by_status_and_time_of_creation() {
    let mut served = serve().await;
    for (name, id) in [("echo", "a"), ("failing", "b"), ("echo", "c")] {
        served.start(name, id).await;
        served.ended(id).await;
    }
    served.start("waiter", "w").await;
    served.begun("w").await;
    let created = served.state("b").await.created_timestamp;
    let failed = wire::PurgeInstanceFilter {
        runtime_status: vec![
            wire::OrchestrationStatus::Failed.into(),
            wire::OrchestrationStatus::Running.into(),
        ],
        ..Default::default()
    };
    let before = wire::PurgeInstanceFilter { created_time_to: created, ..Default::default() };
    let since = wire::PurgeInstanceFilter {
        created_time_from: created,
        timeout: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    for (filter, left) in [(failed, &["a", "c", "w"][..]), (before, &["c", "w"]), (since, &["w"])] {
        assert_eq!(purge(&mut served, Purge::PurgeInstanceFilter(filter)).await, (1, Some(true)), "{left:?}");
        for id in ["a", "b", "c", "w"] {
            assert_eq!(exists(&mut served, id).await, left.contains(&id), "{id} of {left:?}");
        }
    }
    let endless = prost_types::Duration { seconds: -1, nanos: 0 };
    let filter = wire::PurgeInstanceFilter { timeout: Some(endless), ..Default::default() };
    let request = wire::PurgeInstancesRequest {
        request: Some(Purge::PurgeInstanceFilter(filter)),
        ..Default::default()
    };
    assert_refused(soon(served.client.purge_instances(request)).await, Code::InvalidArgument, &["timeout"]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_runs_out_of_time_says_that_more_is_left_and_the_next_one_goes_on() {
    let mut served = serve().await;
    for nth in 0..200 {
        served.start("echo", &format!("e{nth}")).await;
    }
    for nth in 0..200 {
        served.ended(&format!("e{nth}")).await;
    }
    let timeout = Some(prost_types::Duration { seconds: 0, nanos: 1 });
    let (mut deleted, mut calls) = (0, 0);
    loop {
        let filter = wire::PurgeInstanceFilter { timeout, ..Default::default() };
        let (count, complete) = purge(&mut served, Purge::PurgeInstanceFilter(filter)).await;
        deleted += count;
        calls += 1;
        assert!(count > 0, "each call removes something");
        if complete == Some(true) {
            break;
        }
    }
    assert_eq!(deleted, 200);
    assert!(calls > 1);
    served.stop().await;
}
