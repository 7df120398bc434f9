//! What workers ask: work, and to be rid of it.

mod complete;
mod partial;
mod stream;

pub(super) use partial::PartialAnswers;
