//! Connections: how many there may be, and how long they may take to begin.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::TARGET;
use super::gate::Phase;
use super::http::Http;
use super::tls::Tls;

/// What a client sends first: HTTP/2's preface and the head of its settings.
const GREETING_BYTES: usize = 24 + 9;

/// How long nothing is accepted after the operating system refused to, for want of descriptors as a rule.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(50);

/// One connection, which has one of the server's places.
pub(super) struct Connection {
    stream: Stream,
    greeting: Option<Greeting>,
    _place: OwnedSemaphorePermit,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What has not come yet of the first bytes, and until when it has to.
struct Greeting {
    missing: usize,
    until: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: Stream, until: Pin<Box<Sleep>>, place: OwnedSemaphorePermit) -> Self {
        Self { stream, greeting: Some(Greeting { missing: GREETING_BYTES, until }), _place: place }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        };
        if let Some(greeting) = &mut this.greeting {
            greeting.missing = greeting.missing.saturating_sub(buffer.filled().len() - before);
            if greeting.missing == 0 {
                this.greeting = None;
            } else if greeting.until.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}

/// Accepts connections.
pub(super) struct Acceptor {
    pub(super) tls: Option<Tls>,
    pub(super) places: Arc<Semaphore>,
    pub(super) greeting_timeout: Duration,
    pub(super) http: Arc<Http>,
    pub(super) phase: watch::Receiver<Phase>,
}

impl Acceptor {
    /// Serves the connections of a socket until the server closes and they are over. If it is dropped, they are cut.
    pub(super) async fn serve(self: Arc<Self>, socket: TcpListener) {
        let mut connections = JoinSet::new();
        let mut phase = self.phase.clone();
        loop {
            let stream = tokio::select! {
                _ = phase.wait_for(|phase| *phase == Phase::Closed) => break,
                stream = socket.accept() => stream,
                // Those that are over are forgotten.
                Some(_) = connections.join_next() => continue,
            };
            let (stream, address) = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(target: TARGET, %error, "no connection can be accepted");
                    tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
                    continue;
                }
            };
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                tracing::warn!(target: TARGET, %address, "a connection is closed: there are as many as there may be");
                continue;
            };
            connections.spawn(self.clone().begin(stream, address, place));
        }
        drop(socket);
        while connections.join_next().await.is_some() {}
    }

    async fn begin(self: Arc<Self>, stream: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) {
        // Without it small answers wait for acknowledgements; where it cannot be set they do.
        let _ = stream.set_nodelay(true);
        let mut until = Box::pin(tokio::time::sleep(self.greeting_timeout));
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let tls = tls.acceptor();
                let secured = tokio::select! {
                    secured = tls.accept(stream) => secured,
                    () = &mut until => Err(io::ErrorKind::TimedOut.into()),
                };
                match secured {
                    Ok(stream) => Stream::Tls(Box::new(stream)),
                    Err(error) => {
                        tracing::debug!(target: TARGET, %address, %error, "a connection did not become secure");
                        return;
                    }
                }
            }
        };
        self.http.clone().serve(Connection::new(stream, until, place)).await;
    }
}
