//! The addresses that a server listens on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, lookup_host};

/// With port 0, a port that is free at one address of a host may be taken at the other. Then another one is tried.
const PORT_TRIES: usize = 16;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on '{address}'")]
pub struct ListenError {
    address: String,
    #[source]
    source: io::Error,
}

/// Sockets that are open, and not served yet.
#[derive(Debug)]
pub struct Listeners {
    pub(super) sockets: Vec<TcpListener>,
}

/// The socket addresses of `host:port`. `localhost` is both loopback addresses, because clients try either first.
///
/// # Errors
/// When it is no address, or has none.
pub async fn socket_addresses(address: &str) -> Result<Vec<SocketAddr>, ListenError> {
    let fail = |source| ListenError { address: address.to_owned(), source };
    if let Some(port) = address.strip_prefix("localhost:") {
        let port: u16 =
            port.parse().map_err(|error| fail(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        return Ok(both.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    let found: Vec<_> = lookup_host(address).await.map_err(fail)?.collect();
    if found.is_empty() {
        return Err(fail(io::Error::new(io::ErrorKind::NotFound, "the host has no address")));
    }
    Ok(found)
}

impl Listeners {
    /// Opens the sockets of these addresses, each `host:port`; port 0 is one that is free.
    ///
    /// # Errors
    /// When one of them is no address, or cannot be listened on.
    pub async fn bind(addresses: &[String]) -> Result<Self, ListenError> {
        let mut sockets = Vec::new();
        for address in addresses {
            let wanted = socket_addresses(address).await?;
            let opened = bind_all(&wanted).await;
            sockets.extend(opened.map_err(|source| ListenError { address: address.clone(), source })?);
        }
        Ok(Self { sockets })
    }

    /// Where they listen, with the real ports.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(TcpListener::local_addr).collect()
    }
}

/// Opens all addresses of one host on one port.
async fn bind_all(wanted: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let any_port = wanted.iter().any(|address| address.port() == 0);
    let mut tries = 0;
    loop {
        tries += 1;
        match bind_once(wanted).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && any_port && tries < PORT_TRIES => {}
            outcome => return outcome,
        }
    }
}

async fn bind_once(wanted: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut opened: Vec<TcpListener> = Vec::new();
    let mut missing = None;
    for address in wanted {
        let mut address = *address;
        if address.port() == 0
            && let Some(first) = opened.first()
        {
            address.set_port(first.local_addr()?.port());
        }
        match TcpListener::bind(address).await {
            Ok(socket) => opened.push(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // A machine may lack one of the two families, and says so in several ways.
            Err(error) => missing = Some(error),
        }
    }
    match missing {
        Some(error) if opened.is_empty() => Err(error),
        _ => Ok(opened),
    }
}
