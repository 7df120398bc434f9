//! `steadfast serve` and the commands beside it, as programs that are started and called from outside.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod authority;
mod health;
mod hostile;
mod hubs;
mod limits;
mod many;
mod receiving;
mod safety;
mod settings;
mod stop;
mod support;
mod tokens;
mod workers;
