//! The kernel and a store together, as a whole hub in virtual time: what the runtime promises, wherever it is stopped.

mod crash_everywhere;
mod programs;
mod scenarios;
