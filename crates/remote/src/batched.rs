//! Calls that travel together. Where the server can do it, all small calls under way share one stream each way, many in a
//! message; elsewhere, and while there is no such stream, each is made by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{Stream, stream};
use steadfast_grpc::extension::{BATCHED_MESSAGE_BYTES_MAX, batched_method};
use steadfast_grpc::framing::{self, Framed};
use steadfast_grpc::wire::extension::call_link_client::CallLinkClient;
use steadfast_grpc::wire::extension::{Answer, AnswerBatch, Call, CallBatch};
use tokio::sync::{Notify, mpsc, oneshot};
use tonic::body::Body;
use tonic::codegen::http::{HeaderName, HeaderValue, Request, Response};
use tonic::codegen::{Bytes, Service, StdError};
use tonic::{Code, Status};

use crate::connection::Connection;

/// How large a message of calls becomes, in bytes, before what is left goes into another one.
const BATCH_BYTES: usize = 64 << 10;

/// How long a new client waits for the answer whether calls may go together.
const OPENING_MAX: Duration = Duration::from_secs(1);

/// A connection over which calls are made, together or by themselves.
#[derive(Clone)]
pub(crate) struct Calls {
    connection: Connection,
    /// None where each is made by itself.
    shared: Option<Arc<Shared>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// An attempt to open a stream is over. One who waits for that may come after it.
    known: Notify,
}

#[derive(Default)]
enum State {
    /// There is no stream; the next call tries to open one.
    #[default]
    Closed,
    Opening,
    Open(Open),
    /// The server does not have it.
    NotServed,
}

/// An open stream.
struct Open {
    calls: mpsc::UnboundedSender<Call>,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    last: u64,
}

/// The stream that a call went over is lost, and with it its answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was lost before the answer came")]
struct Lost;

impl Calls {
    pub(crate) fn new(connection: Connection, together: bool) -> Self {
        Self { connection, shared: together.then(Arc::default) }
    }

    /// Finds out whether the server can take calls together, so that the first ones are. Whatever it finds, calls can be made.
    pub(crate) async fn open(&self) {
        if let Some(shared) = &self.shared {
            shared.is_open(&self.connection);
            // Something between here and the server may keep a stream from beginning. Calls go by themselves then.
            let _ = tokio::time::timeout(OPENING_MAX, shared.known.notified()).await;
        }
    }

    /// The connection itself.
    pub(crate) const fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Service<Request<Body>> for Calls {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<'static, Result<Response<Body>, StdError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut connection, shared) = (self.connection.clone(), self.shared.clone());
        Box::pin(async move {
            let mut request = request;
            if let Some(shared) = shared
                && let Some(method) = batched_method(request.uri().path())
                && shared.is_open(&connection)
            {
                let message = framing::read(request.body_mut(), usize::MAX).await?;
                if message.len() <= BATCHED_MESSAGE_BYTES_MAX
                    && let Some(waiting) = shared.send(method, message.clone())
                {
                    return Ok(response(waiting.answer().await?));
                }
                *request.body_mut() = Body::new(Framed::question(framing::frame_bytes(&message)?));
            }
            Ok(connection.call(request).await?.map(Body::new))
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a stream. If there may be one, and nobody has begun to open it, that is begun.
    fn is_open(self: &Arc<Self>, connection: &Connection) -> bool {
        let mut state = self.lock();
        match *state {
            State::Open(_) => true,
            State::Opening | State::NotServed => false,
            State::Closed => {
                *state = State::Opening;
                tokio::spawn(follow(Arc::downgrade(self), connection.clone()));
                false
            }
        }
    }

    /// Sends a call. None if the stream has ended meanwhile.
    fn send(self: &Arc<Self>, method: &str, message: Bytes) -> Option<Waiting> {
        let State::Open(open) = &mut *self.lock() else { return None };
        open.last += 1;
        let number = open.last;
        // As many as there are callers.
        open.calls.send(Call { number, method: method.to_owned(), message }).ok()?;
        let (answer, receiver) = oneshot::channel();
        open.answers.insert(number, answer);
        Some(Waiting { shared: self.clone(), calls: open.calls.clone(), number, receiver, answered: false })
    }

    fn answered(&self, batch: AnswerBatch) {
        let State::Open(open) = &mut *self.lock() else { return };
        for answer in batch.answers {
            if let Some(waiting) = open.answers.remove(&answer.number) {
                // Who does not wait any more says so by itself.
                let _ = waiting.send(answer);
            }
        }
    }
}

/// Opens a stream and follows it to its end.
async fn follow(shared: Weak<Shared>, connection: Connection) {
    let (calls, to_send) = mpsc::unbounded_channel();
    let mut client = CallLinkClient::new(connection).max_decoding_message_size(usize::MAX);
    let opened = client.calls(batches(to_send)).await;
    let set = |state| {
        if let Some(shared) = shared.upgrade() {
            // Those who wait learn by it that there will be no answer.
            *shared.lock() = state;
            shared.known.notify_one();
        }
    };
    let mut batches = match opened {
        Ok(opened) => opened.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => return set(State::NotServed),
        Err(_) => return set(State::Closed),
    };
    set(State::Open(Open { calls, answers: HashMap::new(), last: 0 }));
    while let Ok(Some(batch)) = batches.message().await {
        let Some(shared) = shared.upgrade() else { return };
        shared.answered(batch);
    }
    set(State::Closed);
}

/// What there is to send, as much at once as there is.
fn batches(calls: mpsc::UnboundedReceiver<Call>) -> impl Stream<Item = CallBatch> {
    stream::unfold(calls, |mut to_send| async move {
        let mut calls = vec![to_send.recv().await?];
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Ok(call) = to_send.try_recv()
        {
            bytes += call.message.len();
            calls.push(call);
        }
        Some((CallBatch { calls }, to_send))
    })
}

/// A call that was sent. If it is dropped, the server learns that nobody waits any more.
struct Waiting {
    shared: Arc<Shared>,
    calls: mpsc::UnboundedSender<Call>,
    number: u64,
    receiver: oneshot::Receiver<Answer>,
    answered: bool,
}

impl Waiting {
    async fn answer(mut self) -> Result<Answer, Lost> {
        let answer = (&mut self.receiver).await;
        self.answered = true;
        answer.map_err(|_| Lost)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        if let State::Open(open) = &mut *self.shared.lock()
            && open.calls.same_channel(&self.calls)
        {
            open.answers.remove(&self.number);
            // If the stream is over, so is the call.
            let _ = self.calls.send(Call { number: self.number, ..Call::default() });
        }
    }
}

/// An answer as it would have come by itself.
fn response(answer: Answer) -> Response<Body> {
    if answer.code != 0 {
        return Status::new(Code::from(answer.code), answer.problem).into_http();
    }
    let framed = match framing::frame_bytes(&answer.message) {
        Ok(framed) => framed,
        Err(status) => return status.into_http(),
    };
    let mut response = Response::new(Body::new(Framed::answer(framed)));
    for (name, value) in answer.metadata {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
