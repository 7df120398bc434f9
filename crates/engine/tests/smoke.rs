//! The main path, end to end, on the in-memory store.

use std::sync::Arc;

use steadfast_core::Error;
use steadfast_core::model::{ActivityContext, ActivityName, OrchestrationContext, OrchestrationName, activity, orchestration};
use steadfast_engine::HubBuilder;
use steadfast_store::MemoryStore;

const GREET: ActivityName<String, String> = ActivityName::new("greet");
const HELLO: OrchestrationName<Vec<String>, Vec<String>> = OrchestrationName::new("hello");

fn builder(partitions: u16) -> HubBuilder {
    HubBuilder::new(move |_| Ok(Arc::new(MemoryStore::new(partitions))))
        .register(activity("greet", |_: ActivityContext, city: String| async move {
            Ok::<_, Error>(format!("Hello, {city}!"))
        }))
        .register(orchestration("hello", |ctx: OrchestrationContext, cities: Vec<String>| async move {
            let mut greetings = Vec::new();
            for city in cities {
                greetings.push(ctx.call(GREET, city).await?);
            }
            Ok::<_, Error>(greetings)
        }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_of_activities_returns_its_results() {
    let hub = builder(2).start().await.unwrap();
    let client = hub.client();
    let run = client.start(HELLO, vec!["Tokyo".into(), "Seattle".into(), "London".into()]).await.unwrap();
    assert_eq!(run.result().await.unwrap(), ["Hello, Tokyo!", "Hello, Seattle!", "Hello, London!"]);
    let history = client.history(run.id().as_str()).await.unwrap();
    let kinds: Vec<_> = history.iter().map(|event| event.kind.type_name()).collect();
    assert_eq!(kinds.len(), 16, "{kinds:?}");
    hub.stop().await.unwrap();
    assert!(matches!(run.state().await, Err(steadfast_engine::ClientError::HubClosed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_instances_complete() {
    let hub = builder(4).start().await.unwrap();
    let client = hub.client();
    let mut runs = Vec::new();
    for n in 0..1000 {
        runs.push(client.start(HELLO, vec![format!("{n}"); 3]).await.unwrap());
    }
    for run in runs {
        assert_eq!(run.result().await.unwrap().len(), 3);
    }
    hub.stop().await.unwrap();
}
