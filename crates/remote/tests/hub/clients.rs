//! What clients are told, without a worker and with one.

use std::time::Duration;

use steadfast_core::model::{OrchestrationContext, OrchestrationName, orchestration};
use steadfast_core::{Error, IdReuse, OnExisting, OrchestrationStatus};
use steadfast_engine::{ClientError, RestartOptions, StartOptions};
use steadfast_remote::{Client, ConnectError, Server, Worker};

use crate::orchestrations::{greet, hello};
use crate::support::{Over, Served, over_each_protocol, soon};

over_each_protocol!(errors_are_those_of_an_embedded_client, instances_are_begun_again_and_purged);

const HELLO: OrchestrationName<(), Vec<String>> = OrchestrationName::new("hello");

fn named(id: &str) -> StartOptions {
    StartOptions { instance_id: Some(id.to_owned()), ..StartOptions::default() }
}

async fn errors_are_those_of_an_embedded_client(over: Over) {
    let mut served = Served::start().await;
    let client = served.client(over).await;
    let none =
        |error: &ClientError| matches!(error, ClientError::InstanceNotFound { id } if id.as_str() == "none");
    let error = client.state("none").await.unwrap_err();
    assert!(none(&error), "{error}");
    let error = client.wait_for_completion("none", None).await.unwrap_err();
    assert!(none(&error), "{error}");
    let error = client.raise_event("none", "go", &()).await.unwrap_err();
    assert!(none(&error), "{error}");
    let error = client.terminate("none", "", false).await.unwrap_err();
    assert!(none(&error), "{error}");
    let error = client.purge("none").await.unwrap_err();
    assert!(none(&error), "{error}");
    let error = client.history("none").await.unwrap_err();
    assert!(none(&error), "{error}");
    let error = client.restart("none", RestartOptions::default()).await.unwrap_err();
    assert!(none(&error), "{error}");
    assert!(matches!(client.state("").await, Err(ClientError::InvalidInstanceId(_))));

    let run = client.start_with(HELLO, (), named("one")).await.unwrap();
    let pending = OrchestrationStatus::Pending;
    let error = client.start_with(HELLO, (), named("one")).await.unwrap_err();
    assert!(matches!(error, ClientError::AlreadyExists { status, .. } if status == pending), "{error}");
    let ignoring = StartOptions { reuse: IdReuse::default().on_live(OnExisting::Ignore), ..named("one") };
    let same = client.start_with(HELLO, (), ignoring).await.unwrap();
    assert_eq!(same.execution(), run.execution());
    let error = client.purge("one").await.unwrap_err();
    assert!(matches!(error, ClientError::NotEnded { status, .. } if status == pending), "{error}");
    let error = client.restart("one", RestartOptions::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::NotEnded { status, .. } if status == pending), "{error}");
    let timeout = Duration::from_millis(10);
    let error = client.wait_for_completion("one", Some(timeout)).await.unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    let small = client.clone().payload_bytes_max(3);
    let error = small.raise_event("one", "go", "large").await.unwrap_err();
    assert!(matches!(error, ClientError::PayloadTooLarge { bytes: 7, max: 3 }), "{error}");
    served.stop().await;
}

async fn instances_are_begun_again_and_purged(over: Over) {
    let mut served = Served::start().await;
    let client = served.client(over).await;
    let worker = served.worker(over).register(hello()).register(greet()).start().await.unwrap();
    let run = client.start_with(HELLO, (), named("one")).await.unwrap();
    soon(run.result()).await.unwrap();
    let again = client.restart("one", RestartOptions::default()).await.unwrap();
    assert_ne!(again.execution, run.execution());
    soon(client.wait_for_completion("one", None)).await.unwrap();
    let other = RestartOptions { instance_id: Some("two".to_owned()) };
    assert_eq!(client.restart("one", other).await.unwrap().instance.as_str(), "two");
    soon(client.wait_for_completion("two", None)).await.unwrap();
    let text = client.history_json("two").await.unwrap();
    assert!(text.contains("TaskScheduled"), "{text}");
    client.purge("one").await.unwrap();
    assert!(matches!(client.state("one").await, Err(ClientError::InstanceNotFound { .. })));
    worker.stop().await;
    served.stop().await;
}

#[tokio::test]
async fn what_cannot_be_connected_to_says_so() {
    let error = Client::connect("not an address").await.unwrap_err();
    assert!(matches!(error, ConnectError::Address { .. }), "{error}");
    let nobody = Server::at("http://127.0.0.1:1").patience(Duration::ZERO);
    let error = Client::connect(nobody).await.unwrap_err();
    assert!(matches!(error, ConnectError::Client(ClientError::Unreachable { .. })), "{error}");
    let error = Client::connect(Server::at("http://127.0.0.1:1").token("naïve\n")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Text { .. }), "{error}");
    let twice = || orchestration("twice", |_: OrchestrationContext, ()| async move { Ok::<_, Error>(()) });
    let worker = Worker::builder("http://127.0.0.1:1").register(twice()).register(twice());
    assert!(matches!(worker.start().await, Err(ConnectError::Registration(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_is_not_there_is_refused() {
    let mut served = Served::start().await;
    // The server answers a greeting whatever the hub; what is asked of the hub it refuses.
    let client = Client::connect(Server::at(served.url()).hub("other")).await;
    let refused = match client {
        Ok(client) => client.start(HELLO, ()).await.map(drop).unwrap_err(),
        Err(ConnectError::Client(error)) => error,
        Err(error) => panic!("{error}"),
    };
    assert!(matches!(&refused, ClientError::Refused { code, .. } if code == "NotFound"), "{refused}");
    served.stop().await;
}
