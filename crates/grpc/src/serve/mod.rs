//! Serving the hubs of a process: listening, admission, limits, shutdown.

mod access;
mod admin;
mod calls;
mod connection;
mod deadline;
mod gate;
mod held;
mod http;
mod hubs;
mod listen;
mod methods;
mod open;
mod options;
mod received;
mod tls;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, watch};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::SERVICE_NAME as HEALTH;
use tonic_health::server::HealthReporter;
use tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME as REFLECTION;

pub use access::{Access, Denied, OpenAccess, Role};
pub use hubs::{HubName, Hubs, HubsError, InvalidHubName};
pub use listen::{ListenError, Listeners, socket_addresses};
pub use methods::batched_method;
pub use options::{Limits, ServeOptions};
pub use tls::{Tls, TlsError, TlsFiles};

use crate::wire::FILE_DESCRIPTOR_SET;
use crate::wire::extension::call_link_server::SERVICE_NAME as CALL_LINK;
use crate::wire::extension::worker_link_server::SERVICE_NAME as WORKER_LINK;
use crate::wire::task_hub_sidecar_service_server::SERVICE_NAME;
use connection::Acceptor;
use gate::{Gate, Phase, Shared};
use http::Http;
use open::Open;
use received::Receiving;

/// The target of what a server reports.
const TARGET: &str = "steadfast::server";

/// How long connections may take to close when all is done. Their answers are sent by then, and a client that
/// does not say goodbye is not waited for.
const GOODBYE: Duration = Duration::from_millis(500);

/// A server could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
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
/// When the service's description cannot be used.
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
        receiving: Receiving::new(limits.receiving_bytes, limits.message_bytes, options.message_timeout),
        phase: phase.subscribe(),
        under_way: watch::Sender::new(()),
    });
    let (health, health_service) = tonic_health::server::health_reporter();
    announce(&health, ServingStatus::Serving).await;
    let mut http = Http::new(&options, phase.subscribe());
    let mut names = vec![SERVICE_NAME];
    if options.worker_extension {
        names.extend([WORKER_LINK, CALL_LINK]);
    }
    let gate = Gate(shared.clone());
    for name in names {
        let gate = gate.clone();
        http.add(name, move |request| gate.answer(request));
    }
    let health_service = Open::new(health_service, shared.clone(), true);
    http.add(HEALTH, move |request| health_service.answer(request));
    if options.reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| ServeError::Reflection { problem: error.to_string() })?;
        let reflection = Open::new(reflection, shared.clone(), false);
        http.add(REFLECTION, move |request| reflection.answer(request));
    }
    let acceptor = Arc::new(Acceptor {
        tls,
        places: places(limits.connections),
        greeting_timeout: options.greeting_timeout,
        http: Arc::new(http),
        phase: phase.subscribe(),
    });
    let served = join_all(listeners.sockets.into_iter().map(|socket| acceptor.clone().serve(socket)));
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
        _ = served => {}
        () = stop => {}
    }
    Ok(())
}

async fn announce(health: &HealthReporter, status: ServingStatus) {
    health.set_service_status("", status).await;
    health.set_service_status(SERVICE_NAME, status).await;
}
