//! When running attempts have taken too long.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::event::ActivityOptions;
use crate::failure::{FailureDetails, kinds};
use crate::message::ActivityId;
use crate::model::CancelReason;
use crate::time::Timestamp;

/// The deadlines of the running attempts that have any. Attempts without a timeout are not in it.
#[derive(Debug, Default)]
pub struct Deadlines {
    due: BTreeSet<(Timestamp, ActivityId)>,
    attempts: HashMap<ActivityId, Attempt, FixedState>,
}

#[derive(Debug)]
struct Attempt {
    began: Timestamp,
    start_to_close: Option<Duration>,
    heartbeat: Option<Duration>,
    /// Its entry in `due`.
    due: Timestamp,
}

/// An attempt that has taken too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Which.
    pub id: ActivityId,
    /// Which timeout it was.
    pub reason: CancelReason,
    /// How long that is.
    pub timeout: Duration,
}

impl Expired {
    /// The failure that the orchestration sees.
    pub fn failure(&self) -> FailureDetails {
        let timeout = self.timeout;
        match self.reason {
            CancelReason::HeartbeatTimedOut => FailureDetails::new(
                kinds::HEARTBEAT_TIMED_OUT,
                format!("the attempt gave no heartbeat for longer than its heartbeat timeout of {timeout:?}"),
            ),
            _ => FailureDetails::new(
                kinds::ACTIVITY_TIMED_OUT,
                format!("the attempt took longer than its start-to-close timeout of {timeout:?}"),
            ),
        }
    }
}

impl Deadlines {
    /// Whether an attempt with these options has deadlines.
    pub fn concern(options: &ActivityOptions) -> bool {
        options.start_to_close.is_some() || options.heartbeat.is_some()
    }

    /// An attempt began.
    pub fn begin(&mut self, id: ActivityId, options: &ActivityOptions, began: Timestamp) {
        let (start_to_close, heartbeat) = (options.start_to_close, options.heartbeat);
        let Some(first) = [start_to_close, heartbeat].into_iter().flatten().min() else { return };
        self.end(id);
        let due = began.after(first);
        self.due.insert((due, id));
        self.attempts.insert(id, Attempt { began, start_to_close, heartbeat, due });
    }

    /// An attempt ended.
    pub fn end(&mut self, id: ActivityId) {
        if let Some(attempt) = self.attempts.remove(&id) {
            self.due.remove(&(attempt.due, id));
        }
    }

    /// When [`Deadlines::expire`] next has something to look at.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Removes and returns the attempts that have taken too long by now; `last_heartbeat` says when an attempt gave its
    /// last one, if it did.
    pub fn expire(
        &mut self,
        now: Timestamp,
        last_heartbeat: impl Fn(ActivityId) -> Option<Timestamp>,
    ) -> Vec<Expired> {
        let mut expired = Vec::new();
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            let Some(attempt) = self.attempts.get_mut(&id) else { continue };
            let total = attempt.start_to_close.map(|timeout| (attempt.began.after(timeout), timeout));
            let alive = last_heartbeat(id).unwrap_or(attempt.began).max(attempt.began);
            let silent = attempt.heartbeat.map(|timeout| (alive.after(timeout), timeout));
            let (reason, timeout) = match (total, silent) {
                (Some((at, timeout)), _) if at <= now => (CancelReason::TimedOut, timeout),
                (_, Some((at, timeout))) if at <= now => (CancelReason::HeartbeatTimedOut, timeout),
                (total, silent) => {
                    // There was a heartbeat meanwhile.
                    let next = [total, silent].into_iter().flatten().map(|(at, _)| at).min();
                    attempt.due = next.unwrap_or(Timestamp::MAX);
                    self.due.insert((attempt.due, id));
                    continue;
                }
            };
            self.attempts.remove(&id);
            expired.push(Expired { id, reason, timeout });
        }
        expired
    }
}
