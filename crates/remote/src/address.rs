//! How a server is reached.

use std::time::Duration;

use tonic::codegen::http::HeaderValue;

use crate::batched::Calls;
use crate::connection::{Connection, Target};
use crate::error::ConnectError;
use crate::tls::Tls;

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
        let tls = self.tls.as_ref().map(Tls::new).transpose()?;
        let text = |text: Option<String>, what| {
            let value = text.map(|text| text.parse::<HeaderValue>()).transpose();
            value.map_err(|_| ConnectError::Text { what })
        };
        let mut target = Target::at(&self.url, tls)?;
        target.hub = text(self.hub.clone(), "the name of the hub")?;
        target.token = text(self.token.as_ref().map(|token| format!("Bearer {}", token.0)), "the token")?;
        let connection = Connection::new(target);
        Ok(Link { calls: Calls::new(connection, self.calls_together), patience: self.patience })
    }
}

/// A connection to a server.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) calls: Calls,
    pub(crate) patience: Duration,
}
