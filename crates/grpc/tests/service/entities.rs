//! Entities: signals, states, queries and cleaning.

use steadfast_grpc::wire;
use tonic::Code;

use crate::support::{Served, assert_refused, serve, soon};

fn add(id: &str, amount: i64) -> wire::SignalEntityRequest {
    wire::SignalEntityRequest {
        instance_id: id.to_owned(),
        name: "add".to_owned(),
        input: Some(amount.to_string()),
        request_id: "r".to_owned(),
        ..Default::default()
    }
}

async fn look(served: &mut Served, id: &str, include_state: bool) -> wire::GetEntityResponse {
    let request = wire::GetEntityRequest { instance_id: id.to_owned(), include_state };
    soon(served.client.get_entity(request)).await.unwrap().into_inner()
}

/// Asks until the entity has this state; the signal is durable, and its turn comes.
async fn until_state(served: &mut Served, id: &str, state: &str) -> wire::EntityMetadata {
    loop {
        if let Some(entity) = look(served, id, true).await.entity
            && entity.serialized_state.as_deref() == Some(state)
        {
            return entity;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_an_entity_that_they_create_whatever_the_case_of_its_name() {
    let mut served = serve().await;
    assert_eq!(look(&mut served, "@counter@a", true).await, wire::GetEntityResponse::default());
    for amount in [40, 2] {
        soon(served.client.signal_entity(add("@Counter@a", amount))).await.unwrap();
    }
    let entity = soon(until_state(&mut served, "@counter@a", "42")).await;
    assert_eq!((entity.instance_id.as_str(), entity.locked_by), ("@counter@a", None));
    let without = look(&mut served, "@counter@a", false).await;
    assert!(without.exists && without.entity.unwrap().serialized_state.is_none());
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_for_later_does_not_make_the_entity_exist_and_one_for_the_past_is_for_now() {
    let mut served = serve().await;
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let later = wire::SignalEntityRequest { scheduled_time: at(221_845_000_000), ..add("@counter@b", 1) };
    soon(served.client.signal_entity(later)).await.unwrap();
    assert!(!look(&mut served, "@counter@b", true).await.exists);
    let past = wire::SignalEntityRequest { scheduled_time: at(0), ..add("@counter@c", 1) };
    soon(served.client.signal_entity(past)).await.unwrap();
    soon(until_state(&mut served, "@counter@c", "1")).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entities_are_queried_page_by_page_and_there_is_nothing_to_clean() {
    let mut served = serve().await;
    for id in ["@counter@a", "@counter@b", "@counter@c"] {
        soon(served.client.signal_entity(add(id, 1))).await.unwrap();
        soon(until_state(&mut served, id, "1")).await;
    }
    let mut found = Vec::new();
    let mut continuation_token = None;
    loop {
        let query = wire::EntityQuery {
            instance_id_starts_with: Some("@counter@".to_owned()),
            include_state: true,
            page_size: Some(2),
            continuation_token: continuation_token.clone(),
            ..Default::default()
        };
        let request = wire::QueryEntitiesRequest { query: Some(query) };
        let page = soon(served.client.query_entities(request)).await.unwrap().into_inner();
        found.extend(page.entities.into_iter().map(|entity| (entity.instance_id, entity.serialized_state)));
        assert!(page.continuation_token.is_none() || page.continuation_token != continuation_token);
        continuation_token = page.continuation_token;
        if continuation_token.is_none() {
            break;
        }
    }
    let expected = ["a", "b", "c"].map(|key| (format!("@counter@{key}"), Some("1".to_owned())));
    assert_eq!(found, expected);
    let clean = wire::CleanEntityStorageRequest {
        remove_empty_entities: true,
        release_orphaned_locks: true,
        continuation_token: None,
    };
    let cleaned = soon(served.client.clean_entity_storage(clean)).await.unwrap().into_inner();
    assert_eq!(cleaned, wire::CleanEntityStorageResponse::default());
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_not_those_of_entities_are_refused() {
    let mut served = serve().await;
    let long = format!("@counter@{}", "k".repeat(92));
    for (id, word) in [("counter", "@name@key"), ("", "@name@key"), (long.as_str(), "length")] {
        let outcome = soon(served.client.signal_entity(add(id, 1))).await;
        assert_refused(outcome, Code::InvalidArgument, &[word]);
        let request = wire::GetEntityRequest { instance_id: id.to_owned(), include_state: true };
        assert_refused(soon(served.client.get_entity(request)).await, Code::InvalidArgument, &[word]);
    }
    let nameless = wire::SignalEntityRequest { name: String::new(), ..add("@counter@a", 1) };
    assert_refused(soon(served.client.signal_entity(nameless)).await, Code::InvalidArgument, &["name"]);
    served.stop().await;
}

async fn query(served: &mut Served, query: wire::EntityQuery) -> wire::QueryEntitiesResponse {
    let request = wire::QueryEntitiesRequest { query: Some(query) };
    soon(served.client.query_entities(request)).await.unwrap().into_inner()
}

fn ids(page: &wire::QueryEntitiesResponse) -> Vec<&str> {
    page.entities.iter().map(|entity| entity.instance_id.as_str()).collect()
}

/// Asks until the entity is locked by this instance, or free.
async fn until_locked_by(served: &mut Served, id: &str, owner: Option<&str>) {
    loop {
        let entity = look(served, id, false).await.entity;
        if entity.and_then(|entity| entity.locked_by).as_deref() == owner {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_page_of_entities_comes_without_a_token_also_when_it_is_full() {
    let mut served = serve().await;
    for id in ["@counter@a", "@counter@b"] {
        soon(served.client.signal_entity(add(id, 1))).await.unwrap();
        soon(until_state(&mut served, id, "1")).await;
    }
    for (page_size, expected) in [(None, 2), (Some(0), 2), (Some(2), 2), (Some(1), 1), (Some(i32::MAX), 2)] {
        let page = query(&mut served, wire::EntityQuery { page_size, ..Default::default() }).await;
        assert_eq!((page.entities.len(), page.continuation_token.is_some()), (expected, expected == 1));
    }
    for (token, page_size, word) in [
        (Some("0"), 1, "continuationToken"),
        (Some("order-1"), 1, "continuationToken"),
        (None, -1, "pageSize"),
    ] {
        let continuation_token = token.map(str::to_owned);
        let query =
            wire::EntityQuery { continuation_token, page_size: Some(page_size), ..Default::default() };
        let request = wire::QueryEntitiesRequest { query: Some(query) };
        assert_refused(soon(served.client.query_entities(request)).await, Code::InvalidArgument, &[word]);
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entities_are_found_by_prefix_whatever_the_case_of_the_name_and_by_the_time_of_their_change() {
    let mut served = serve().await;
    for id in ["@counter@a1", "@counter@a2", "@counter@b"] {
        soon(served.client.signal_entity(add(id, 1))).await.unwrap();
        soon(until_state(&mut served, id, "1")).await;
    }
    for (prefix, expected) in [
        ("", &["@counter@a1", "@counter@a2", "@counter@b"][..]),
        ("@coun", &["@counter@a1", "@counter@a2", "@counter@b"]),
        ("@Counter@a", &["@counter@a1", "@counter@a2"]),
        ("@counter@A", &[]),
        ("@other@", &[]),
    ] {
        let wanted =
            wire::EntityQuery { instance_id_starts_with: Some(prefix.to_owned()), ..Default::default() };
        let page = query(&mut served, wanted).await;
        assert_eq!(ids(&page), expected, "{prefix}");
        assert!(page.entities.iter().all(|entity| entity.serialized_state.is_none()));
    }
    let modified = look(&mut served, "@counter@b", false).await.entity.unwrap().last_modified_time;
    let from = wire::EntityQuery { last_modified_from: modified, ..Default::default() };
    assert_eq!(ids(&query(&mut served, from).await), ["@counter@b"]);
    let to = wire::EntityQuery { last_modified_to: modified, ..Default::default() };
    assert_eq!(ids(&query(&mut served, to).await), ["@counter@a1", "@counter@a2"]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_shows_its_owner_and_an_entity_without_state_shows_only_if_it_is_asked_for() {
    let mut served = serve().await;
    served.start("locker", "owner").await;
    soon(until_locked_by(&mut served, "@counter@locked", Some("owner"))).await;
    for include_transient in [false, true] {
        let page = query(&mut served, wire::EntityQuery { include_transient, ..Default::default() }).await;
        assert_eq!(page.entities.len(), usize::from(include_transient));
    }
    // It would leave a lock behind that nobody gives back.
    let request = wire::SkipGracefulOrchestrationTerminationsRequest {
        instance_batch: Some(wire::InstanceBatch { instance_ids: vec!["owner".to_owned()] }),
        reason: None,
    };
    let left =
        soon(served.client.skip_graceful_orchestration_terminations(request)).await.unwrap().into_inner();
    assert_eq!(left.unterminated_instance_ids, ["owner"]);
    served.raise("owner", "\"x\"").await.unwrap();
    soon(until_locked_by(&mut served, "@counter@locked", None)).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_replaced_gives_its_locks_back() {
    let mut served = serve().await;
    served.start("locker", "owner").await;
    soon(until_locked_by(&mut served, "@counter@locked", Some("owner"))).await;
    soon(served.client.signal_entity(add("@counter@locked", 5))).await.unwrap();
    let live = [wire::OrchestrationStatus::Running, wire::OrchestrationStatus::Terminated];
    let policy = wire::OrchestrationIdReusePolicy { replaceable_status: live.map(Into::into).to_vec() };
    let request = wire::CreateInstanceRequest {
        orchestration_id_reuse_policy: Some(policy),
        ..crate::support::start("echo", "owner")
    };
    soon(served.client.start_instance(request)).await.unwrap();
    let entity = soon(until_state(&mut served, "@counter@locked", "5")).await;
    assert_eq!(entity.locked_by, None);
    served.stop().await;
}
