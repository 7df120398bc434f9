//! Limits on activities by name, shared by all partitions of a hub. They are exact: a limit of one means one in the hub.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use smol_str::SmolStr;
use steadfast_core::dispatch::{ActivityLimit, LimitState, Refusal};
use steadfast_core::{PartitionId, Timestamp};

use super::messages::PlaceFree;
use crate::hub::Routes;

/// All limits of a hub.
pub(crate) struct Limits {
    by_name: HashMap<SmolStr, Arc<NameLimit>, FixedState>,
}

struct NameLimit {
    state: Mutex<State>,
    /// Weak, because a permit may outlive the hub in an activity that never ends.
    routes: Weak<Routes>,
}

struct State {
    limit: LimitState,
    /// Partitions that were refused a place and are told when one is free, in the order in which they asked.
    refused: Vec<PartitionId>,
}

/// A place for one activity of a limited name; dropping it gives it to another.
pub(super) struct Permit(Arc<NameLimit>);

impl Limits {
    pub(crate) fn new<'a>(
        limits: impl IntoIterator<Item = (&'a String, &'a ActivityLimit)>,
        routes: &Arc<Routes>,
        now: Timestamp,
    ) -> Arc<Self> {
        let limit = |limit: &ActivityLimit| NameLimit {
            state: Mutex::new(State { limit: LimitState::new(*limit, now), refused: Vec::new() }),
            routes: Arc::downgrade(routes),
        };
        let by_name =
            limits.into_iter().map(|(name, it)| (SmolStr::new(name), Arc::new(limit(it)))).collect();
        Arc::new(Self { by_name })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = SmolStr> {
        self.by_name.keys().cloned()
    }

    /// A place for an activity of that name. A partition that is refused because all places are taken gets
    /// [`PlaceFree`] when one is free.
    pub(super) fn permit(
        &self,
        name: &str,
        partition: PartitionId,
        now: Timestamp,
    ) -> Result<Permit, Refusal> {
        // Only names with a limit are asked for.
        let limit = self.by_name.get(name).ok_or(Refusal::Full)?;
        let mut state = limit.state.lock();
        match state.limit.begin(now) {
            Ok(()) => Ok(Permit(limit.clone())),
            Err(refusal) => {
                if refusal == Refusal::Full && !state.refused.contains(&partition) {
                    state.refused.push(partition);
                }
                Err(refusal)
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let refused = {
            let mut state = self.0.state.lock();
            state.limit.end();
            std::mem::take(&mut state.refused)
        };
        // All of them: the first may have nothing left to run, or may be being rebuilt.
        let Some(routes) = self.0.routes.upgrade() else { return };
        for partition in refused {
            if let Some(address) = routes.get(partition) {
                address.do_send(PlaceFree);
            }
        }
    }
}
