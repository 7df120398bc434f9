//! Adversarial tests of the orchestration turn, by theme.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod activities;
