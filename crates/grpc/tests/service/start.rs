//! Starting instances: ids, policies for ids in use, start times, restarts.

use std::collections::HashMap;

use steadfast_grpc::wire;
use steadfast_grpc::wire::OrchestrationStatus as Status;
use tonic::Code;

use crate::support::{assert_refused, get, serve, soon, start};

fn reusing(name: &str, id: &str, statuses: &[Status]) -> wire::CreateInstanceRequest {
    let replaceable_status = statuses.iter().map(|status| (*status).into()).collect();
    let policy = wire::OrchestrationIdReusePolicy { replaceable_status };
    wire::CreateInstanceRequest { orchestration_id_reuse_policy: Some(policy), ..start(name, id) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_started_under_its_id_and_an_empty_id_is_replaced_by_a_new_one() {
    let mut served = serve().await;
    assert_eq!(served.start("echo", "mine").await.instance_id, "mine");
    let made = served.start("echo", "").await.instance_id;
    assert_eq!(made.len(), 32);
    assert_eq!(served.ended(&made).await.output.as_deref(), Some("\"in\""));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_travels_to_the_instance_and_back_to_whoever_starts_it() {
    let mut served = serve().await;
    let request = wire::CreateInstanceRequest { version: Some("2.1".to_owned()), ..start("echo", "v") };
    assert_eq!(soon(served.client.start_instance(request)).await.unwrap().into_inner().version, "2.1");
    assert_eq!(served.state("v").await.version.as_deref(), Some("2.1"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_the_trace_travel_to_the_instance() {
    let mut served = serve().await;
    let trace = wire::TraceContext {
        trace_parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        span_id: "b7ad6b7169203331".to_owned(),
        trace_state: None,
    };
    let tags = HashMap::from([("tenant".to_owned(), "a".to_owned())]);
    let request = wire::CreateInstanceRequest {
        tags: tags.clone(),
        parent_trace_context: Some(trace.clone()),
        ..start("echo", "t")
    };
    soon(served.client.start_instance(request)).await.unwrap();
    assert_eq!(served.ended("t").await.tags, tags);
    let history = crate::look::history(&mut served, "t").await;
    let started = history.iter().find_map(|event| match event {
        wire::history_event::EventType::ExecutionStarted(started) => Some(started),
        _ => None,
    });
    assert_eq!(started.unwrap().parent_trace_context, Some(trace));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_in_use_is_refused_without_a_policy_whether_or_not_the_instance_has_ended() {
    let mut served = serve().await;
    served.start("waiter", "w").await;
    let again = soon(served.client.start_instance(start("waiter", "w"))).await;
    assert_refused(again, Code::AlreadyExists, &["'w'"]);
    served.start("echo", "e").await;
    served.ended("e").await;
    let again = soon(served.client.start_instance(start("echo", "e"))).await;
    assert_refused(again, Code::AlreadyExists, &["'e'", "Completed"]);
    let nothing = soon(served.client.start_instance(reusing("echo", "e", &[]))).await;
    assert_refused(nothing, Code::AlreadyExists, &["'e'"]);
    let other = soon(served.client.start_instance(reusing("echo", "e", &[Status::Failed]))).await;
    assert_refused(other, Code::AlreadyExists, &["'e'"]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_a_policy_lists_are_replaced_live_ones_too_before_the_answer() {
    let mut served = serve().await;
    served.start("echo", "e").await;
    let first = served.ended("e").await.execution_id;
    soon(served.client.start_instance(reusing("waiter", "e", &[Status::Completed]))).await.unwrap();
    let second = served.state("e").await;
    assert_ne!(second.execution_id, first);
    assert_eq!(second.name, "waiter");
    served.begun("e").await;
    let live = [Status::Running, Status::Terminated];
    soon(served.client.start_instance(reusing("waiter", "e", &live))).await.unwrap();
    assert_ne!(served.state("e").await.execution_id, second.execution_id);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_with_live_statuses_and_without_terminated_is_refused_with_the_text_that_sdks_show() {
    let mut served = serve().await;
    for live in [Status::Running, Status::Pending, Status::Suspended] {
        let outcome = soon(served.client.start_instance(reusing("echo", "e", &[live]))).await;
        let text = "Invalid reusable statuses: cannot exclude 'Terminated' while also allowing reuse of running instances";
        assert_refused(outcome, Code::InvalidArgument, &[text]);
    }
    let outcome = soon(served.client.get_instance(get("e"))).await.unwrap().into_inner();
    assert!(!outcome.exists);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_that_cannot_be_understood_are_refused_and_change_nothing() {
    let mut served = serve().await;
    let long = soon(served.client.start_instance(start("echo", &"x".repeat(101)))).await;
    assert_refused(long, Code::InvalidArgument, &["length"]);
    let entity = soon(served.client.start_instance(start("echo", "@a@b"))).await;
    assert_refused(entity, Code::InvalidArgument, &["entities"]);
    let nameless = soon(served.client.start_instance(start("", "n"))).await;
    assert_refused(nameless, Code::InvalidArgument, &["name"]);
    let policy = wire::OrchestrationIdReusePolicy { replaceable_status: vec![99] };
    let unknown =
        wire::CreateInstanceRequest { orchestration_id_reuse_policy: Some(policy), ..start("echo", "u") };
    assert_refused(soon(served.client.start_instance(unknown)).await, Code::InvalidArgument, &["99"]);
    let nanos = prost_types::Timestamp { seconds: 0, nanos: -5 };
    let timeless =
        wire::CreateInstanceRequest { scheduled_start_timestamp: Some(nanos), ..start("echo", "u") };
    let words = ["scheduledStartTimestamp"];
    assert_refused(soon(served.client.start_instance(timeless)).await, Code::InvalidArgument, &words);
    assert!(!soon(served.client.get_instance(get("u"))).await.unwrap().into_inner().exists);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_in_the_past_is_now_and_one_in_the_future_keeps_the_instance_pending() {
    let mut served = serve().await;
    served.start("echo", "now").await;
    assert_eq!(served.ended("now").await.scheduled_start_timestamp, None);
    // The year 9000.
    let at = prost_types::Timestamp { seconds: 221_845_000_000, nanos: 0 };
    let request =
        wire::CreateInstanceRequest { scheduled_start_timestamp: Some(at), ..start("echo", "later") };
    soon(served.client.start_instance(request)).await.unwrap();
    let state = served.state("later").await;
    assert_eq!(state.orchestration_status(), Status::Pending);
    assert_eq!(state.scheduled_start_timestamp, Some(at));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_beyond_four_mebibytes_are_taken_and_given() {
    let mut served = serve().await;
    let input = format!("\"{}\"", "x".repeat(5 << 20));
    let request = wire::CreateInstanceRequest { input: Some(input.clone()), ..start("echo", "big") };
    soon(served.client.start_instance(request)).await.unwrap();
    assert!(served.ended("big").await.output == Some(input));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_takes_name_input_version_and_tags_along() {
    let mut served = serve().await;
    let request = wire::CreateInstanceRequest {
        version: Some("3".to_owned()),
        tags: HashMap::from([("a".to_owned(), "b".to_owned())]),
        ..start("echo", "r")
    };
    soon(served.client.start_instance(request)).await.unwrap();
    let first = served.ended("r").await;
    let restart = |new_id| wire::RestartInstanceRequest {
        instance_id: "r".to_owned(),
        restart_with_new_instance_id: new_id,
    };
    let same = soon(served.client.restart_instance(restart(false))).await.unwrap().into_inner();
    assert_eq!(same.instance_id, "r");
    assert_ne!(served.state("r").await.execution_id, first.execution_id);
    let new = soon(served.client.restart_instance(restart(true))).await.unwrap().into_inner();
    assert_ne!(new.instance_id, "r");
    let state = served.ended(&new.instance_id).await;
    assert_eq!(
        (state.name, state.input, state.version, state.tags),
        (first.name, first.input, first.version, first.tags)
    );
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_instance_is_restarted_under_a_new_id_only() {
    let mut served = serve().await;
    served.start("waiter", "w").await;
    served.begun("w").await;
    let restart = |id: &str, new_id| wire::RestartInstanceRequest {
        instance_id: id.to_owned(),
        restart_with_new_instance_id: new_id,
    };
    let same = soon(served.client.restart_instance(restart("w", false))).await;
    assert_refused(same, Code::FailedPrecondition, &["'w'", "Running"]);
    assert!(soon(served.client.restart_instance(restart("w", true))).await.is_ok());
    let unknown = soon(served.client.restart_instance(restart("nobody", false))).await;
    assert_refused(unknown, Code::NotFound, &["'nobody'"]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_starts_with_one_id_exactly_one_wins() {
    let served = serve().await;
    for round in 0..20 {
        let id = format!("race{round}");
        let starts: Vec<_> = (0..8)
            .map(|nth| {
                let mut client = served.client.clone();
                let request =
                    wire::CreateInstanceRequest { version: Some(nth.to_string()), ..start("waiter", &id) };
                tokio::spawn(async move { client.start_instance(request).await })
            })
            .collect();
        let mut won = Vec::new();
        for start in starts {
            match soon(start).await.unwrap() {
                Ok(started) => won.push(started.into_inner().version),
                refused => assert_refused(refused, Code::AlreadyExists, &[&id]),
            }
        }
        assert_eq!(won.len(), 1, "{won:?}");
        let mut client = served.client.clone();
        let state =
            soon(client.get_instance(get(&id))).await.unwrap().into_inner().orchestration_state.unwrap();
        assert_eq!(state.version.as_ref(), won.first());
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_starts_that_may_replace_ended_instances_exactly_one_wins() {
    let mut served = serve().await;
    let ended = [Status::Completed, Status::Failed, Status::Terminated];
    for round in 0..20 {
        let id = format!("race{round}");
        served.start("echo", &id).await;
        let first = served.ended(&id).await.execution_id;
        let starts: Vec<_> = (0..8)
            .map(|_| {
                let (mut client, request) = (served.client.clone(), reusing("waiter", &id, &ended));
                tokio::spawn(async move { client.start_instance(request).await })
            })
            .collect();
        let mut won = 0;
        for start in starts {
            match soon(start).await.unwrap() {
                Ok(_) => won += 1,
                refused => assert_refused(refused, Code::AlreadyExists, &[&id]),
            }
        }
        assert_eq!(won, 1);
        assert_ne!(served.state(&id).await.execution_id, first);
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_holds_for_each_status_of_live_instances_and_for_no_other() {
    let mut served = serve().await;
    served.start_later("pending").await;
    for id in ["running", "suspended"] {
        served.start("waiter", id).await;
        served.begun(id).await;
    }
    let request = wire::SuspendRequest { instance_id: "suspended".to_owned(), reason: None };
    soon(served.client.suspend_instance(request)).await.unwrap();
    let all = [("pending", Status::Pending), ("running", Status::Running), ("suspended", Status::Suspended)];
    for (id, own) in all {
        assert_eq!(served.state(id).await.orchestration_status(), own);
        let others: Vec<_> = all.iter().map(|(_, status)| *status).filter(|status| *status != own).collect();
        let others = [&others[..], &[Status::Terminated, Status::Completed]].concat();
        let outcome = soon(served.client.start_instance(reusing("waiter", id, &others))).await;
        assert_refused(outcome, Code::AlreadyExists, &[id]);
    }
    for (id, own) in all {
        let before = served.state(id).await.execution_id;
        soon(served.client.start_instance(reusing("echo", id, &[own, Status::Terminated]))).await.unwrap();
        let after = served.state(id).await;
        assert_ne!(after.execution_id, before, "{id} is replaced before the answer");
        assert_eq!(served.ended(id).await.name, "echo");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_instance_takes_the_children_along_that_it_awaited() {
    let mut served = serve().await;
    served.start("family", "p").await;
    let child = served.begun("p-child").await.execution_id;
    let live = [Status::Running, Status::Terminated];
    soon(served.client.start_instance(reusing("echo", "p", &live))).await.unwrap();
    let ended = served.ended("p-child").await;
    assert_eq!((ended.orchestration_status(), ended.execution_id), (Status::Terminated, child));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_executions_have_32_lower_case_digits_and_are_new_for_each_generation() {
    let mut served = serve().await;
    served.start("again", "r").await;
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..3 {
        let input = format!("\"{round}\"");
        if round > 0 {
            served.raise("r", &input).await.unwrap();
        }
        let id = loop {
            let state = served.begun("r").await;
            let reached = round == 0 || state.input.as_deref() == Some(&input);
            if reached {
                break state.execution_id.unwrap();
            }
        };
        assert!(id.len() == 32 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{id}");
        assert!(seen.insert(id));
        let started =
            crate::look::history(&mut served, "r").await.into_iter().find_map(|event| match event {
                wire::history_event::EventType::ExecutionStarted(started) => started.orchestration_instance,
                _ => None,
            });
        assert!(seen.contains(&started.unwrap().execution_id.unwrap()), "the history says the same");
    }
    served.stop().await;
}
