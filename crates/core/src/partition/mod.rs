//! The partition machine: everything that a control-queue partition decides.
//!
//! A [`Partition`] takes messages in, batches them by instance, hands out turns to run ([`Work`]), turns their results
//! into checkpoints, collects checkpoints and accepted messages in the *open record*, and gives that out as one
//! [`Record`] when it is sealed. What must be done once a record is durable ([`Effect`]) is held back until
//! [`Partition::on_durable`]. It performs nothing itself, and the same code applies a checkpoint live and at recovery.
//!
//! Rows and records hold *absolute* facts (this row exists, messages up to that number are consumed), never relative
//! ones, so that applying a record over a state that already contains it changes nothing.

mod activities;
mod apply;
mod delayed;
mod effect;
mod entities;
mod entry;
mod forced;
mod intake;
mod links;
mod machine;
mod materialise;
mod outside;
mod overlay;
mod poison;
mod record;
mod recovery;
mod residents;
mod rewind;
mod rows;
mod tally;
mod turns;

pub use effect::{Accepted, ActivityTask, Effect, Rejection, Token};
pub use entry::HistoryPiece;
pub use machine::{Commit, Partition, PartitionCounts, PartitionOptions};
pub use materialise::{Capture, CapturedChange, CapturedInstance, CapturedRow};
pub use overlay::{Overlay, OverlayCursor};
pub use poison::Poison;
pub use record::Record;
pub use recovery::{RecoveredInstance, RecoveryError, RecoverySource};
pub use turns::{LoadedInstance, ParkReason, SessionSource, TurnRequest, Work};
