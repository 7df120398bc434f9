//! The orchestration turn: one wake-up of an instance, and the replay that brings it to where it was.

mod emit;
mod entities;
mod execution;
mod guarded;
mod hooks;
mod ledger;
mod nondeterminism;
mod remote;
mod rewind;
mod rewound;
mod session;
mod waker;

pub(crate) use emit::{refuse_start, terminated_child, to_parent};
pub(crate) use entities::free_all;
pub use guarded::{CrashedTurn, HistoryRoom, guarded};
pub use nondeterminism::NonDeterminism;
pub use remote::{RemoteSession, RemoteStep, RemoteTurn, TurnAnswer};
pub use rewound::{RewindRefusal, rewound_elsewhere};
pub(crate) use rewound::{is_same_child, rewound_execution, taken_over, unanswered};
pub use session::{NotRegistered, Session, Turn, Unfit, first_start};
