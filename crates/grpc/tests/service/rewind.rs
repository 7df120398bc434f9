//! Rewinding instances whose code workers run.

use std::collections::BTreeSet;

use steadfast_grpc::wire;
use steadfast_grpc::wire::OrchestrationStatus as Status;
use steadfast_grpc::wire::history_event::EventType;
use steadfast_grpc::wire::orchestrator_action::OrchestratorActionType as Action;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::support::{Served, assert_refused, serve, soon};
use crate::worker::{Turn, Worker, action, call, child, complete, end};

/// Asks for a rewind, which is answered when the worker has done it.
fn rewind(served: &Served, id: &str) -> JoinHandle<Result<(), tonic::Status>> {
    let request =
        wire::RewindInstanceRequest { instance_id: id.to_owned(), reason: Some("mended".to_owned()) };
    let mut client = served.client.clone();
    tokio::spawn(async move { client.rewind_instance(request).await.map(|_| ()) })
}

/// What SDKs make of the history: what failed is gone, with the activities that did, and the execution has a new id.
fn rewritten(turn: &Turn, execution: &str) -> wire::OrchestratorAction {
    let mut new_history = turn.request.past_events.clone();
    new_history.extend(turn.request.new_events.clone());
    let failed: BTreeSet<_> = new_history
        .iter()
        .filter_map(|event| match event.event_type.as_ref()? {
            EventType::TaskFailed(failed) => Some(failed.task_scheduled_id),
            _ => None,
        })
        .collect();
    new_history.retain(|event| match event.event_type.as_ref().unwrap() {
        EventType::TaskScheduled(_) => !failed.contains(&event.event_id),
        EventType::TaskFailed(_)
        | EventType::SubOrchestrationInstanceFailed(_)
        | EventType::ExecutionCompleted(_) => false,
        _ => true,
    });
    for event in &mut new_history {
        if let Some(EventType::ExecutionStarted(started)) = &mut event.event_type {
            let instance = started.orchestration_instance.as_mut().unwrap();
            instance.execution_id = Some(execution.to_owned());
        }
    }
    action(-1, Action::RewindOrchestration(wire::RewindOrchestrationAction { new_history }))
}

const NEXT: &str = "0123456789abcdef0123456789abcdef";
const NEXT_OF_CHILD: &str = "123456789abcdef0123456789abcdef0";

async fn fail_activity(served: &Served, token: String) {
    let failure = wire::TaskFailureDetails { error_message: "down".to_owned(), ..Default::default() };
    let response = wire::ActivityResponse {
        completion_token: token,
        failure_details: Some(failure),
        ..Default::default()
    };
    soon(served.client.clone().complete_activity_task(response)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_rewrites_the_history_and_goes_on_with_it() {
    let mut served = serve().await;
    served.start("brittle", "b").await;
    let mut worker = Worker::connect(&served.client).await;
    let turn = worker.turn().await;
    let old = turn.request.execution_id.clone().unwrap();
    worker.answer(&turn, vec![call(1, "good"), call(2, "bad")]).await;
    for _ in 0..2 {
        let (token, task) = worker.activity().await;
        match task.name.as_str() {
            "good" => worker.result(&token, "1").await,
            _ => fail_activity(&served, token).await,
        }
    }
    let mut seen = 0;
    while seen < 2 {
        let turn = worker.turn().await;
        seen += turn.request.new_events.len() - 1;
        let actions = if seen == 2 { vec![end(3, Status::Failed, None)] } else { vec![] };
        worker.answer(&turn, actions).await;
    }
    assert_eq!(served.ended("b").await.orchestration_status(), Status::Failed);

    let asked = rewind(&served, "b");
    let turn = worker.turn().await;
    let (past, new) = turn.events();
    assert_eq!(past.last(), Some(&"ExecutionCompleted"), "{past:?}");
    assert_eq!(new, ["OrchestratorStarted", "ExecutionRewound"]);
    assert!(!asked.is_finished(), "it is answered when it has been done");
    worker.answer(&turn, vec![rewritten(&turn, NEXT)]).await;
    soon(asked).await.unwrap().unwrap();
    let state = served.state("b").await;
    assert_eq!(state.orchestration_status(), Status::Running);
    assert_eq!((state.failure_details, state.execution_id.as_deref()), (None, Some(NEXT)));

    let turn = worker.turn().await;
    let (past, new) = turn.events();
    assert_eq!(new, ["OrchestratorStarted"], "the code has not seen the new history");
    assert_eq!(past.last(), Some(&"ExecutionRewound"));
    assert_eq!(past.iter().filter(|name| **name == "TaskScheduled").count(), 1);
    assert_eq!(turn.request.execution_id.as_deref(), Some(NEXT));
    worker.answer(&turn, vec![call(2, "bad")]).await;
    let (token, task) = worker.activity().await;
    let instance = task.orchestration_instance.unwrap();
    assert_eq!((task.task_id, instance.execution_id.as_deref()), (2, Some(NEXT)));
    assert_ne!(old, NEXT);
    worker.result(&token, "2").await;
    let turn = worker.turn().await;
    worker.answer(&turn, vec![complete(3, "3")]).await;
    assert_eq!(served.ended("b").await.output.as_deref(), Some("3"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_are_rewound_by_workers_and_know_the_new_execution_of_their_parent() {
    let mut served = serve().await;
    served.start("parent", "p").await;
    let mut worker = Worker::connect(&served.client).await;
    let turn = worker.turn().await;
    worker.answer(&turn, vec![child(1, "brittle", "c")]).await;
    for ends in [1, 2] {
        let turn = worker.turn().await;
        worker.answer(&turn, vec![end(ends, Status::Failed, None)]).await;
    }
    assert_eq!(served.ended("p").await.orchestration_status(), Status::Failed);

    let asked = rewind(&served, "p");
    let turn = worker.turn().await;
    worker.answer(&turn, vec![rewritten(&turn, NEXT)]).await;
    soon(asked).await.unwrap().unwrap();
    // The parent's turn over its new history, and the child's rewind, come in either order.
    let mut rewound = false;
    while !rewound {
        let turn = worker.turn().await;
        if turn.request.instance_id == "p" {
            worker.answer(&turn, vec![]).await;
            continue;
        }
        let event = turn.request.new_events[1].event_type.clone().unwrap();
        let EventType::ExecutionRewound(event) = event else { panic!("{event:?}") };
        assert_eq!(event.parent_execution_id.as_deref(), Some(NEXT));
        worker.answer(&turn, vec![rewritten(&turn, NEXT_OF_CHILD)]).await;
        rewound = true;
    }
    let mut completed = 0;
    while completed < 2 {
        let turn = worker.turn().await;
        let done = turn.request.instance_id == "c" || turn.events().1.len() == 2;
        let actions = if done { vec![complete(2, "1")] } else { vec![] };
        completed += usize::from(done);
        worker.answer(&turn, actions).await;
    }
    assert_eq!(served.ended("p").await.output.as_deref(), Some("1"));
    assert_eq!(served.state("c").await.execution_id.as_deref(), Some(NEXT_OF_CHILD));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_rewind_leaves_the_instance_as_it_is() {
    let mut served = serve().await;
    served.start("brittle", "b").await;
    let mut worker = Worker::connect(&served.client).await;
    let turn = worker.turn().await;
    worker.answer(&turn, vec![end(1, Status::Failed, None)]).await;
    let failed = served.ended("b").await;
    let own = turn.request.execution_id.clone().unwrap();
    for answer in ["fails", "nothing", "the same execution"] {
        let asked = rewind(&served, "b");
        let turn = worker.turn().await;
        let actions = match answer {
            "fails" => vec![end(-1, Status::Failed, None)],
            "nothing" => vec![],
            _ => vec![rewritten(&turn, &own)],
        };
        worker.answer(&turn, actions).await;
        assert_refused(soon(asked).await.unwrap(), Code::FailedPrecondition, &["stays failed"]);
        assert_eq!(served.state("b").await, failed, "{answer}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_that_no_worker_does_can_be_terminated() {
    let mut served = serve().await;
    served.start("brittle", "b").await;
    let mut worker = Worker::connect(&served.client).await;
    let turn = worker.turn().await;
    worker.answer(&turn, vec![end(1, Status::Failed, None)]).await;
    served.ended("b").await;
    let asked = rewind(&served, "b");
    // The worker takes it, and does nothing.
    worker.turn().await;
    let (instance_id, output) = ("b".to_owned(), None);
    let request = wire::TerminateRequest { instance_id, output, recursive: false };
    soon(served.client.terminate_instance(request)).await.unwrap();
    assert_refused(soon(asked).await.unwrap(), Code::FailedPrecondition, &["terminated"]);
    assert_eq!(served.state("b").await.orchestration_status(), Status::Failed);
    served.stop().await;
}
