//! Partition actors and instance actors.

mod actor;
mod attempts;
mod calls;
mod dispatcher;
mod elsewhere;
mod instance;
mod journal;
mod limits;
mod mail;
mod messages;
mod pump;
mod rewind;
mod waiters;

pub(crate) use actor::{PartitionActor, PartitionContext, PartitionFailure};
pub(crate) use attempts::Reports;
pub use attempts::{ActivityProgress, ActivityState};
pub(crate) use dispatcher::Dispatcher;
pub(crate) use elsewhere::RunsElsewhere;
pub(crate) use limits::Limits;
pub(crate) use mail::Mail;
pub(crate) use messages::{
    ActivitiesRead, Answer, Appended, Call, CallError, CountsRead, HistoryRead, Loaded, Materialised,
    OverlayRead, PartitionMessage, PoisonRead, StateRead, Stop, Submit, Tick, Wait, WaitFor,
};
