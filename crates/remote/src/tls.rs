//! TLS with a server.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tonic::codegen::StdError;

use crate::address::TlsOptions;
use crate::error::ConnectError;

/// The one application protocol that is spoken.
const ALPN: &[u8] = b"h2";

/// TLS as configured.
pub(crate) struct Tls {
    connector: TlsConnector,
    /// The name that the server's certificate has to be for, if it is not that of its address.
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    pub(crate) fn new(options: &TlsOptions) -> Result<Self, ConnectError> {
        let unusable = |problem: String| ConnectError::Tls { problem };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("the authority", &options.authority)? {
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match &options.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates("the identity", certificate)?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                    .map_err(|error| unusable(format!("the identity's key: {error}")))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| unusable(error.to_string()))?
            }
        };
        config.alpn_protocols.push(ALPN.to_vec());
        let server_name = options.server_name.clone().map(ServerName::try_from).transpose();
        let server_name = server_name.map_err(|error| unusable(format!("the server's name: {error}")))?;
        Ok(Self { connector: Arc::new(config).into(), server_name })
    }

    /// Makes a stream secure, if the server is who it should be.
    pub(crate) async fn secure(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, StdError> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned())?,
        };
        let stream = self.connector.connect(name, stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err("the server does not speak HTTP/2".into());
        }
        Ok(stream)
    }
}

fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let fail = |problem: String| ConnectError::Tls { problem: format!("{what}: {problem}") };
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| fail(error.to_string()))?;
    if found.is_empty() {
        return Err(fail("the text holds no certificate".to_owned()));
    }
    Ok(found)
}
