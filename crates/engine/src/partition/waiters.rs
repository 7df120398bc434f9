//! Clients that wait for instances to begin or to end. They may give up at any moment, and they may wait for instances
//! that never come; what they leave behind stays within a constant factor of those that still wait.

use std::sync::Arc;

use smallvec::SmallVec;
use steadfast_core::partition::Token;
use steadfast_core::{InstanceId, InstanceMap, InstanceState};

use super::messages::{Answer, Wait, WaitFor};

/// With so few instances that are waited for, nothing is looked through.
const SWEEP_FROM: usize = 64;

/// A client that waits.
pub(super) struct Waiting {
    token: Token,
    pub(super) wait_for: WaitFor,
    pub(super) may_come: bool,
    pub(super) answer: Answer<Option<Arc<InstanceState>>>,
}

impl Waiting {
    pub(super) fn into_wait(self, instance: InstanceId) -> Wait {
        let Self { wait_for, may_come, answer, .. } = self;
        Wait { instance, wait_for, may_come, answer }
    }
}

/// Those that wait for the same instance: one, nearly always.
pub(super) type Together = SmallVec<[Waiting; 1]>;

/// All that wait.
#[derive(Default)]
pub(super) struct Waiters {
    by_instance: InstanceMap<Together>,
    /// With so many instances, those are looked for that nobody waits for any more.
    sweep_at: usize,
}

impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.by_instance.is_empty()
    }

    pub(super) fn add(&mut self, token: Token, wait: Wait) {
        let Wait { instance, wait_for, may_come, answer } = wait;
        let waiting = self.by_instance.entry(instance).or_default();
        if waiting.len().is_power_of_two() {
            waiting.retain(|waiting| !waiting.answer.is_closed());
        }
        waiting.push(Waiting { token, wait_for, may_come, answer });
        if self.by_instance.len() > self.sweep_at.max(SWEEP_FROM) {
            self.by_instance.retain(|_, waiting| {
                waiting.retain(|waiting| !waiting.answer.is_closed());
                !waiting.is_empty()
            });
            self.by_instance.shrink_to(2 * self.by_instance.len());
            self.sweep_at = 2 * self.by_instance.len();
        }
    }

    /// Takes all that wait for an instance.
    pub(super) fn take(&mut self, instance: &InstanceId) -> Option<Together> {
        self.by_instance.remove(instance)
    }

    /// Some of those that were taken wait on.
    pub(super) fn put_back(&mut self, instance: &InstanceId, waiting: Together) {
        if !waiting.is_empty() {
            self.by_instance.insert(instance.clone(), waiting);
        }
    }

    /// Takes one back that waits; none if it was told already.
    pub(super) fn take_one(&mut self, token: Token, instance: &InstanceId) -> Option<Wait> {
        let waiting = self.by_instance.get_mut(instance)?;
        let at = waiting.iter().position(|waiting| waiting.token == token)?;
        let one = waiting.swap_remove(at);
        if waiting.is_empty() {
            self.by_instance.remove(instance);
        }
        Some(one.into_wait(instance.clone()))
    }

    /// The instance leaves memory: so do the places of clients that no longer wait for it.
    pub(super) fn forget_absent(&mut self, instance: &InstanceId) {
        let Some(waiting) = self.by_instance.get_mut(instance) else { return };
        waiting.retain(|waiting| !waiting.answer.is_closed());
        if waiting.is_empty() {
            self.by_instance.remove(instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    fn places(waiters: &Waiters) -> usize {
        waiters.by_instance.values().map(SmallVec::len).sum()
    }

    #[test]
    fn clients_that_give_up_leave_nothing_that_grows_whether_they_waited_for_one_instance_or_for_many() {
        for ids in [1, 100_000] {
            let mut waiters = Waiters::default();
            let mut patient = Vec::new();
            for nth in 0..100_000_u64 {
                let (answer, answered) = oneshot::channel();
                let instance = InstanceId::from_trusted(format!("absent-{}", nth % ids));
                let wait = Wait { instance, wait_for: WaitFor::End, may_come: true, answer };
                waiters.add(Token(nth), wait);
                if nth % 1000 == 0 {
                    patient.push(answered);
                }
            }
            let kept = waiters.by_instance.values().flatten().filter(|it| !it.answer.is_closed()).count();
            assert_eq!(kept, patient.len(), "{ids}");
            assert!(places(&waiters) <= 4 * patient.len() + SWEEP_FROM, "{ids}: {}", places(&waiters));
        }
    }
}
