//! The locks that an execution has asked for.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::EntityId;
use crate::event::EventKind;

/// Locks that an execution has asked for and not given back, by critical section. They follow from the history alone, so
/// that they are freed at the end whatever its code did, was changed to do, or cannot do any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedLocks(Vec<(SmolStr, Vec<EntityId>)>);

impl RequestedLocks {
    /// Takes note of an event in a place that most executions leave empty.
    pub(crate) fn note_in(place: &mut Option<Box<Self>>, event: &EventKind) {
        match event {
            EventKind::EntityLockRequested(request) => {
                let section = (request.critical_section.clone(), request.lock_set.clone());
                place.get_or_insert_default().0.push(section);
            }
            EventKind::EntityUnlockSent(unlock) => {
                let Some(known) = place else { return };
                let freed = |id: &EntityId| unlock.target.as_ref() == Some(id) || unlock.then.contains(id);
                for (section, entities) in &mut known.0 {
                    if *section == unlock.critical_section {
                        entities.retain(|id| !freed(id));
                    }
                }
                known.0.retain(|(_, entities)| !entities.is_empty());
                if known.0.is_empty() {
                    *place = None;
                }
            }
            _ => {}
        }
    }

    /// Each critical section with its entities.
    pub(crate) fn into_sections(self) -> impl Iterator<Item = (SmolStr, Vec<EntityId>)> {
        self.0.into_iter()
    }

    /// The entities, for people to read; empty if there are none.
    pub(crate) fn held(&self) -> String {
        let entities = self.0.iter().flat_map(|(_, entities)| entities);
        entities.map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ")
    }

    /// How many entities are concerned.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(_, entities)| entities.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
