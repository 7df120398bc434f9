//! Partition actors and instance actors.

mod actor;
mod calls;
mod dispatcher;
mod instance;
mod messages;
mod pump;

pub(crate) use actor::{PartitionActor, PartitionContext, PartitionFailure};
pub(crate) use dispatcher::Dispatcher;
pub(crate) use messages::{
    Answer, Appended, Call, CallError, HistoryRead, Loaded, Materialised, OverlayRead, PartitionMessage,
    StateRead, Stop, Submit, Tick, Wait, WaitFor,
};
