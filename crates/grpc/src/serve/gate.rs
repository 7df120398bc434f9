//! What every call passes before its message is read: is the server open, who calls, which hub is it for, is there room.

use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{self, Either};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};

use super::TARGET;
use super::access::{Access, Role};
use super::admin;
use super::calls::Link;
use super::deadline::{deadline_of, within};
use super::held::{Ending, Held};
use super::http::Answering;
use super::hubs::{HubName, Hubs};
use super::methods::{CREATE_TASK_HUB, DELETE_TASK_HUB, Length, Method, WORK, method_of};
use super::options::Limits;
use super::received::{Received, Receiving};
use crate::framing::{self, Framed};
use crate::service::Answered;
use crate::wire::extension::call_link_server::CallLinkServer;
use crate::wire::extension::worker_link_server::WorkerLinkServer;
use crate::wire::task_hub_sidecar_service_server::TaskHubSidecarServiceServer;

/// The metadata that names the hub.
const HUB_HEADER: &str = "taskhub";

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// What the gate knows, shared by all connections.
pub(super) struct Shared {
    pub(super) hubs: Arc<dyn Hubs>,
    pub(super) access: Arc<dyn Access>,
    pub(super) limits: Limits,
    pub(super) calls: Arc<Semaphore>,
    pub(super) worker_streams: Arc<Semaphore>,
    pub(super) receiving: Receiving,
    pub(super) phase: watch::Receiver<Phase>,
    /// Each call that ends by itself holds a receiver.
    pub(super) under_way: watch::Sender<()>,
}

/// How far the server is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// All calls are taken.
    Open,
    /// Only the results of work are taken that workers have begun; waits end.
    Draining,
    /// Nothing is taken, and streams end.
    Closed,
}

/// The service: each call goes to the service of its hub.
#[derive(Clone)]
pub(super) struct Gate(pub(super) Arc<Shared>);

impl Gate {
    pub(super) fn answer(&self, request: Request<Incoming>) -> Answering {
        let shared = self.0.clone();
        Box::pin(async move {
            let deadline = deadline_of(request.headers());
            let answer = pin!(shared.pass(request));
            Ok(within(deadline, answer).await.unwrap_or_else(Status::into_http))
        })
    }
}

impl Shared {
    async fn pass(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let path = request.uri().path();
        let Some(method) = method_of(path) else {
            return Err(Status::unimplemented(format!("there is no method '{path}'")));
        };
        let hub = self.hub_of(request.headers())?;
        let token = bearer(request.headers());
        let place = self.admit(method, &hub, token)?;
        let token = token.filter(|_| method.length != Length::Short).map(str::to_owned);
        let request = request.map(|body| self.receiving.watch(body, method.is_one_message()));
        if method.is_unary() {
            let answer = pin!(self.answer(method, &hub, request.into_body()));
            return self.until_ended(method, &hub, token.as_deref(), answer).await;
        }
        let mut places = vec![place];
        let request = request.map(Body::new);
        let response = match method.length {
            Length::Short | Length::Wait => {
                let answer = pin!(self.stream(method, &hub, request));
                return self.until_ended(method, &hub, token.as_deref(), answer).await;
            }
            Length::WorkItems => {
                places.push(place_of(&self.worker_streams, "worker streams", self.limits.worker_streams)?);
                self.stream(method, &hub, request).await?
            }
            Length::Calls => self.calls(hub.clone(), token.clone(), request).await,
        };
        let ending = self.ending(Phase::Closed, token, hub, method.any_of);
        Ok(response.map(|body| Body::new(Held::new(body, ending, places))))
    }

    /// Lets a call in that the server is open for, the caller may make, and there is room for. It keeps the place it gets.
    pub(super) fn admit(
        &self,
        method: Method,
        hub: &HubName,
        token: Option<&str>,
    ) -> Result<OwnedSemaphorePermit, Status> {
        let phase = *self.phase.borrow();
        if phase == Phase::Closed || phase == Phase::Draining && !method.brings_results() {
            return Err(shutting_down());
        }
        self.access.check(token, hub, method.any_of).inspect_err(|denied| {
            tracing::debug!(target: TARGET, method = method.name, %hub, %denied, "a call is denied");
        })?;
        self.place()
    }

    /// The answer to a call that is not a stream, or the status with which it has to end before.
    pub(super) async fn until_ended<T>(
        &self,
        method: Method,
        hub: &HubName,
        token: Option<&str>,
        answer: impl Future<Output = Result<T, Status>> + Unpin,
    ) -> Result<T, Status> {
        let _under_way = self.under_way.subscribe();
        if method.length != Length::Wait {
            return answer.await;
        }
        let ending = self.ending(Phase::Draining, token.map(str::to_owned), hub.clone(), method.any_of);
        match future::select(answer, ending).await {
            Either::Left((answer, _)) => answer,
            Either::Right((status, _)) => Err(status),
        }
    }

    async fn calls(
        self: &Arc<Self>,
        hub: HubName,
        token: Option<String>,
        request: Request<Body>,
    ) -> Response<Body> {
        let mut service = CallLinkServer::new(Arc::new(Link { shared: self.clone(), hub, token }))
            .max_decoding_message_size(self.limits.message_bytes)
            .max_encoding_message_size(usize::MAX);
        match service.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Answers a call of one message with one message.
    async fn answer(
        &self,
        method: Method,
        hub: &HubName,
        mut body: Received<Incoming>,
    ) -> Result<Response<Body>, Status> {
        let message = framing::read(&mut body, self.limits.message_bytes).await?;
        let answered = match method.name {
            CREATE_TASK_HUB => admin::create(&*self.hubs, hub, message).boxed().await,
            DELETE_TASK_HUB => admin::delete(&*self.hubs, hub, message).boxed().await,
            name => self.hubs.find(hub).await?.answer(name, message).await,
        };
        let Answered { framed, metadata } = answered?;
        let mut response = Response::new(Body::new(Framed::answer(framed)));
        *response.headers_mut() = metadata.into_headers();
        response.headers_mut().insert(CONTENT_TYPE, GRPC);
        Ok(response)
    }

    /// Answers a call with a stream.
    async fn stream(
        &self,
        method: Method,
        hub: &HubName,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let service = self.hubs.find(hub).await?;
        let answer = if method.name == WORK {
            let link = service.worker_link().ok_or_else(|| {
                Status::unimplemented(
                    "this hub gives no work to workers; its instances are run by its own code",
                )
            })?;
            WorkerLinkServer::new(link)
                .max_decoding_message_size(self.limits.message_bytes)
                .max_encoding_message_size(usize::MAX)
                .call(request)
        } else {
            TaskHubSidecarServiceServer::new(service)
                .max_decoding_message_size(self.limits.message_bytes)
                .max_encoding_message_size(usize::MAX)
                .call(request)
        };
        match answer.await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }

    fn hub_of(&self, headers: &HeaderMap) -> Result<HubName, Status> {
        let Some(value) = headers.get(HUB_HEADER).filter(|value| !value.is_empty()) else {
            return Ok(self.hubs.default_hub().clone());
        };
        let text = value.to_str().map_err(|_| {
            Status::invalid_argument(
                "the metadata 'taskhub' is no name of a task hub: it has other characters than ASCII",
            )
        })?;
        Ok(text.parse::<HubName>()?)
    }

    /// Ends when the server is so far.
    pub(super) fn at(&self, wanted: Phase) -> Ending {
        let mut phase = self.phase.clone();
        Box::pin(async move {
            // Its sender lives as long as the server.
            let _ = phase.wait_for(|phase| *phase >= wanted).await;
            shutting_down()
        })
    }

    /// A place among the calls under way.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        place_of(&self.calls, "calls", self.limits.calls)
    }

    /// Ends when the server is so far, or the caller's token no longer allows the call.
    fn ending(&self, phase: Phase, token: Option<String>, hub: HubName, any_of: &'static [Role]) -> Ending {
        let (mut ended, access) = (self.at(phase), self.access.clone());
        Box::pin(async move {
            let mut changes = access.changes();
            loop {
                tokio::select! {
                    status = &mut ended => return status,
                    Ok(()) = changes.changed() => {
                        if let Err(denied) = access.check(token.as_deref(), &hub, any_of) {
                            return denied.into();
                        }
                    }
                }
            }
        })
    }
}

fn shutting_down() -> Status {
    Status::unavailable("the server is shutting down")
}

/// The token of `authorization: Bearer <token>`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get("authorization")?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn place_of(of: &Arc<Semaphore>, what: &str, max: usize) -> Result<OwnedSemaphorePermit, Status> {
    of.clone().try_acquire_owned().map_err(|_| {
        Status::resource_exhausted(format!("{max} {what} are under way, and the server allows no more"))
    })
}
