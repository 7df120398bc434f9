//! What a worker takes.

use smol_str::SmolStr;

use super::item::{Key, WorkKind};

/// What a worker takes: by kind, the names and versions. A kind without names means nothing of that kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkFilters {
    /// The orchestrations.
    pub orchestrations: Vec<NameFilter>,
    /// The activities. One that is called without a version has that of the instance that called it.
    pub activities: Vec<NameFilter>,
    /// The entities, by their names in lower case.
    pub entities: Vec<SmolStr>,
}

/// A name with versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameFilter {
    /// The name.
    pub name: SmolStr,
    /// Its versions; any when empty. What has no version has the empty one.
    pub versions: Vec<SmolStr>,
}

impl WorkFilters {
    pub(super) fn takes(&self, key: &Key) -> bool {
        let any = |filters: &[NameFilter]| filters.iter().any(|filter| filter.takes(key));
        match key.kind {
            WorkKind::Orchestration => any(&self.orchestrations),
            WorkKind::Activity => any(&self.activities),
            WorkKind::Entity => self.entities.contains(&key.name),
        }
    }
}

impl NameFilter {
    fn takes(&self, key: &Key) -> bool {
        self.name == key.name && (self.versions.is_empty() || self.versions.contains(&key.version))
    }
}
