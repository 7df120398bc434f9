//! The activity dispatcher: runs activities on the tokio runtime that the hub was started in.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use actix::Addr;
use futures_util::FutureExt;
use parking_lot::Mutex;
use steadfast_core::failure::kinds;
use steadfast_core::model::{ActivityContext, Registry};
use steadfast_core::partition::ActivityTask;
use steadfast_core::{ActivityId, FailureDetails, Payload};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::actor::PartitionActor;
use super::messages::ActivityResults;

/// After this long a runner sends the results that there are, and lets other tasks of the runtime have a turn.
const RUN_TIME_MAX: Duration = Duration::from_micros(500);

/// No more results are kept before they are sent, so that they come back while other activities still run.
const RESULTS_MAX: usize = 128;

type Outcome = Result<Payload, FailureDetails>;
type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Runs activities and sends their results to the partition that asked.
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
    partition: Addr<PartitionActor>,
    shared: Mutex<Shared>,
}

struct Shared {
    /// Not begun yet, the next one last.
    tasks: Vec<Arc<ActivityTask>>,
    /// Not sent yet.
    results: Vec<(ActivityId, Outcome)>,
}

impl Batch {
    /// Notes a result and takes the next activity. With the last one go all results: nobody else may come by while it
    /// blocks.
    fn next(&self, result: Option<(ActivityId, Outcome)>) -> Option<Arc<ActivityTask>> {
        let mut shared = self.shared.lock();
        shared.results.extend(result);
        let task = shared.tasks.pop();
        let due = shared.tasks.is_empty() || shared.results.len() >= RESULTS_MAX;
        let results = if due { std::mem::take(&mut shared.results) } else { Vec::new() };
        drop(shared);
        self.report(results);
        task
    }

    fn report_all(&self, result: Option<(ActivityId, Outcome)>) {
        let mut results = std::mem::take(&mut self.shared.lock().results);
        results.extend(result);
        self.report(results);
    }

    /// Each result answers an activity that the partition dispatched, and it dispatches only so many at once.
    fn report(&self, results: Vec<(ActivityId, Outcome)>) {
        if !results.is_empty() {
            self.partition.do_send(ActivityResults(results));
        }
    }
}

impl Dispatcher {
    /// Runs the activities. Many end at their first poll; those share a task and a message.
    pub(super) fn run(&self, mut tasks: Vec<Arc<ActivityTask>>, partition: &Addr<PartitionActor>) {
        let runners = self.runtime.metrics().num_workers().clamp(1, tasks.len().max(1));
        tasks.reverse();
        let shared = Mutex::new(Shared { tasks, results: Vec::new() });
        let batch = Arc::new(Batch { partition: partition.clone(), shared });
        for _ in 0..runners {
            self.runtime.spawn(self.clone().run_batch(batch.clone()));
        }
    }

    async fn run_batch(self, batch: Arc<Batch>) {
        let mut began = Instant::now();
        let mut result = None;
        while let Some(task) = batch.next(result.take()) {
            let id = task.id;
            let mut running = self.run_one(task);
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
    fn run_one(&self, task: Arc<ActivityTask>) -> Running {
        match self.slots.clone().try_acquire_owned() {
            Ok(slot) => self.start(&task, Some(slot)),
            Err(_) => {
                let dispatcher = self.clone();
                Box::pin(async move {
                    let slot = dispatcher.slots.clone().acquire_owned().await.ok();
                    dispatcher.start(&task, slot).await
                })
            }
        }
    }

    /// Calls the activity's code, and frees the slot when it has ended; panics become failures, wherever they happen.
    fn start(&self, task: &ActivityTask, slot: Option<OwnedSemaphorePermit>) -> Running {
        let Some(code) = self.registry.find_activity(&task.name, &task.version) else {
            let problem = format!("no activity is registered as '{}' version '{}'", task.name, task.version);
            let failure = FailureDetails::new(kinds::ACTIVITY_NOT_REGISTERED, problem).non_retriable();
            return Box::pin(std::future::ready(Err(failure)));
        };
        let context = ActivityContext {
            instance: task.instance.clone(),
            execution: task.execution,
            name: task.name.clone(),
            task_id: task.task_id,
        };
        let started = catch_unwind(AssertUnwindSafe(|| code(context, &task.input)));
        let max = self.payload_bytes_max;
        match started {
            Ok(future) => Box::pin(AssertUnwindSafe(future).catch_unwind().map(move |caught| {
                drop(slot);
                check_size(caught.unwrap_or_else(|panic| Err(FailureDetails::from_panic(&*panic))), max)
            })),
            Err(panic) => Box::pin(std::future::ready(Err(FailureDetails::from_panic(&*panic)))),
        }
    }
}

fn check_size(outcome: Outcome, max: usize) -> Outcome {
    let payload = outcome?;
    if payload.len() <= max {
        return Ok(payload);
    }
    let problem =
        format!("the result has {} bytes and the hub allows {max}; return a reference", payload.len());
    Err(FailureDetails::new(kinds::PAYLOAD_TOO_LARGE, problem).non_retriable())
}
