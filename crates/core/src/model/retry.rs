//! Retry policies, and the loop that applies them with durable timers.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::context::OrchestrationContext;
use crate::error::TaskError;
use crate::failure::FailureDetails;

type Predicate = Arc<dyn Fn(&FailureDetails) -> bool + Send + Sync>;

/// When and how often to try again after a failure. Failures marked non-retriable are never tried again.
///
/// ```
/// use std::time::Duration;
/// use steadfast_core::model::RetryPolicy;
/// let policy = RetryPolicy::new(5, Duration::from_secs(1))
///     .backoff(2.0)
///     .max_interval(Duration::from_secs(10))
///     .timeout(Duration::from_secs(60))
///     .retry_if(|failure| failure.error_type != "Declined");
/// assert_eq!(policy.delay_after(3), Duration::from_secs(8));
/// assert_eq!(policy.delay_after(4), Duration::from_secs(10));
/// ```
#[derive(Clone)]
pub struct RetryPolicy {
    max_attempts: u32,
    first_interval: Duration,
    backoff_coefficient: f64,
    max_interval: Option<Duration>,
    timeout: Option<Duration>,
    predicate: Option<Predicate>,
}

impl RetryPolicy {
    /// At most `max_attempts` attempts in all (0 counts as 1), `first_interval` apart.
    pub fn new(max_attempts: u32, first_interval: Duration) -> Self {
        Self {
            max_attempts: max_attempts.max(1),
            first_interval,
            backoff_coefficient: 1.0,
            max_interval: None,
            timeout: None,
            predicate: None,
        }
    }

    /// One attempt.
    pub(super) fn never() -> Self {
        Self::new(1, Duration::ZERO)
    }

    /// Each interval is `coefficient` times the one before; below 1 or not a number counts as 1.
    pub fn backoff(mut self, coefficient: f64) -> Self {
        self.backoff_coefficient = if coefficient >= 1.0 { coefficient } else { 1.0 };
        self
    }

    /// No interval is longer than this.
    pub fn max_interval(mut self, interval: Duration) -> Self {
        self.max_interval = Some(interval);
        self
    }

    /// No attempt begins later than this after the first one.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Only failures for which `predicate` is true are tried again. It must be deterministic.
    pub fn retry_if(mut self, predicate: impl Fn(&FailureDetails) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(Arc::new(predicate));
        self
    }

    /// How long to wait after failed attempt number `attempt`, counted from 0.
    pub fn delay_after(&self, attempt: u32) -> Duration {
        if self.first_interval.is_zero() {
            return Duration::ZERO;
        }
        let factor = self.backoff_coefficient.powi(i32::try_from(attempt).unwrap_or(i32::MAX));
        let seconds = self.first_interval.as_secs_f64() * factor;
        let delay = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        delay.min(self.max_interval.unwrap_or(Duration::MAX))
    }

    fn wants_retry(&self, failure: &FailureDetails) -> bool {
        !failure.non_retriable && self.predicate.as_ref().is_none_or(|predicate| predicate(failure))
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("max_attempts", &self.max_attempts)
            .field("first_interval", &self.first_interval)
            .field("backoff_coefficient", &self.backoff_coefficient)
            .field("max_interval", &self.max_interval)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Runs `call` until it succeeds or the policy gives up. `first` is the first attempt, which is under way already.
/// Each further attempt is told how the one before ended. N failing attempts make N calls and N − 1 timers.
pub(super) fn with_retry<T, Fut>(
    context: OrchestrationContext,
    policy: RetryPolicy,
    first: Fut,
    call: impl Fn(&TaskError) -> Fut,
) -> impl Future<Output = Result<T, TaskError>>
where
    Fut: Future<Output = Result<T, TaskError>>,
{
    // The first attempt begins now, whenever it is awaited.
    let began = context.now();
    async move {
        let mut attempt = 0;
        let mut current = first;
        loop {
            let error = match current.await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let delay = policy.delay_after(attempt);
            attempt += 1;
            let next = context.now().after(delay);
            let in_time = policy.timeout.is_none_or(|timeout| next < began.after(timeout));
            if attempt >= policy.max_attempts || !in_time || !policy.wants_retry(&error.details) {
                return Err(error);
            }
            if !delay.is_zero() {
                context.timer(delay).await;
            }
            current = call(&error);
        }
    }
}
