//! Work over the extension: items and reports in batches, sessions that stay, heartbeats and cancellation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use steadfast_core::failure::kinds;
use steadfast_core::model::{ActivityLink, CancelReason};
use steadfast_core::partition::ActivityTask;
use steadfast_core::{ActivityId, FailureDetails, HistoryEvent, InstanceId, Payload};
use steadfast_engine::EntityWork;
use steadfast_grpc::MESSAGE_BYTES_MAX;
use steadfast_grpc::extension::{FORMAT, Item, Past, Report, decode_items};
use steadfast_grpc::wire::extension::FromServer;
use steadfast_grpc::wire::extension::worker_link_client::WorkerLinkClient;
use tokio::runtime::Handle;
use tonic::{Status, Streaming};

use super::code::Code;
use super::outbox::Outbox;
use super::profile::Profile;
use super::sessions::Sessions;
use super::under_way::{Held, UnderWay};
use super::{Shared, TARGET};

/// How often the heartbeats of one attempt are sent, at most; more often if its time limit for them asks for it. Between, they
/// stay here.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// So often, at least, a heartbeat is sent within the time limit.
const HEARTBEATS_WITHIN_LIMIT: u32 = 4;

/// A worker's side of the extension.
#[derive(Clone)]
pub(super) struct Extended {
    shared: Arc<Shared>,
    runtime: Handle,
    outbox: Arc<Outbox>,
    under_way: UnderWay,
    running: Arc<Running>,
}

/// A connection. When it is dropped, the server sees that the worker is gone.
pub(super) struct Connected {
    messages: Streaming<FromServer>,
    _cut: Cut,
}

/// Ends the messages of a connection that is given up: they would wait for reports as long as anything is under way.
struct Cut(Arc<Outbox>);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// The activities that run, by their tokens.
#[derive(Default)]
struct Running(Mutex<HashMap<String, Arc<Attempt>>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Attempt>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Extended {
    pub(super) fn new(shared: Arc<Shared>, under_way: UnderWay) -> Self {
        let (outbox, running) = (Arc::default(), Arc::default());
        Self { shared, runtime: Handle::current(), outbox, under_way, running }
    }

    /// Connects, and is greeted.
    pub(super) async fn connect(&self, profile: &Profile) -> Result<Connected, Status> {
        let cut = Cut(self.outbox.clone());
        let mut stub = WorkerLinkClient::new(self.shared.link.calls.connection().clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut messages = stub.work(self.outbox.messages(&profile.extended())).await?.into_inner();
        match messages.message().await? {
            Some(greeting) if greeting.format == FORMAT => Ok(Connected { messages, _cut: cut }),
            Some(greeting) => {
                let theirs = greeting.format;
                Err(Status::failed_precondition(format!(
                    "the server speaks format {theirs}, and not {FORMAT}"
                )))
            }
            None => Err(Status::unavailable("the server ended the stream")),
        }
    }

    /// Takes items until the stream ends.
    pub(super) async fn take(&self, connected: &mut Connected) -> Status {
        loop {
            let message = match connected.messages.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Status::unavailable("the server ended the stream"),
                Err(status) => return status,
            };
            match decode_items(&message.content) {
                Ok(items) => items.into_iter().for_each(|item| self.begin(item)),
                Err(error) => return Status::internal(error.to_string()),
            }
        }
    }

    /// Lets the server know that no more work is taken, goes on until what was begun is done, and says goodbye.
    pub(super) async fn leave(&self, connected: &mut Connected) {
        self.outbox.leave();
        let all_reported = async {
            self.under_way.idle().await;
            self.outbox.close();
            std::future::pending::<()>().await;
        };
        // The server ends the stream when it has read everything. Should it be lost, others do what was not reported.
        tokio::select! {
            () = all_reported => {}
            _ = self.take(connected) => {}
        }
    }

    fn begin(&self, item: Item) {
        match item {
            Item::Turn { token, instance, past, new } => self.begin_turn(token, instance, past, new),
            Item::Activity { token, task } => self.begin_activity(token, Arc::new(task)),
            Item::Entity { token, batch } => self.begin_batch(token, batch),
            Item::Cancelled { token, reason } => {
                let attempt = self.running.lock().get(&token).cloned();
                if let Some(attempt) = attempt {
                    attempt.cancel(reason);
                }
            }
        }
    }

    fn begin_turn(&self, token: String, instance: InstanceId, past: Past, new: Vec<HistoryEvent>) {
        let (worker, held) = (self.clone(), self.under_way.begin());
        self.shared.turns.run(&instance.clone(), move |sessions| {
            worker.run_turn(sessions, token, instance, past, &new);
            drop(held);
        });
    }

    fn run_turn(
        &self,
        sessions: &mut Sessions,
        token: String,
        instance: InstanceId,
        past: Past,
        new: &[HistoryEvent],
    ) {
        let (mut session, events) = match past {
            Past::Whole(events) => (self.shared.code.session(instance.clone()), events),
            Past::After { token: after, events } => match sessions.take(&instance, &after) {
                Some(session) => (session, events),
                None => return self.outbox.report(&Report::NeedsHistory { token }),
            },
        };
        match Code::turn(&mut session, &instance, &events, new) {
            Ok(answer) => {
                let waits = answer.completion.is_none() && answer.rewound.is_none();
                self.outbox.report(&Report::Turn { token: token.clone(), answer: Box::new(answer) });
                if waits {
                    sessions.keep(instance, token, session);
                }
            }
            Err(error) => self.give_back(token, &format!("instance '{instance}': {error}")),
        }
    }

    fn begin_activity(&self, token: String, task: Arc<ActivityTask>) {
        let attempt = Arc::new(Attempt {
            token: token.clone(),
            outbox: self.outbox.clone(),
            payload_bytes_max: self.shared.code.payload_bytes_max(),
            interval: interval(&task),
            state: Mutex::new(AttemptState { cancelled: task.cancelled, ..AttemptState::default() }),
        });
        self.running.lock().insert(token.clone(), attempt.clone());
        let (worker, held) = (self.clone(), self.under_way.begin());
        self.runtime.spawn(async move {
            let outcome = worker.shared.code.activity(task, attempt.clone()).await;
            worker.running.lock().remove(&token);
            attempt.flush();
            worker.outbox.report(&Report::Activity { token, outcome });
            drop::<Held>(held);
        });
    }

    fn begin_batch(&self, token: String, batch: EntityWork) {
        let (worker, held) = (self.clone(), self.under_way.begin());
        self.runtime.spawn(async move {
            match worker.shared.code.entity(batch).await {
                Some(answer) => worker.outbox.report(&Report::Entity { token, answer }),
                None => worker.give_back(token, "no such entity is registered"),
            }
            drop::<Held>(held);
        });
    }

    fn give_back(&self, token: String, problem: &str) {
        tracing::warn!(target: TARGET, problem, "the worker gives an item back");
        self.outbox.report(&Report::GivenBack { token });
    }
}

/// An activity that runs, and what it and its hub tell each other.
struct Attempt {
    token: String,
    outbox: Arc<Outbox>,
    payload_bytes_max: usize,
    interval: Duration,
    state: Mutex<AttemptState>,
}

/// How often the heartbeats of an activity are sent.
fn interval(task: &ActivityTask) -> Duration {
    let limit = task.options.as_deref().and_then(|options| options.heartbeat);
    limit.map_or(HEARTBEAT_INTERVAL, |limit| HEARTBEAT_INTERVAL.min(limit / HEARTBEATS_WITHIN_LIMIT))
}

#[derive(Default)]
struct AttemptState {
    cancelled: Option<CancelReason>,
    wakers: Vec<Waker>,
    /// Not sent yet.
    heartbeat: Option<Payload>,
    sent_at: Option<Instant>,
}

impl Attempt {
    fn lock(&self) -> MutexGuard<'_, AttemptState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel(&self, reason: CancelReason) {
        let wakers = {
            let mut state = self.lock();
            state.cancelled.get_or_insert(reason);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The attempt ends: what it said last goes first.
    fn flush(&self) {
        let heartbeat = self.lock().heartbeat.take();
        if let Some(detail) = heartbeat {
            self.outbox.report(&Report::Heartbeat { token: self.token.clone(), detail });
        }
    }
}

impl ActivityLink for Attempt {
    fn heartbeat(&self, _: ActivityId, detail: Payload) -> Result<(), FailureDetails> {
        let (bytes, max) = (detail.len(), self.payload_bytes_max);
        if bytes > max {
            let problem = format!("the detail has {bytes} bytes and the worker allows {max}");
            return Err(FailureDetails::new(kinds::PAYLOAD_TOO_LARGE, problem).non_retriable());
        }
        let mut state = self.lock();
        if state.sent_at.is_some_and(|at| at.elapsed() < self.interval) {
            state.heartbeat = Some(detail);
            return Ok(());
        }
        (state.sent_at, state.heartbeat) = (Some(Instant::now()), None);
        drop(state);
        self.outbox.report(&Report::Heartbeat { token: self.token.clone(), detail });
        Ok(())
    }

    fn poll_cancelled(&self, _: ActivityId, waker: Option<&Waker>) -> Option<CancelReason> {
        let mut state = self.lock();
        if let Some(waker) = waker
            && state.cancelled.is_none()
            && !state.wakers.iter().any(|known| known.will_wake(waker))
        {
            state.wakers.push(waker.clone());
        }
        state.cancelled
    }
}
