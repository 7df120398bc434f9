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

fn rewind(id: &str) -> wire::RewindInstanceRequest {
    wire::RewindInstanceRequest { instance_id: id.to_owned(), reason: Some("mended".to_owned()) }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_shows_at_once_also_when_nobody_runs_the_instance() {
    let mut served = serve().await;
    served.start_later("away").await;
    served.start("waiter", "here").await;
    served.begun("here").await;
    for (id, before) in [("away", Status::Pending), ("here", Status::Running)] {
        for _ in 0..3 {
            assert_eq!(served.state(id).await.orchestration_status(), before);
            soon(served.client.suspend_instance(suspend(id))).await.unwrap();
            assert_eq!(served.state(id).await.orchestration_status(), Status::Suspended, "{id}");
            let query =
                wire::InstanceQuery { runtime_status: vec![Status::Suspended.into()], ..Default::default() };
            let request = wire::QueryInstancesRequest { query: Some(query) };
            let found = soon(served.client.query_instances(request)).await.unwrap().into_inner();
            let found: Vec<_> =
                found.orchestration_state.into_iter().map(|state| state.instance_id).collect();
            assert_eq!(found, [id]);
            soon(served.client.resume_instance(resume(id))).await.unwrap();
            assert_eq!(served.state(id).await.orchestration_status(), before, "{id}");
        }
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_instance_is_rewound_before_the_call_returns() {
    let mut served = serve().await;
    served.start("patchy", "p").await;
    let failed = served.ended("p").await;
    assert_eq!(failed.orchestration_status(), Status::Failed);
    soon(served.client.rewind_instance(rewind("p"))).await.unwrap();
    let state = served.state("p").await;
    assert_ne!(state.orchestration_status(), Status::Failed);
    assert_eq!((state.failure_details, state.completed_timestamp), (None, None));
    assert_ne!(state.execution_id, failed.execution_id);
    served.raise("p", "\"x\"").await.unwrap();
    assert_eq!(served.ended("p").await.output.as_deref(), Some("\"x\""));
    let history = crate::look::history(&mut served, "p").await;
    let rewound = history.iter().filter_map(|event| match event {
        wire::history_event::EventType::ExecutionRewound(event) => Some(event.reason.clone()),
        _ => None,
    });
    assert_eq!(rewound.collect::<Vec<_>>(), [Some("mended".to_owned())]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_output_of_a_termination_stays_as_it_is() {
    let mut served = serve().await;
    let output = format!("[\"{}\"]", "x".repeat(100_000));
    served.start("waiter", "w").await;
    soon(served.client.terminate_instance(terminate("w", Some(&output)))).await.unwrap();
    assert!(served.ended("w").await.output == Some(output));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_termination_ends_the_children_if_it_says_so() {
    let mut served = serve().await;
    for (id, recursive) in [("with", true), ("without", false)] {
        let child = format!("{id}-child");
        served.start("family", id).await;
        served.begun(&child).await;
        let request = wire::TerminateRequest { recursive, ..terminate(id, None) };
        soon(served.client.terminate_instance(request)).await.unwrap();
        served.ended(id).await;
        if !recursive {
            served.raise(&child, "\"x\"").await.unwrap();
        }
        let expected = if recursive { Status::Terminated } else { Status::Completed };
        assert_eq!(served.ended(&child).await.orchestration_status(), expected);
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_ended_by_force_at_once_and_those_that_are_not_are_named() {
    let mut served = serve().await;
    served.start_later("away").await;
    served.start("waiter", "here").await;
    served.begun("here").await;
    served.start("echo", "over").await;
    served.ended("over").await;
    let request = |ids: &[&str]| wire::SkipGracefulOrchestrationTerminationsRequest {
        instance_batch: Some(wire::InstanceBatch {
            instance_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        }),
        reason: Some("\"enough\"".to_owned()),
    };
    let wanted = request(&["away", "over", "nobody", "here", "@counter@a"]);
    let left =
        soon(served.client.skip_graceful_orchestration_terminations(wanted)).await.unwrap().into_inner();
    assert_eq!(left.unterminated_instance_ids, ["over", "nobody", "@counter@a"]);
    for id in ["away", "here"] {
        let state = served.state(id).await;
        assert_eq!(state.orchestration_status(), Status::Terminated, "{id}");
        assert_eq!(state.output.as_deref(), Some("\"enough\""));
    }
    let many = request(&["x"; 501]);
    let outcome = soon(served.client.skip_graceful_orchestration_terminations(many)).await;
    assert_refused(outcome, Code::InvalidArgument, &["500"]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_raised_before_the_start_wait_behind_it() {
    let mut served = serve().await;
    served.start_later("w").await;
    served.raise("w", "\"early\"").await.unwrap();
    assert_eq!(served.state("w").await.orchestration_status(), Status::Pending);
    let nameless = wire::RaiseEventRequest { instance_id: "w".to_owned(), ..Default::default() };
    assert_refused(soon(served.client.raise_event(nameless)).await, Code::InvalidArgument, &["name"]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_has_failed_can_be_rewound() {
    let mut served = serve().await;
    assert_refused(soon(served.client.rewind_instance(rewind("nobody"))).await, Code::NotFound, &["nobody"]);
    served.start("waiter", "w").await;
    served.begun("w").await;
    let refused = soon(served.client.rewind_instance(rewind("w"))).await;
    assert_refused(refused, Code::FailedPrecondition, &["not allow", "Running"]);
    served.raise("w", "\"x\"").await.unwrap();
    served.ended("w").await;
    let refused = soon(served.client.rewind_instance(rewind("w"))).await;
    assert_refused(refused, Code::FailedPrecondition, &["not allow", "Completed"]);
    served.stop().await;
}
