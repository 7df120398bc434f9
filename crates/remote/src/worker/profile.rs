//! What a worker says of itself.

use smol_str::SmolStr;
use steadfast_core::model::Registry;
use steadfast_core::{VersionFailure, VersionMatch, VersionOptions};
use steadfast_engine::{NameFilter, PerKind, WorkFilters};
use steadfast_grpc::{extension, wire};

/// What the worker says of itself.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub(super) name: String,
    places: PerKind<usize>,
    filters: WorkFilters,
}

impl Profile {
    /// It takes what it has registered, and nothing that it cannot run.
    pub(super) fn new(name: String, places: PerKind<usize>, registry: &Registry) -> Self {
        let registered = registry.registered();
        let filter = |(name, versions): (SmolStr, Vec<SmolStr>), only: Option<&SmolStr>| {
            let runs_any = versions.iter().any(SmolStr::is_empty);
            let versions = match only {
                Some(only) => vec![only.clone()],
                None if runs_any => Vec::new(),
                // Without a version the greatest one is meant.
                None => versions.into_iter().chain([SmolStr::default()]).collect(),
            };
            NameFilter { name, versions }
        };
        let only = only_version(registry.versions());
        let orchestrations = registered.orchestrations.into_iter().map(|it| filter(it, only)).collect();
        let activities = registered.activities.into_iter().map(|it| filter(it, None)).collect();
        let mut filters = WorkFilters { orchestrations, activities, entities: registered.entities };
        // The standard protocol has no word for "no places".
        if places.orchestrations == 0 {
            filters.orchestrations.clear();
        }
        if places.activities == 0 {
            filters.activities.clear();
        }
        if places.entities == 0 {
            filters.entities.clear();
        }
        Self { name, places, filters }
    }

    /// In the words of the standard protocol.
    pub(super) fn standard(&self) -> wire::GetWorkItemsRequest {
        let places = |count: usize| i32::try_from(count.max(1)).unwrap_or(i32::MAX);
        let versions = |filter: &NameFilter| filter.versions.iter().map(ToString::to_string).collect();
        let WorkFilters { orchestrations, activities, entities } = &self.filters;
        wire::GetWorkItemsRequest {
            max_concurrent_orchestration_work_items: places(self.places.orchestrations),
            max_concurrent_activity_work_items: places(self.places.activities),
            max_concurrent_entity_work_items: places(self.places.entities),
            work_item_filters: Some(wire::WorkItemFilters {
                orchestrations: orchestrations
                    .iter()
                    .map(|it| wire::OrchestrationFilter { name: it.name.to_string(), versions: versions(it) })
                    .collect(),
                activities: activities
                    .iter()
                    .map(|it| wire::ActivityFilter { name: it.name.to_string(), versions: versions(it) })
                    .collect(),
                entities: entities.iter().map(|it| wire::EntityFilter { name: it.to_string() }).collect(),
            }),
            worker_instance_id: self.name.clone(),
            ..wire::GetWorkItemsRequest::default()
        }
    }

    /// In the words of the extension.
    pub(super) fn extended(&self) -> extension::Profile {
        let PerKind { orchestrations, activities, entities } = self.places;
        let named = |filters: &[NameFilter]| {
            filters.iter().map(|it| (it.name.clone(), it.versions.clone())).collect()
        };
        extension::Profile {
            name: self.name.as_str().into(),
            places: [orchestrations, activities, entities]
                .map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
            orchestrations: named(&self.filters.orchestrations),
            activities: named(&self.filters.activities),
            entities: self.filters.entities.clone(),
        }
    }
}

/// The only version of instances that a worker takes, if it leaves all others to other workers.
fn only_version(options: &VersionOptions) -> Option<&SmolStr> {
    let strict = options.match_strategy == VersionMatch::Strict;
    (strict && options.failure_strategy == VersionFailure::Reject).then_some(&options.version)
}
