//! How a server is reached.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::batched::Calls;
use crate::error::ConnectError;

/// How long one attempt at a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a connection is asked whether the server is still there, also when nothing is called.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How much may be under way to this side, in bytes: work items of a whole batch, large payloads among them.
const WINDOW_BYTES: u32 = 8 << 20;

/// How long a server may be away before a call gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, and how it is reached. An address alone is enough for one on this machine:
///
/// ```
/// use std::time::Duration;
/// use steadfast_remote::Server;
/// let local = Server::at("http://127.0.0.1:4001");
/// let other = Server::at("https://hub.example.org").hub("orders").token("secret").patience(Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
pub struct Server {
    url: String,
    hub: Option<String>,
    token: Option<Secret>,
    tls: Option<TlsOptions>,
    patience: Duration,
    calls_together: bool,
}

/// A text that is not shown.
#[derive(Clone)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Certificates, each as PEM text.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// Who signed the server's certificate.
    pub authority: String,
    /// The certificate that the client shows, and its key, if the server asks for one.
    pub identity: Option<(String, String)>,
    /// The name that the server's certificate has to be for; that of the address when absent.
    pub server_name: Option<String>,
}

impl From<&str> for Server {
    fn from(url: &str) -> Self {
        Self::at(url)
    }
}

impl From<String> for Server {
    fn from(url: String) -> Self {
        Self::at(url)
    }
}

impl Server {
    /// The server at an address such as `http://127.0.0.1:4001`.
    pub fn at(url: impl Into<String>) -> Self {
        let (hub, token, tls) = (None, None, None);
        Self { url: url.into(), hub, token, tls, patience: PATIENCE, calls_together: true }
    }

    /// The task hub; the server's default one without a call.
    pub fn hub(self, name: impl Into<String>) -> Self {
        Self { hub: Some(name.into()), ..self }
    }

    /// The bearer token that says who calls.
    pub fn token(self, token: impl Into<String>) -> Self {
        Self { token: Some(Secret(token.into())), ..self }
    }

    /// Speaks TLS, with an address that begins with `https`.
    pub fn tls(self, options: TlsOptions) -> Self {
        Self { tls: Some(options), ..self }
    }

    /// How long a server may be away before a call gives up; 30 seconds without a call. A worker never gives up.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Makes each call by itself, as SDKs of other languages do. Without a call those that are under way at once share a stream,
    /// if the server can do it, which takes a fraction of the processor time on both sides.
    pub fn single_calls(self) -> Self {
        Self { calls_together: false, ..self }
    }

    /// A connection that is made when it is needed, and made again when it was lost.
    pub(crate) fn link(&self) -> Result<Link, ConnectError> {
        let wrong = |problem: String| ConnectError::Address { url: self.url.clone(), problem };
        let endpoint = Endpoint::from_shared(self.url.clone()).map_err(|error| wrong(error.to_string()))?;
        if endpoint.uri().authority().is_none() || endpoint.uri().scheme().is_none() {
            return Err(wrong("it has no scheme or no host".to_owned()));
        }
        let mut endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        if let Some(tls) = &self.tls {
            let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.authority));
            if let Some((certificate, key)) = &tls.identity {
                config = config.identity(Identity::from_pem(certificate, key));
            }
            if let Some(name) = &tls.server_name {
                config = config.domain_name(name);
            }
            let secured = endpoint.tls_config(config);
            endpoint = secured.map_err(|error| ConnectError::Tls { problem: error.to_string() })?;
        }
        let text = |text: Option<String>, what| {
            let value = text.map(|text| text.parse::<MetadataValue<Ascii>>()).transpose();
            value.map_err(|_| ConnectError::Text { what })
        };
        let greeting = Greeting {
            hub: text(self.hub.clone(), "the name of the hub")?,
            token: text(self.token.as_ref().map(|token| format!("Bearer {}", token.0)), "the token")?,
        };
        let channel = InterceptedService::new(endpoint.connect_lazy(), greeting);
        Ok(Link { calls: Calls::new(channel, self.calls_together), patience: self.patience })
    }
}

/// A connection to a server.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) calls: Calls,
    pub(crate) patience: Duration,
}

pub(crate) type LinkChannel = InterceptedService<Channel, Greeting>;

/// What is said with every call.
#[derive(Clone)]
pub(crate) struct Greeting {
    hub: Option<MetadataValue<Ascii>>,
    token: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Greeting {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(hub) = &self.hub {
            request.metadata_mut().insert("taskhub", hub.clone());
        }
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}
