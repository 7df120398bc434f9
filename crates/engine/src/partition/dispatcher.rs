//! The activity dispatcher: runs activities on the tokio runtime that the hub was started in.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use actix::Addr;
use futures_util::FutureExt;
use steadfast_core::failure::kinds;
use steadfast_core::model::{ActivityContext, Registry};
use steadfast_core::partition::ActivityTask;
use steadfast_core::{ActivityId, FailureDetails, Payload};
use tokio::runtime::Handle;

use super::actor::PartitionActor;
use super::messages::ActivityResults;

/// After this long the rest of a chunk moves to another task, so that a slow activity does not hold up others.
const CHUNK_TIME_MAX: Duration = Duration::from_micros(500);

/// No chunk is larger, so that results come back while others still run.
const CHUNK_LEN_MAX: usize = 128;

type Outcome = Result<Payload, FailureDetails>;
type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Runs activities and sends their results to the partition that asked.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    pub(crate) registry: Arc<Registry>,
    pub(crate) runtime: Handle,
    pub(crate) payload_bytes_max: usize,
}

impl Dispatcher {
    /// Runs the activities. Many end at their first poll; those share a task and a message.
    pub(super) fn run(&self, tasks: &[Arc<ActivityTask>], partition: &Addr<PartitionActor>) {
        let workers = self.runtime.metrics().num_workers().max(1);
        let len = tasks.len().div_ceil(workers).clamp(1, CHUNK_LEN_MAX);
        for chunk in tasks.chunks(len) {
            self.spawn_chunk(chunk.to_vec(), partition.clone());
        }
    }

    fn spawn_chunk(&self, tasks: Vec<Arc<ActivityTask>>, partition: Addr<PartitionActor>) {
        self.runtime.spawn(self.clone().run_chunk(tasks, partition));
    }

    async fn run_chunk(self, mut tasks: Vec<Arc<ActivityTask>>, partition: Addr<PartitionActor>) {
        let began = Instant::now();
        let mut results = Vec::with_capacity(tasks.len());
        tasks.reverse();
        while let Some(task) = tasks.pop() {
            let mut running = self.start(&task);
            match poll_fn(|context| Poll::Ready(running.as_mut().poll(context))).await {
                Poll::Ready(outcome) => results.push((task.id, outcome)),
                Poll::Pending => {
                    let partition = partition.clone();
                    tokio::spawn(async move { report(&partition, vec![(task.id, running.await)]) });
                }
            }
            if !tasks.is_empty() && began.elapsed() > CHUNK_TIME_MAX {
                tasks.reverse();
                self.spawn_chunk(tasks, partition.clone());
                break;
            }
        }
        if !results.is_empty() {
            report(&partition, results);
        }
    }

    /// Calls the activity's code; panics become failures, wherever they happen.
    fn start(&self, task: &ActivityTask) -> Running {
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
    let problem = format!("the result has {} bytes and the hub allows {max}; return a reference", payload.len());
    Err(FailureDetails::new(kinds::PAYLOAD_TOO_LARGE, problem).non_retriable())
}

/// Each result answers an activity that the partition dispatched, and it dispatches only so many at once.
fn report(partition: &Addr<PartitionActor>, results: Vec<(ActivityId, Outcome)>) {
    partition.do_send(ActivityResults(results));
}
