//! Many calls over one stream. Each passes the gate by itself, as if it had come alone.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{FutureExt, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::gate::Shared;
use super::hubs::HubName;
use super::methods::method_of_clients;
use crate::extension::{BATCH_BYTES, acceptance, refusal};
use crate::service::{Answered, Answers};
use crate::wire::extension::call_link_server::CallLink;
use crate::wire::extension::{Answer, AnswerBatch, Call, CallBatch};

/// What one stream of calls is about.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) hub: HubName,
    pub(super) token: Option<String>,
}

#[tonic::async_trait]
impl CallLink for Arc<Link> {
    type CallsStream = Answers<AnswerBatch>;

    async fn calls(
        &self,
        request: Request<Streaming<CallBatch>>,
    ) -> Result<Response<Self::CallsStream>, Status> {
        let under_way = FuturesUnordered::new();
        let calls = Calls { link: self.clone(), batches: Some(request.into_inner()), waits: HashMap::new() };
        let answers = stream::unfold((calls, under_way), |(mut calls, mut under_way)| async move {
            let batch = loop {
                let max = calls.link.shared.limits.calls_per_connection as usize;
                let takes_more = calls.batches.is_some() && under_way.len() < max;
                tokio::select! {
                    batch = next(&mut calls.batches), if takes_more => match batch {
                        Some(batch) => calls.begin(batch, |call| under_way.push(call)),
                        None => calls.batches = None,
                    },
                    Some(answer) = under_way.next() => {
                        let ready = std::iter::from_fn(|| under_way.next().now_or_never().flatten());
                        break calls.batch(answer, ready);
                    }
                    else => return None,
                }
            };
            Some((Ok(batch), (calls, under_way)))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// The next batch. None when there are no more, and also when they cannot be read: the caller has gone then.
async fn next(batches: &mut Option<Streaming<CallBatch>>) -> Option<CallBatch> {
    match batches {
        Some(batches) => batches.message().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// The calls of a stream.
struct Calls {
    link: Arc<Link>,
    /// None when there will be no more.
    batches: Option<Streaming<CallBatch>>,
    /// How the calls under way are given up.
    waits: HashMap<u64, AbortHandle>,
}

impl Calls {
    fn begin(&mut self, batch: CallBatch, mut push: impl FnMut(Abortable<Pending>)) {
        for call in batch.calls {
            if call.method.is_empty() {
                if let Some(wait) = self.waits.remove(&call.number) {
                    wait.abort();
                }
                continue;
            }
            let (handle, registration) = AbortHandle::new_pair();
            self.waits.insert(call.number, handle);
            push(Abortable::new(Box::pin(answered(self.link.clone(), call)), registration));
        }
    }

    /// As many answers as there are, up to a size.
    fn batch<E>(
        &mut self,
        first: Result<Answer, E>,
        ready: impl Iterator<Item = Result<Answer, E>>,
    ) -> AnswerBatch {
        let mut batch = AnswerBatch::default();
        let mut bytes = 0;
        // What was given up has no answer.
        for answer in std::iter::once(first).chain(ready).flatten() {
            self.waits.remove(&answer.number);
            bytes += answer.message.len();
            batch.answers.push(answer);
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        batch
    }
}

type Pending = BoxFuture<'static, Answer>;

async fn answered(link: Arc<Link>, call: Call) -> Answer {
    let number = call.number;
    let answer = link.make(call).await.map_or_else(|status| refusal(&status), acceptance);
    Answer { number, ..answer }
}

impl Link {
    async fn make(&self, call: Call) -> Result<Answered, Status> {
        let method = method_of_clients(&call.method)
            .ok_or_else(|| Status::unimplemented(format!("there is no method '{}'", call.method)))?;
        let token = self.token.as_deref();
        let _place = self.shared.admit(method, &self.hub, token)?;
        let answer =
            pin!(async { self.shared.hubs.find(&self.hub).await?.answer(method.name, call.message).await });
        self.shared.until_ended(method, &self.hub, token, answer).await
    }
}
