//! A hub on a store in memory, served on a free port of this machine, and a client connected to it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use steadfast_core::model::{
    ActivityContext, ActivityName, EntityContext, OrchestrationContext, OrchestrationName,
    SubOrchestrationOptions, activity, entity, orchestration,
};
use steadfast_core::{EntityId, Error};
use steadfast_engine::{Hub, HubBuilder, WorkersOptions};
use steadfast_grpc::TaskHubService;
use steadfast_grpc::wire;
use steadfast_grpc::wire::task_hub_sidecar_service_client::TaskHubSidecarServiceClient;
use steadfast_store::MemoryStore;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};

pub(crate) type Client = TaskHubSidecarServiceClient<Channel>;

/// No wait in these tests is long; this only keeps a lost wake-up from hanging the suite.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens")
}

pub(crate) struct Served {
    hub: Hub,
    server: JoinHandle<()>,
    pub(crate) client: Client,
}

/// A hub with the entity "counter", which adds, and these orchestrations: "echo" returns its input, "waiter" the payload of
/// the event "go", "failing" fails, "family" awaits "waiter" as "<its own id>-child" until it gets "go" itself, "again"
/// continues as new each time that it gets "go", with what came, "locker" locks @counter@locked until "go", and "status" sets the custom status to the empty text
/// and to "busy" on "go", and "patchy" fails once and is a "waiter" then.
pub(crate) async fn serve() -> Served {
    let (store, asked) = (MemoryStore::new(2), AtomicBool::new(false));
    let hub = HubBuilder::new(move |_| Ok(Arc::new(store)))
        .register(orchestration("echo", |_: OrchestrationContext, text: Option<String>| async move {
            Ok::<_, Error>(text)
        }))
        .register(orchestration("waiter", |ctx: OrchestrationContext, _: Option<String>| async move {
            Ok::<_, Error>(ctx.wait_for_event::<String>("go").await?)
        }))
        .register(orchestration("failing", |_: OrchestrationContext, _: Option<String>| async move {
            Err::<(), _>(Error::new("app::Broken", "it broke"))
        }))
        .register(orchestration("family", |ctx: OrchestrationContext, _: Option<String>| async move {
            let instance_id = Some(format!("{}-child", ctx.instance_id()));
            let options = SubOrchestrationOptions { instance_id, ..Default::default() };
            let waiter = OrchestrationName::<Option<String>, String>::dynamic("waiter");
            let child = pin!(ctx.call_orchestration_with(waiter, None, options));
            let go = ctx.wait_for_event::<String>("go");
            match select(child, go).await {
                Either::Left((child, _)) => Ok::<_, Error>(child?),
                Either::Right((go, _)) => Ok(go?),
            }
        }))
        .register(orchestration("again", |ctx: OrchestrationContext, _: Option<String>| async move {
            let next = ctx.wait_for_event::<String>("go").await?;
            ctx.continue_as_new(&next)?;
            Ok::<_, Error>(())
        }))
        .register(orchestration("status", |ctx: OrchestrationContext, _: Option<String>| async move {
            ctx.set_custom_status("")?;
            ctx.wait_for_event::<String>("go").await?;
            ctx.set_custom_status("busy")?;
            Ok::<_, Error>(())
        }))
        .register(orchestration("locker", |ctx: OrchestrationContext, _: Option<String>| async move {
            let _section = ctx.lock_entities([EntityId::new("counter", "locked")?]).await?;
            Ok::<_, Error>(ctx.wait_for_event::<String>("go").await?)
        }))
        .register(activity("once", move |_: ActivityContext, _: ()| {
            let first = !asked.swap(true, Ordering::Relaxed);
            async move { if first { Err(Error::new("app::Broken", "it broke")) } else { Ok(()) } }
        }))
        .register(orchestration("patchy", |ctx: OrchestrationContext, _: Option<String>| async move {
            ctx.call(ActivityName::<(), ()>::new("once"), ()).await?;
            Ok::<_, Error>(ctx.wait_for_event::<String>("go").await?)
        }))
        .register(entity::<i64>("counter").operation(
            "add",
            |total: &mut i64, _: &EntityContext, amount: i64| {
                *total += amount;
                Ok::<_, Error>(*total)
            },
        ))
        .workers(WorkersOptions { abandon_delay: Duration::from_millis(5), ..WorkersOptions::default() })
        .start()
        .await
        .unwrap();
    let workers = hub.workers().unwrap().clone();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let service = TaskHubService::new(hub.client()).with_workers(workers).into_server();
    let server = tokio::spawn(async move {
        Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let client = Client::new(channel).max_decoding_message_size(64 << 20);
    Served { hub, server, client }
}

impl Served {
    /// Stops the hub, while the server goes on.
    pub(crate) async fn stop_hub(self) -> Client {
        soon(self.hub.stop()).await.unwrap();
        self.client
    }

    pub(crate) async fn stop(self) {
        self.server.abort();
        soon(self.hub.stop()).await.unwrap();
    }

    /// Starts an instance as SDKs do, with the id that they make.
    pub(crate) async fn start(&mut self, name: &str, id: &str) -> wire::CreateInstanceResponse {
        soon(self.client.start_instance(start(name, id))).await.unwrap().into_inner()
    }

    pub(crate) async fn state(&mut self, id: &str) -> wire::OrchestrationState {
        let found = soon(self.client.get_instance(get(id))).await.unwrap().into_inner();
        assert!(found.exists, "instance '{id}' exists");
        found.orchestration_state.unwrap()
    }

    pub(crate) async fn begun(&mut self, id: &str) -> wire::OrchestrationState {
        let found = soon(self.client.wait_for_instance_start(get(id))).await.unwrap().into_inner();
        found.orchestration_state.unwrap()
    }

    pub(crate) async fn ended(&mut self, id: &str) -> wire::OrchestrationState {
        let found = soon(self.client.wait_for_instance_completion(get(id))).await.unwrap().into_inner();
        found.orchestration_state.unwrap()
    }

    /// Starts an instance that begins in the year 9000: it takes no turns until then, like one whose workers are away.
    pub(crate) async fn start_later(&mut self, id: &str) {
        let at = prost_types::Timestamp { seconds: 221_845_000_000, nanos: 0 };
        let request =
            wire::CreateInstanceRequest { scheduled_start_timestamp: Some(at), ..start("waiter", id) };
        soon(self.client.start_instance(request)).await.unwrap();
    }

    pub(crate) async fn raise(&mut self, id: &str, input: &str) -> Result<(), Status> {
        let (instance_id, name) = (id.to_owned(), "go".to_owned());
        let request = wire::RaiseEventRequest { instance_id, name, input: Some(input.to_owned()) };
        soon(self.client.raise_event(request)).await.map(|_| ())
    }
}

pub(crate) fn start(name: &str, id: &str) -> wire::CreateInstanceRequest {
    wire::CreateInstanceRequest {
        instance_id: id.to_owned(),
        name: name.to_owned(),
        input: Some("\"in\"".to_owned()),
        // Some SDKs send this with every start.
        scheduled_start_timestamp: Some(prost_types::Timestamp::default()),
        ..Default::default()
    }
}

pub(crate) fn get(id: &str) -> wire::GetInstanceRequest {
    wire::GetInstanceRequest { instance_id: id.to_owned(), get_inputs_and_outputs: true }
}

/// The call was refused with this code and a text that holds the words.
pub(crate) fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, words: &[&str]) {
    let status = outcome.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    for word in words {
        assert!(status.message().contains(word), "{status} does not say {word:?}");
    }
}
