//! Listing instances, page by page.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use steadfast_core::OrchestrationStatus;
use steadfast_engine::{Client, HubOptions, ListQuery};
use steadfast_store::MemoryStore;

use crate::support::{STEPS, WAITER, echo, end_of, hub, hub_on, soon, steps, stop, waiter, with_id};

/// All pages, as ids with the number of times that each was listed.
async fn list_all(client: &Client, query: &ListQuery) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut query = query.clone();
    loop {
        let page = soon("a page", client.list(&query)).await.unwrap();
        assert!(page.instances.len() <= query.page_size.max(100));
        assert!(page.instances.is_sorted_by(|left, right| left.instance < right.instance));
        for state in page.instances {
            *found.entry(state.instance.as_str().to_owned()).or_default() += 1;
        }
        query.continuation = page.continuation;
        if query.continuation.is_none() {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_in_order_and_filtered_by_prefix_and_status() {
    let hub = hub(3).register(waiter()).register(steps()).register(echo()).start().await.unwrap();
    let client = hub.client();
    for n in 0..20 {
        client.start_with(STEPS, 1, with_id(&format!("done-{n:02}"))).await.unwrap();
        client.start_with(WAITER, (), with_id(&format!("open-{n:02}"))).await.unwrap();
    }
    for n in 0..20 {
        end_of(&client, &format!("done-{n:02}")).await;
        soon("the start", client.wait_for_start(&format!("open-{n:02}"), None)).await.unwrap();
    }
    let all = ListQuery { page_size: 7, ..ListQuery::default() };
    assert_eq!(list_all(&client, &all).await.len(), 40);
    let open = ListQuery { id_prefix: "open-".to_owned(), page_size: 7, ..ListQuery::default() };
    let found = list_all(&client, &open).await;
    assert_eq!(found.len(), 20);
    assert!(found.keys().all(|id| id.starts_with("open-")));
    let running =
        ListQuery { statuses: vec![OrchestrationStatus::Running], page_size: 3, ..ListQuery::default() };
    assert_eq!(list_all(&client, &running).await, found);
    let first = client.list(&ListQuery { page_size: 5, ..ListQuery::default() }).await.unwrap();
    assert_eq!(first.continuation.unwrap().as_str(), "done-04");
    let nothing = ListQuery { id_prefix: "none".to_owned(), ..ListQuery::default() };
    let page = client.list(&nothing).await.unwrap();
    assert!(page.instances.is_empty() && page.continuation.is_none());
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_throughout_is_listed_once_while_everything_else_changes() {
    let store = MemoryStore::new(4);
    // Materialisations run all the time, so that instances move from memory into the store under the reader.
    let options = HubOptions {
        materialise_interval: std::time::Duration::from_millis(1),
        session_idle_timeout: std::time::Duration::ZERO,
        ..HubOptions::default()
    };
    let builder = hub_on(&store).register(waiter()).register(steps()).register(echo());
    let hub = builder.options(options).start().await.unwrap();
    let client = hub.client();
    let lasting: Vec<_> = (0..60).map(|n| format!("{n:02}-lasting")).collect();
    join_all(lasting.iter().map(|id| client.start_with(WAITER, (), with_id(id)))).await;
    let (done, mut is_done) = tokio::sync::watch::channel(false);
    let churn = tokio::spawn({
        let client = client.clone();
        async move {
            let mut round = 0_usize;
            while !*is_done.borrow_and_update() {
                round += 1;
                // Come, end and go, between the ids of those that stay.
                let id = format!("{:02}-passing", round % 60);
                client.start_with(STEPS, 1, with_id(&id)).await.unwrap();
                client.wait_for_completion(&id, None).await.unwrap();
                client.purge(&id).await.unwrap();
                let lasting = format!("{:02}-lasting", round % 60);
                client.suspend(&lasting, "a change").await.unwrap();
                client.resume(&lasting, "another").await.unwrap();
            }
        }
    });
    for _ in 0..15 {
        let found = list_all(&client, &ListQuery { page_size: 8, ..ListQuery::default() }).await;
        for id in &lasting {
            assert_eq!(found.get(id), Some(&1), "{id}");
        }
    }
    done.send_replace(true);
    soon("the end of the changes", churn).await.unwrap();
    stop(hub).await;
}
