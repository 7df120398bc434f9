//! The kernel and a store together, as a whole hub in virtual time: what the runtime promises, wherever it is stopped.
#![allow(clippy::unwrap_used)]

mod crash_everywhere;
mod damage;
mod entities;
mod free_for_all;
mod intake;
mod memory;
mod messages;
mod patience;
mod poison;
mod programs;
mod records;
mod recovery;
mod rewinds;
mod scenarios;
mod sessions;
mod store_errors;
