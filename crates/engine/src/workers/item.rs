//! Work items.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use actix::{Message, WeakRecipient};
use parking_lot::Mutex;
use smol_str::SmolStr;
use steadfast_core::dispatch::Deadlines;
use steadfast_core::model::BatchOperation;
use steadfast_core::partition::ActivityTask;
use steadfast_core::turn::{RemoteTurn, TurnAnswer};
use steadfast_core::{EntityId, FailureDetails, InstanceId, Payload, Timestamp};
use tokio::sync::oneshot;

use super::entities::EntityAnswer;
use crate::partition::{Reports, RunsElsewhere};

/// The kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkKind {
    /// A turn of an orchestration.
    Orchestration,
    /// An activity.
    Activity,
    /// A batch of an entity's operations.
    Entity,
}

/// What a worker is given. Its result comes back with the token.
#[derive(Debug, Clone)]
pub enum WorkItem {
    /// Take a turn.
    Turn {
        /// Stands for this handing out.
        token: String,
        /// The turn.
        turn: RemoteTurn,
    },
    /// Run an activity.
    Activity {
        /// Stands for this handing out.
        token: String,
        /// The activity.
        task: Arc<ActivityTask>,
    },
    /// Run an entity's operations.
    Entity {
        /// Stands for this handing out.
        token: String,
        /// The operations.
        batch: Arc<EntityWork>,
    },
}

/// A batch of operations for an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityWork {
    /// The entity.
    pub entity: EntityId,
    /// What its code kept, if it exists.
    pub state: Option<Payload>,
    /// The operations, in order.
    pub operations: Vec<BatchOperation>,
    /// When they are run.
    pub now: Timestamp,
}

/// To the instance whose turn it was: what the worker answered.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TurnAnswered(pub(crate) Box<TurnAnswer>);

/// What is to be run: by name and version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) kind: WorkKind,
    pub(super) name: SmolStr,
    pub(super) version: SmolStr,
}

/// Something that a worker is to do. It is in a lane, or handed out, or both after its worker has gone away.
pub(crate) struct Item {
    pub(super) key: Key,
    /// For whom.
    pub(super) instance: InstanceId,
    pub(super) priority: i32,
    content: Mutex<Option<Content>>,
    /// Nobody waits for a result any more, or there is one.
    over: AtomicBool,
    /// How often a worker gave it back.
    pub(super) abandoned: AtomicU32,
    /// Those that are valid, the oldest first. Usually there is one.
    pub(super) tokens: Mutex<Vec<u64>>,
}

enum Content {
    Turn { turn: RemoteTurn, reply: WeakRecipient<TurnAnswered> },
    Activity { task: Arc<ActivityTask>, attempt: RunsElsewhere, reports: Reports },
    Entity { batch: Arc<EntityWork>, reply: oneshot::Sender<EntityAnswer> },
}

impl Item {
    /// A turn of an orchestration; the instance gets the answer, if it is still there.
    pub(crate) fn turn(turn: RemoteTurn, reply: WeakRecipient<TurnAnswered>) -> Arc<Self> {
        let (name, version) = (turn.started.name.clone(), turn.started.version.clone());
        let key = Key { kind: WorkKind::Orchestration, name, version };
        let instance = turn.instance.clone();
        Self::new(key, instance, 0, Content::Turn { turn, reply })
    }

    /// An attempt at an activity; the partition gets the result.
    pub(crate) fn activity(task: Arc<ActivityTask>, attempt: RunsElsewhere, reports: Reports) -> Arc<Self> {
        let version = if task.version.is_empty() { &task.instance_version } else { &task.version };
        let key = Key { kind: WorkKind::Activity, name: task.name.clone(), version: version.clone() };
        let priority = task.options.as_ref().map_or(0, |options| options.priority);
        Self::new(key, task.instance.clone(), priority, Content::Activity { task, attempt, reports })
    }

    pub(super) fn entity(batch: Arc<EntityWork>, reply: oneshot::Sender<EntityAnswer>) -> Arc<Self> {
        let name = SmolStr::new(batch.entity.name());
        let key = Key { kind: WorkKind::Entity, name, version: SmolStr::default() };
        let instance = batch.entity.instance_id().clone();
        Self::new(key, instance, 0, Content::Entity { batch, reply })
    }

    fn new(key: Key, instance: InstanceId, priority: i32, content: Content) -> Arc<Self> {
        Arc::new(Self {
            key,
            instance,
            priority,
            content: Mutex::new(Some(content)),
            over: AtomicBool::new(false),
            abandoned: AtomicU32::new(0),
            tokens: Mutex::default(),
        })
    }

    /// Nobody waits for the result any more.
    pub(crate) fn withdraw(&self) {
        self.finish();
        *self.content.lock() = None;
    }

    /// Whether it is with a worker, or was.
    pub(crate) fn was_handed_out(&self) -> bool {
        !self.tokens.lock().is_empty()
    }

    pub(super) fn finish(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Whether somebody still waits for a result.
    pub(super) fn is_wanted(&self) -> bool {
        !self.over.load(Ordering::Acquire)
    }

    pub(super) fn task_id(&self) -> Option<i32> {
        match &*self.content.lock() {
            Some(Content::Activity { task, .. }) => Some(task.task_id),
            _ => None,
        }
    }

    /// The item as a worker gets it; none when it is over.
    pub(super) fn work(&self, token: String) -> Option<WorkItem> {
        Some(match self.content.lock().as_ref()? {
            Content::Turn { turn, .. } => WorkItem::Turn { token, turn: turn.clone() },
            Content::Activity { task, .. } => WorkItem::Activity { token, task: task.clone() },
            Content::Entity { batch, .. } => WorkItem::Entity { token, batch: batch.clone() },
        })
    }

    /// A worker gets it now.
    pub(super) fn begins(&self) {
        if let Some(Content::Activity { task, reports, .. }) = &*self.content.lock()
            && task.options.as_deref().is_some_and(Deadlines::concern)
        {
            reports.began(task.id);
        }
    }

    /// An instance has one turn at a time, so what it is sent is bounded by the number of instances.
    pub(super) fn answer_turn(&self, answer: TurnAnswer) {
        if let Some(Content::Turn { turn, reply }) = self.content.lock().take() {
            // The instance adds to the history next, which it does in place if nobody else holds it.
            drop(turn);
            if let Some(reply) = reply.upgrade() {
                reply.do_send(TurnAnswered(Box::new(answer)));
            }
        }
    }

    pub(super) fn answer_activity(&self, outcome: Result<Payload, FailureDetails>) {
        if let Some(Content::Activity { task, attempt, reports }) = self.content.lock().take() {
            attempt.ended(&task, outcome, &reports);
        }
    }

    pub(super) fn answer_entity(&self, answer: EntityAnswer) {
        if let Some(Content::Entity { reply, .. }) = self.content.lock().take() {
            // Without a receiver the entity's turn is over.
            let _ = reply.send(answer);
        }
    }
}
