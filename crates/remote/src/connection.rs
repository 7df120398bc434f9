//! A connection to a server: made when it is needed, and made again when it was lost. On hyper itself, because what tonic puts
//! between a call and its connection costs more than the call.

use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use steadfast_grpc::framing::{self, Framed};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::codegen::http::header::{AUTHORIZATION, CONTENT_TYPE, TE, USER_AGENT};
use tonic::codegen::http::uri::{Authority, PathAndQuery, Scheme};
use tonic::codegen::http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use tonic::codegen::{Bytes, Service, StdError};
use tonic::{Code, Status};

use crate::error::ConnectError;
use crate::tls::Tls;

/// How long one attempt at a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a connection is asked whether the server is still there, also when nothing is called.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How much may be under way to this side, in bytes: work items of a whole batch, large payloads among them.
const WINDOW_BYTES: u32 = 8 << 20;

const HUB: HeaderName = HeaderName::from_static("taskhub");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const OURSELVES: HeaderValue = HeaderValue::from_static(concat!("steadfast/", env!("CARGO_PKG_VERSION")));

/// Where a server is, and what is said to it with every call.
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    pub(crate) port: u16,
    pub(crate) tls: Option<Tls>,
    pub(crate) hub: Option<HeaderValue>,
    pub(crate) token: Option<HeaderValue>,
}

/// A connection; clones are one and the same.
#[derive(Clone)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    target: Target,
    current: RwLock<Option<SendRequest<Body>>>,
    /// Held while a connection is made, so that there is one.
    connecting: tokio::sync::Mutex<()>,
}

/// There is no connection, so nothing was called.
#[derive(Debug, thiserror::Error)]
#[error("there is no connection to {authority}")]
pub(crate) struct NotConnected {
    authority: Authority,
    source: StdError,
}

impl Connection {
    pub(crate) fn new(target: Target) -> Self {
        let shared = Shared { target, current: RwLock::default(), connecting: tokio::sync::Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// A call of one message whose answer says no more than that all went well.
    pub(crate) async fn tell(&self, path: &'static str, framed: Bytes) -> Result<(), Status> {
        let mut request = Request::new(Body::new(Framed::question(framed)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(path);
        let headers = request.headers_mut();
        headers.reserve(6);
        headers.insert(TE, TRAILERS);
        headers.insert(CONTENT_TYPE, GRPC);
        let (head, mut body) = self.shared.send(request).await.map_err(Status::from_error)?.into_parts();
        let said = match Status::from_header_map(&head.headers) {
            Some(said) => said,
            None if head.status.is_success() => {
                let trailers = framing::skip(&mut body).await?;
                let said = trailers.and_then(|trailers| Status::from_header_map(&trailers));
                said.unwrap_or_else(|| Status::unknown("the answer has no status"))
            }
            None => Status::unknown(format!("the answer is no one of gRPC: HTTP status {}", head.status)),
        };
        if said.code() == Code::Ok { Ok(()) } else { Err(said) }
    }
}

impl Shared {
    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, StdError> {
        let mut sender = self.sender().await?;
        Ok(sender.send_request(self.addressed(request)?).await?)
    }

    /// Adds to a call where it goes, and what is said with every call.
    fn addressed(&self, mut request: Request<Body>) -> Result<Request<Body>, StdError> {
        let target = &self.target;
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme(target.scheme.clone()).authority(target.authority.clone());
        *request.uri_mut() = uri.path_and_query(path).build()?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, OURSELVES);
        for (name, value) in [(HUB, &target.hub), (AUTHORIZATION, &target.token)] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        Ok(request)
    }

    /// The connection that there is, or a new one.
    async fn sender(&self) -> Result<SendRequest<Body>, NotConnected> {
        if let Some(sender) = self.current().await {
            return Ok(sender);
        }
        let _alone = self.connecting.lock().await;
        if let Some(sender) = self.current().await {
            return Ok(sender);
        }
        let made = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        let made = made.unwrap_or_else(|_| Err(format!("no answer within {CONNECT_TIMEOUT:?}").into()));
        let sender =
            made.map_err(|source| NotConnected { authority: self.target.authority.clone(), source })?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
        Ok(sender)
    }

    /// The connection that there is, if calls can be made over it.
    async fn current(&self) -> Option<SendRequest<Body>> {
        let mut sender = self.current.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        sender.ready().await.ok()?;
        Some(sender)
    }

    async fn connect(&self) -> Result<SendRequest<Body>, StdError> {
        let Target { authority, port, tls, .. } = &self.target;
        let host = authority.host();
        // An IPv6 address stands in brackets there.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let stream = TcpStream::connect((host, *port)).await?;
        // Without it small calls wait for acknowledgements; where it cannot be set they do.
        let _ = stream.set_nodelay(true);
        match tls {
            None => greet(stream).await,
            Some(tls) => greet(tls.secure(host, stream).await?).await,
        }
    }
}

/// Begins to speak HTTP/2.
async fn greet(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Body>, StdError> {
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await?;
    // Those who wait for an answer learn how it ended.
    tokio::spawn(connection);
    sender.ready().await?;
    Ok(sender)
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = StdError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, StdError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move { shared.send(request).await })
    }
}

impl Target {
    /// Reads the address of a server.
    pub(crate) fn at(url: &str, tls: Option<Tls>) -> Result<Self, ConnectError> {
        let wrong =
            |problem: &str| ConnectError::Address { url: url.to_owned(), problem: problem.to_owned() };
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(wrong("it has no scheme or no host"));
        };
        let secure = match scheme.as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong("its scheme is neither http nor https")),
        };
        let tls = match (secure, tls) {
            (true, None) => {
                let problem = "an address with https needs the certificate of who signed the server's";
                return Err(ConnectError::Tls { problem: problem.to_owned() });
            }
            (secure, tls) => tls.filter(|_| secure),
        };
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let (scheme, authority) = (scheme.clone(), authority.clone());
        Ok(Self { scheme, authority, port, tls, hub: None, token: None })
    }
}
