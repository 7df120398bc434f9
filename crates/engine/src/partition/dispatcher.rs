//! The activity dispatcher: runs activities on the tokio runtime that the hub was started in.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use parking_lot::Mutex;
use steadfast_core::dispatch::Deadlines;
use steadfast_core::failure::kinds;
use steadfast_core::model::{ActivityContext, Registry};
use steadfast_core::partition::ActivityTask;
use steadfast_core::{ActivityId, FailureDetails, Payload, log_event};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use super::attempts::{ActivityRunner, Attempt, Reports};
use super::limits::Permit;
use crate::trace;

/// After this long a runner sends the results that there are, and lets other tasks of the runtime have a turn.
const RUN_TIME_MAX: Duration = Duration::from_micros(500);

/// No more results are kept before they are sent, so that they come back while other activities still run.
const RESULTS_MAX: usize = 128;

type Outcome = Result<Payload, FailureDetails>;
type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Runs the activities that are registered in this process, and reports to the partition that asked.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    pub(crate) registry: Arc<Registry>,
    pub(crate) runtime: Handle,
    pub(crate) payload_bytes_max: usize,
    /// One permit for each activity that may run at once, over all partitions.
    pub(crate) slots: Arc<Semaphore>,
}

/// Activities that were dispatched together. As many tasks as the runtime has workers share them one by one: whoever
/// gets an activity that blocks its thread holds up none of the others.
struct Batch {
    reports: Reports,
    shared: Mutex<Shared>,
}

struct Shared {
    /// Not begun yet, the next one last.
    attempts: Vec<Attempt>,
    /// Not sent yet.
    results: Vec<(ActivityId, Outcome)>,
}

impl Batch {
    /// Notes a result and takes the next activity. With the last one go all results: nobody else may come by while it
    /// blocks.
    fn next(&self, result: Option<(ActivityId, Outcome)>) -> Option<Attempt> {
        let mut shared = self.shared.lock();
        shared.results.extend(result);
        let attempt = shared.attempts.pop();
        let due = shared.attempts.is_empty() || shared.results.len() >= RESULTS_MAX;
        let results = if due { std::mem::take(&mut shared.results) } else { Vec::new() };
        drop(shared);
        self.report(results);
        attempt
    }

    fn report_all(&self, result: Option<(ActivityId, Outcome)>) {
        let mut results = std::mem::take(&mut self.shared.lock().results);
        results.extend(result);
        self.report(results);
    }

    /// Each result answers an activity that the partition dispatched, and it dispatches only so many at once.
    fn report(&self, results: Vec<(ActivityId, Outcome)>) {
        if !results.is_empty() {
            self.reports.done(results);
        }
    }
}

impl ActivityRunner for Dispatcher {
    /// Many activities end at their first poll; those share a task and a message.
    fn run(&self, mut attempts: Vec<Attempt>, reports: &Reports) {
        let runners = self.runtime.metrics().num_workers().clamp(1, attempts.len().max(1));
        attempts.reverse();
        let shared = Mutex::new(Shared { attempts, results: Vec::new() });
        let batch = Arc::new(Batch { reports: reports.clone(), shared });
        for _ in 0..runners {
            self.runtime.spawn(self.clone().run_batch(batch.clone()));
        }
    }
}

impl Dispatcher {
    async fn run_batch(self, batch: Arc<Batch>) {
        let mut began = Instant::now();
        let mut result = None;
        while let Some(attempt) = batch.next(result.take()) {
            let id = attempt.task.id;
            let mut running = self.run_one(attempt, &batch.reports);
            match poll_fn(|context| Poll::Ready(running.as_mut().poll(context))).await {
                Poll::Ready(outcome) => result = Some((id, outcome)),
                Poll::Pending => {
                    let batch = batch.clone();
                    tokio::spawn(async move { batch.report(vec![(id, running.await)]) });
                }
            }
            if began.elapsed() > RUN_TIME_MAX {
                batch.report_all(result.take());
                tokio::task::yield_now().await;
                began = Instant::now();
            }
        }
    }

    /// Runs an activity as soon as there is a free slot.
    fn run_one(&self, attempt: Attempt, reports: &Reports) -> Running {
        match self.slots.clone().try_acquire_owned() {
            Ok(slot) => self.start(attempt, reports, Some(slot)),
            Err(_) => {
                let (dispatcher, reports) = (self.clone(), reports.clone());
                Box::pin(async move {
                    let slot = dispatcher.slots.clone().acquire_owned().await.ok();
                    dispatcher.start(attempt, &reports, slot).await
                })
            }
        }
    }

    /// Calls the activity's code, and frees its places when it has ended; panics become failures, wherever they happen.
    fn start(&self, attempt: Attempt, reports: &Reports, slot: Option<OwnedSemaphorePermit>) -> Running {
        let Attempt { task, permit } = attempt;
        let places: (Option<OwnedSemaphorePermit>, Option<Permit>) = (slot, permit);
        if task.options.as_deref().is_some_and(Deadlines::concern) {
            reports.began(task.id);
        }
        let context = ActivityContext::new(task.clone(), Some(reports.link()));
        let (instance, name, id) = (&task.instance, &task.name, task.task_id);
        log_event!(TaskActivityStarting, %instance, %name, id);
        let span = trace::running(&task);
        let started =
            catch_unwind(AssertUnwindSafe(|| span.in_scope(|| self.registry.start_activity(&task, context))));
        let max = self.payload_bytes_max;
        match started {
            Ok(future) => {
                let running = AssertUnwindSafe(future).catch_unwind().map(move |caught| {
                    drop(places);
                    let outcome = caught.unwrap_or_else(|panic| Err(FailureDetails::from_panic(&*panic)));
                    let outcome = check_size(outcome, max);
                    log_end(&task, &outcome);
                    outcome
                });
                if span.is_none() { Box::pin(running) } else { Box::pin(running.instrument(span)) }
            }
            Err(panic) => {
                let outcome = Err(FailureDetails::from_panic(&*panic));
                log_end(&task, &outcome);
                Box::pin(std::future::ready(outcome))
            }
        }
    }
}

fn log_end(task: &ActivityTask, outcome: &Outcome) {
    let (instance, name, id) = (&task.instance, &task.name, task.task_id);
    match outcome {
        Ok(_) => log_event!(TaskActivityCompleted, %instance, %name, id),
        Err(failure) => log_event!(TaskActivityFailure, %instance, %name, id, %failure),
    }
}

pub(super) fn check_size(outcome: Outcome, max: usize) -> Outcome {
    let payload = outcome?;
    if payload.len() <= max {
        return Ok(payload);
    }
    let problem =
        format!("the result has {} bytes and the hub allows {max}; return a reference", payload.len());
    Err(FailureDetails::new(kinds::PAYLOAD_TOO_LARGE, problem).non_retriable())
}
