//! The runtime end to end, on stores in memory: what a client sees, what survives, and what goes wrong.

mod activities;
mod client;
mod control;
mod list;
mod patterns;
mod sessions;
mod start;
mod support;
