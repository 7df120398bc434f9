//! Tools for testing durable orchestrations, and the runtime itself.
//!
//! - [`HistoryBuilder`] writes histories by hand, and [`replay`] says whether code agrees with one: whether a change
//!   would break instances that are under way, and what the code would ask for next.
//! - [`Simulation`] runs a whole task hub in one thread and in virtual time, with crashes wherever a test wants them.
//! - [`VirtualClock`] gives a real hub a time that a test moves.
//! - [`check_history`] says what every history has to look like.

mod clock;
mod history;
mod random;
mod replay;
pub mod simulation;

pub use clock::VirtualClock;
pub use history::{HistoryBuilder, MalformedHistory, check_history};
pub use random::SplitMix64;
pub use replay::{ReplayError, ReplayOutcome, ReplayedEnd, replay, replay_in, replay_json};
pub use simulation::{EndState, Schedule, Simulation, SimulationOptions};
