//! Lists the instances that have ended, in the order of their ends.

use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use steadfast_core::partition::Overlay;
use steadfast_core::{
    InstanceFilter, InstanceId, InstanceState, MAX_INSTANCE_ID_BYTES, OrchestrationStatus, TimeRange,
    Timestamp,
};
use steadfast_store::{Detail, Store, StoreError, bridge};

use super::Client;
use super::purge::ended_among;
use super::query::InvalidPageToken;
use crate::error::ClientError;

const PAGE_SIZE_DEFAULT: usize = 100;

/// How many instances a page shows at most.
const PAGE_SIZE_MAX: usize = 1000;

/// How many instances are read from the store at once. After each time the search narrows.
const AT_ONCE: usize = 256;

/// Which of the instances that have ended are asked for.
#[derive(Debug, Clone, Default)]
pub struct EndedQuery {
    /// In one of these statuses; those of instances that have not ended find nothing. All that have ended when empty.
    pub statuses: Vec<OrchestrationStatus>,
    /// Ended in this span.
    pub completed: TimeRange,
    /// How many to show at most; 100 when 0, and never more than 1000.
    pub page_size: usize,
    /// Go on behind this one, the last of a page.
    pub continuation: Option<Ended>,
}

/// An instance that has ended. In the order of the ends, then of the ids. As text, `time|id`, it can be handed to somebody
/// else and read back.
///
/// ```
/// use steadfast_engine::Ended;
/// let ended: Ended = "1700000000000000|order-1".parse().unwrap();
/// assert_eq!(ended.instance.as_str(), "order-1");
/// assert_eq!(ended.to_string(), "1700000000000000|order-1");
/// assert!("order-1".parse::<Ended>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ended {
    /// When it ended.
    pub at: Timestamp,
    /// Which one.
    pub instance: InstanceId,
}

/// Some instances that have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedPage {
    /// The instances, in the order of their ends.
    pub instances: Vec<Ended>,
    /// Where the next page begins; none after the last one.
    pub continuation: Option<Ended>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.at.as_micros(), self.instance)
    }
}

impl FromStr for Ended {
    type Err = InvalidPageToken;

    fn from_str(text: &str) -> Result<Self, InvalidPageToken> {
        let (at, id) = text.split_once('|').ok_or(InvalidPageToken)?;
        let at = at.parse().map(Timestamp::from_micros).map_err(|_| InvalidPageToken)?;
        if id.is_empty() || id.len() > MAX_INSTANCE_ID_BYTES {
            return Err(InvalidPageToken);
        }
        Ok(Self { at, instance: InstanceId::from_trusted(id) })
    }
}

impl Client {
    /// Shows the orchestrations that have ended, page by page, in the order of their ends. One that ends while the
    /// pages are read, or begins anew, comes at its new end; all others are shown exactly once.
    ///
    /// All instances in the span are looked at for each page, though only a few are read. So give a narrow span where
    /// there are millions.
    ///
    /// # Errors
    /// When the hub is closed or the store fails.
    pub async fn list_ended(&self, query: &EndedQuery) -> Result<EndedPage, ClientError> {
        let limit = match query.page_size {
            0 => PAGE_SIZE_DEFAULT,
            size => size.min(PAGE_SIZE_MAX),
        };
        let statuses = ended_among(&query.statuses);
        if statuses.is_empty() {
            return Ok(EndedPage { instances: Vec::new(), continuation: None });
        }
        let after = query.continuation.clone();
        let from = [query.completed.from, after.as_ref().map(|after| after.at)].into_iter().flatten().max();
        let completed = TimeRange { from, ..query.completed };
        let filter = InstanceFilter { statuses, completed, ..InstanceFilter::default() };
        let shared = Arc::new(filter.clone());
        let overlays = self.overlays(&shared, None).await?;
        let store = self.store()?;
        // One more than is shown, to know whether there is another page.
        let mut earliest = Earliest { found: BinaryHeap::new(), limit: limit + 1, after };
        let found = tokio::task::spawn_blocking(move || {
            earliest.search(&*store, filter, overlays)?;
            Ok::<_, StoreError>(earliest.found.into_sorted_vec())
        });
        let mut instances = found.await.map_err(|_| ClientError::HubClosed)??;
        let more = instances.len() > limit;
        instances.truncate(limit);
        let continuation = instances.last().filter(|_| more).cloned();
        Ok(EndedPage { instances, continuation })
    }
}

/// The earliest ends that were found so far.
struct Earliest {
    found: BinaryHeap<Ended>,
    limit: usize,
    after: Option<Ended>,
}

impl Earliest {
    fn add(&mut self, state: &InstanceState) {
        let Some(at) = state.completed_at else { return };
        let ended = Ended { at, instance: state.instance.clone() };
        let comes_later = self.after.as_ref().is_none_or(|after| ended > *after);
        let full = self.found.len() >= self.limit;
        if comes_later && (!full || self.found.peek().is_some_and(|last| ended < *last)) {
            self.found.push(ended);
            if full {
                self.found.pop();
            }
        }
    }

    fn search(
        &mut self,
        store: &dyn Store,
        mut filter: InstanceFilter,
        mut overlays: Vec<Overlay>,
    ) -> Result<(), StoreError> {
        for overlay in &mut overlays {
            overlay.complete();
            overlay.first(&filter, None, usize::MAX).iter().for_each(|state| self.add(state));
        }
        let mut after = None;
        loop {
            if let Some(last) = self.found.peek().filter(|_| self.found.len() == self.limit) {
                // Whatever ended later is not shown.
                filter.completed.before = Some(Timestamp::from_micros(last.at.as_micros().saturating_add(1)));
            }
            let batch = store.find_instances(&filter, after.as_ref(), AT_ONCE, Detail::Outline)?;
            for instance in &batch.instances {
                if overlays.iter().any(|overlay| overlay.hides(&instance.instance)) {
                    continue;
                }
                let state = bridge::instance_state(instance)?;
                if filter.matches(&state) {
                    self.add(&state);
                }
            }
            after = batch.upto;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}
