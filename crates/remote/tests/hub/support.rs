//! A hub on a store in memory, served on a free port of this machine, with clients and workers.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use steadfast_engine::{Hub, HubBuilder, WorkersOptions};
use steadfast_grpc::{HubName, Hubs, HubsError, Listeners, OpenAccess, ServeOptions, TaskHubService, serve};
use steadfast_remote::{Client, Protocol, Server, Worker, WorkerBuilder};
use steadfast_store::MemoryStore;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// No wait in these tests is long; this only keeps a lost wake-up from hanging the suite.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens")
}

/// A server that can be stopped and started again, on the same store and address.
pub(crate) struct Served {
    store: MemoryStore,
    address: SocketAddr,
    running: Option<Running>,
    options: ServeOptions,
}

struct Running {
    hub: Hub,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

struct OneHub {
    name: HubName,
    service: TaskHubService,
}

impl Hubs for OneHub {
    fn default_hub(&self) -> &HubName {
        &self.name
    }

    fn find<'a>(&'a self, hub: &'a HubName) -> BoxFuture<'a, Result<TaskHubService, HubsError>> {
        Box::pin(async move {
            match *hub == self.name {
                true => Ok(self.service.clone()),
                false => Err(HubsError::NotFound { hub: hub.clone() }),
            }
        })
    }

    fn create<'a>(&'a self, hub: &'a HubName, _: bool) -> BoxFuture<'a, Result<(), HubsError>> {
        Box::pin(async { Err(HubsError::AlreadyExists { hub: hub.clone() }) })
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        // It is stopped by whoever stops the server.
        Box::pin(async {})
    }

    fn delete<'a>(&'a self, hub: &'a HubName) -> BoxFuture<'a, Result<(), HubsError>> {
        Box::pin(async { Err(HubsError::NotFound { hub: hub.clone() }) })
    }
}

impl Served {
    pub(crate) async fn start() -> Self {
        Self::start_with(ServeOptions::default()).await
    }

    pub(crate) async fn start_without_extension() -> Self {
        Self::start_with(ServeOptions { worker_extension: false, ..ServeOptions::default() }).await
    }

    pub(crate) async fn start_with(options: ServeOptions) -> Self {
        let address = "127.0.0.1:0".parse().unwrap();
        let options = ServeOptions { drain_timeout: Duration::from_millis(100), ..options };
        let mut served = Self { store: MemoryStore::new(2), address, running: None, options };
        served.start_again().await;
        served
    }

    pub(crate) async fn start_again(&mut self) {
        let store = self.store.clone();
        let options = WorkersOptions {
            abandon_delay: Duration::from_millis(5),
            disconnect_grace: Duration::from_millis(50),
            ..WorkersOptions::default()
        };
        let hub = HubBuilder::new(move |_| Ok(Arc::new(store))).workers(options).start().await.unwrap();
        let workers = hub.workers().unwrap().clone();
        let service = TaskHubService::new(hub.client()).with_workers(workers);
        let listeners = Listeners::bind(&[self.address.to_string()]).await.unwrap();
        self.address = listeners.addresses().unwrap()[0];
        let hubs = Arc::new(OneHub { name: "default".parse().unwrap(), service });
        let (stop, stopped) = oneshot::channel::<()>();
        let options = self.options;
        let server = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            serve(listeners, None, hubs, Arc::new(OpenAccess::default()), options, stopped).await.unwrap();
        });
        self.running = Some(Running { hub, stop, server });
    }

    pub(crate) async fn stop(&mut self) {
        let Some(Running { hub, stop, server }) = self.running.take() else { return };
        drop(stop);
        soon(server).await.unwrap();
        soon(hub.stop()).await.unwrap();
    }

    /// The client of the hub in this process, to compare with.
    pub(crate) fn embedded(&self) -> steadfast_engine::Client {
        self.running.as_ref().unwrap().hub.client()
    }

    pub(crate) fn workers(&self) -> steadfast_engine::Workers {
        self.running.as_ref().unwrap().hub.workers().unwrap().clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn client(&self, over: Over) -> Client {
        let server = Server::at(self.url());
        let server = if over == Over::Standard { server.single_calls() } else { server };
        soon(Client::connect(server)).await.unwrap()
    }

    pub(crate) fn worker(&self, over: Over) -> WorkerBuilder {
        over.applied(Worker::builder(self.url()).threads(2))
    }
}

/// Which protocol the clients and workers of a test speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Standard,
    Extended,
}

impl Over {
    fn applied(self, builder: WorkerBuilder) -> WorkerBuilder {
        match self {
            Self::Standard => builder.protocol(Protocol::Standard),
            // Each test server has it.
            Self::Extended => builder,
        }
    }
}

/// Makes a test for each protocol of functions that take it.
macro_rules! over_each_protocol {
    ($($name:ident),* $(,)?) => {
        mod over_the_standard_protocol {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::support::Over::Standard).await;
                }
            )*
        }

        mod over_the_extension {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::support::Over::Extended).await;
                }
            )*
        }
    };
}
pub(crate) use over_each_protocol;
