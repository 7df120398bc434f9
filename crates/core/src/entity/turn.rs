//! The entity's turn: a batch of messages, and what it changes.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{EntityId, EntityLock, EntityLockRequest, EntityState, EntityUnlock};
use crate::event::{EventKind, ExecutionStarted, HistoryEvent};
use crate::failure::FailureDetails;
use crate::ids::{ExecutionId, InstanceId};
use crate::message::{Origin, TaskMessage};
use crate::model::{
    BatchFuture, BatchOperation, EntityAction, EntityBatch, EntityBatchResult, FreshIds, Properties,
    Registry, cut_short,
};
use crate::time::Timestamp;
use crate::turn::{CrashedTurn, Turn, guarded};

/// What an entity is from now on: the part of a [`Turn`] that entities have instead of events.
#[derive(Debug, PartialEq, Eq)]
pub struct EntityTurn {
    /// What is kept; the entity vanishes when that is nothing.
    pub state: EntityState,
    /// When.
    pub at: Timestamp,
}

/// An entity in memory. It keeps nothing between turns: its state is with the partition.
pub struct EntitySession {
    registry: Arc<Registry>,
    entity: EntityId,
    max_payload_bytes: usize,
    fresh_ids: FreshIds,
}

/// A turn that has begun; a future, because an entity's code may wait for something real. Most are ready at their first
/// poll. One that is dropped has changed nothing, and neither has one that crashed: it gives its messages back.
#[must_use = "a turn that is not polled to its end changes nothing"]
pub struct PendingEntityTurn {
    registry: Arc<Registry>,
    messages: Vec<TaskMessage>,
    state: EntityState,
    entity: EntityId,
    now: Timestamp,
    fresh_ids: FreshIds,
    /// What the code gets at the first poll.
    batch: Option<EntityBatch>,
    code: Option<BatchFuture>,
}

impl EntitySession {
    /// An entity whose operations are found in `registry`. `fresh_ids` gives an id that nobody has, each time.
    pub fn new(
        registry: Arc<Registry>,
        entity: EntityId,
        max_payload_bytes: usize,
        fresh_ids: FreshIds,
    ) -> Self {
        Self { registry, entity, max_payload_bytes, fresh_ids }
    }

    /// Begins a turn over a batch of messages. No code is run before the first poll.
    pub fn begin(&self, batch: Vec<TaskMessage>, state: EntityState, now: Timestamp) -> PendingEntityTurn {
        let operations: Vec<_> = batch.iter().filter_map(requested_operation).collect();
        let operations = (!operations.is_empty()).then(|| EntityBatch {
            entity: self.entity.clone(),
            state: state.state.clone(),
            operations,
            now,
            max_payload_bytes: self.max_payload_bytes,
            fresh_ids: self.fresh_ids.clone(),
            properties: Properties::default(),
            converter: self.registry.converter().clone(),
        });
        PendingEntityTurn {
            registry: self.registry.clone(),
            messages: batch,
            state,
            entity: self.entity.clone(),
            now,
            fresh_ids: self.fresh_ids.clone(),
            batch: operations,
            code: None,
        }
    }
}

fn requested_operation(message: &TaskMessage) -> Option<BatchOperation> {
    let (operation, is_signal) = match &message.event.kind {
        EventKind::EntityOperationCalled(operation) => (operation, false),
        EventKind::EntityOperationSignaled(operation) => (operation, true),
        _ => return None,
    };
    Some(BatchOperation {
        operation: operation.operation.clone(),
        input: operation.input.clone(),
        request_id: operation.request_id.clone(),
        caller: operation.caller.clone(),
        is_signal,
        scheduled_time: operation.scheduled_time,
        trace: operation.trace.clone(),
    })
}

impl PendingEntityTurn {
    /// The messages that the turn consumes, for a turn that does not end at once.
    pub fn messages(&self) -> &[TaskMessage] {
        &self.messages
    }

    /// Whether the code that is to be run may block its thread.
    pub fn may_block(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| self.registry.is_entity_blocking(batch.entity.name()))
    }
}

impl Future for PendingEntityTurn {
    type Output = Result<Turn, CrashedTurn>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let problem = match guarded(|| this.step(task)) {
            Ok(turn) => return turn.map(Ok),
            Err(problem) => problem,
        };
        // What is left of the code may crash as well when it is thrown away.
        let _ = guarded(|| this.code = None);
        Poll::Ready(Err(CrashedTurn { batch: std::mem::take(&mut this.messages), problem }))
    }
}

impl PendingEntityTurn {
    fn step(&mut self, task: &mut Context<'_>) -> Poll<Turn> {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if let Some(batch) = self.batch.take() {
                let (entity, operations) = (&self.entity, batch.operations.len());
                log_event!(EntityBatchExecuting, instance = %entity, operations);
                self.code = Some(self.registry.start_entity(batch));
            }
            self.code.as_mut().map(|code| code.as_mut().poll(task))
        }));
        let result = match polled {
            Ok(None) => None,
            Ok(Some(Poll::Pending)) => return Poll::Pending,
            Ok(Some(Poll::Ready(result))) => Some(Ok(result)),
            Err(panic) => Some(Err(FailureDetails::from_panic(&*panic))),
        };
        self.code = None;
        Poll::Ready(self.finish(result))
    }

    /// What the code left becomes a turn. The messages stay whole, should they have to be given back.
    fn finish(&mut self, result: Option<Result<EntityBatchResult, FailureDetails>>) -> Turn {
        let mut turn = Turn::default();
        let mut state = std::mem::take(&mut self.state);
        let messages = &self.messages;
        if let Some(result) = result {
            let (results, actions, missing) = match result {
                Ok(result) => {
                    state.state = result.state;
                    (result.results, result.actions, cut_short())
                }
                Err(panic) => (Vec::new(), Vec::new(), panic),
            };
            let (entity, failures) = (&self.entity, results.iter().filter(|result| result.is_err()).count());
            log_event!(EntityBatchExecuted, instance = %entity, operations = results.len(), failures);
            let mut results = results.into_iter();
            for message in messages {
                self.answer(message, || results.next().unwrap_or_else(|| Err(missing.clone())), &mut turn);
            }
            for action in actions {
                turn.messages.push(self.action_message(action));
            }
        }
        let unlocked: Vec<_> = messages.iter().filter_map(unlock_of).cloned().collect();
        for message in messages {
            match &message.event.kind {
                EventKind::EntityLockRequested(request) => {
                    self.lock((**request).clone(), &unlocked, &mut state, &mut turn);
                }
                EventKind::EntityUnlockSent(unlock) => {
                    if let Some(lock) = state.lock.take_if(|lock| lock.is_freed_by(unlock)) {
                        let (owner, section) = (&lock.owner.instance, &lock.critical_section);
                        log_event!(EntityLockReleased, instance = %self.entity, %owner, %section);
                    }
                    self.pass_on(unlock, &mut turn);
                }
                _ => {}
            }
        }
        turn.entity = Some(Box::new(EntityTurn { state, at: self.now }));
        turn
    }

    /// Sends an operation's result to whoever called it. Nobody waits for that of a signal.
    fn answer(
        &self,
        message: &TaskMessage,
        mut result: impl FnMut() -> Result<crate::payload::Payload, FailureDetails>,
        turn: &mut Turn,
    ) {
        match &message.event.kind {
            EventKind::EntityOperationSignaled(operation) => {
                if let Err(failure) = result() {
                    let operation = &operation.operation;
                    tracing::warn!(target: "steadfast::entity", entity = %self.entity, %operation, %failure, "a signal failed");
                }
            }
            EventKind::EntityOperationCalled(operation) => {
                let request_id = operation.request_id.clone();
                let kind = match result() {
                    Ok(output) => EventKind::EntityOperationCompleted { request_id, output },
                    Err(failure) => {
                        EventKind::EntityOperationFailed { request_id, failure: Box::new(failure) }
                    }
                };
                if let Some(caller) = &operation.caller {
                    turn.messages.push(self.message(&caller.instance, caller.execution, kind));
                }
            }
            _ => {}
        }
    }

    /// A request for the lock has come to the front: the entity is locked, and the request goes on.
    fn lock(
        &self,
        mut request: EntityLockRequest,
        unlocked: &[EntityUnlock],
        state: &mut EntityState,
        turn: &mut Turn,
    ) {
        let Some(owner) = request.owner.clone() else { return };
        let critical_section = request.critical_section.clone();
        let lock = EntityLock { critical_section, owner };
        if unlocked.iter().any(|unlock| lock.is_freed_by(unlock)) {
            return;
        }
        request.position += 1;
        let next = usize::try_from(request.position).ok().and_then(|at| request.lock_set.get(at));
        turn.messages.push(match next.map(|next| next.instance_id().clone()) {
            Some(next) => self.message(&next, None, EventKind::EntityLockRequested(Box::new(request))),
            None => {
                let granted =
                    EventKind::EntityLockGranted { critical_section: lock.critical_section.clone() };
                self.message(&lock.owner.instance, Some(lock.owner.execution), granted)
            }
        });
        let (owner, section) = (&lock.owner.instance, &lock.critical_section);
        log_event!(EntityLockAcquired, instance = %self.entity, %owner, %section);
        state.lock = Some(lock);
    }

    /// An unlock that follows a request goes on to where the request went on.
    fn pass_on(&self, unlock: &EntityUnlock, turn: &mut Turn) {
        if let Some((next, then)) = unlock.then.split_first() {
            let unlock = EntityUnlock { then: then.to_vec(), ..unlock.clone() };
            let kind = EventKind::EntityUnlockSent(Box::new(unlock));
            turn.messages.push(self.message(next.instance_id(), None, kind));
        }
    }

    fn action_message(&self, action: EntityAction) -> TaskMessage {
        match action {
            EntityAction::Signal { target, mut operation } => {
                operation.caller = Some(super::EntityCaller {
                    instance: self.entity.instance_id().clone(),
                    execution: None,
                });
                let kind = EventKind::EntityOperationSignaled(operation);
                self.message(target.instance_id(), None, kind)
            }
            EntityAction::Start { instance, name, version, input, tags, scheduled_start, trace } => {
                let execution = (self.fresh_ids)();
                let started = ExecutionStarted {
                    tags,
                    scheduled_start,
                    trace,
                    ..ExecutionStarted::new(name, version, input, execution)
                };
                let kind = EventKind::ExecutionStarted(Box::new(started));
                self.message(&instance, Some(execution), kind)
            }
        }
    }

    fn message(&self, instance: &InstanceId, execution: Option<ExecutionId>, kind: EventKind) -> TaskMessage {
        let event = HistoryEvent::message(self.now, kind);
        TaskMessage { instance: instance.clone(), execution, event, origin: Origin::Local }
    }
}

fn unlock_of(message: &TaskMessage) -> Option<&EntityUnlock> {
    match &message.event.kind {
        EventKind::EntityUnlockSent(unlock) => Some(unlock),
        _ => None,
    }
}
