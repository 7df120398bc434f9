//! Limits on the activities of one name: how many run at once, and how many begin in a second.

use std::time::Duration;

use crate::time::Timestamp;

/// A limit on the activities of one name, over all partitions of a hub.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ActivityLimit {
    /// How many may run at once.
    pub concurrency: Option<usize>,
    /// How often they may begin.
    pub rate: Option<RateLimit>,
}

/// How often something may begin: a token bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// How many in a second, in the long run.
    pub per_second: f64,
    /// How many at once after a pause.
    pub burst: u32,
}

impl ActivityLimit {
    /// At most so many at once.
    pub fn concurrency(max: usize) -> Self {
        Self { concurrency: Some(max), rate: None }
    }

    /// At most so many in a second, and `burst` at once after a pause.
    pub fn rate(per_second: f64, burst: u32) -> Self {
        Self { concurrency: None, rate: Some(RateLimit { per_second, burst }) }
    }

    /// Says what is wrong with the limit, if anything is.
    pub fn problem(&self) -> Option<&'static str> {
        if self.concurrency == Some(0) {
            return Some("its concurrency is 0, and then it could never run");
        }
        let rate = self.rate?;
        if !(rate.per_second.is_finite() && rate.per_second > 0.0) {
            return Some("its rate is not a positive number");
        }
        (rate.burst == 0).then_some("its burst is 0, and then it could never begin")
    }
}

/// Why an activity cannot begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As many as may are running; ask again when one has ended.
    Full,
    /// The rate allows the next one at this moment.
    Until(Timestamp),
}

/// Where a limit stands.
#[derive(Debug, Clone)]
pub struct LimitState {
    limit: ActivityLimit,
    running: usize,
    /// What the bucket held at `filled_at`.
    tokens: f64,
    filled_at: Timestamp,
}

/// So little is missing only because sums of fractions are not exact.
const ROUNDING: f64 = 1e-9;

impl LimitState {
    /// A limit that nothing has used yet.
    pub fn new(limit: ActivityLimit, now: Timestamp) -> Self {
        let tokens = limit.rate.map_or(0.0, |rate| f64::from(rate.burst));
        Self { limit, running: 0, tokens, filled_at: now }
    }

    /// Lets one begin, if it may.
    ///
    /// # Errors
    /// When it may not, with the reason.
    pub fn begin(&mut self, now: Timestamp) -> Result<(), Refusal> {
        if self.limit.concurrency.is_some_and(|max| self.running >= max) {
            return Err(Refusal::Full);
        }
        if let Some(rate) = self.limit.rate {
            // A clock that goes back fills nothing.
            let gained = now.since(self.filled_at).as_secs_f64() * rate.per_second;
            self.tokens = (self.tokens + gained).min(f64::from(rate.burst));
            self.filled_at = self.filled_at.max(now);
            if self.tokens < 1.0 - ROUNDING {
                let missing = (1.0 - self.tokens) / rate.per_second;
                let wait = Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX);
                return Err(Refusal::Until(self.filled_at.after(wait.max(Duration::from_micros(1)))));
            }
            self.tokens -= 1.0;
        }
        self.running += 1;
        Ok(())
    }

    /// One has ended.
    pub fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.running
    }
}
