//! Peers that do not keep to the protocol: they are told, or cut off, and others notice nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BufMut;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::support::{Server, soon, start};

/// No wait in these tests is long; this only keeps a silent server from hanging the suite.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How an HTTP/2 client begins: the preface, and settings that set nothing.
pub(crate) const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Sends the bytes, and waits until the server has closed the connection.
fn is_cut_off(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be closed before all is sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{bytes:?}"),
    }
}

/// Bytes that look random and are the same in each run.
fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state & 0xff) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn bytes_that_are_no_http_2_concern_nobody_else() {
    let server = Server::start(&["--greeting-timeout", "200ms"]);
    let mut client = server.client().await;
    let noise = noise(4096);
    let after_greeting = |frame: &[u8]| [GREETING, frame].concat();
    for bytes in [
        // Somebody who says nothing, or begins and goes no further.
        &b""[..],
        &GREETING[..10],
        &GREETING[..24],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03 a TLS client that takes this for its port",
        &noise,
        &after_greeting(&noise),
        // A frame of 16 MiB; one of the server's kind; headers that are none; data for a stream that there is not.
        &after_greeting(b"\xff\xff\xff\0\0\0\0\0\x01"),
        &after_greeting(b"\0\0\x04\x05\x04\0\0\0\x01\0\0\0\x02"),
        &after_greeting(b"\0\0\x03\x01\x05\0\0\0\x01\xff\xff\xff"),
        &after_greeting(b"\0\0\x01\0\x01\0\0\0\x07x"),
    ] {
        let (address, bytes) = (server.addresses[0], bytes.to_vec());
        tokio::task::spawn_blocking(move || is_cut_off(address, &bytes)).await.unwrap();
        soon(client.hello(())).await.unwrap();
    }
    start(&mut client, "one").await.unwrap();
    server.stop().await;
}

/// Sends bytes as if they were a message.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        Ok(Some(()))
    }
}

async fn send(channel: &Channel, method: &str, request: Request<Vec<u8>>) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(format!("/TaskHubSidecarService/{method}")).unwrap();
    soon(grpc.unary(request, path, Raw)).await.map(|_| ())
}

#[tokio::test]
async fn messages_that_are_none_get_a_status() {
    let server = Server::start(&[]);
    let channel = server.channel().await;
    for method in
        ["StartInstance", "GetInstance", "PurgeInstances", "CompleteOrchestratorTask", "CreateTaskHub"]
    {
        for length in [1, 7, 100, 10_000] {
            let status = send(&channel, method, Request::new(noise(length))).await.unwrap_err();
            assert_ne!(status.code(), Code::Unknown, "{method}, {length}: {status}");
        }
    }
    let status = send(&channel, "FormatDisk", Request::new(Vec::new())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    start(&mut server.client().await, "one").await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn metadata_that_is_none_gets_a_status() {
    let server = Server::start(&["--create-hubs"]);
    let channel = server.channel().await;
    let mut request = Request::new(Vec::new());
    request.metadata_mut().insert("taskhub", MetadataValue::try_from(&b"h\xfcb"[..]).unwrap());
    let status = send(&channel, "Hello", request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    // More than is taken: the transport refuses, and the connection goes on.
    let mut request = Request::new(Vec::new());
    request.metadata_mut().insert("authorization", "x".repeat(100_000).parse().unwrap());
    send(&channel, "Hello", request).await.unwrap_err();
    start(&mut server.client().await, "one").await.unwrap();
    server.stop().await;
}
