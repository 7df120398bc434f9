//! Entities that workers run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use steadfast_core::model::{BatchFuture, EntityAction, EntityBatch, EntityBatchResult, EntityFn};
use steadfast_core::{FailureDetails, Payload};
use tokio::sync::oneshot;

use super::Workers;
use super::item::{EntityWork, Item};

/// What a worker answers to a batch of an entity's operations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EntityAnswer {
    /// One for each operation that was run, in order. Those that have none are run later.
    pub results: Vec<Result<Payload, FailureDetails>>,
    /// What the operations asked for, in order.
    pub actions: Vec<EntityAction>,
    /// What is kept from now on; none when the entity is to be gone.
    pub state: Option<Payload>,
    /// Why nothing was run. The operations are run again later.
    pub failure: Option<FailureDetails>,
}

/// An item that is withdrawn when nobody waits for its result any more.
struct Asked<'a>(Arc<Item>, &'a Workers);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.1.withdraw(&self.0);
    }
}

impl Workers {
    /// The code of entities that are not registered here.
    pub(crate) fn entity_code(&self) -> EntityFn {
        let workers = self.clone();
        Arc::new(move |batch| -> BatchFuture {
            let workers = workers.clone();
            Box::pin(async move { workers.run_entity(batch).await })
        })
    }

    /// Lets workers run a batch, the rest of it again as long as there is one. It does not end when the workers are closed.
    async fn run_entity(&self, batch: EntityBatch) -> EntityBatchResult {
        let EntityBatch { entity, state, mut operations, now, .. } = batch;
        let mut done = EntityBatchResult { state, ..EntityBatchResult::default() };
        let mut failures = 0_u32;
        while !operations.is_empty() {
            let (reply, answer) = oneshot::channel();
            let work = EntityWork {
                entity: entity.clone(),
                state: done.state.clone(),
                operations: operations.clone(),
                now,
            };
            let asked = Asked(Item::entity(Arc::new(work), reply), self);
            self.offer_after(asked.0.clone(), failures);
            let Ok(answer) = answer.await else { return std::future::pending().await };
            if let Some(failure) = &answer.failure {
                tracing::warn!(target: "steadfast::workers", %entity, %failure, "a worker could not run an entity's operations; they are run again");
            }
            let ran = if answer.failure.is_some() { 0 } else { answer.results.len().min(operations.len()) };
            if ran == 0 {
                failures += 1;
                continue;
            }
            failures = 0;
            operations.drain(..ran);
            done.results.extend(answer.results.into_iter().take(ran));
            done.actions.extend(answer.actions);
            done.state = answer.state;
        }
        done
    }
}
