//! Signals: what ends, what goes on to its end, and what a client is told.

use futures_util::future::{Either, select};
use futures_util::stream;
use rustix::process::Signal;
use steadfast_grpc::wire;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;

use crate::support::{NEVER, Server, assert_refused, get, soon, start};

/// Follows the server's health; the first message has come.
pub(crate) async fn watch_health(channel: Channel) -> Result<Streaming<HealthCheckResponse>, Status> {
    let request = HealthCheckRequest { service: "TaskHubSidecarService".to_owned() };
    let mut health = soon(HealthClient::new(channel).watch(request)).await?.into_inner();
    let first = soon(health.message()).await?.unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    Ok(health)
}

/// Until the stream ends, as it does when the server stops.
pub(crate) async fn ended(mut health: Streaming<HealthCheckResponse>) -> Status {
    loop {
        match soon(health.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends with a status"),
            Err(status) => return status,
        }
    }
}

/// A call whose message never ends.
async fn endless_call(channel: Channel) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/TaskHubSidecarService/StartInstance");
    let codec = ProstCodec::<wire::CreateInstanceRequest, wire::CreateInstanceResponse>::default();
    grpc.client_streaming(Request::new(stream::pending()), path, codec).await.map(|_| ())
}

#[tokio::test]
async fn a_signal_ends_waits_and_streams_and_the_process_in_good_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&[]);
        let mut client = server.client().await;
        start(&mut client, "one").await.unwrap();
        let health = watch_health(server.channel().await).await.unwrap();
        let (mut waiting, mut other) = (client.clone(), client.clone());
        let wait = Box::pin(async move { waiting.wait_for_instance_completion(get(NEVER)).await });
        // The wait is on its way before this call is.
        let Either::Right((hello, wait)) = soon(select(wait, Box::pin(other.hello(())))).await else {
            panic!("the instance does not exist");
        };
        hello.unwrap();
        server.signal(signal);
        assert_refused(soon(wait).await, Code::Unavailable, &[]);
        assert_eq!(ended(health).await.code(), Code::Unavailable);
        let (status, log, folder) = server.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("stopped"), "{log}");
        assert!(!log.contains("cut off"), "{log}");
        // All is there.
        let server = Server::start_in(folder, &[]);
        assert!(crate::support::exists(&mut server.client().await, "one").await);
        server.stop().await;
    }
}

#[tokio::test]
async fn calls_that_do_not_end_are_cut_off_after_the_drain_timeout() {
    let server = Server::start(&["--drain-timeout", "0s"]);
    let channel = server.channel().await;
    let mut client = crate::support::client(channel.clone(), "", "");
    let call = Box::pin(endless_call(channel));
    let Either::Right((hello, call)) = soon(select(call, Box::pin(client.hello(())))).await else {
        panic!("the call's message has not ended");
    };
    hello.unwrap();
    server.signal(Signal::TERM);
    soon(call).await.unwrap_err();
    let (status, log, _) = server.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let server = Server::start(&["--drain-timeout", "1h"]);
    let channel = server.channel().await;
    let mut client = crate::support::client(channel.clone(), "", "");
    let health = watch_health(server.channel().await).await.unwrap();
    let call = Box::pin(endless_call(channel));
    let Either::Right((hello, call)) = soon(select(call, Box::pin(client.hello(())))).await else {
        panic!("the call's message has not ended");
    };
    hello.unwrap();
    server.signal(Signal::TERM);
    ended(health).await;
    server.signal(Signal::INT);
    let (status, log, _) = server.ended().await;
    assert_eq!(status.code(), Some(130), "{log}");
    assert!(log.contains("stopped at once"), "{log}");
    soon(call).await.unwrap_err();
}
