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
