//! What is done to an instance.

use steadfast_grpc::wire;
use steadfast_grpc::wire::OrchestrationStatus as Status;
use tonic::Code;

use crate::support::{assert_refused, serve, soon};

fn suspend(id: &str) -> wire::SuspendRequest {
    wire::SuspendRequest { instance_id: id.to_owned(), reason: Some("lunch".to_owned()) }
}

fn resume(id: &str) -> wire::ResumeRequest {
    wire::ResumeRequest { instance_id: id.to_owned(), reason: None }
}

fn terminate(id: &str, output: Option<&str>) -> wire::TerminateRequest {
    wire::TerminateRequest { instance_id: id.to_owned(), output: output.map(str::to_owned), recursive: true }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_the_instance_verbatim() {
    let mut served = serve().await;
    served.start("waiter", "w").await;
    served.raise("w", "\"hello  there\"").await.unwrap();
    assert_eq!(served.ended("w").await.output.as_deref(), Some("\"hello  there\""));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_a_termination_is_that_of_the_instance() {
    let mut served = serve().await;
    for (id, output) in [("a", Some("{\"why\":1}")), ("b", Some("null")), ("c", None)] {
        served.start("waiter", id).await;
        served.begun(id).await;
        soon(served.client.terminate_instance(terminate(id, output))).await.unwrap();
        let state = served.ended(id).await;
        assert_eq!(state.orchestration_status(), Status::Terminated);
        assert_eq!((state.output.as_deref(), state.failure_details), (output, None));
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_instance_waits_until_it_is_resumed() {
    let mut served = serve().await;
    served.start("waiter", "w").await;
    served.begun("w").await;
    soon(served.client.suspend_instance(suspend("w"))).await.unwrap();
    soon(served.client.suspend_instance(suspend("w"))).await.unwrap();
    served.raise("w", "\"x\"").await.unwrap();
    soon(served.client.resume_instance(resume("w"))).await.unwrap();
    assert_eq!(served.ended("w").await.output.as_deref(), Some("\"x\""));
    let history = crate::look::history(&mut served, "w").await;
    let suspended = wire::history_event::EventType::ExecutionSuspended(wire::ExecutionSuspendedEvent {
        input: Some("lunch".to_owned()),
    });
    assert!(history.contains(&suspended), "{history:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_instances_are_not_found_and_ended_ones_are_left_alone() {
    let mut served = serve().await;
    assert_refused(served.raise("nobody", "1").await, Code::NotFound, &["'nobody'"]);
    let outcome = soon(served.client.suspend_instance(suspend("nobody"))).await;
    assert_refused(outcome, Code::NotFound, &["'nobody'"]);
    let outcome = soon(served.client.resume_instance(resume("nobody"))).await;
    assert_refused(outcome, Code::NotFound, &["'nobody'"]);
    let outcome = soon(served.client.terminate_instance(terminate("nobody", None))).await;
    assert_refused(outcome, Code::NotFound, &["'nobody'"]);
    served.start("echo", "e").await;
    let before = served.ended("e").await;
    served.raise("e", "1").await.unwrap();
    soon(served.client.suspend_instance(suspend("e"))).await.unwrap();
    soon(served.client.resume_instance(resume("e"))).await.unwrap();
    soon(served.client.terminate_instance(terminate("e", Some("1")))).await.unwrap();
    assert_eq!(served.state("e").await, before);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_said_to_be_so() {
    let mut served = serve().await;
    let hubs = soon(served.client.create_task_hub(wire::CreateTaskHubRequest::default())).await;
    assert_refused(hubs, Code::Unimplemented, &["task hubs"]);
    served.stop().await;
}
