//! Group L: entities, signals, calls and locks.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::prelude::*;
use steadfast::{
    ClientError, Clock, EntityMetadata, EntityQuery, EntityStartOptions, InstanceQuery, failure::kinds,
};

use crate::support::{end_of, hub, hub_with_clock, soon, stop, with_and_without_sessions, with_id};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Counter {
    sum: i64,
}

#[entity]
impl Counter {
    fn add(&mut self, amount: i64) -> i64 {
        self.sum += amount;
        self.sum
    }

    fn get(&self) -> i64 {
        self.sum
    }

    fn add_and_fail(&mut self, ctx: &EntityContext, amount: i64) -> Result<i64> {
        self.sum += amount;
        ctx.signal(Counter::at("witness").add(1))?;
        ctx.start_with(
            forward,
            "started by what failed".into(),
            EntityStartOptions { instance_id: Some("never".into()), ..EntityStartOptions::default() },
        )?;
        Err(Error::new("app::Refused", "adds nothing after all"))
    }

    fn add_and_panic(&mut self, amount: i64) -> i64 {
        self.sum += amount;
        panic!("no more of this")
    }

    fn pass_on(&mut self, ctx: &EntityContext, amount: i64) -> Result<()> {
        self.sum -= amount;
        let id = format!("{}-started", ctx.id().key());
        let options = EntityStartOptions { instance_id: Some(id), ..EntityStartOptions::default() };
        ctx.signal(Counter::at("receiver").add(amount))?;
        ctx.start_with(forward, "hello".into(), options)?;
        Ok(())
    }

    async fn add_after_waiting(&mut self, ctx: &EntityContext, amount: i64) -> Result<i64> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.sum += amount;
        ctx.signal(Counter::at("witness").add(amount))?;
        Ok(self.sum)
    }

    fn forget(&mut self, ctx: &EntityContext) {
        ctx.delete_state();
    }

    fn caller(&self, ctx: &EntityContext) -> Option<String> {
        ctx.caller().map(|id| id.to_string())
    }
}

#[orchestration]
async fn forward(_ctx: OrchestrationContext, text: String) -> Result<String> {
    Ok(text)
}

#[orchestration]
async fn call_add(ctx: OrchestrationContext, key: String, amount: i64) -> Result<i64> {
    Ok(ctx.call_entity(Counter::at(key).add(amount)).await?)
}

#[orchestration]
async fn call_by_name(ctx: OrchestrationContext, entity: String, operation: String) -> Result<String> {
    let call = EntityCall::<serde_json::Value>::new(EntityId::parse(entity)?, operation.as_str(), 5);
    Ok(match ctx.call_entity(call).await {
        Ok(value) => value.to_string(),
        Err(error) => format!("{}: {}", error.details.error_type, error.details.message),
    })
}

async fn until_known(
    client: &steadfast::Client,
    key: &str,
    wished: impl Fn(Option<&EntityMetadata>) -> bool,
) -> Option<EntityMetadata> {
    let look = async {
        loop {
            let known = client.entity(Counter::at(key)).await.unwrap();
            if wished(known.as_ref()) {
                return known;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("the wished entity", look).await
}

with_and_without_sessions! {
    async fn signals_are_applied_in_the_order_in_which_they_were_accepted(sessions: bool) {
        let log = steadfast::entity::<Vec<u32>>("Log")
            .operation("append", |log: &mut Vec<u32>, _: &EntityContext, n: u32| { log.push(n); Ok::<_, Error>(()) })
            .query("all", |log: &Vec<u32>, _: &EntityContext, _: u32| Ok::<_, Error>(log.clone()));
        let hub = hub(sessions).register(log).register(call_by_name).start().await.unwrap();
        let client = hub.client();
        let id = EntityId::new("LOG", "a").unwrap();
        for n in 0..20u32 {
            client.signal_entity(EntityCall::<()>::new(&id, "Append", n)).await.unwrap();
        }
        let read = client.start(call_by_name, ("@log@a".into(), "ALL".into())).await.unwrap();
        let expected = format!("{:?}", (0..20).collect::<Vec<_>>()).replace(' ', "");
        assert_eq!(soon("the answer", read.result()).await.unwrap(), expected);
        stop(hub).await;
    }

    async fn a_call_returns_what_the_operation_returned(sessions: bool) {
        let hub = hub(sessions).register(Counter::entity()).register(call_add).start().await.unwrap();
        let client = hub.client();
        for expected in [5, 10] {
            let run = client.start(call_add, ("a".into(), 5)).await.unwrap();
            assert_eq!(soon("the answer", run.result()).await.unwrap(), expected);
        }
        assert_eq!(client.entity_state::<Counter>(Counter::at("a")).await.unwrap().unwrap().sum, 10);
        stop(hub).await;
    }

    async fn an_operation_that_fails_or_panics_leaves_no_trace_and_the_batch_goes_on(sessions: bool) {
        let hub = hub(sessions).register(Counter::entity()).register(call_by_name).register(forward).start().await.unwrap();
        let client = hub.client();
        client.signal_entity(Counter::at("a").add(1)).await.unwrap();
        client.signal_entity(Counter::at("a").add_and_fail(10)).await.unwrap();
        client.signal_entity(Counter::at("a").add_and_panic(100)).await.unwrap();
        client.signal_entity(Counter::at("a").add(1000)).await.unwrap();
        let cases = [
            ("add_and_fail", "app::Refused: adds nothing after all"),
            ("add_and_panic", "Panic: no more of this"),
            ("get", "InvalidPayload"),
            ("add", "1006"),
            ("nothing", "EntityOperationNotFound: entity 'counter' has no operation 'nothing'"),
        ];
        for (operation, expected) in cases {
            let run = client.start(call_by_name, ("@counter@a".into(), operation.into())).await.unwrap();
            let answer = soon("the answer", run.result()).await.unwrap();
            assert!(answer.starts_with(expected), "{operation}: {answer}");
        }
        assert!(client.entity(Counter::at("witness")).await.unwrap().is_none());
        assert!(matches!(client.state("never").await, Err(ClientError::InstanceNotFound { .. })));
        stop(hub).await;
    }

    async fn an_entity_that_is_not_registered_fails_each_operation_and_does_not_exist(sessions: bool) {
        let hub = hub(sessions).register(call_by_name).start().await.unwrap();
        let client = hub.client();
        client.signal_entity(Counter::at("a").add(1)).await.unwrap();
        let run = client.start(call_by_name, ("@counter@a".into(), "get".into())).await.unwrap();
        assert!(soon("the answer", run.result()).await.unwrap().starts_with(kinds::ENTITY_NOT_REGISTERED));
        assert!(client.entity(Counter::at("a")).await.unwrap().is_none());
        stop(hub).await;
    }

    async fn an_entity_signals_entities_and_starts_orchestrations(sessions: bool) {
        let hub = hub(sessions).register(Counter::entity()).register(forward).start().await.unwrap();
        let client = hub.client();
        client.signal_entity(Counter::at("giver").pass_on(7)).await.unwrap();
        until_known(&client, "receiver", |known| known.is_some()).await;
        assert_eq!(client.entity_state::<Counter>(Counter::at("receiver")).await.unwrap().unwrap().sum, 7);
        until_exists(&client, "giver-started").await;
        assert_eq!(end_of(&client, "giver-started").await.output.unwrap().as_str(), "\"hello\"");
        stop(hub).await;
    }

    async fn an_operation_may_wait_for_something_real_and_others_wait_for_it(sessions: bool) {
        let hub = hub(sessions).register(Counter::entity()).register(call_by_name).start().await.unwrap();
        let client = hub.client();
        for amount in [1, 10] {
            client.signal_entity(Counter::at("a").add_after_waiting(amount)).await.unwrap();
            client.signal_entity(Counter::at("a").add(100 * amount)).await.unwrap();
        }
        let run = client.start(call_by_name, ("@counter@a".into(), "add_after_waiting".into())).await.unwrap();
        assert_eq!(soon("the answer", run.result()).await.unwrap(), "1116");
        until_known(&client, "witness", |known| known.is_some_and(|it| it.state.as_ref().unwrap().as_str().contains("16"))).await;
        stop(hub).await;
    }

    async fn a_deleted_entity_is_gone_and_begins_anew(sessions: bool) {
        let hub = hub(sessions).register(Counter::entity()).register(call_by_name).register(call_add).start().await.unwrap();
        let client = hub.client();
        for operation in [Counter::at("a").forget(), EntityCall::new(Counter::at("a"), "DELETE", ())] {
            let run = client.start(call_add, ("a".into(), 5)).await.unwrap();
            assert_eq!(soon("the answer", run.result()).await.unwrap(), 5);
            client.signal_entity(operation).await.unwrap();
            until_known(&client, "a", |known| known.is_none()).await;
        }
        let page = client.query_entities(&EntityQuery { include_transient: true, ..EntityQuery::default() }).await.unwrap();
        assert!(page.entities.is_empty(), "{page:?}");
        stop(hub).await;
    }

    async fn a_delayed_signal_is_delivered_when_it_is_due_and_the_entity_does_not_exist_before(sessions: bool) {
        let (builder, clock) = hub_with_clock(sessions);
        let hub = builder.register(Counter::entity()).register(call_by_name).start().await.unwrap();
        let client = hub.client();
        let in_days = |days: u64| clock.now().after(Duration::from_secs(days * 24 * 3600));
        let (later, sooner) = (in_days(400), in_days(10));
        client.signal_entity_at(Counter::at("a").add(1000), later).await.unwrap();
        client.signal_entity_at(Counter::at("a").add(1), sooner).await.unwrap();
        assert!(client.entity(Counter::at("a")).await.unwrap().is_none());
        clock.advance(Duration::from_secs(11 * 24 * 3600));
        until_known(&client, "a", |known| known.is_some()).await;
        assert_eq!(client.entity_state::<Counter>(Counter::at("a")).await.unwrap().unwrap().sum, 1);
        clock.advance(Duration::from_secs(500 * 24 * 3600));
        until_known(&client, "a", |known| known.is_some_and(|it| it.state.as_ref().unwrap().as_str().contains("1001"))).await;
        stop(hub).await;
    }
}

/// An orchestration that something else starts may not be there yet.
async fn until_exists(client: &steadfast::Client, id: &str) {
    let look = async {
        while client.state(id).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon("the start", look).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_of_an_operation_is_known_to_it() {
    let hub = hub(true).register(Counter::entity()).register(ask_caller).start().await.unwrap();
    let run = hub.client().start_with(ask_caller, (), with_id("asker")).await.unwrap();
    assert_eq!(soon("the answer", run.result()).await.unwrap(), Some("asker".to_owned()));
    stop(hub).await;
}

#[orchestration]
async fn ask_caller(ctx: OrchestrationContext) -> Result<Option<String>> {
    Ok(ctx.call_entity(Counter::at("a").caller()).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_entities_are_no_ids_of_orchestrations_and_the_other_way_round() {
    let hub = hub(true).register(Counter::entity()).register(forward).start().await.unwrap();
    let client = hub.client();
    let refused = client.start_with(forward, "x".into(), with_id("@counter@a")).await;
    assert!(matches!(refused, Err(ClientError::InvalidInstanceId(_))), "{:?}", refused.err());
    let refused = client.signal_entity(Counter::at("x".repeat(600)).add(1)).await;
    assert!(matches!(refused, Err(ClientError::Entity(_))), "{refused:?}");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entities_are_queried_page_by_page_and_are_not_listed_among_orchestrations() {
    let hub = hub(true).register(Counter::entity()).register(forward).start().await.unwrap();
    let client = hub.client();
    for n in 0..25 {
        client.signal_entity(Counter::at(format!("k{n:02}")).add(n)).await.unwrap();
    }
    soon("an end", client.start_with(forward, "x".into(), with_id("plain")).await.unwrap().result())
        .await
        .unwrap();
    for n in 0..25 {
        until_known(&client, &format!("k{n:02}"), |known| known.is_some()).await;
    }
    let mut query = EntityQuery { id_prefix: "@counter@k1".into(), page_size: 4, ..EntityQuery::default() };
    let mut keys = Vec::new();
    loop {
        let page = client.query_entities(&query).await.unwrap();
        assert!(
            page.entities.len() <= 4
                && page.entities.iter().all(|known| known.exists && known.state.is_none())
        );
        keys.extend(page.entities.into_iter().map(|known| known.id.key().to_owned()));
        query.continuation = page.continuation;
        if query.continuation.is_none() {
            break;
        }
    }
    assert_eq!(keys, (10..20).map(|n| format!("k{n}")).collect::<Vec<_>>());
    let future =
        EntityQuery { modified_from: Some(Timestamp::from_micros(i64::MAX)), ..EntityQuery::default() };
    assert!(client.query_entities(&future).await.unwrap().entities.is_empty());
    let with_state = EntityQuery { include_state: true, ..EntityQuery::default() };
    let all = client.query_entities(&with_state).await.unwrap().entities;
    assert!(all.len() == 25 && all.iter().all(|known| known.state.is_some()));
    let listed = client.query(&InstanceQuery::default()).await.unwrap().instances;
    assert_eq!(listed.iter().map(|state| state.instance.as_str()).collect::<Vec<_>>(), ["plain"]);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_may_block_its_thread_holds_up_nobody_else() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (began, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let wait = std::sync::Mutex::new(wait);
    let blocks = steadfast::entity::<u32>("blocks")
        .operation("block", move |count: &mut u32, _: &EntityContext, (): ()| {
            began.send(()).unwrap();
            wait.lock().unwrap().recv().unwrap();
            *count += 1;
            Ok::<_, Error>(*count)
        })
        .blocking();
    let asks = steadfast::orchestration("asks", |ctx: OrchestrationContext, key: String| async move {
        let id = EntityId::new("blocks", key)?;
        Ok::<_, Error>(ctx.call_entity(EntityCall::<u32>::new(&id, "block", ())).await?)
    });
    let handle = asks.handle();
    let hub = hub(true)
        .partitions(1)
        .register(blocks)
        .register(asks)
        .register(Counter::entity())
        .start()
        .await
        .unwrap();
    let client = hub.client();
    let run = client.start(handle, "a".to_owned()).await.unwrap();
    soon("the operation", has_begun.recv()).await.unwrap();
    // Everything is in the one partition whose entity blocks.
    client.signal_entity(Counter::at("b").add(5)).await.unwrap();
    let other = async {
        while client.entity_state::<Counter>(Counter::at("b")).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    soon("the other entity", other).await;
    go.send(()).unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), 1);
    stop(hub).await;
}
