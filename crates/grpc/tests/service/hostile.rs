//! Requests with missing, absurd and huge fields: each is answered with a status code, and nobody else is harmed.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use steadfast_grpc::wire;
use steadfast_grpc::wire::purge_instances_request::Request as Purge;
use tonic::{Code, Request, Status};

use crate::support::{Client, assert_refused, get, serve, soon, start};

/// What requests are made of.
#[derive(Debug, Clone)]
struct Fields {
    id: String,
    other: String,
    text: Option<String>,
    token: Option<String>,
    from: Option<prost_types::Timestamp>,
    to: Option<prost_types::Timestamp>,
    number: i32,
    statuses: Vec<i32>,
    flag: bool,
}

/// Texts that mean something as an id, a name, a token or a payload.
const KNOWN: [&str; 11] =
    ["over", "live", "echo", "waiter", "go", "@counter@a", "add", "i1:over", "1|over", "0", "null"];

/// Texts that nobody should send.
const ODD: [&str; 14] =
    ["", "\0", "a\0b", "@", "@@", "@counter", "@Counter@A", "@@k", "|", "x|y", "i1:", "\u{7f}", "é", "\""];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(&KNOWN[..]).prop_map(str::to_owned),
        3 => prop::sample::select(&ODD[..]).prop_map(str::to_owned),
        2 => (prop::sample::select(&["x", "@", "é", "\0"][..]), prop::sample::select(&[100, 101, 513, 1 << 20][..]))
            .prop_map(|(piece, times)| piece.repeat(times)),
        3 => ".{0,12}",
    ]
}

fn moment() -> impl Strategy<Value = Option<prost_types::Timestamp>> {
    let edge = prop::sample::select(&[0, 1, -1, i64::MIN, i64::MAX, 253_402_300_799, 253_402_300_800][..]);
    let nanos = prop::sample::select(&[0, 1, -1, 999_999_999, 1_000_000_000, i32::MIN, i32::MAX][..]);
    let seconds = prop_oneof![edge, any::<i64>()];
    prop::option::of((seconds, nanos).prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }))
}

fn fields() -> impl Strategy<Value = Fields> {
    let number = prop_oneof![any::<i32>(), prop::sample::select(&[0, 1, -1, i32::MIN, i32::MAX][..])];
    let statuses = prop::collection::vec(prop_oneof![0..8, any::<i32>()], 0..4);
    let texts = (text(), text(), prop::option::of(text()), prop::option::of(text()));
    (texts, moment(), moment(), number, statuses, any::<bool>()).prop_map(
        |((id, other, text, token), from, to, number, statuses, flag)| Fields {
            id,
            other,
            text,
            token,
            from,
            to,
            number,
            statuses,
            flag,
        },
    )
}

type Outcomes = Vec<(&'static str, Result<(), Status>)>;

/// Every call that starts something or changes it.
async fn act(client: &mut Client, with: &Fields, outcomes: &mut Outcomes) {
    let Fields { id, other, text, from, statuses, flag, .. } = with.clone();
    macro_rules! call {
        ($method:ident, $request:expr) => {
            outcomes.push((stringify!($method), soon(client.$method($request)).await.map(|_| ())))
        };
    }
    let trace =
        wire::TraceContext { trace_parent: other.clone(), span_id: other.clone(), trace_state: text.clone() };
    let request = wire::CreateInstanceRequest {
        instance_id: id.clone(),
        name: other.clone(),
        version: text.clone(),
        input: text.clone(),
        scheduled_start_timestamp: from,
        orchestration_id_reuse_policy: flag
            .then(|| wire::OrchestrationIdReusePolicy { replaceable_status: statuses.clone() }),
        execution_id: text.clone(),
        tags: [(other.clone(), id.clone())].into(),
        parent_trace_context: Some(trace.clone()),
        request_time: from,
    };
    // "live" stays as it is, to be looked at in the end.
    if id != "live" {
        call!(start_instance, request);
        let (instance_id, name, input) = (id.clone(), other.clone(), text.clone());
        call!(raise_event, wire::RaiseEventRequest { instance_id, name, input });
        let (instance_id, output) = (id.clone(), text.clone());
        call!(terminate_instance, wire::TerminateRequest { instance_id, output, recursive: flag });
        let (instance_id, reason) = (id.clone(), text.clone());
        call!(suspend_instance, wire::SuspendRequest { instance_id, reason });
        let (instance_id, reason) = (id.clone(), text.clone());
        call!(resume_instance, wire::ResumeRequest { instance_id, reason });
        let instance_batch = Some(wire::InstanceBatch { instance_ids: vec![id.clone(), other.clone()] });
        let batch = instance_batch.filter(|batch| !batch.instance_ids.iter().any(|id| id == "live"));
        let request = wire::SkipGracefulOrchestrationTerminationsRequest {
            instance_batch: batch,
            reason: text.clone(),
        };
        call!(skip_graceful_orchestration_terminations, request);
    }
    let restart_with_new_instance_id = flag;
    call!(
        restart_instance,
        wire::RestartInstanceRequest { instance_id: id.clone(), restart_with_new_instance_id }
    );
    let request = wire::SignalEntityRequest {
        instance_id: id,
        name: other.clone(),
        input: text,
        request_id: other,
        scheduled_time: from,
        parent_trace_context: Some(trace),
        request_time: from,
    };
    call!(signal_entity, request);
}

/// Every call that looks at something or removes it.
async fn look(client: &mut Client, with: &Fields, outcomes: &mut Outcomes) {
    let Fields { id, other, text, token, from, to, number, statuses, flag } = with.clone();
    macro_rules! call {
        ($method:ident, $request:expr) => {
            outcomes.push((stringify!($method), soon(client.$method($request)).await.map(|_| ())))
        };
    }
    call!(get_instance, wire::GetInstanceRequest { instance_id: id.clone(), get_inputs_and_outputs: flag });
    call!(get_entity, wire::GetEntityRequest { instance_id: id.clone(), include_state: flag });
    let request = wire::StreamInstanceHistoryRequest {
        instance_id: id.clone(),
        execution_id: text.clone(),
        for_work_item_processing: flag,
    };
    call!(stream_instance_history, request);
    let query = wire::InstanceQuery {
        runtime_status: statuses.clone(),
        created_time_from: from,
        created_time_to: to,
        task_hub_names: vec![other.clone()],
        max_instance_count: number,
        continuation_token: token.clone(),
        instance_id_prefix: text.clone(),
        fetch_inputs_and_outputs: flag,
    };
    call!(query_instances, wire::QueryInstancesRequest { query: flag.then_some(query) });
    let request = wire::ListInstanceIdsRequest {
        runtime_status: statuses.clone(),
        completed_time_from: from,
        completed_time_to: to,
        page_size: number,
        last_instance_key: token.clone(),
    };
    call!(list_instance_ids, request);
    let query = wire::EntityQuery {
        instance_id_starts_with: text.clone(),
        last_modified_from: from,
        last_modified_to: to,
        include_state: flag,
        include_transient: flag,
        page_size: Some(number),
        continuation_token: token.clone(),
    };
    call!(query_entities, wire::QueryEntitiesRequest { query: Some(query) });
    let request = wire::CleanEntityStorageRequest {
        continuation_token: token,
        remove_empty_entities: flag,
        release_orphaned_locks: flag,
    };
    call!(clean_entity_storage, request);
    let timeout = to.map(|at| prost_types::Duration { seconds: at.seconds, nanos: at.nanos });
    let filter = wire::PurgeInstanceFilter {
        created_time_from: from,
        created_time_to: to,
        runtime_status: statuses,
        timeout,
    };
    let batch = wire::InstanceBatch { instance_ids: vec![id.clone(), other] };
    for request in [
        None,
        Some(Purge::InstanceId(id)),
        Some(Purge::InstanceBatch(batch)),
        Some(Purge::PurgeInstanceFilter(filter)),
    ] {
        let request = wire::PurgeInstancesRequest { request, recursive: flag, is_orchestration: flag };
        call!(purge_instances, request);
    }
}

#[test]
fn whatever_is_asked_is_answered_with_a_status_and_others_are_served_all_the_while() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut served = runtime.block_on(serve());
    runtime.block_on(async {
        served.start("echo", "over").await;
        served.ended("over").await;
        served.start("waiter", "live").await;
        served.begun("live").await;
    });
    let client = served.client.clone();
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    let outcome = runner.run(&fields(), |fields| {
        let mut client = client.clone();
        runtime.block_on(async {
            let mut outcomes = Vec::new();
            act(&mut client, &fields, &mut outcomes).await;
            look(&mut client, &fields, &mut outcomes).await;
            for (method, outcome) in outcomes {
                let code = outcome.as_ref().err().map_or(Code::Ok, Status::code);
                let expected = matches!(
                    code,
                    Code::Ok
                        | Code::InvalidArgument
                        | Code::NotFound
                        | Code::AlreadyExists
                        | Code::FailedPrecondition
                        | Code::ResourceExhausted
                );
                prop_assert!(expected, "{method}: {outcome:?}");
            }
            Ok(())
        })
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(async {
        served.raise("live", "\"still here\"").await.unwrap();
        assert_eq!(served.ended("live").await.output.as_deref(), Some("\"still here\""));
        served.stop().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_ids_that_cannot_be_are_refused_instead_of_lasting_for_ever() {
    let mut served = serve().await;
    for id in ["", "a\0b", "@counter@a", &"x".repeat(513)] {
        let mut request = Request::new(get(id));
        request.set_timeout(Duration::from_secs(20));
        let outcome = soon(served.client.wait_for_instance_completion(request)).await;
        assert_refused(outcome, Code::InvalidArgument, &[]);
        let outcome = soon(served.client.wait_for_instance_start(get(id))).await;
        assert_refused(outcome, Code::InvalidArgument, &[]);
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_texts_are_refused_where_they_are_no_payloads_and_payloads_beyond_the_limit_too() {
    let mut served = serve().await;
    let huge = || "x".repeat(63 << 20);
    let outcome = soon(served.client.start_instance(start(&huge(), "n"))).await;
    assert_refused(outcome, Code::InvalidArgument, &["name", "length"]);
    let outcome = soon(served.client.start_instance(start("echo", &huge()))).await;
    assert_refused(outcome, Code::InvalidArgument, &["length"]);
    let request = wire::CreateInstanceRequest { input: Some(huge()), ..start("echo", "n") };
    assert_refused(soon(served.client.start_instance(request)).await, Code::InvalidArgument, &["payload"]);
    let query = wire::InstanceQuery { continuation_token: Some(huge()), ..Default::default() };
    let request = wire::QueryInstancesRequest { query: Some(query) };
    assert_refused(
        soon(served.client.query_instances(request)).await,
        Code::InvalidArgument,
        &["continuationToken"],
    );
    // More than a message may have.
    let request = wire::CreateInstanceRequest { input: Some("x".repeat(65 << 20)), ..start("echo", "n") };
    let status = soon(served.client.start_instance(request)).await.unwrap_err();
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status}");
    served.start("echo", "small").await;
    assert_eq!(served.ended("small").await.output.as_deref(), Some("\"in\""));
    served.stop().await;
}
