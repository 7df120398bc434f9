//! Which of the waiting activities begins next, and which of the running ones has taken too long. Values, like the rest of
//! the kernel: the time enters as an argument, and what is decided is returned.

mod deadlines;
mod fair;
mod limit;
mod waiting;

pub use deadlines::{Deadlines, Expired};
pub use fair::FairQueue;
pub use limit::{ActivityLimit, LimitState, RateLimit, Refusal};
pub use waiting::{NextActivity, WaitingActivities};
