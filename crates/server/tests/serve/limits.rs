//! What callers may take, and what they are told when there is no more.

use std::io::{Read, Write};
use std::net::TcpStream;

use steadfast_grpc::wire;
use tonic::Code;

use crate::hostile::{GREETING, PATIENCE};
use crate::stop::watch_health;
use crate::support::{Server, assert_refused, client, soon, start};

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_places_come_back() {
    let server = Server::start(&["--connections-max", "1"]);
    let mut first = server.client().await;
    soon(first.hello(())).await.unwrap();
    let mut second = client(server.endpoint("http").connect_lazy(), "", "");
    soon(second.hello(())).await.unwrap_err();
    soon(first.hello(())).await.unwrap();
    drop(first);
    // The server sees that some time.
    soon(async { while second.hello(()).await.is_err() {} }).await;
    server.stop().await;
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_and_places_come_back() {
    let server = Server::start(&["--calls-max", "1"]);
    let health = watch_health(server.channel().await).await.unwrap();
    let mut caller = server.client().await;
    assert_refused(soon(caller.hello(())).await, Code::ResourceExhausted, &["1 calls"]);
    let refused = watch_health(server.channel().await).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(health);
    soon(async { while caller.hello(()).await.is_err() {} }).await;
    server.stop().await;
}

#[tokio::test]
async fn messages_beyond_the_limit_are_refused() {
    let server = Server::start(&["--message-size-max", "64KiB"]);
    let mut client = server.client().await;
    let large = |bytes| wire::CreateInstanceRequest {
        instance_id: format!("of-{bytes}"),
        name: "anything".to_owned(),
        input: Some(format!("\"{}\"", "x".repeat(bytes))),
        ..Default::default()
    };
    soon(client.start_instance(large(60 << 10))).await.unwrap();
    assert_refused(soon(client.start_instance(large(70 << 10))).await, Code::OutOfRange, &["too large"]);
    start(&mut client, "others").await.unwrap();
    server.stop().await;

    let server = Server::start(&["--payload-size-max", "1KiB"]);
    let mut client = server.client().await;
    assert_refused(soon(client.start_instance(large(2 << 10))).await, Code::InvalidArgument, &["1024"]);
    server.stop().await;
}

#[tokio::test]
async fn ids_beyond_the_limit_are_refused() {
    let server = Server::start(&[]);
    let mut client = server.client().await;
    let outcome = start(&mut client, &"x".repeat(1000)).await;
    assert_refused(outcome, Code::InvalidArgument, &["1000"]);
    server.stop().await;
}

/// HTTP/2's number for the setting MAX_CONCURRENT_STREAMS.
const MAX_CONCURRENT_STREAMS: u16 = 3;

#[test]
fn clients_are_told_how_many_calls_a_connection_may_have() {
    let server = Server::start(&["--calls-per-connection-max", "17"]);
    let mut stream = TcpStream::connect(server.addresses[0]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(GREETING).unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4, "the first frame holds the settings");
    let mut settings = vec![0; usize::from(head[2])];
    stream.read_exact(&mut settings).unwrap();
    let told = settings.chunks(6).find_map(|setting| {
        let (name, value) = setting.split_at(2);
        let is_wanted = name == MAX_CONCURRENT_STREAMS.to_be_bytes();
        is_wanted.then(|| u32::from_be_bytes(value.try_into().unwrap()))
    });
    assert_eq!(told, Some(17));
    server.stop_now();
}
