//! What a worker has to report. It outlives connections: what was not sent over one is sent over the next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::Stream;
use futures_util::stream;
use steadfast_grpc::extension::{BATCH_BYTES, FORMAT, Profile, Report, encode_profile, encode_report};
use steadfast_grpc::wire::extension::FromWorker;
use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Default)]
struct Queue {
    /// Contents of messages, the first one next. Reports are added to the last one.
    contents: VecDeque<Vec<u8>>,
    /// The worker leaves.
    leaving: bool,
    /// Nothing is reported any more.
    closed: bool,
    /// Which connection the messages go to; an older one gets none.
    connection: u64,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are as many reports as the worker has places, at most, and heartbeats now and then.
    pub(super) fn report(&self, report: &Report) {
        let mut encoded = Vec::new();
        encode_report(report, &mut encoded);
        let mut queue = self.lock();
        match queue.contents.back_mut() {
            Some(last) if last.len() + encoded.len() <= BATCH_BYTES => last.append(&mut encoded),
            _ => queue.contents.push_back(encoded),
        }
        drop(queue);
        self.changed.notify_one();
    }

    /// The worker takes no more work.
    pub(super) fn leave(&self) {
        self.lock().leaving = true;
        self.changed.notify_one();
    }

    /// Ends the stream of messages when all are sent.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// The connection is over: its messages end.
    pub(super) fn cut(&self) {
        self.lock().connection += 1;
        self.changed.notify_waiters();
    }

    /// The messages of a new connection. Those of older ones end.
    pub(super) fn messages(self: &Arc<Self>, profile: &Profile) -> impl Stream<Item = FromWorker> + use<> {
        self.cut();
        let connection = self.lock().connection;
        let greeting = FromWorker { format: FORMAT, content: encode_profile(profile), leaving: false };
        let state =
            Messages { outbox: self.clone(), connection, greeting: Some(greeting), said_leaving: false };
        stream::unfold(state, |mut messages| async move {
            let next = messages.next().await?;
            Some((next, messages))
        })
    }
}

struct Messages {
    outbox: Arc<Outbox>,
    connection: u64,
    greeting: Option<FromWorker>,
    said_leaving: bool,
}

impl Messages {
    async fn next(&mut self) -> Option<FromWorker> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        loop {
            let mut changed = std::pin::pin!(self.outbox.changed.notified());
            changed.as_mut().enable();
            {
                let mut queue = self.outbox.lock();
                if queue.connection != self.connection {
                    drop(queue);
                    // It was meant for the other one.
                    self.outbox.changed.notify_one();
                    return None;
                }
                let content = queue.contents.pop_front();
                let leaving = queue.leaving && !self.said_leaving;
                if content.is_some() || leaving {
                    self.said_leaving |= leaving;
                    let content = content.unwrap_or_default();
                    return Some(FromWorker { format: 0, content, leaving });
                }
                if queue.closed {
                    return None;
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{FutureExt, StreamExt};
    use steadfast_grpc::extension::decode_reports;

    use super::*;

    fn given_back(token: &str) -> Report {
        Report::GivenBack { token: token.to_owned() }
    }

    #[test]
    fn reports_are_sent_together_over_the_last_connection_and_the_end_comes_after_them() {
        let profile = Profile {
            name: "test".into(),
            places: [1; 3],
            orchestrations: Vec::new(),
            activities: Vec::new(),
            entities: Vec::new(),
        };
        let outbox = Arc::new(Outbox::default());
        let mut first = pin!(outbox.messages(&profile));
        assert_eq!(first.next().now_or_never().flatten().map(|it| it.format), Some(FORMAT));
        assert_eq!(first.next().now_or_never(), None);
        let mut second = pin!(outbox.messages(&profile));
        outbox.report(&given_back("a"));
        outbox.report(&given_back("b"));
        assert_eq!(first.next().now_or_never(), Some(None));
        assert!(second.next().now_or_never().is_some());
        let message = second.next().now_or_never().flatten().expect("a message");
        assert_eq!(decode_reports(&message.content), Ok(vec![given_back("a"), given_back("b")]));
        outbox.leave();
        assert_eq!(second.next().now_or_never().flatten().map(|it| it.leaving), Some(true));
        outbox.report(&given_back("c"));
        outbox.close();
        let message = second.next().now_or_never().flatten().expect("a message");
        assert_eq!((decode_reports(&message.content), message.leaving), (Ok(vec![given_back("c")]), false));
        assert_eq!(second.next().now_or_never(), Some(None));
    }
}
