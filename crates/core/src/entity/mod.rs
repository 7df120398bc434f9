//! Entities: named, keyed objects with a state and operations that run one at a time.

mod id;
mod vocabulary;

pub use id::EntityId;
pub use vocabulary::{
    EntityCaller, EntityLock, EntityLockRequest, EntityOperation, EntityOwner, EntityState, EntityUnlock,
};
