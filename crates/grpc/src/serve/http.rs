//! HTTP/2: serves connections, and gives each call to the service that its path names. tonic's own server does the same
//! through more layers, which cost a call a tenth of the server's time.

use std::convert::Infallible;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};

use super::TARGET;
use super::connection::Connection;
use super::gate::Phase;
use super::options::ServeOptions;

/// How large the metadata of a call may be, in bytes.
const METADATA_BYTES_MAX: u32 = 16 << 10;

/// How long a connection that is asked whether somebody is there may take to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// An answer on its way.
pub(super) type Answering = BoxFuture<'static, Result<Response<Body>, Infallible>>;

type Call = Box<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// The services of a server, and how their connections are treated.
pub(super) struct Http {
    builder: http2::Builder<TokioExecutor>,
    services: Vec<(&'static str, Call)>,
    phase: watch::Receiver<Phase>,
}

impl Http {
    pub(super) fn new(options: &ServeOptions, phase: watch::Receiver<Phase>) -> Self {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(options.limits.calls_per_connection)
            .max_header_list_size(METADATA_BYTES_MAX)
            .keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            // Nobody asks for it, and it is made anew with every answer.
            .auto_date_header(false);
        Self { builder, services: Vec::new(), phase }
    }

    /// Adds a service by its name. Those that are added first are found first.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        call: impl Fn(Request<Incoming>) -> Answering + Send + Sync + 'static,
    ) {
        self.services.push((name, Box::new(call)));
    }

    fn answer(&self, request: Request<Incoming>) -> Answering {
        let path = request.uri().path();
        let name = path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(name, _)| name);
        match self.services.iter().find(|(known, _)| Some(*known) == name) {
            Some((_, call)) => call(request),
            None => {
                let status = Status::unimplemented(format!("this server has no method '{path}'"));
                Box::pin(ready(Ok(status.into_http())))
            }
        }
    }

    /// Serves a connection until it is over. When the server closes, no further calls are taken, and it ends after those
    /// under way.
    pub(super) async fn serve(self: Arc<Self>, connection: Connection) {
        let http = self.clone();
        let service = service_fn(move |request| http.answer(request));
        let mut served = pin!(self.builder.serve_connection(TokioIo::new(connection), service));
        let mut phase = self.phase.clone();
        let closed = async {
            // Its sender lives as long as the server.
            let _ = phase.wait_for(|phase| *phase == Phase::Closed).await;
        };
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = closed => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(target: TARGET, %error, "a connection is over");
        }
    }
}
