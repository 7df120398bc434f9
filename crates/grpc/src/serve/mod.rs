//! Serving the hubs of a process: listening, admission, limits, shutdown.

mod access;
mod admin;
mod connection;
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
use gate::{Gate, Shared};
use open::Open;

/// The target of what a server reports.
const TARGET: &str = "steadfast::server";

/// How large the metadata of a call may be, in bytes.
const METADATA_BYTES_MAX: u32 = 16 << 10;

/// How long connections may take to close once all calls have ended. Their answers are sent by then, and a client that
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

/// Serves hubs on these sockets until `shutdown` is done and the calls under way have ended: from then on no call is
/// taken, waits and streams end with `UNAVAILABLE`, connections are told to go away (GOAWAY), and other calls have the
/// drain timeout to end.
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
    let (close, mut closing) = watch::channel(false);
    let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
    // More cannot be acquired at once.
    let calls_max = u32::try_from(limits.calls).unwrap_or(u32::MAX);
    let calls = places(calls_max as usize);
    let shared = Arc::new(Shared {
        hubs,
        access,
        limits,
        calls: calls.clone(),
        worker_streams: places(limits.worker_streams),
        closing: closing.clone(),
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
    if options.reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| ServeError::Reflection { problem: error.to_string() })?;
        router = router.add_service(Open::new(reflection, shared));
    }
    let signal = async move {
        // An error would mean that the sender, below, is gone.
        let _ = closing.wait_for(|closing| *closing).await;
    };
    let served = router.serve_with_incoming_shutdown(incoming, signal);
    let cut_off = async {
        shutdown.await;
        announce(&health, ServingStatus::NotServing).await;
        close.send_replace(true);
        let all_ended = async {
            // An error would mean that the semaphore is closed, which nobody does.
            let _ = calls.acquire_many(calls_max).await;
            tokio::time::sleep(GOODBYE).await;
        };
        let ended = tokio::time::timeout(options.drain_timeout, all_ended).await;
        if calls.available_permits() < calls_max as usize && ended.is_err() {
            tracing::warn!(target: TARGET, "calls did not end within the drain timeout, and are cut off");
        }
    };
    tokio::select! {
        served = served => Ok(served?),
        () = cut_off => Ok(()),
    }
}

async fn announce(health: &HealthReporter, status: ServingStatus) {
    health.set_service_status("", status).await;
    health.set_service_status(SERVICE_NAME, status).await;
}
