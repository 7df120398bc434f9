//! The sessions that a thread keeps from one turn of an instance to the next.

use std::collections::{BTreeMap, HashMap};

use steadfast_core::InstanceId;
use steadfast_core::turn::Session;

/// Sessions in memory, of which the one that was used least recently goes first.
pub(super) struct Sessions {
    kept: HashMap<InstanceId, Kept>,
    by_age: BTreeMap<u64, InstanceId>,
    next: u64,
    max: usize,
}

struct Kept {
    session: Session,
    /// The token of the turn that it took last.
    after: String,
    age: u64,
}

impl Sessions {
    pub(super) fn new(max: usize) -> Self {
        Self { kept: HashMap::new(), by_age: BTreeMap::new(), next: 0, max }
    }

    /// Takes out the session of an instance, if its last turn was that of the token. Any other one is of no use any more.
    pub(super) fn take(&mut self, instance: &InstanceId, after: &str) -> Option<Session> {
        let kept = self.kept.remove(instance)?;
        self.by_age.remove(&kept.age);
        (kept.after == after).then_some(kept.session)
    }

    /// Keeps a session after the turn of the token.
    pub(super) fn keep(&mut self, instance: InstanceId, after: String, session: Session) {
        let age = self.next;
        self.next += 1;
        self.by_age.insert(age, instance.clone());
        if let Some(before) = self.kept.insert(instance, Kept { session, after, age }) {
            self.by_age.remove(&before.age);
        }
        while self.kept.len() > self.max
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.kept.remove(&oldest);
        }
    }
}
