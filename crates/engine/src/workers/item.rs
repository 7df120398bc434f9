//! Work items.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use actix::{Message, WeakRecipient};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use steadfast_core::dispatch::Deadlines;
use steadfast_core::model::{BatchOperation, CancelReason};
use steadfast_core::partition::ActivityTask;
use steadfast_core::turn::{RemoteTurn, TurnAnswer};
use steadfast_core::{ActivityId, EntityId, FailureDetails, InstanceId, Payload, Timestamp};
use tokio::sync::oneshot;

use super::entities::EntityAnswer;
use super::state::WorkerId;
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
        /// What this worker has of the history, if it keeps sessions.
        resident: Option<Resident>,
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
    /// Nobody waits for an activity any more that the worker has. Only workers learn of that which say they want to.
    Cancelled {
        /// With which the activity was handed out.
        token: String,
        /// Why not.
        reason: CancelReason,
    },
}

/// What a worker has of an instance in memory: the session that took its last turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    /// The token with which that turn was handed out.
    pub after: String,
    /// How many events of the history its session knows.
    pub events: usize,
}

/// Which worker took the last turn of an instance, if it keeps sessions.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub(super) worker: WorkerId,
    pub(super) token: String,
}

impl Keeper {
    /// Its session knows so many events.
    pub(crate) fn knows(self, events: usize) -> Kept {
        let Self { worker, token } = self;
        Kept { worker, resident: Resident { after: token, events } }
    }
}

/// Where the session of an instance is.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    worker: WorkerId,
    resident: Resident,
}

/// A result, of whatever kind the work was.
#[derive(Debug, Clone)]
pub enum WorkResult {
    /// Of a turn.
    Turn(TurnAnswer),
    /// Of an activity.
    Activity(Result<Payload, FailureDetails>),
    /// Of an entity's batch.
    Entity(EntityAnswer),
}

impl WorkResult {
    pub(super) fn kind(&self) -> WorkKind {
        match self {
            Self::Turn(_) => WorkKind::Orchestration,
            Self::Activity(_) => WorkKind::Activity,
            Self::Entity(_) => WorkKind::Entity,
        }
    }
}

/// A batch of operations for an entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// To the instance whose turn it was: what the worker answered, and who it was if it keeps the session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TurnAnswered(pub(crate) Box<TurnAnswer>, pub(crate) Option<Keeper>);

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
    /// Of a turn: who has the session.
    kept: Option<Kept>,
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
    pub(crate) fn turn(
        turn: RemoteTurn,
        reply: WeakRecipient<TurnAnswered>,
        kept: Option<Kept>,
    ) -> Arc<Self> {
        let (name, version) = (turn.started.name.clone(), turn.started.version.clone());
        let key = Key { kind: WorkKind::Orchestration, name, version };
        let instance = turn.instance.clone();
        Self::new(key, instance, 0, kept, Content::Turn { turn, reply })
    }

    /// An attempt at an activity; the partition gets the result.
    pub(crate) fn activity(task: Arc<ActivityTask>, attempt: RunsElsewhere, reports: Reports) -> Arc<Self> {
        let version = if task.version.is_empty() { &task.instance_version } else { &task.version };
        let key = Key { kind: WorkKind::Activity, name: task.name.clone(), version: version.clone() };
        let priority = task.options.as_ref().map_or(0, |options| options.priority);
        Self::new(key, task.instance.clone(), priority, None, Content::Activity { task, attempt, reports })
    }

    pub(super) fn entity(batch: Arc<EntityWork>, reply: oneshot::Sender<EntityAnswer>) -> Arc<Self> {
        let name = SmolStr::new(batch.entity.name());
        let key = Key { kind: WorkKind::Entity, name, version: SmolStr::default() };
        let instance = batch.entity.instance_id().clone();
        Self::new(key, instance, 0, None, Content::Entity { batch, reply })
    }

    fn new(key: Key, instance: InstanceId, priority: i32, kept: Option<Kept>, content: Content) -> Arc<Self> {
        Arc::new(Self {
            key,
            instance,
            priority,
            kept,
            content: Mutex::new(Some(content)),
            over: AtomicBool::new(false),
            abandoned: AtomicU32::new(0),
            tokens: Mutex::default(),
        })
    }

    /// Nobody waits for the result any more. A stop that waits for it is told by [`super::Workers::withdraw`].
    pub(super) fn withdraw(&self) {
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

    /// Who had the instance's session.
    pub(super) fn keeper(&self) -> Option<WorkerId> {
        self.kept.as_ref().map(|kept| kept.worker)
    }

    /// The item as a worker gets it; none when it is over. Whoever has the session need not be given the history.
    pub(super) fn work(&self, token: String, to: Option<WorkerId>) -> Option<WorkItem> {
        let kept = || self.kept.as_ref().filter(|kept| Some(kept.worker) == to);
        Some(match self.content.lock().as_ref()? {
            Content::Turn { turn, .. } => {
                let resident = kept().map(|kept| kept.resident.clone());
                WorkItem::Turn { token, turn: turn.clone(), resident }
            }
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
    pub(super) fn answer_turn(&self, answer: TurnAnswer, keeper: Option<Keeper>) {
        if let Some(Content::Turn { turn, reply }) = self.content.lock().take() {
            // The instance adds to the history next, which it does in place if nobody else holds it.
            drop(turn);
            if let Some(reply) = reply.upgrade() {
                reply.do_send(TurnAnswered(Box::new(answer), keeper));
            }
        }
    }

    /// The result of an activity, for whom it is. None if it is not waited for.
    pub(super) fn end_activity(
        &self,
        outcome: Result<Payload, FailureDetails>,
    ) -> Option<(Reports, ActivityId, Result<Payload, FailureDetails>)> {
        let Some(Content::Activity { task, attempt, reports }) = self.content.lock().take() else {
            return None;
        };
        Some((reports, task.id, attempt.ended(outcome)))
    }

    /// A running activity says how far it has come.
    pub(super) fn heartbeat(&self, detail: Payload) -> Result<(), FailureDetails> {
        match &*self.content.lock() {
            Some(Content::Activity { task, reports, .. }) => reports.link().heartbeat(task.id, detail),
            _ => Ok(()),
        }
    }

    pub(super) fn answer_entity(&self, answer: EntityAnswer) {
        if let Some(Content::Entity { reply, .. }) = self.content.lock().take() {
            // Without a receiver the entity's turn is over.
            let _ = reply.send(answer);
        }
    }
}
