//! Entities, and their locks.

use steadfast_core::entity::EntityId;
use steadfast_core::model::{
    EntityBatchCall, EntityBatchFuture, EntityCall, EntityContext, EntityDefinition, EntityMiddleware,
    EntityNext, OrchestrationContext, entity, orchestration,
};
use steadfast_core::{Error, FailureDetails, failure};
use steadfast_engine::EntityQuery;

use crate::support::{Over, Served, over_each_protocol, soon};

over_each_protocol!(signals_calls_and_failures_of_an_entity, transfers_between_locked_entities_lose_nothing,);

fn account() -> EntityDefinition<i64> {
    entity::<i64>("account")
        .operation("add", |balance: &mut i64, _: &EntityContext, amount: i64| {
            if *balance + amount < 0 {
                return Err(Error::new("app::Overdrawn", "not enough"));
            }
            *balance += amount;
            Ok(*balance)
        })
        .operation("panic", |_: &mut i64, _: &EntityContext, (): ()| -> Result<(), Error> {
            panic!("the entity panics")
        })
}

/// The worker's own middleware: it refuses sevens.
struct Guard;

impl EntityMiddleware for Guard {
    fn call<'a>(&'a self, mut call: EntityBatchCall, next: EntityNext<'a>) -> EntityBatchFuture<'a> {
        for at in 0..call.operations().len() {
            if call.operations()[at].input.as_str() == "7" {
                call.refuse(at, FailureDetails::new("app::Seven", "not here"));
            }
        }
        next.run(call)
    }
}

fn id(key: &str) -> EntityId {
    EntityId::new("account", key).unwrap()
}

fn add(key: &str, amount: i64) -> EntityCall<i64> {
    EntityCall::new(id(key), "add", amount)
}

async fn signals_calls_and_failures_of_an_entity(over: Over) {
    let mut served = Served::start().await;
    let code = orchestration("asks", |ctx: OrchestrationContext, ()| async move {
        ctx.signal_entity(add("a", 5))?;
        let balance = ctx.call_entity(add("a", 10)).await?;
        let overdrawn = ctx.call_entity(add("a", -1000)).await.unwrap_err();
        let panicked = ctx.call_entity(EntityCall::<()>::new(id("a"), "panic", ())).await.unwrap_err();
        let types = [overdrawn, panicked].map(|error| error.details.error_type.to_string());
        Ok::<_, Error>((balance, types, ctx.call_entity(add("a", 1)).await?))
    });
    let handle = code.handle();
    // On threads that it may block.
    let account = account().blocking();
    let worker = served.worker(over).register(code).register(account).entity_middleware(Guard);
    let worker = worker.start().await.unwrap();
    let client = served.client(over).await;
    client.signal_entity(add("a", 100)).await.unwrap();
    client.signal_entity(add("a", 7)).await.unwrap();
    let run = client.start(handle, ()).await.unwrap();
    let (balance, types, last) = soon(run.result()).await.unwrap();
    assert_eq!((balance, last), (115, 116));
    assert_eq!(types, ["app::Overdrawn", failure::kinds::PANIC]);
    assert_eq!(client.entity_state::<i64>(id("a")).await.unwrap(), Some(116));
    assert_eq!(client.entity(id("other")).await.unwrap(), None);
    let query = EntityQuery { include_state: true, ..EntityQuery::default() };
    let page = client.query_entities(&query).await.unwrap();
    assert_eq!(page.entities.iter().map(|it| it.id.clone()).collect::<Vec<_>>(), [id("a")]);
    assert_eq!(page.entities[0].state.as_ref().unwrap().as_str(), "116");
    worker.stop().await;
    served.stop().await;
}

async fn transfers_between_locked_entities_lose_nothing(over: Over) {
    let mut served = Served::start().await;
    let code =
        orchestration("transfer", |ctx: OrchestrationContext, (from, to): (String, String)| async move {
            let section = ctx.lock_entities([id(&from), id(&to)]).await?;
            let outcome = match ctx.call_entity(add(&from, -1)).await {
                Ok(_) => ctx.call_entity(add(&to, 1)).await.map(|_| true)?,
                Err(_) => false,
            };
            section.release();
            Ok::<_, Error>(outcome)
        });
    let handle = code.handle();
    let total = orchestration("total", |ctx: OrchestrationContext, ()| async move {
        let _section = ctx.lock_entities(["a", "b", "c"].map(id)).await?;
        let mut sum = 0;
        for key in ["a", "b", "c"] {
            sum += ctx.call_entity(add(key, 0)).await?;
        }
        Ok::<_, Error>(sum)
    });
    let total_handle = total.handle();
    let worker =
        served.worker(over).register(code).register(total).register(account()).start().await.unwrap();
    let client = served.client(over).await;
    for key in ["a", "b", "c"] {
        client.signal_entity(add(key, 10)).await.unwrap();
    }
    let mut runs = Vec::new();
    for nth in 0..30 {
        let keys = ["a", "b", "c"];
        let (from, to) = (keys[nth % 3].to_owned(), keys[(nth + 1 + nth / 3 % 2) % 3].to_owned());
        let handle = steadfast_core::model::OrchestrationName::<(String, String), bool>::dynamic(
            steadfast_core::model::OrchestrationHandle::name(&handle),
        );
        runs.push(client.start(handle, (from, to)).await.unwrap());
    }
    let sum = soon(client.start(total_handle, ()).await.unwrap().result()).await.unwrap();
    assert_eq!(sum, 30);
    for run in runs {
        soon(run.result()).await.unwrap();
    }
    worker.stop().await;
    served.stop().await;
}
