//! Histories written by hand, and what every history has to look like.

mod builder;
mod check;

pub use builder::HistoryBuilder;
pub use check::{MalformedHistory, check_history};
