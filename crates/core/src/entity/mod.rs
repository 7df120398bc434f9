//! Entities: named, keyed objects with a state and operations that run one at a time.

mod id;
mod requested;
mod turn;
mod vocabulary;

pub use id::EntityId;
pub use requested::RequestedLocks;
pub use turn::{EntitySession, EntityTurn, PendingEntityTurn};
pub use vocabulary::{
    EntityCaller, EntityLock, EntityLockRequest, EntityOperation, EntityOwner, EntityState, EntityUnlock,
};
