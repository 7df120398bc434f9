//! What a start does when an instance with its id exists.

use crate::state::OrchestrationStatus;

/// What a start does with an existing instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExisting {
    /// The start is an error.
    Error,
    /// The start gives the existing instance.
    Ignore,
    /// The existing instance is replaced; if it has not ended, it is terminated first. Both happen at once.
    Replace,
}

/// What a start does when an instance with its id exists, by that instance's status. Without further calls it is an
/// error for an instance that has not ended, and replaces one that has.
///
/// ```
/// use steadfast_core::{IdReuse, OnExisting, OrchestrationStatus};
/// let reuse = IdReuse::default();
/// assert_eq!(reuse.action(OrchestrationStatus::Running), OnExisting::Error);
/// assert_eq!(reuse.action(OrchestrationStatus::Failed), OnExisting::Replace);
/// let once = reuse.on_live(OnExisting::Ignore).on(OrchestrationStatus::Completed, OnExisting::Ignore);
/// assert_eq!(once.action(OrchestrationStatus::Pending), OnExisting::Ignore);
/// assert_eq!(once.action(OrchestrationStatus::Completed), OnExisting::Ignore);
/// assert_eq!(once.action(OrchestrationStatus::Failed), OnExisting::Replace);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdReuse {
    /// Statuses by bit.
    error: u8,
    ignore: u8,
}

const ALL: [OrchestrationStatus; 8] = [
    OrchestrationStatus::Running,
    OrchestrationStatus::Completed,
    OrchestrationStatus::ContinuedAsNew,
    OrchestrationStatus::Failed,
    OrchestrationStatus::Canceled,
    OrchestrationStatus::Terminated,
    OrchestrationStatus::Pending,
    OrchestrationStatus::Suspended,
];

impl Default for IdReuse {
    fn default() -> Self {
        Self { error: 0, ignore: 0 }.on_live(OnExisting::Error)
    }
}

impl IdReuse {
    /// Does `action` with an instance that is `status`.
    pub fn on(self, status: OrchestrationStatus, action: OnExisting) -> Self {
        let bit = 1 << status as u8;
        let with = |bits: u8, set: bool| if set { bits | bit } else { bits & !bit };
        Self {
            error: with(self.error, action == OnExisting::Error),
            ignore: with(self.ignore, action == OnExisting::Ignore),
        }
    }

    /// Does `action` with an instance that has not ended.
    pub fn on_live(self, action: OnExisting) -> Self {
        ALL.into_iter().filter(|status| !status.is_terminal()).fold(self, |it, status| it.on(status, action))
    }

    /// Does `action` with an instance that has ended.
    pub fn on_ended(self, action: OnExisting) -> Self {
        ALL.into_iter().filter(|status| status.is_terminal()).fold(self, |it, status| it.on(status, action))
    }

    /// What is done with an instance that is `status`.
    pub fn action(self, status: OrchestrationStatus) -> OnExisting {
        let bit = 1 << status as u8;
        match (self.error & bit != 0, self.ignore & bit != 0) {
            (true, _) => OnExisting::Error,
            (false, true) => OnExisting::Ignore,
            (false, false) => OnExisting::Replace,
        }
    }
}
