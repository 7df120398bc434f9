//! Queries, page by page; counts; purges by filter.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use steadfast_core::{InstanceFilter, OrchestrationStatus, Payload};
use steadfast_engine::{Client, ClientError, HubOptions, InstanceQuery};
use steadfast_store::MemoryStore;

use crate::support::{STEPS, WAITER, echo, end_of, hub, hub_on, soon, steps, stop, waiter, with_id};

fn all(page_size: usize) -> InstanceQuery {
    InstanceQuery { page_size, ..InstanceQuery::default() }
}

fn of_status(status: OrchestrationStatus) -> InstanceFilter {
    InstanceFilter { statuses: vec![status], ..InstanceFilter::default() }
}

/// All pages, as ids with the number of times that each was shown.
async fn show_all(client: &Client, query: &InstanceQuery) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut query = query.clone();
    loop {
        let page = soon("a page", client.query(&query)).await.unwrap();
        assert!(page.instances.len() <= query.page_size.max(100));
        assert!(page.instances.is_sorted_by(|left, right| left.instance < right.instance));
        assert!(page.continuation.is_none() || page.instances.len() == query.page_size);
        for state in page.instances {
            *found.entry(state.instance.as_str().to_owned()).or_default() += 1;
        }
        let before = std::mem::replace(&mut query.continuation, page.continuation);
        if query.continuation.is_none() {
            return found;
        }
        assert_ne!(query.continuation, before, "a token came twice");
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
    assert_eq!(show_all(&client, &all(7)).await.len(), 40);
    assert_eq!(show_all(&client, &all(8)).await.len(), 40, "the last page is full");
    let with = |filter| InstanceQuery { filter, ..all(7) };
    let open = InstanceFilter { id_prefix: "open-".to_owned(), ..InstanceFilter::default() };
    let found = show_all(&client, &with(open)).await;
    assert_eq!(found.len(), 20);
    assert!(found.keys().all(|id| id.starts_with("open-")));
    assert_eq!(show_all(&client, &with(of_status(OrchestrationStatus::Running))).await, found);
    let page = client.query(&all(5)).await.unwrap();
    let token = page.continuation.unwrap().to_string();
    let next = client.query(&InstanceQuery { continuation: token.parse().ok(), ..all(5) }).await.unwrap();
    assert_eq!(page.instances[4].instance.as_str(), "done-04");
    assert_eq!(next.instances[0].instance.as_str(), "done-05");
    let nothing = InstanceFilter { id_prefix: "none".to_owned(), ..InstanceFilter::default() };
    let page = client.query(&with(nothing)).await.unwrap();
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
        let found = show_all(&client, &all(8)).await;
        for id in &lasting {
            assert_eq!(found.get(id), Some(&1), "{id}");
        }
    }
    done.send_replace(true);
    soon("the end of the changes", churn).await.unwrap();
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_are_left_out_on_request() {
    let hub = hub(2).register(steps()).register(echo()).start().await.unwrap();
    let client = hub.client();
    client.start_with(STEPS, 2, with_id("i")).await.unwrap();
    end_of(&client, "i").await;
    let with = client.query(&all(1)).await.unwrap().instances.remove(0);
    assert!(with.input == Payload::encode(&2).unwrap() && with.output.is_some());
    let query = InstanceQuery { omit_payloads: true, ..all(1) };
    let without = client.query(&query).await.unwrap().instances.remove(0);
    assert!(without.input == Payload::null() && without.output.is_none());
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_just_been_acknowledged_is_in_the_next_page_and_in_the_counts() {
    let hub = hub(3).register(waiter()).start().await.unwrap();
    let client = hub.client();
    for n in 0..30_u64 {
        let id = format!("{n:02}");
        client.start_with(WAITER, (), with_id(&id)).await.unwrap();
        assert_eq!(show_all(&client, &all(9)).await.len() as u64, n + 1);
        assert_eq!(client.counts().await.unwrap().orchestrations(), n + 1);
        if n % 3 == 0 {
            client.terminate(&id, "enough", false).await.unwrap();
            end_of(&client, &id).await;
            let query = InstanceQuery {
                filter: of_status(OrchestrationStatus::Terminated),
                ..InstanceQuery::default()
            };
            assert_eq!(show_all(&client, &query).await.len() as u64, n / 3 + 1);
            let counts = client.counts().await.unwrap();
            assert_eq!(counts.of(OrchestrationStatus::Terminated), n / 3 + 1);
        }
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_the_same_after_a_restart() {
    let store = MemoryStore::new(3);
    let builder = || hub_on(&store).register(waiter()).register(steps()).register(echo());
    let hub = builder().start().await.unwrap();
    let client = hub.client();
    for n in 0..12 {
        client.start_with(WAITER, (), with_id(&format!("open-{n}"))).await.unwrap();
        client.start_with(STEPS, 1, with_id(&format!("done-{n}"))).await.unwrap();
        end_of(&client, &format!("done-{n}")).await;
        soon("the start", client.wait_for_start(&format!("open-{n}"), None)).await.unwrap();
    }
    client.purge("done-3").await.unwrap();
    client.suspend("open-1", "a while").await.unwrap();
    let suspended = InstanceQuery { filter: of_status(OrchestrationStatus::Suspended), ..all(1) };
    let look = async {
        while client.query(&suspended).await.unwrap().instances.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon("the suspension", look).await;
    let before = client.counts().await.unwrap();
    let of = |status| before.of(status);
    use OrchestrationStatus::{Completed, Running, Suspended};
    assert_eq!((of(Completed), of(Running), of(Suspended)), (11, 11, 1));
    drop(hub);
    let hub = builder().start().await.unwrap();
    assert_eq!(hub.client().counts().await.unwrap(), before);
    stop(hub).await;
    let hub = builder().start().await.unwrap();
    assert_eq!(hub.client().counts().await.unwrap(), before);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_by_filter_stops_at_its_time_budget_and_goes_on_when_called_again() {
    let hub = hub(3).register(waiter()).register(steps()).register(echo()).start().await.unwrap();
    let client = hub.client();
    for n in 0..150 {
        client.start_with(STEPS, 1, with_id(&format!("done-{n:03}"))).await.unwrap();
    }
    for n in 0..10 {
        client.start_with(WAITER, (), with_id(&format!("open-{n}"))).await.unwrap();
    }
    for n in 0..150 {
        end_of(&client, &format!("done-{n:03}")).await;
    }
    let running = client.purge_matching(&of_status(OrchestrationStatus::Running), None).await.unwrap();
    assert_eq!((running.deleted, running.complete), (0, true), "only what has ended is removed");
    let some = InstanceFilter { id_prefix: "done-00".into(), ..InstanceFilter::default() };
    let result = client.purge_matching(&some, None).await.unwrap();
    assert_eq!((result.deleted, result.complete), (10, true));
    let everything = InstanceFilter::default();
    let mut deleted = 0;
    let mut calls = 0;
    loop {
        let result = soon("a part", client.purge_matching(&everything, Some(Duration::ZERO))).await.unwrap();
        assert!(result.deleted > 0, "each call gets on");
        deleted += result.deleted;
        calls += 1;
        if result.complete {
            break;
        }
    }
    assert_eq!((deleted, calls), (140, 3));
    assert_eq!(show_all(&client, &all(100)).await.len(), 10);
    assert_eq!(client.counts().await.unwrap().orchestrations(), 10);
    assert!(matches!(client.state("done-100").await, Err(ClientError::InstanceNotFound { .. })));
    stop(hub).await;
}
