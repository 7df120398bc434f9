//! Looking at many instances.

use std::collections::BTreeSet;

use steadfast_grpc::wire;
use steadfast_grpc::wire::OrchestrationStatus as Status;
use tonic::Code;

use crate::support::{Served, assert_refused, serve, soon, start};

/// All pages of a query, and how many there were. Checks the tokens as SDKs read them.
async fn pages(served: &mut Served, query: wire::InstanceQuery) -> (Vec<wire::OrchestrationState>, usize) {
    let (mut found, mut count, mut token) = (Vec::new(), 0, None::<String>);
    loop {
        let query = wire::InstanceQuery { continuation_token: token.clone(), ..query.clone() };
        let request = wire::QueryInstancesRequest { query: Some(query) };
        let page = soon(served.client.query_instances(request)).await.unwrap().into_inner();
        found.extend(page.orchestration_state);
        count += 1;
        let Some(next) = page.continuation_token else { return (found, count) };
        assert!(!next.is_empty() && next != "0" && Some(&next) != token.as_ref(), "{next}");
        token = Some(next);
    }
}

async fn ids(served: &mut Served, query: wire::InstanceQuery) -> Vec<String> {
    pages(served, query).await.0.into_iter().map(|state| state.instance_id).collect()
}

fn of_status(statuses: &[Status]) -> wire::InstanceQuery {
    let runtime_status = statuses.iter().map(|status| (*status).into()).collect();
    wire::InstanceQuery { runtime_status, ..Default::default() }
}

/// The ended instances "a0" to "a<n>".
async fn ended(served: &mut Served, count: usize) {
    for nth in 0..count {
        let id = format!("a{nth}");
        served.start("echo", &id).await;
        served.ended(&id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_each_instance_once_and_the_last_one_comes_without_a_token() {
    let mut served = serve().await;
    ended(&mut served, 5).await;
    let expected = ["a0", "a1", "a2", "a3", "a4"];
    for (size, pages_expected) in [(0, 1), (i32::MAX, 1), (5, 1), (4, 2), (2, 3), (1, 5)] {
        let query = wire::InstanceQuery { max_instance_count: size, ..Default::default() };
        let (found, count) = pages(&mut served, query).await;
        let found: Vec<_> = found.iter().map(|state| state.instance_id.as_str()).collect();
        assert_eq!((&found[..], count), (&expected[..], pages_expected), "{size} at a time");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_found_by_status_prefix_and_time_of_creation() {
    let mut served = serve().await;
    ended(&mut served, 2).await;
    served.start("waiter", "b").await;
    served.begun("b").await;
    served.start_later("c").await;
    assert_eq!(ids(&mut served, of_status(&[Status::Running])).await, ["b"]);
    assert_eq!(ids(&mut served, of_status(&[Status::Pending, Status::Completed])).await, ["a0", "a1", "c"]);
    assert_eq!(ids(&mut served, of_status(&[Status::Suspended])).await, [""; 0]);
    let prefix = wire::InstanceQuery { instance_id_prefix: Some("a".to_owned()), ..Default::default() };
    assert_eq!(ids(&mut served, prefix).await, ["a0", "a1"]);
    let created = served.state("b").await.created_timestamp;
    let from = wire::InstanceQuery { created_time_from: created, ..Default::default() };
    assert_eq!(ids(&mut served, from).await, ["b", "c"], "the first moment is in the span");
    let to = wire::InstanceQuery { created_time_to: created, ..Default::default() };
    assert_eq!(ids(&mut served, to).await, ["a0", "a1"], "and the last one is not");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_continues_as_new_is_running_to_a_query_and_no_instance_is_ever_shown_as_continued() {
    let mut served = serve().await;
    served.start("again", "r").await;
    for round in 0..20 {
        served.raise("r", &format!("\"{round}\"")).await.unwrap();
        assert_eq!(ids(&mut served, of_status(&[Status::ContinuedAsNew])).await, [""; 0]);
        let found = pages(&mut served, of_status(&[Status::Running, Status::Pending])).await.0;
        assert_eq!(found.len(), 1, "round {round}");
        assert_ne!(found[0].orchestration_status(), Status::ContinuedAsNew);
        assert_ne!(served.state("r").await.orchestration_status(), Status::ContinuedAsNew);
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_and_outputs_are_fetched_when_asked_for_and_entities_are_no_instances() {
    let mut served = serve().await;
    ended(&mut served, 1).await;
    let signal = wire::SignalEntityRequest {
        instance_id: "@counter@a".to_owned(),
        name: "add".to_owned(),
        input: Some("1".to_owned()),
        ..Default::default()
    };
    soon(served.client.signal_entity(signal)).await.unwrap();
    let with = wire::InstanceQuery { fetch_inputs_and_outputs: true, ..Default::default() };
    let (found, _) = pages(&mut served, with).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].input.as_deref(), Some("\"in\""));
    assert_eq!(found[0].output.as_deref(), Some("\"in\""));
    let (found, _) = pages(&mut served, wire::InstanceQuery::default()).await;
    assert_eq!((found[0].input.as_ref(), found[0].output.as_ref()), (None, None));
    let entities = wire::InstanceQuery { instance_id_prefix: Some("@".to_owned()), ..Default::default() };
    assert_eq!(ids(&mut served, entities).await, [""; 0]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_no_larger_than_clients_take() {
    let mut served = serve().await;
    let input = format!("\"{}\"", "x".repeat(700 << 10));
    for nth in 0..6 {
        let id = format!("big{nth}");
        let request = wire::CreateInstanceRequest { input: Some(input.clone()), ..start("echo", &id) };
        soon(served.client.start_instance(request)).await.unwrap();
        served.ended(&id).await;
    }
    // The limit of clients that say nothing else.
    let wide = served.client.clone();
    served.client = wide.clone().max_decoding_message_size(4 << 20);
    let query = wire::InstanceQuery { fetch_inputs_and_outputs: true, ..Default::default() };
    let (found, count) = pages(&mut served, query).await;
    let found: BTreeSet<_> = found.into_iter().map(|state| state.instance_id).collect();
    assert_eq!(found.len(), 6);
    assert!(count >= 3, "{count}");
    let (found, count) = pages(&mut served, wire::InstanceQuery::default()).await;
    assert_eq!((found.len(), count), (6, 1), "without what is large, one page is enough");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_cannot_be_understood_are_refused() {
    let mut served = serve().await;
    let token = |text: &str| Some(text.to_owned());
    let queries = [
        (wire::InstanceQuery { max_instance_count: -1, ..Default::default() }, "maxInstanceCount"),
        (wire::InstanceQuery { continuation_token: token("0"), ..Default::default() }, "continuationToken"),
        (wire::InstanceQuery { runtime_status: vec![99], ..Default::default() }, "99"),
    ];
    for (query, word) in queries {
        let request = wire::QueryInstancesRequest { query: Some(query) };
        let outcome = soon(served.client.query_instances(request)).await;
        assert_refused(outcome, Code::InvalidArgument, &[word]);
    }
    let lists = [
        (wire::ListInstanceIdsRequest { page_size: -1, ..Default::default() }, "pageSize"),
        (
            wire::ListInstanceIdsRequest { last_instance_key: token("x"), ..Default::default() },
            "lastInstanceKey",
        ),
    ];
    for (request, word) in lists {
        let outcome = soon(served.client.list_instance_ids(request)).await;
        assert_refused(outcome, Code::InvalidArgument, &[word]);
    }
    served.stop().await;
}

/// All pages of a listing of ended instances.
async fn listed(served: &mut Served, request: wire::ListInstanceIdsRequest) -> (Vec<String>, usize) {
    let (mut found, mut count, mut key) = (Vec::new(), 0, None::<String>);
    loop {
        let request = wire::ListInstanceIdsRequest { last_instance_key: key.clone(), ..request.clone() };
        let page = soon(served.client.list_instance_ids(request)).await.unwrap().into_inner();
        count += 1;
        let last = page.instance_ids.last().cloned();
        found.extend(page.instance_ids);
        let Some(next) = page.last_instance_key else { return (found, count) };
        let (at, id) = next.split_once('|').unwrap();
        assert!(at.parse::<i64>().is_ok() && Some(id) == last.as_deref(), "{next}");
        assert_ne!(Some(&next), key.as_ref());
        key = Some(next);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_instances_are_listed_by_the_time_of_their_end() {
    let mut served = serve().await;
    for id in ["z", "m", "a", "q"] {
        served.start("waiter", id).await;
        served.begun(id).await;
    }
    for id in ["m", "z", "a"] {
        served.raise(id, "\"x\"").await.unwrap();
        served.ended(id).await;
    }
    served.start("failing", "f").await;
    let failed = served.ended("f").await;
    for (page_size, pages_expected) in [(0, 1), (4, 1), (3, 2), (1, 4)] {
        let request = wire::ListInstanceIdsRequest { page_size, ..Default::default() };
        let expected = ["m", "z", "a", "f"].map(str::to_owned).to_vec();
        assert_eq!(listed(&mut served, request).await, (expected, pages_expected), "{page_size} at a time");
    }
    let by_status = |status: Status| wire::ListInstanceIdsRequest {
        runtime_status: vec![status.into()],
        ..Default::default()
    };
    assert_eq!(listed(&mut served, by_status(Status::Failed)).await.0, ["f"]);
    assert_eq!(listed(&mut served, by_status(Status::Running)).await.0, [""; 0], "it has not ended");
    let from = wire::ListInstanceIdsRequest {
        completed_time_from: failed.completed_timestamp,
        ..Default::default()
    };
    assert_eq!(listed(&mut served, from).await.0, ["f"]);
    let to =
        wire::ListInstanceIdsRequest { completed_time_to: failed.completed_timestamp, ..Default::default() };
    assert_eq!(listed(&mut served, to).await.0, ["m", "z", "a"]);
    served.stop().await;
}
