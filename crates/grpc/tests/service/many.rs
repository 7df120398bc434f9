//! Purges.

use steadfast_grpc::wire;
use steadfast_grpc::wire::purge_instances_request::Request as Purge;
use tonic::Code;

use crate::support::{Served, assert_refused, get, serve, soon};

async fn purge(served: &mut Served, request: Purge) -> (i32, Option<bool>) {
    let request = wire::PurgeInstancesRequest { request: Some(request), ..Default::default() };
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
