//! Serving the hubs of a process: listening, admission, limits, shutdown.

mod access;
mod admin;
mod calls;
mod connection;
mod deadline;
mod gate;
mod held;
mod hubs;
mod listen;
mod methods;
mod open;
mod options;
mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use tokio::sync::{Semaphore, watch};
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

pub use access::{Access, Denied, OpenAccess, Role};
pub use hubs::{HubName, Hubs, HubsError, InvalidHubName};
pub use listen::{ListenError, Listeners, socket_addresses};
pub use options::{Limits, ServeOptions};
pub use tls::{Tls, TlsError, TlsFiles};

use crate::wire::FILE_DESCRIPTOR_SET;
use crate::wire::task_hub_sidecar_service_server::SERVICE_NAME;
use connection::Acceptor;
use gate::{CallLinkGate, Gate, Phase, Shared, WorkerLinkGate};
use open::Open;

/// The target of what a server reports.
const TARGET: &str = "steadfast::server";

/// How large the metadata of a call may be, in bytes.
const METADATA_BYTES_MAX: u32 = 16 << 10;

/// How long connections may take to close when all is done. Their answers are sent by then, and a client that
/// does not say goodbye is not waited for.
const GOODBYE: Duration = Duration::from_millis(500);

/// A server could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("the server failed")]
    Transport(#[from] tonic::transport::Error),
    /// The description of the service cannot be read.
    #[error("the service's description cannot be used: {problem}")]
    Reflection {
        /// Why not.
        problem: String,
    },
}

/// Serves hubs on these sockets until `shutdown` is done. Then no call is taken any more, waits end with `UNAVAILABLE`, and
/// other calls have the drain timeout to end; the hubs are drained, for which results of work are still taken; workers are
/// sent away with `UNAVAILABLE`, connections with GOAWAY.
///
/// # Errors
/// When the transport fails.
pub async fn serve(
    listeners: Listeners,
    tls: Option<Tls>,
    hubs: Arc<dyn Hubs>,
    access: Arc<dyn Access>,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let limits = options.limits;
    let phase = watch::Sender::new(Phase::Open);
    let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
    let shared = Arc::new(Shared {
        hubs,
        access,
        limits,
        calls: places(limits.calls),
        worker_streams: places(limits.worker_streams),
        phase: phase.subscribe(),
        under_way: watch::Sender::new(()),
    });
    let (health, health_service) = tonic_health::server::health_reporter();
    announce(&health, ServingStatus::Serving).await;
    let acceptor =
        Acceptor { tls, places: places(limits.connections), greeting_timeout: options.greeting_timeout };
    let connections = acceptor.start(listeners.sockets);
    let incoming = stream::unfold(connections, |mut connections| async move {
        let connection = connections.recv().await?;
        Some((Ok::<_, Infallible>(connection), connections))
    });
    let mut router = Server::builder()
        .max_concurrent_streams(limits.calls_per_connection)
        .http2_max_header_list_size(METADATA_BYTES_MAX)
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .add_service(Gate(shared.clone()))
        .add_service(Open::new(health_service, shared.clone()));
    if options.worker_extension {
        let gate = Gate(shared.clone());
        router = router.add_service(WorkerLinkGate(gate.clone())).add_service(CallLinkGate(gate));
    }
    if options.reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| ServeError::Reflection { problem: error.to_string() })?;
        router = router.add_service(Open::new(reflection, shared.clone()));
    }
    let mut closed = phase.subscribe();
    let signal = async move {
        // An error would mean that the sender, below, is gone.
        let _ = closed.wait_for(|phase| *phase == Phase::Closed).await;
    };
    let served = router.serve_with_incoming_shutdown(incoming, signal);
    let stop = async {
        shutdown.await;
        announce(&health, ServingStatus::NotServing).await;
        phase.send_replace(Phase::Draining);
        if tokio::time::timeout(options.drain_timeout, shared.under_way.closed()).await.is_err() {
            tracing::warn!(target: TARGET, "calls did not end within the drain timeout, and are cut off");
        }
        shared.hubs.drain().await;
        phase.send_replace(Phase::Closed);
        tokio::time::sleep(GOODBYE).await;
    };
    tokio::select! {
        served = served => Ok(served?),
        () = stop => Ok(()),
    }
}

async fn announce(health: &HealthReporter, status: ServingStatus) {
    health.set_service_status("", status).await;
    health.set_service_status(SERVICE_NAME, status).await;
}
