//! Messages that are half sent: they are not waited for without end, and they take no more room than there is.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;
use tokio::time::{Interval, interval};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::Request;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::support::{Server, soon, start};

/// A body that brings its bytes, at a pace if it has one, and ends only if it says so.
#[derive(Default)]
struct Sending {
    pieces: VecDeque<Bytes>,
    pace: Option<Interval>,
    ends: bool,
}

impl Sending {
    fn at_once(pieces: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { pieces: pieces.into_iter().map(Bytes::from).collect(), ..Self::default() }
    }
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pace) = &mut self.pace
            && pace.poll_tick(context).is_pending()
        {
            return Poll::Pending;
        }
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// The head of a message of so many bytes.
fn head(length: u32) -> Vec<u8> {
    [&[0][..], &length.to_be_bytes()].concat()
}

/// What a call with this body is answered with.
async fn status(mut channel: Channel, path: &str, body: Sending) -> Status {
    let request = Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = channel.call(request.body(Body::new(body)).unwrap()).await.unwrap();
    Status::from_header_map(response.headers()).expect("the answer is a status")
}

const START: &str = "/TaskHubSidecarService/StartInstance";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

#[tokio::test]
async fn a_message_that_does_not_come_to_its_end_is_refused_in_time() {
    let server = Server::start(&["--message-timeout", "100ms"]);
    let drip = || {
        let bytes = std::iter::repeat_n(vec![0], 10_000);
        let pace = Some(interval(Duration::from_millis(5)));
        Sending { pace, ..Sending::at_once(std::iter::once(head(10_000)).chain(bytes)) }
    };
    for body in [
        || Sending::default(),
        || Sending::at_once([vec![0, 0]]),
        || Sending::at_once([head(100), b"of a hundred".to_vec()]),
        // All is there but the end of the call.
        || Sending::at_once([head(0)]),
        drip,
    ] {
        for path in [START, HEALTH] {
            let status = soon(status(server.channel().await, path, body())).await;
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
            assert!(status.message().contains("did not come within 100ms"), "{status}");
        }
    }
    start(&mut server.client().await, "one").await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn messages_on_their_way_take_no_more_room_than_there_is() {
    let server = Server::start(&["--receiving-size-max", "64KiB", "--message-size-max", "64KiB"]);
    let channel = server.channel().await;
    let half = Sending::at_once([head(60 << 10), vec![0; 1000]]);
    let first = tokio::spawn(async move { status(channel, START, half).await });
    let channel = server.channel().await;
    // It comes in pieces, so it needs room.
    let other = async |length: u32| {
        let pieces = [head(length), vec![0; length as usize]];
        status(channel.clone(), START, Sending { ends: true, ..Sending::at_once(pieces) }).await
    };
    // The first one has its room some time soon.
    let refused = async {
        loop {
            let status = other(10 << 10).await;
            if status.code() == Code::ResourceExhausted {
                return status;
            }
        }
    };
    let refused = soon(refused).await;
    assert!(refused.message().contains("65536 bytes"), "{refused}");
    // What comes whole needs none.
    start(&mut server.client().await, "one").await.unwrap();
    first.abort();
    soon(async { while other(60 << 10).await.code() == Code::ResourceExhausted {} }).await;
    server.stop().await;
}

#[tokio::test]
async fn a_stream_may_be_silent_between_two_messages() {
    let server = Server::start(&["--message-timeout", "50ms"]);
    let mut client = ServerReflectionClient::new(server.channel().await);
    let (ask, mut asked) = mpsc::unbounded_channel();
    let questions = futures_util::stream::poll_fn(move |context| asked.poll_recv(context));
    let question = || ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    ask.send(question()).unwrap();
    let mut answers = soon(client.server_reflection_info(questions)).await.unwrap().into_inner();
    soon(answers.next()).await.unwrap().unwrap();
    // As long as another one needs to be too late.
    let late = soon(status(server.channel().await, START, Sending::default())).await;
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    ask.send(question()).unwrap();
    soon(answers.next()).await.unwrap().unwrap();
    server.stop().await;
}
