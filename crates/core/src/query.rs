//! Which instances are asked for, and what is looked at to tell.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::event::Tags;
use crate::ids::InstanceId;
use crate::state::{InstanceState, OrchestrationStatus};
use crate::time::Timestamp;

/// What the ids of entities begin with.
const ENTITY_SIGN: char = '@';

/// A span of time; an end that is left out is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeRange {
    /// Not before this moment.
    pub from: Option<Timestamp>,
    /// Before this moment, which itself is not in the span.
    pub before: Option<Timestamp>,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { from: None, before: None };

    /// From `moment` on.
    pub const fn since(moment: Timestamp) -> Self {
        Self { from: Some(moment), before: None }
    }

    /// Everything before `moment`.
    pub const fn before(moment: Timestamp) -> Self {
        Self { from: None, before: Some(moment) }
    }

    /// From `from` on, up to `before`, which itself is not in the span.
    pub const fn between(from: Timestamp, before: Timestamp) -> Self {
        Self { from: Some(from), before: Some(before) }
    }

    /// Whether `moment` is in the span.
    pub fn contains(&self, moment: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= moment) && self.before.is_none_or(|before| moment < before)
    }

    /// Whether something that may not have happened is in the span: what has not is only in all of time.
    fn contains_if_any(&self, moment: Option<Timestamp>) -> bool {
        *self == Self::ALL || moment.is_some_and(|moment| self.contains(moment))
    }
}

/// Orchestrations or entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum InstanceKind {
    /// Instances of orchestrations.
    #[default]
    Orchestrations,
    /// Entities, whose ids begin with `@`.
    Entities,
    /// Both.
    All,
}

impl InstanceKind {
    /// Whether an id is of this kind.
    pub fn includes(self, id: &str) -> bool {
        match self {
            Self::Orchestrations => !id.starts_with(ENTITY_SIGN),
            Self::Entities => id.starts_with(ENTITY_SIGN),
            Self::All => true,
        }
    }
}

/// Which instances are asked for: those that fulfil every condition. The default asks for all orchestrations.
///
/// ```
/// use steadfast_core::{InstanceFilter, OrchestrationStatus, TimeRange, Timestamp};
/// let old_failures = InstanceFilter {
///     statuses: vec![OrchestrationStatus::Failed],
///     completed: TimeRange::before(Timestamp::from_micros(1_700_000_000_000_000)),
///     ..InstanceFilter::default()
/// };
/// # assert_ne!(old_failures, InstanceFilter::default());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceFilter {
    /// In one of these statuses; in any when empty.
    pub statuses: Vec<OrchestrationStatus>,
    /// Created in this span.
    pub created: TimeRange,
    /// Last changed in this span.
    pub updated: TimeRange,
    /// Ended in this span; what has not ended is only in [`TimeRange::ALL`].
    pub completed: TimeRange,
    /// Of the orchestration with this name.
    pub name: Option<SmolStr>,
    /// Of this version; the empty one is that of instances without a version.
    pub version: Option<SmolStr>,
    /// With all of these tags.
    pub tags: Tags,
    /// With an id that begins with this.
    pub id_prefix: String,
    /// Orchestrations, entities or both.
    pub kind: InstanceKind,
}

/// What a filter looks at, apart from the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceFacts {
    /// Where the instance is in its life.
    pub status: OrchestrationStatus,
    /// The orchestration's name.
    pub name: SmolStr,
    /// Its version, empty for none.
    pub version: SmolStr,
    /// Its tags.
    pub tags: Tags,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
}

impl InstanceFacts {
    /// Of an instance without version and tags that has neither changed nor ended since it was created.
    pub fn new(name: impl Into<SmolStr>, status: OrchestrationStatus, created_at: Timestamp) -> Self {
        Self {
            status,
            name: name.into(),
            version: SmolStr::default(),
            tags: Tags::new(),
            created_at,
            updated_at: created_at,
            completed_at: None,
        }
    }
}

impl From<&InstanceState> for InstanceFacts {
    fn from(state: &InstanceState) -> Self {
        Self {
            status: state.status,
            name: state.name.clone(),
            version: state.version.clone(),
            tags: state.tags.clone(),
            created_at: state.created_at,
            updated_at: state.updated_at,
            completed_at: state.completed_at,
        }
    }
}

impl InstanceFilter {
    /// Whether an instance is among those asked for.
    pub fn matches(&self, state: &InstanceState) -> bool {
        self.matches_id(state.instance.as_str())
            && self.matches_status(state.status)
            && self.name.as_ref().is_none_or(|name| *name == state.name)
            && self.version.as_ref().is_none_or(|version| *version == state.version)
            && self.matches_tags(&state.tags)
            && self.matches_times(state.created_at, state.updated_at, state.completed_at)
    }

    /// The same, for an instance of which only the facts are at hand.
    pub fn matches_facts(&self, instance: &InstanceId, facts: &InstanceFacts) -> bool {
        self.matches_id(instance.as_str())
            && self.matches_status(facts.status)
            && self.name.as_ref().is_none_or(|name| *name == facts.name)
            && self.version.as_ref().is_none_or(|version| *version == facts.version)
            && self.matches_tags(&facts.tags)
            && self.matches_times(facts.created_at, facts.updated_at, facts.completed_at)
    }

    /// Whether an instance with this id can be among those asked for.
    pub fn matches_id(&self, id: &str) -> bool {
        self.kind.includes(id) && id.starts_with(&self.id_prefix)
    }

    fn matches_status(&self, status: OrchestrationStatus) -> bool {
        self.statuses.is_empty() || self.statuses.contains(&status)
    }

    fn matches_tags(&self, tags: &Tags) -> bool {
        self.tags.iter().all(|(key, value)| tags.get(key) == Some(value))
    }

    fn matches_times(&self, created: Timestamp, updated: Timestamp, completed: Option<Timestamp>) -> bool {
        self.created.contains(created)
            && self.updated.contains(updated)
            && self.completed.contains_if_any(completed)
    }
}

/// How many statuses there are.
const STATUSES: usize = 8;

/// How many instances there are: orchestrations by status, and entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceCounts {
    orchestrations: [u64; STATUSES],
    entities: u64,
}

impl InstanceCounts {
    /// How many orchestrations have this status.
    pub const fn of(&self, status: OrchestrationStatus) -> u64 {
        self.orchestrations[status as usize]
    }

    /// How many orchestrations there are.
    pub fn orchestrations(&self) -> u64 {
        self.orchestrations.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many entities there are.
    pub const fn entities(&self) -> u64 {
        self.entities
    }

    /// An instance had one status, or did not exist, and has another, or exists no more.
    pub fn change(
        &mut self,
        instance: &InstanceId,
        before: Option<OrchestrationStatus>,
        after: Option<OrchestrationStatus>,
    ) {
        // Damaged numbers from disk must not lead to a panic, so nothing here overflows.
        if let Some(before) = before {
            let count = self.slot(instance, before);
            *count = count.saturating_sub(1);
        }
        if let Some(after) = after {
            let count = self.slot(instance, after);
            *count = count.saturating_add(1);
        }
    }

    fn slot(&mut self, instance: &InstanceId, status: OrchestrationStatus) -> &mut u64 {
        match instance.as_str().starts_with(ENTITY_SIGN) {
            true => &mut self.entities,
            false => &mut self.orchestrations[status as usize],
        }
    }
}

impl std::ops::AddAssign for InstanceCounts {
    fn add_assign(&mut self, other: Self) {
        for (count, more) in self.orchestrations.iter_mut().zip(other.orchestrations) {
            *count = count.saturating_add(more);
        }
        self.entities = self.entities.saturating_add(other.entities);
    }
}

impl std::ops::SubAssign for InstanceCounts {
    fn sub_assign(&mut self, other: Self) {
        for (count, fewer) in self.orchestrations.iter_mut().zip(other.orchestrations) {
            *count = count.saturating_sub(fewer);
        }
        self.entities = self.entities.saturating_sub(other.entities);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ExecutionStarted;
    use crate::ids::ExecutionId;
    use crate::payload::Payload;

    fn state(id: &str) -> InstanceState {
        let execution = ExecutionId::new(uuid::Uuid::from_u128(1));
        let mut started = ExecutionStarted::new("order".into(), "2.0".into(), Payload::null(), execution);
        started.tags.insert("customer".into(), "17".into());
        InstanceState {
            updated_at: Timestamp::from_micros(20),
            ..InstanceState::pending(InstanceId::from_trusted(id), &started, Timestamp::from_micros(10))
        }
    }

    fn matches(filter: InstanceFilter) -> bool {
        let state = state("order-1");
        let matches = filter.matches(&state);
        assert_eq!(filter.matches_facts(&state.instance, &InstanceFacts::from(&state)), matches);
        matches
    }

    #[test]
    fn every_condition_must_be_fulfilled() {
        let at = Timestamp::from_micros;
        let all = InstanceFilter::default;
        assert!(matches(all()));
        for (status, expected) in
            [(OrchestrationStatus::Pending, true), (OrchestrationStatus::Running, false)]
        {
            assert_eq!(matches(InstanceFilter { statuses: vec![status], ..all() }), expected);
        }
        assert!(matches(InstanceFilter { created: TimeRange::between(at(10), at(11)), ..all() }));
        assert!(!matches(InstanceFilter { created: TimeRange::before(at(10)), ..all() }));
        assert!(matches(InstanceFilter { updated: TimeRange::since(at(20)), ..all() }));
        assert!(!matches(InstanceFilter { updated: TimeRange::since(at(21)), ..all() }));
        assert!(!matches(InstanceFilter { completed: TimeRange::since(at(0)), ..all() }), "it has not ended");
        assert!(matches(InstanceFilter { name: Some("order".into()), ..all() }));
        assert!(!matches(InstanceFilter { name: Some("Order".into()), ..all() }));
        assert!(!matches(InstanceFilter { version: Some("".into()), ..all() }));
        let tags = |key: &str, value: &str| Tags::from([(key.into(), value.into())]);
        assert!(matches(InstanceFilter { tags: tags("customer", "17"), ..all() }));
        assert!(!matches(InstanceFilter { tags: tags("customer", "18"), ..all() }));
        assert!(!matches(InstanceFilter { tags: tags("client", "17"), ..all() }));
        assert!(matches(InstanceFilter { id_prefix: "order".into(), ..all() }));
        assert!(!matches(InstanceFilter { id_prefix: "order-12".into(), ..all() }));
    }

    #[test]
    fn entities_are_another_kind() {
        let of = |kind| InstanceFilter { kind, ..InstanceFilter::default() };
        for (kind, order, entity) in [
            (InstanceKind::Orchestrations, true, false),
            (InstanceKind::Entities, false, true),
            (InstanceKind::All, true, true),
        ] {
            assert_eq!(of(kind).matches(&state("order-1")), order);
            assert_eq!(of(kind).matches(&state("@counter@1")), entity);
        }
    }

    #[test]
    fn counts_follow_the_changes() {
        use OrchestrationStatus::{Completed, Pending};
        let mut counts = InstanceCounts::default();
        counts.change(&InstanceId::from_trusted("a"), None, Some(Pending));
        counts.change(&InstanceId::from_trusted("b"), None, Some(Pending));
        counts.change(&InstanceId::from_trusted("@e@k"), None, Some(Pending));
        counts.change(&InstanceId::from_trusted("a"), Some(Pending), Some(Completed));
        assert_eq!((counts.of(Pending), counts.of(Completed), counts.entities()), (1, 1, 1));
        counts.change(&InstanceId::from_trusted("b"), Some(Pending), None);
        counts.change(&InstanceId::from_trusted("b"), Some(Pending), None);
        assert_eq!((counts.of(Pending), counts.orchestrations()), (0, 1));
    }
}
