//! Programs that use a served hub: what works with a hub in the process works with one that is served, over each protocol.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod calls;
mod clients;
mod connections;
mod entities;
mod extension;
mod orchestrations;
mod support;
mod versions;
