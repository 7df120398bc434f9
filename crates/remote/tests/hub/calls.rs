//! Calls that travel together, and those that can't.

use futures_util::{FutureExt, StreamExt, stream};
use prost::Message;
use steadfast_core::OrchestrationStatus;
use steadfast_core::model::OrchestrationName;
use steadfast_engine::{ClientError, StartOptions};
use steadfast_grpc::wire;
use steadfast_grpc::wire::extension::call_link_client::CallLinkClient;
use steadfast_grpc::wire::extension::{Answer, Call, CallBatch};
use steadfast_grpc::{Limits, ServeOptions};
use tokio::sync::mpsc;
use tonic::Code;

use crate::support::{Over, Served, soon};

const ANY: OrchestrationName<String, ()> = OrchestrationName::new("any");

fn with(limits: Limits) -> ServeOptions {
    ServeOptions { limits, ..ServeOptions::default() }
}

fn named(id: &str) -> StartOptions {
    StartOptions { instance_id: Some(id.to_owned()), ..StartOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_on_which_one_call_may_be_under_way_is_enough_for_many() {
    let limits = Limits { calls_per_connection: 1, ..Limits::default() };
    let mut served = Served::start_with(with(limits)).await;
    // The stream that they share is the one.
    let client = served.client(Over::Extended).await;
    for id in ["a", "b"] {
        soon(client.start_with(ANY, String::new(), named(id))).await.unwrap();
        assert_eq!(soon(client.state(id)).await.unwrap().status, OrchestrationStatus::Pending);
    }
    drop(client);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_call_goes_by_itself() {
    let mut served = Served::start().await;
    let client = served.client(Over::Extended).await;
    let input = "x".repeat(100_000);
    let run = soon(client.start(ANY, input.clone())).await.unwrap();
    let state = soon(run.state()).await.unwrap();
    assert_eq!(state.input.len(), input.len() + 2);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_given_up_gives_its_place_back_at_once() {
    // One is for the stream, and one for a call.
    let limits = Limits { calls: 2, ..Limits::default() };
    let mut served = Served::start_with(with(limits)).await;
    let single = served.client(Over::Standard).await;
    soon(single.start_with(ANY, String::new(), named("one"))).await.unwrap();
    let mut link = Link::open(&served).await;
    for number in (0..60).step_by(3) {
        link.send([(number, "WaitForInstanceCompletion", get("one"))]);
        link.send([(number + 1, "GetInstance", get("one"))]);
        let refused = link.next().await;
        assert_eq!((refused.number, Code::from(refused.code)), (number + 1, Code::ResourceExhausted));
        link.send([(number, "", Vec::new()), (number + 2, "GetInstance", get("one"))]);
        let answer = link.next().await;
        assert_eq!((answer.number, Code::from(answer.code)), (number + 2, Code::Ok));
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_no_longer_says_so() {
    // One is for the stream, and one for a call.
    let limits = Limits { calls: 2, ..Limits::default() };
    let mut served = Served::start_with(with(limits)).await;
    let client = served.client(Over::Extended).await;
    let run = soon(client.start_with(ANY, String::new(), named("one"))).await.unwrap();
    for _ in 0..20 {
        let mut waiting = Box::pin(run.wait_for_completion());
        // Calls keep their order, so it has its place when the next one comes.
        assert!(waiting.as_mut().now_or_never().is_none());
        let refused = soon(client.state("one")).await;
        let is_refused = |error: &ClientError| matches!(error, ClientError::Refused { code, .. } if code == "ResourceExhausted");
        assert!(refused.as_ref().is_err_and(is_refused), "{refused:?}");
        drop(waiting);
        soon(client.state("one")).await.unwrap();
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_by_themselves_where_the_server_cannot_take_them_together() {
    let mut served = Served::start_without_extension().await;
    let client = served.client(Over::Extended).await;
    let run = soon(client.start(ANY, String::new())).await.unwrap();
    assert_eq!(soon(run.state()).await.unwrap().status, OrchestrationStatus::Pending);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_lost_its_stream_opens_another_one() {
    let mut served = Served::start().await;
    let client = served.client(Over::Extended).await;
    let run = soon(client.start(ANY, String::new())).await.unwrap();
    for _ in 0..3 {
        let waiting = tokio::spawn({
            let (client, id) = (client.clone(), run.id().as_str().to_owned());
            async move { client.terminate(&id, "", false).await }
        });
        served.stop().await;
        served.start_again().await;
        // Whether it was made is not known of a call that was under way.
        let outcome = soon(waiting).await.unwrap();
        let known = matches!(
            outcome,
            Ok(()) | Err(ClientError::ConnectionLost { .. } | ClientError::NotRunning { .. })
        );
        assert!(known, "{outcome:?}");
        soon(client.state(run.id().as_str())).await.unwrap();
    }
    served.stop().await;
}

/// A stream of calls without the client.
struct Link {
    calls: mpsc::UnboundedSender<CallBatch>,
    answers: tonic::Streaming<wire::extension::AnswerBatch>,
    ready: Vec<Answer>,
}

impl Link {
    async fn open(served: &Served) -> Self {
        let channel = tonic::transport::Channel::from_shared(served.url()).unwrap().connect().await.unwrap();
        let (calls, mut receiver) = mpsc::unbounded_channel();
        let batches = stream::poll_fn(move |context| receiver.poll_recv(context));
        let answers = soon(CallLinkClient::new(channel).calls(batches)).await.unwrap().into_inner();
        Self { calls, answers, ready: Vec::new() }
    }

    fn send(&self, calls: impl IntoIterator<Item = (u64, &'static str, Vec<u8>)>) {
        let call = |(number, method, message): (_, &str, Vec<u8>)| Call {
            number,
            method: method.into(),
            message: message.into(),
        };
        self.calls.send(CallBatch { calls: calls.into_iter().map(call).collect() }).unwrap();
    }

    async fn next(&mut self) -> Answer {
        while self.ready.is_empty() {
            self.ready = soon(self.answers.next()).await.unwrap().unwrap().answers;
        }
        self.ready.remove(0)
    }
}

fn get(id: &str) -> Vec<u8> {
    wire::GetInstanceRequest { instance_id: id.to_owned(), get_inputs_and_outputs: false }.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_has_its_own_answer_and_a_bad_one_harms_no_other() {
    let mut served = Served::start().await;
    let client = served.client(Over::Extended).await;
    soon(client.start_with(ANY, String::new(), named("one"))).await.unwrap();
    let mut link = Link::open(&served).await;
    link.send([
        (7, "GetInstance", get("one")),
        (8, "Nothing", Vec::new()),
        // Neither a stream nor what workers do, nor hubs.
        (9, "GetWorkItems", Vec::new()),
        (10, "CompleteActivityTask", Vec::new()),
        (11, "DeleteTaskHub", Vec::new()),
        (12, "GetInstance", vec![0xff; 3]),
        (13, "WaitForInstanceCompletion", get("one")),
        (
            14,
            "TerminateInstance",
            wire::TerminateRequest { instance_id: "none".into(), ..Default::default() }.encode_to_vec(),
        ),
    ]);
    let mut codes = Vec::new();
    for _ in 0..7 {
        let answer = link.next().await;
        codes.push((answer.number, Code::from(answer.code)));
        if answer.number == 7 {
            let found = wire::GetInstanceResponse::decode(answer.message).unwrap();
            assert!(found.exists);
        }
    }
    codes.sort_unstable_by_key(|(number, _)| *number);
    let no = Code::Unimplemented;
    let bad = Code::InvalidArgument;
    assert_eq!(codes, [(7, Code::Ok), (8, no), (9, no), (10, no), (11, no), (12, bad), (14, Code::NotFound)]);
    // The wait is given up, and has no answer; what comes after it has.
    link.send([(13, "", Vec::new()), (15, "GetInstance", get("one"))]);
    assert_eq!(link.next().await.number, 15);
    // Ends when the caller has no more to say and everything is answered.
    link.send([(16, "GetInstance", get("one"))]);
    let Link { calls, mut answers, .. } = link;
    drop(calls);
    let mut numbers = Vec::new();
    while let Some(batch) = soon(answers.next()).await {
        numbers.extend(batch.unwrap().answers.into_iter().map(|answer| answer.number));
    }
    assert_eq!(numbers, [16]);
    served.stop().await;
}
