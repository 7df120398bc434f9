//! The runtime end to end, on stores in memory: what a client sees, what survives, and what goes wrong.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod activities;
mod client;
mod control;
mod durability;
mod lifecycle;
mod middleware_elsewhere;
mod patterns;
mod query;
mod raw;
mod sessions;
mod start;
mod supervision;
mod support;
mod workers;
