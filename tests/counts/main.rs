//! What the runtime's work costs, counted instead of timed: bytes, records, syncs, messages between actors, allocations.
//!
//! A count says the same on a busy machine as on a quiet one, so these tests fail when a change makes something dearer,
//! and only then. The values are in `recorded.rs`.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may unwrap as tests do")]

mod hub;
mod kernel;
mod programs;
mod recorded;
mod simulated;

use std::alloc::System;
use std::sync::{Mutex, MutexGuard, PoisonError};

use alloc_tracker::{Allocator, Session};

#[global_allocator]
static ALLOCATOR: Allocator<System> = Allocator::system();

/// Whoever counts the allocations of the whole process must be alone in it.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often `work` allocates on this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    counted(|operation| {
        let _span = operation.measure_thread().no_peak().iterations(1);
        work();
    })
}

/// How often all threads allocate during `work`.
fn allocations_of_process(work: impl FnOnce()) -> u64 {
    counted(|operation| {
        let _span = operation.measure_process().iterations(1);
        work();
    })
}

fn counted(measure: impl FnOnce(&alloc_tracker::Operation)) -> u64 {
    let session = Session::new().no_stdout().no_file();
    measure(&session.operation("work"));
    let report = session.to_report();
    report.operations().map(|(_, operation)| operation.total_allocations_count()).sum()
}

/// What was counted, beside what is written down for it.
struct Compared {
    what: String,
    counted: u64,
    recorded: u64,
    /// By how much it may differ, where a count is not quite the same each time.
    slack: u64,
}

impl Compared {
    fn problem(&self) -> Option<String> {
        let Self { what, counted, recorded, slack } = self;
        if counted > &(recorded + slack) {
            Some(format!("{what}: {counted}, which is more than the {recorded} recorded"))
        } else if counted + slack < *recorded {
            Some(format!("{what}: {counted}, which is less than the {recorded} recorded"))
        } else {
            None
        }
    }
}

/// Fails with all differences at once.
fn check(compared: &[Compared]) {
    let problems: Vec<_> = compared.iter().filter_map(Compared::problem).collect();
    assert!(
        problems.is_empty(),
        "\n{}\n\nA count that rose is work that everybody pays for: find where it comes from, and take it out. If it buys \
         something that is worth it, write the new value into tests/counts/recorded.rs, and say in the commit what it buys. \
         A count that fell is a gain: write it down as well, so that it is kept.\n",
        problems.join("\n")
    );
}
