//! Entities: named, keyed objects with a state and operations that run one at a time.

mod id;
mod turn;
mod vocabulary;

pub use id::EntityId;
pub use turn::{EntitySession, EntityTurn, PendingEntityTurn};
pub use vocabulary::{
    EntityCaller, EntityLock, EntityLockRequest, EntityOperation, EntityOwner, EntityState, EntityUnlock,
};
