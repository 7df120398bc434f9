//! Orchestrations whose code runs in another process.
//!
//! A turn of theirs has two halves. The first takes the messages in and says what a worker has to be given; the second
//! makes events and messages of its answer. What needs no code (a termination, what happens during a suspension) ends with
//! the first half, so that an instance obeys whether or not there is a worker. A worker that is a Rust program takes the turn in
//! a [`Session`](super::Session) of its own.

mod exchange;
mod hooks;
mod rewind;
mod session;
mod worker;

pub use exchange::{RemoteTurn, TurnAnswer};
pub use session::{RemoteSession, RemoteStep};
