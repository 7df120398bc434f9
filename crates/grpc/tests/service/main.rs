//! `TaskHubSidecarService` over a loopback connection, as clients of other languages use it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod control;
mod entities;
mod look;
mod many;
mod start;
mod support;
mod work;
mod worker;
