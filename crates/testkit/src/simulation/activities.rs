//! The activities of a simulated hub: run one at a time, counted by what identifies the call.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use steadfast_core::model::{ActivityContext, Registry};
use steadfast_core::partition::ActivityTask;
use steadfast_core::{ActivityId, FailureDetails, PartitionId, Payload};

pub(super) type Outcome = Result<Payload, FailureDetails>;

#[derive(Debug, Default)]
pub(super) struct Activities {
    /// Dispatched and not begun.
    pub(super) waiting: Vec<(PartitionId, Arc<ActivityTask>)>,
    /// Done and not reported.
    pub(super) results: Vec<(PartitionId, ActivityId, Outcome)>,
    /// How often each call was run, by its idempotency key.
    pub(super) runs: BTreeMap<String, u32>,
}

impl Activities {
    pub(super) fn run(&mut self, registry: &Registry, partition: PartitionId, task: &Arc<ActivityTask>) {
        let context = ActivityContext::new(task.clone(), None);
        *self.runs.entry(context.idempotency_key()).or_default() += 1;
        let outcome = catch_unwind(AssertUnwindSafe(|| finish(registry.start_activity(task, context))))
            .unwrap_or_else(|panic| Err(FailureDetails::from_panic(&*panic)));
        self.results.push((partition, task.id, outcome));
    }

    /// The process died.
    pub(super) fn lose(&mut self) {
        self.waiting.clear();
        self.results.clear();
    }
}

/// Activities of a simulation wait for nothing.
fn finish<F: Future + Unpin>(mut future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    match std::pin::Pin::new(&mut future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("an activity of a simulation must not wait for anything"),
    }
}
