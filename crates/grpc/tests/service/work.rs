//! Workers: what they get, what their answers do, and what happens when they go away.

use steadfast_grpc::wire;
use steadfast_grpc::wire::OrchestrationStatus as Status;

use crate::support::{get, serve, soon, start};
use crate::worker::{Worker, call, call_entity, child, complete, end};

const STARTED: [&str; 2] = ["OrchestratorStarted", "ExecutionStarted"];

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_an_orchestration_and_its_activity_turn_by_turn() {
    let mut served = serve().await;
    served.start("sequence", "s").await;
    let mut worker = Worker::connect(&served.client).await;

    let first = worker.turn().await;
    assert_eq!(first.events(), (vec![], STARTED.to_vec()));
    assert_eq!(first.request.execution_id.as_ref().unwrap().len(), 32);
    worker.answer(&first, vec![call(1, "greet")]).await;

    let (token, task) = worker.activity().await;
    assert_eq!((task.name.as_str(), task.task_id, task.input.as_deref()), ("greet", 1, Some("\"x\"")));
    assert_eq!(task.orchestration_instance.unwrap().instance_id, "s");
    worker.result(&token, "\"hi\"").await;

    let second = worker.turn().await;
    let past = vec!["OrchestratorStarted", "ExecutionStarted", "TaskScheduled"];
    assert_eq!(second.events(), (past, vec!["OrchestratorStarted", "TaskCompleted"]));
    // A turn's time is replayed as it was.
    assert_eq!(second.request.past_events[..2], first.request.new_events[..]);
    worker.answer(&second, vec![complete(2, "\"done\"")]).await;
    let state = served.ended("s").await;
    assert_eq!(
        (state.orchestration_status(), state.output.as_deref()),
        (Status::Completed, Some("\"done\""))
    );
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_whose_stream_ends_goes_to_another_worker_and_the_first_result_counts() {
    let mut served = serve().await;
    served.start("once", "o").await;
    let mut first = Worker::connect(&served.client).await;
    let lost = first.turn().await;
    let mut calls = served.client.clone();
    drop(first);
    let mut second = Worker::connect(&served.client).await;
    let again = second.turn().await;
    assert_ne!(lost.token, again.token);
    assert_eq!(lost.request, again.request);
    // The first one ends its work after its stream, as some do.
    let late = |turn: &crate::worker::Turn, result: &str| wire::OrchestratorResponse {
        completion_token: turn.token.clone(),
        actions: vec![complete(1, result)],
        ..Default::default()
    };
    soon(calls.complete_orchestrator_task(late(&lost, "1"))).await.unwrap();
    soon(calls.complete_orchestrator_task(late(&again, "2"))).await.unwrap();
    assert_eq!(served.ended("o").await.output.as_deref(), Some("1"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_token_is_no_error() {
    let mut served = serve().await;
    for token in ["", "nonsense", "00000000000000000000000000000000-1"] {
        let token = token.to_owned();
        let response = wire::OrchestratorResponse { completion_token: token.clone(), ..Default::default() };
        soon(served.client.complete_orchestrator_task(response)).await.unwrap();
        let response = wire::ActivityResponse { completion_token: token.clone(), ..Default::default() };
        soon(served.client.complete_activity_task(response)).await.unwrap();
        let result = wire::EntityBatchResult { completion_token: token, ..Default::default() };
        soon(served.client.complete_entity_task(result)).await.unwrap();
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_given_back_goes_to_others_at_once_and_to_the_same_worker_later() {
    let mut served = serve().await;
    served.start("version-two", "v").await;
    let mut alone = Worker::connect(&served.client).await;
    let turn = alone.turn().await;
    alone.give_back(&turn).await;
    assert_eq!(served.state("v").await.orchestration_status(), Status::Pending);
    let turn = alone.turn().await;
    let mut other = Worker::connect(&served.client).await;
    alone.give_back(&turn).await;
    let turn = other.turn().await;
    other.answer(&turn, vec![complete(1, "1")]).await;
    assert_eq!(served.ended("v").await.output.as_deref(), Some("1"));
    served.stop().await;
}

fn only(orchestration: &str, versions: &[&str]) -> wire::GetWorkItemsRequest {
    let versions = versions.iter().map(|version| (*version).to_owned()).collect();
    let filter = wire::OrchestrationFilter { name: orchestration.to_owned(), versions };
    wire::GetWorkItemsRequest {
        work_item_filters: Some(wire::WorkItemFilters { orchestrations: vec![filter], ..Default::default() }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gets_only_the_names_and_versions_that_it_takes() {
    let mut served = serve().await;
    let mut worker = Worker::connect_with(&served.client, only("mine", &["2"])).await;
    served.start("other", "a").await;
    let versioned = |id: &str, version: &str| wire::CreateInstanceRequest {
        version: Some(version.to_owned()),
        ..start("mine", id)
    };
    soon(served.client.start_instance(versioned("b", "1"))).await.unwrap();
    soon(served.client.start_instance(versioned("c", "2"))).await.unwrap();
    let turn = worker.turn().await;
    assert_eq!(turn.request.instance_id, "c");
    // It takes no activities at all, so this one waits for another worker.
    worker.answer(&turn, vec![call(1, "greet")]).await;
    let activity = wire::ActivityFilter { name: "greet".to_owned(), versions: vec!["2".to_owned()] };
    let filters = wire::WorkItemFilters { activities: vec![activity], ..Default::default() };
    let request = wire::GetWorkItemsRequest { work_item_filters: Some(filters), ..Default::default() };
    let mut helper = Worker::connect_with(&served.client, request).await;
    // It was called without a version, so that of the instance counts.
    let (token, _) = helper.activity().await;
    helper.result(&token, "1").await;
    let turn = worker.turn().await;
    worker.answer(&turn, vec![complete(2, "1")]).await;
    served.ended("c").await;
    for id in ["a", "b"] {
        assert_eq!(served.state(id).await.orchestration_status(), Status::Pending, "{id}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_instances_are_terminated_and_suspended_all_the_same() {
    let mut served = serve().await;
    served.start("nobody", "t").await;
    served.start("nobody", "s").await;
    let terminate = |id: &str| wire::TerminateRequest {
        instance_id: id.to_owned(),
        output: Some("\"enough\"".to_owned()),
        recursive: false,
    };
    soon(served.client.terminate_instance(terminate("t"))).await.unwrap();
    let state = served.ended("t").await;
    assert_eq!(
        (state.orchestration_status(), state.output.as_deref()),
        (Status::Terminated, Some("\"enough\""))
    );
    let suspend = wire::SuspendRequest { instance_id: "s".to_owned(), reason: None };
    soon(served.client.suspend_instance(suspend)).await.unwrap();
    served.begun("s").await;
    assert_eq!(served.state("s").await.orchestration_status(), Status::Suspended);

    // A worker that has a turn and does not answer is in nobody's way either.
    served.start("slow", "w").await;
    let mut worker = Worker::connect(&served.client).await;
    let turn = worker.turn().await;
    assert_eq!(turn.request.instance_id, "w");
    soon(served.client.terminate_instance(terminate("w"))).await.unwrap();
    assert_eq!(served.ended("w").await.orchestration_status(), Status::Terminated);
    worker.answer(&turn, vec![complete(1, "1")]).await;
    assert_eq!(served.state("w").await.orchestration_status(), Status::Terminated);

    // What came while it was suspended is seen after the resumption.
    served.raise("s", "1").await.unwrap();
    let resume = wire::ResumeRequest { instance_id: "s".to_owned(), reason: None };
    soon(served.client.resume_instance(resume)).await.unwrap();
    let turn = worker.turn().await;
    let (past, new) = turn.events();
    let all: Vec<_> = past.into_iter().chain(new).collect();
    let seen = |name: &str| all.iter().position(|event| *event == name);
    assert_eq!(all[..2], STARTED);
    assert!(
        seen("ExecutionSuspended") < seen("EventRaised") && seen("EventRaised") < seen("ExecutionResumed"),
        "{all:?}"
    );
    worker.answer(&turn, vec![complete(1, "1")]).await;
    assert_eq!(served.ended("s").await.orchestration_status(), Status::Completed);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestration_goes_on_as_new_with_the_events_that_its_worker_names() {
    let mut served = serve().await;
    served.start("eternal", "e").await;
    let mut worker = Worker::connect(&served.client).await;
    let first = worker.turn().await;
    let raised = wire::EventRaisedEvent { name: "early".to_owned(), input: Some("1".to_owned()) };
    let carried = wire::HistoryEvent {
        event_type: Some(wire::history_event::EventType::EventRaised(raised)),
        event_id: -1,
        timestamp: Some(Default::default()),
    };
    let mut next = end(1, Status::ContinuedAsNew, Some("2"));
    if let Some(wire::orchestrator_action::OrchestratorActionType::CompleteOrchestration(complete)) =
        &mut next.orchestrator_action_type
    {
        complete.carryover_events.push(carried);
    }
    let response = wire::OrchestratorResponse {
        completion_token: first.token.clone(),
        custom_status: Some("\"busy\"".to_owned()),
        actions: vec![call(2, "left-behind"), next],
        ..Default::default()
    };
    worker.respond(response).await;
    let mut second = None;
    while second.is_none() {
        match worker.next().await {
            wire::WorkItem {
                request: Some(wire::work_item::Request::OrchestratorRequest(request)),
                completion_token,
            } => {
                second = Some(crate::worker::Turn { token: completion_token, request });
            }
            wire::WorkItem {
                request: Some(wire::work_item::Request::ActivityRequest(_)),
                completion_token,
            } => {
                // Its result is for nobody.
                worker.result(&completion_token, "1").await;
            }
            other => panic!("{other:?}"),
        }
    }
    let second = second.unwrap();
    assert_eq!(second.events(), (vec![], vec!["OrchestratorStarted", "ExecutionStarted", "EventRaised"]));
    assert_ne!(second.request.execution_id, first.request.execution_id);
    worker.answer(&second, vec![complete(1, "3")]).await;
    let state = served.ended("e").await;
    assert_eq!((state.input.as_deref(), state.output.as_deref()), (Some("2"), Some("3")));
    assert_eq!(state.custom_status, None);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_of_workers_and_code_of_the_process_call_each_other() {
    let mut served = serve().await;
    served.start("outer", "o").await;
    let mut worker = Worker::connect(&served.client).await;
    let turn = worker.turn().await;
    // "echo" and "counter" are in the process.
    worker.answer(&turn, vec![child(1, "echo", "inner"), call_entity(2, "@counter@c", "add", "r")]).await;
    let mut seen = vec![];
    loop {
        let turn = worker.turn().await;
        seen.extend(turn.events().1.into_iter().filter(|name| *name != "OrchestratorStarted"));
        if seen.len() == 2 {
            worker.answer(&turn, vec![complete(3, "1")]).await;
            break;
        }
        worker.answer(&turn, vec![]).await;
    }
    seen.sort_unstable();
    assert_eq!(seen, ["EntityOperationCompleted", "SubOrchestrationInstanceCompleted"]);
    served.ended("o").await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_retried_under_the_same_number_and_id_runs_again() {
    let mut served = serve().await;
    served.start("parent", "p").await;
    let mut worker = Worker::connect(&served.client).await;
    let turn = worker.turn().await;
    worker.answer(&turn, vec![child(1, "failing", "c")]).await;
    for _ in 0..2 {
        let turn = worker.turn().await;
        assert_eq!(turn.events().1[1], "SubOrchestrationInstanceFailed");
        worker.answer(&turn, vec![child(1, "failing", "c")]).await;
    }
    let turn = worker.turn().await;
    worker.answer(&turn, vec![complete(2, "1")]).await;
    served.ended("p").await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_an_entity_and_what_it_leaves_undone_is_run_later() {
    let mut served = serve().await;
    for id in ["1", "2"] {
        let signal = wire::SignalEntityRequest {
            instance_id: "@remote@e".to_owned(),
            name: "add".to_owned(),
            input: Some(id.to_owned()),
            request_id: id.to_owned(),
            ..Default::default()
        };
        soon(served.client.signal_entity(signal)).await.unwrap();
    }
    let mut worker = Worker::connect(&served.client).await;
    let (token, batch) = worker.batch().await;
    assert_eq!((batch.instance_id.as_str(), &batch.entity_state), ("@remote@e", &None));
    let mut left = batch.operation_requests.len();
    // A failure of the whole changes nothing.
    let failure = wire::TaskFailureDetails { error_message: "not now".to_owned(), ..Default::default() };
    worker
        .entity_result(wire::EntityBatchResult {
            completion_token: token,
            failure_details: Some(failure),
            entity_state: Some("666".to_owned()),
            ..Default::default()
        })
        .await;
    let mut done = 0;
    while done < 2 {
        let (token, batch) = worker.batch().await;
        let state = (done > 0).then(|| done.to_string());
        assert_eq!(batch.entity_state, state);
        left = left.max(batch.operation_requests.len());
        done += 1;
        let success = wire::OperationResultSuccess::default();
        let result =
            wire::OperationResult { result_type: Some(wire::operation_result::ResultType::Success(success)) };
        worker
            .entity_result(wire::EntityBatchResult {
                completion_token: token,
                results: vec![result],
                entity_state: Some(done.to_string()),
                ..Default::default()
            })
            .await;
    }
    let call = wire::GetEntityRequest { instance_id: "@remote@e".to_owned(), include_state: true };
    served.start("reader", "r").await;
    let turn = worker.turn().await;
    worker.answer(&turn, vec![call_entity(1, "@remote@e", "get", "q")]).await;
    let (token, batch) = worker.batch().await;
    // The call waited behind the signals.
    assert_eq!(batch.entity_state.as_deref(), Some("2"));
    let success = wire::OperationResultSuccess { result: Some("2".to_owned()), ..Default::default() };
    let result =
        wire::OperationResult { result_type: Some(wire::operation_result::ResultType::Success(success)) };
    worker
        .entity_result(wire::EntityBatchResult {
            completion_token: token,
            results: vec![result],
            entity_state: Some("2".to_owned()),
            ..Default::default()
        })
        .await;
    let turn = worker.turn().await;
    assert_eq!(turn.events().1[1], "EntityOperationCompleted");
    worker.answer(&turn, vec![complete(2, "1")]).await;
    served.ended("r").await;
    let entity = soon(served.client.get_entity(call)).await.unwrap().into_inner();
    assert!(entity.exists);
    assert_eq!(entity.entity.unwrap().serialized_state.as_deref(), Some("2"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_come_in_parts_and_without_a_token() {
    let mut served = serve().await;
    served.start("large", "l").await;
    let mut worker = Worker::connect(&served.client).await;
    let turn = worker.turn().await;
    let part = |actions, is_partial, chunk| wire::OrchestratorResponse {
        completion_token: turn.token.clone(),
        actions,
        is_partial,
        chunk_index: Some(chunk),
        ..Default::default()
    };
    worker.respond(part(vec![call(1, "a")], true, 0)).await;
    worker.respond(part(vec![call(2, "b")], true, 1)).await;
    worker.respond(part(vec![call(3, "c")], false, 2)).await;
    let mut names = vec![];
    for _ in 0..3 {
        let (_, task) = worker.activity().await;
        // Some workers give no tokens back.
        let response = wire::ActivityResponse {
            instance_id: "l".to_owned(),
            task_id: task.task_id,
            result: Some("1".to_owned()),
            ..Default::default()
        };
        soon(served.client.clone().complete_activity_task(response)).await.unwrap();
        names.push(task.name);
    }
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
    let mut results = 0;
    while results < 3 {
        let turn = worker.turn().await;
        results += turn.events().1.len() - 1;
        let actions = if results == 3 { vec![complete(4, "1")] } else { vec![] };
        let response =
            wire::OrchestratorResponse { instance_id: "l".to_owned(), actions, ..Default::default() };
        worker.respond(response).await;
    }
    served.ended("l").await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_means_nothing_is_refused_and_the_turn_is_given_out_again() {
    let mut served = serve().await;
    served.start("mad", "m").await;
    let mut worker = Worker::connect(&served.client).await;
    let turn = worker.turn().await;
    let response = wire::OrchestratorResponse {
        completion_token: turn.token.clone(),
        actions: vec![wire::OrchestratorAction::default()],
        ..Default::default()
    };
    let refused = soon(served.client.complete_orchestrator_task(response)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let turn = worker.turn().await;
    worker.answer(&turn, vec![complete(1, "1")]).await;
    assert!(soon(served.client.wait_for_instance_completion(get("m"))).await.unwrap().into_inner().exists);
    served.stop().await;
}
