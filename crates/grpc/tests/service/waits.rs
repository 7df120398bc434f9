//! Waits for the start and the end of instances.

use steadfast_grpc::wire::OrchestrationStatus as Status;
use tonic::{Code, Request};

use crate::support::{get, serve, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_given_up_leaves_the_instance_and_other_waits_alone() {
    let mut served = serve().await;
    for _ in 0..50 {
        let mut client = served.client.clone();
        let wait = tokio::spawn(async move { client.wait_for_instance_completion(get("later")).await });
        tokio::task::yield_now().await;
        wait.abort();
    }
    let mut client = served.client.clone();
    let wait = tokio::spawn(async move { client.wait_for_instance_completion(get("later")).await });
    served.start("echo", "later").await;
    let ended = soon(wait).await.unwrap().unwrap().into_inner().orchestration_state.unwrap();
    assert_eq!(ended.orchestration_status(), Status::Completed);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_a_wait_is_the_clients() {
    let mut served = serve().await;
    served.start("waiter", "w").await;
    let mut request = Request::new(get("w"));
    request.set_timeout(std::time::Duration::from_millis(50));
    let status = soon(served.client.wait_for_instance_completion(request)).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    served.raise("w", "\"x\"").await.unwrap();
    assert_eq!(served.ended("w").await.output.as_deref(), Some("\"x\""));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_however_the_instance_ends_and_outlasts_its_continuations() {
    let mut served = serve().await;
    served.start("again", "r").await;
    let mut client = served.client.clone();
    let wait = tokio::spawn(async move { client.wait_for_instance_completion(get("r")).await });
    for round in 0..3 {
        served.raise("r", &format!("\"{round}\"")).await.unwrap();
    }
    let terminate =
        steadfast_grpc::wire::TerminateRequest { instance_id: "r".to_owned(), ..Default::default() };
    soon(served.client.terminate_instance(terminate)).await.unwrap();
    let ended = soon(wait).await.unwrap().unwrap().into_inner().orchestration_state.unwrap();
    assert_eq!(ended.orchestration_status(), Status::Terminated);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_are_told_to_come_back_when_the_hub_stops() {
    let mut served = serve().await;
    served.start("waiter", "w").await;
    served.begun("w").await;
    let mut client = served.client.clone();
    let wait = tokio::spawn(async move { client.wait_for_instance_completion(get("w")).await });
    served.state("w").await;
    let mut client = served.stop_hub().await;
    assert_eq!(soon(wait).await.unwrap().unwrap_err().code(), Code::Unavailable);
    let refused = soon(client.get_instance(get("w"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
}
