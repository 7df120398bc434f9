//! Where the engine's time comes from.

use std::time::{SystemTime, UNIX_EPOCH};

use steadfast_core::Timestamp;

/// A source of time. The engine reads it whenever something comes in; a test can own it.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;

    /// Registers something to be called whenever time has jumped. A clock whose time flows by itself ignores it and
    /// returns false; then the engine sleeps until the next thing is due.
    fn on_jump(&self, wake: Box<dyn Fn() + Send + Sync>) -> bool;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn on_jump(&self, _wake: Box<dyn Fn() + Send + Sync>) -> bool {
        false
    }
}
