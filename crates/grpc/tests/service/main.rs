//! `TaskHubSidecarService` over a loopback connection, as clients of other languages use it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod control;
mod entities;
mod hostile;
mod look;
mod purge;
mod query;
mod rewind;
mod start;
mod support;
mod waits;
mod work;
mod worker;
