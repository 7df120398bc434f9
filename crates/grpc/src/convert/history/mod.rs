//! Histories, both ways.
//!
//! A turn goes out as `OrchestratorStarted`, the new events in the order of their arrival, and the events that confirm
//! the actions. `OrchestratorCompleted` is left out: no SDK needs it, and some compare histories without it. On the way
//! in it is put back where the next turn begins.

mod from_wire;
mod to_wire;

pub use from_wire::{event_from_wire, history_from_wire};
pub use to_wire::{HistoryWriter, history_to_wire};

use steadfast_core::{ExecutionId, InstanceId};

/// The protocol has no event for a patch that code has taken, so it goes out as a text that says so.
const PATCH: &str = "steadfast.patch:";

/// Whose history it is: some events of the protocol repeat it, and ids of children follow from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    /// The instance.
    pub instance: InstanceId,
    /// The execution.
    pub execution: ExecutionId,
}
