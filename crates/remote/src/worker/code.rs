//! Running the registered code. Whatever it does, the worker goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use steadfast_core::failure::kinds;
use steadfast_core::model::{ActivityContext, ActivityLink, EntityBatch, FreshIds, Properties, Registry};
use steadfast_core::partition::ActivityTask;
use steadfast_core::turn::{HistoryRoom, Session, TurnAnswer, Unfit, guarded};
use steadfast_core::{
    EventKind, ExecutionId, FailureDetails, HistoryEvent, InstanceId, Origin, Payload, TaskMessage, log_event,
};
use steadfast_engine::{EntityAnswer, EntityWork};
use tokio::runtime::Handle;
use uuid::Uuid;

/// The code that a worker runs.
#[derive(Clone)]
pub(super) struct Code {
    registry: Arc<Registry>,
    payload_bytes_max: usize,
    fresh_ids: FreshIds,
}

/// A turn that was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    /// This program does not run the instance.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The kernel crashed.
    #[error("the turn crashed: {0}")]
    Crashed(String),
}

impl Code {
    pub(super) fn new(registry: Registry, payload_bytes_max: usize) -> Self {
        let fresh_ids: FreshIds = Arc::new(|| ExecutionId::new(Uuid::now_v7()));
        Self { registry: Arc::new(registry), payload_bytes_max, fresh_ids }
    }

    /// A session without history.
    pub(super) fn session(&self, instance: InstanceId) -> Session {
        Session::new(self.registry.clone(), instance, self.payload_bytes_max)
    }

    /// Takes a turn: `past` is what the session does not have yet of the history.
    pub(super) fn turn(
        session: &mut Session,
        instance: &InstanceId,
        past: &[HistoryEvent],
        new: &[HistoryEvent],
    ) -> Result<TurnAnswer, NotTaken> {
        let asked = new.iter().find(|event| matches!(event.kind, EventKind::ExecutionRewound { .. }));
        if let Some(asked) = asked.filter(|_| has_ended(past)) {
            return Ok(rewind(session, instance, past, asked));
        }
        let taken = guarded(|| {
            if !past.is_empty() {
                session.replay(past)?;
            }
            session.remote_turn(new)
        });
        Ok(taken.map_err(NotTaken::Crashed)??)
    }

    pub(super) async fn activity(
        &self,
        task: Arc<ActivityTask>,
        link: Arc<dyn ActivityLink>,
    ) -> Result<Payload, FailureDetails> {
        let (instance, name, id) = (task.instance.clone(), task.name.clone(), task.task_id);
        log_event!(TaskActivityStarting, %instance, %name, id);
        let context = ActivityContext::new(task.clone(), Some(link));
        let started = catch_unwind(AssertUnwindSafe(|| self.registry.start_activity(&task, context)));
        let outcome = match started {
            Ok(running) => AssertUnwindSafe(running).catch_unwind().await,
            Err(panic) => Err(panic),
        };
        let outcome = outcome.unwrap_or_else(|panic| Err(FailureDetails::from_panic(&*panic)));
        let outcome = outcome.and_then(|output| self.check_size(output));
        match &outcome {
            Ok(_) => log_event!(TaskActivityCompleted, %instance, %name, id),
            Err(failure) => log_event!(TaskActivityFailure, %instance, %name, id, %failure),
        }
        outcome
    }

    fn check_size(&self, output: Payload) -> Result<Payload, FailureDetails> {
        let (bytes, max) = (output.len(), self.payload_bytes_max);
        if bytes <= max {
            return Ok(output);
        }
        let problem = format!("the result has {bytes} bytes and the worker allows {max}; return a reference");
        Err(FailureDetails::new(kinds::PAYLOAD_TOO_LARGE, problem).non_retriable())
    }

    pub(super) fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max
    }

    /// Runs a batch of operations. None when no such entity is registered.
    pub(super) async fn entity(&self, work: EntityWork) -> Option<EntityAnswer> {
        let EntityWork { entity, state, operations, now } = work;
        if !self.registry.has_entity(entity.name()) {
            return None;
        }
        let blocking = self.registry.is_entity_blocking(entity.name());
        let (count, before) = (operations.len(), state.clone());
        let batch = EntityBatch {
            entity,
            state,
            operations,
            now,
            max_payload_bytes: self.payload_bytes_max,
            fresh_ids: self.fresh_ids.clone(),
            properties: Properties::default(),
            converter: self.registry.converter().clone(),
        };
        let registry = self.registry.clone();
        let running = AssertUnwindSafe(async move { registry.start_entity(batch).await }).catch_unwind();
        let ran = if blocking {
            let runtime = Handle::current();
            let joined = tokio::task::spawn_blocking(move || runtime.block_on(running)).await;
            joined.unwrap_or_else(|lost| Err(Box::new(lost.to_string())))
        } else {
            running.await
        };
        Some(match ran {
            Ok(done) => EntityAnswer {
                results: done.results,
                actions: done.actions,
                state: done.state,
                failure: None,
            },
            Err(panic) => refused_batch(count, before, &FailureDetails::from_panic(&*panic)),
        })
    }
}

fn has_ended(history: &[HistoryEvent]) -> bool {
    history.iter().any(|event| matches!(event.kind, EventKind::ExecutionCompleted { .. }))
}

/// The answer to a turn that rewinds a failed execution: what is left of its history. The code goes on with the next turn.
fn rewind(
    session: &mut Session,
    instance: &InstanceId,
    failed: &[HistoryEvent],
    asked: &HistoryEvent,
) -> TurnAnswer {
    let message = TaskMessage {
        instance: instance.clone(),
        execution: None,
        event: asked.clone(),
        origin: Origin::Client,
    };
    let turn = match session.rewind(failed, &message, asked.timestamp, &HistoryRoom::UNLIMITED) {
        Ok(turn) => turn,
        Err(refusal) => return TurnAnswer::failed(refusal.into()),
    };
    let mut history = turn.events;
    let is_rewound = |event: &HistoryEvent| matches!(event.kind, EventKind::ExecutionRewound { .. });
    let end = history.iter().rposition(is_rewound).map_or(history.len(), |at| at + 1);
    let goes_on = |event: &HistoryEvent| event.kind != EventKind::OrchestratorCompleted;
    if history.drain(end..).any(|event| goes_on(&event)) {
        let problem = "the code asks for more, or ends, without waiting for what failed; a worker elsewhere cannot rewind that";
        return TurnAnswer::failed(FailureDetails::new(kinds::NOT_REWOUND, problem).non_retriable());
    }
    TurnAnswer { rewound: Some(history), custom_status: turn.custom_status, ..TurnAnswer::default() }
}

/// An answer by which every operation of a batch fails, and nothing else happens.
pub(super) fn refused_batch(
    operations: usize,
    state: Option<Payload>,
    failure: &FailureDetails,
) -> EntityAnswer {
    let results = (0..operations).map(|_| Err(failure.clone())).collect();
    EntityAnswer { results, state, ..EntityAnswer::default() }
}
