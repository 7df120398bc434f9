//! Which call fails, and where the crash comes.

use crate::StoreError;

/// An operation of a store that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Store::append`](crate::Store::append).
    Append,
    /// The synchronisation at the end of an append, and [`Store::flush`](crate::Store::flush).
    Sync,
    /// [`Store::materialise`](crate::Store::materialise).
    Materialise,
    /// [`Store::truncate_log`](crate::Store::truncate_log).
    Truncate,
    /// Every operation that reads.
    Load,
}

/// Where within an operation a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultPoint {
    /// Before it had any effect.
    Before,
    /// After so many of its writes (at least 1); never, when it makes fewer.
    AfterWrites(usize),
    /// After it took effect in full.
    After,
}

/// An error that a test scripts: the `nth` call of `operation` from now on (the next one is 1) returns `error`.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What fails.
    pub operation: Operation,
    /// Which call of it, counted from 1, from now on.
    pub nth: u64,
    /// Where within the call.
    pub point: FaultPoint,
    /// What the call returns.
    pub error: StoreError,
}

/// What is left after a crash: always what was synchronised, and some prefix of the writes that came later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Only what was synchronised, as after power loss with bad luck.
    Synced,
    /// All that was written, as after the death of the process.
    Written,
    /// What was synchronised, and so many of the writes after that.
    FirstWrites(usize),
}

/// The script of one store.
#[derive(Default)]
pub(super) struct Faults {
    /// Scripted and not reached yet.
    scripted: Vec<Fault>,
    /// The faults of the operations under way; there are two while an append synchronises.
    striking: Vec<(Operation, FaultPoint, StoreError)>,
    /// The writes since the innermost operation under way began.
    writes: usize,
    steps: u64,
    crash_at: Option<u64>,
    crashed: bool,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.scripted.push(fault);
    }

    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) const fn crash_at(&mut self, step: u64) {
        self.crash_at = Some(step);
    }

    pub(super) const fn crash(&mut self) {
        self.crashed = true;
    }

    pub(super) const fn has_crashed(&self) -> bool {
        self.crashed
    }

    pub(super) fn check_crashed(&self) -> Result<(), StoreError> {
        if self.crashed {
            let problem = "the store has crashed, as scripted".to_owned();
            return Err(StoreError::Io { doing: "running a test", problem });
        }
        Ok(())
    }

    /// Call at the beginning of an operation.
    pub(super) fn begin(&mut self, operation: Operation) -> Result<(), StoreError> {
        self.check_crashed()?;
        if operation != Operation::Sync {
            self.striking.clear();
        }
        self.writes = 0;
        let mut due = None;
        for (index, fault) in self.scripted.iter_mut().enumerate() {
            if fault.operation == operation {
                fault.nth = fault.nth.saturating_sub(1);
                if fault.nth == 0 && due.is_none() {
                    due = Some(index);
                }
            }
        }
        if let Some(index) = due {
            let fault = self.scripted.remove(index);
            if fault.point == FaultPoint::Before {
                return Err(fault.error);
            }
            self.striking.push((operation, fault.point, fault.error));
        }
        Ok(())
    }

    /// Call before every step.
    pub(super) fn step(&mut self) -> Result<(), StoreError> {
        if self.crash_at == Some(self.steps) {
            self.crashed = true;
        }
        self.check_crashed()?;
        self.steps += 1;
        Ok(())
    }

    /// Call after every write.
    pub(super) fn written(&mut self) -> Result<(), StoreError> {
        self.writes += 1;
        let reached = FaultPoint::AfterWrites(self.writes);
        self.strike(|_, point| point == reached)
    }

    /// Call at the end of an operation.
    pub(super) fn end(&mut self, operation: Operation) -> Result<(), StoreError> {
        self.strike(|of, point| of == operation && point == FaultPoint::After)
    }

    fn strike(&mut self, reached: impl Fn(Operation, FaultPoint) -> bool) -> Result<(), StoreError> {
        match self.striking.iter().position(|(of, point, _)| reached(*of, *point)) {
            Some(index) => Err(self.striking.swap_remove(index).2),
            None => Ok(()),
        }
    }
}
