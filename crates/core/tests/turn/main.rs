//! Adversarial tests of the orchestration turn, by theme.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod activities;
mod cancelled;
mod children;
mod continue_as_new;
mod crashed;
mod determinism;
mod equivalence;
mod events;
mod failures;
mod nondeterminism;
mod not_durable;
mod patches;
mod retry;
mod rewind;
mod rewound;
mod suspend;
mod terminate;
mod timers;
mod versions;
