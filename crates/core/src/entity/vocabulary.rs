//! What travels to and from entities, and what is kept of one.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::EntityId;
use crate::event::TraceContext;
use crate::ids::{ExecutionId, InstanceId};
use crate::payload::Payload;
use crate::time::Timestamp;

/// An operation that is asked of an entity, called or signaled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityOperation {
    /// Names the result's way back to a call. A text, because other SDKs choose it; signals of this crate have an empty
    /// one.
    pub request_id: SmolStr,
    /// The operation's name, whose case doesn't matter.
    pub operation: SmolStr,
    /// Its input.
    pub input: Payload,
    /// Of a signal: not to be delivered before this moment.
    pub scheduled_time: Option<Timestamp>,
    /// The entity, in the history of the orchestration that asked; a message has its addressee.
    pub target: Option<EntityId>,
    /// Who asked, in a message; none for a client, and in a history, which is that of the caller.
    pub caller: Option<EntityCaller>,
    /// The trace that it belongs to.
    pub trace: Option<Box<TraceContext>>,
}

/// Who asked for an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityCaller {
    /// An orchestration, or an entity.
    pub instance: InstanceId,
    /// The orchestration's execution, to which the result of a call goes. Entities have none.
    pub execution: Option<ExecutionId>,
}

/// Who holds a lock, or asks for one: one execution of an orchestration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityOwner {
    /// The orchestration.
    pub instance: InstanceId,
    /// Its execution.
    pub execution: ExecutionId,
}

/// A request for several entities' locks. It goes from one to the next, and the last one grants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityLockRequest {
    /// Names the critical section.
    pub critical_section: SmolStr,
    /// The entities, sorted, each once.
    pub lock_set: Vec<EntityId>,
    /// Which of them has the request now.
    pub position: u32,
    /// Who asks, in a message; none in a history, which is that of the owner.
    pub owner: Option<EntityOwner>,
    /// The trace that it belongs to.
    pub trace: Option<Box<TraceContext>>,
}

/// An entity's lock is given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityUnlock {
    /// Names the critical section.
    pub critical_section: SmolStr,
    /// The entity, in a history; a message has its addressee.
    pub target: Option<EntityId>,
    /// Who gives it back, in a message; none in a history, which is that of the owner.
    pub owner: Option<EntityOwner>,
    /// Entities to go on to from here. An owner who gives up while the request may still be on its way sends the unlock
    /// after it, along the same entities: so it can't overtake the request anywhere.
    pub then: Vec<EntityId>,
}

/// What is kept of an entity. What waits for it is in its queue, like any instance's messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityState {
    /// What the entity's code keeps; the entity exists as long as there is something.
    pub state: Option<Payload>,
    /// Whose critical section it is in.
    pub lock: Option<EntityLock>,
    /// How many messages waited for it when this was read. Not stored.
    #[serde(skip)]
    pub backlog: usize,
}

/// A lock that an entity has given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityLock {
    /// Names the critical section.
    pub critical_section: SmolStr,
    /// Who holds it.
    pub owner: EntityOwner,
}

impl EntityLock {
    /// Whether an unlock comes from the owner of this lock, for this critical section.
    pub fn is_freed_by(&self, unlock: &EntityUnlock) -> bool {
        self.critical_section == unlock.critical_section && unlock.owner.as_ref() == Some(&self.owner)
    }
}

impl EntityState {
    /// Whether nothing of the entity has to be kept.
    pub fn is_empty(&self) -> bool {
        self.state.is_none() && self.lock.is_none()
    }

    /// Roughly how much memory this takes besides itself, in bytes.
    pub fn approximate_bytes(&self) -> usize {
        let state = self.state.as_ref().map_or(0, Payload::len);
        state + size_of::<Self>()
    }
}
