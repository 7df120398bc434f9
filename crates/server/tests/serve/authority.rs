//! Certificates for tests.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use steadfast_remote::TlsOptions;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Somebody who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "authority of tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `localhost` and its key.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Writes a new certificate and its key for a server: `server.pem` and `server.key`.
    pub(crate) fn write_server(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.sign();
        let paths = (folder.join("server.pem"), folder.join("server.key"));
        std::fs::write(&paths.0, certificate).unwrap();
        std::fs::write(&paths.1, key).unwrap();
        paths
    }

    /// Writes the authority's own certificate: `ca.pem`.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path
    }

    /// How a Rust client trusts servers that it signed, with a certificate of its own if it has one.
    pub(crate) fn trusting_client(&self, identity: Option<&Self>) -> TlsOptions {
        TlsOptions {
            authority: self.pem.clone(),
            identity: identity.map(Self::sign),
            server_name: Some("localhost".to_owned()),
        }
    }

    /// Trusts servers that it signed.
    pub(crate) fn trusting(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.pem))
    }

    /// A client that it signed.
    pub(crate) fn identity(&self) -> Identity {
        let (certificate, key) = self.sign();
        Identity::from_pem(certificate, key)
    }
}
