//! Queries: which instances there are, page by page, and how many.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use futures_util::future::try_join_all;
use steadfast_core::partition::{Overlay, OverlayCursor};
use steadfast_core::{
    InstanceCounts, InstanceFilter, InstanceId, InstanceState, MAX_INSTANCE_ID_BYTES, PartitionId, Payload,
};
use steadfast_store::{Detail, Store, StoreError, bridge};

use super::Client;
use crate::error::ClientError;
use crate::partition::{CountsRead, OverlayRead};

/// How many instances a page shows when nothing is said.
const PAGE_SIZE_DEFAULT: usize = 100;

/// How many instances a page shows at most.
const PAGE_SIZE_MAX: usize = 1000;

/// How large a page becomes when nothing is said, in bytes.
pub(super) const PAGE_BYTES_DEFAULT: usize = 64 << 20;

/// Which instances are asked for, and how they are to be shown.
///
/// ```
/// use steadfast_core::{InstanceFilter, OrchestrationStatus};
/// use steadfast_engine::InstanceQuery;
/// let failures = InstanceQuery {
///     filter: InstanceFilter { statuses: vec![OrchestrationStatus::Failed], ..InstanceFilter::default() },
///     page_size: 20,
///     ..InstanceQuery::default()
/// };
/// # assert!(failures.continuation.is_none());
/// ```
#[derive(Debug, Clone, Default)]
pub struct InstanceQuery {
    /// Which instances; all orchestrations when nothing is said.
    pub filter: InstanceFilter,
    /// How many to show at most; 100 when 0, and never more than 1000.
    pub page_size: usize,
    /// Roughly how large a page may become, in bytes of what it shows: it is cut short behind the instance that reaches
    /// this. 64 MiB when 0.
    pub page_bytes: usize,
    /// Go on behind the page that came with this.
    pub continuation: Option<PageToken>,
    /// Leave out inputs and outputs: the input of each instance is shown as `null`, and no output. Long ones are not even
    /// read.
    pub omit_payloads: bool,
}

/// Some instances, in the order of the bytes of their ids. Ids that the runtime makes are in that order by the time of
/// their making.
#[derive(Debug, Clone)]
pub struct Page {
    /// Their states.
    pub instances: Vec<InstanceState>,
    /// Where the next page begins; none after the last one.
    pub continuation: Option<PageToken>,
}

/// Where a page ended. Opaque; as text it can be handed to somebody else and read back.
///
/// ```
/// use steadfast_engine::PageToken;
/// assert!("anything".parse::<PageToken>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken {
    after: InstanceId,
}

/// What a token's text begins with. Another kind of token gets another one.
const TOKEN_SIGN: &str = "i1:";

/// A text that is not that of a [`PageToken`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the continuation token is not one that a page came with; begin with the first page again")]
pub struct InvalidPageToken;

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TOKEN_SIGN}{}", self.after)
    }
}

impl FromStr for PageToken {
    type Err = InvalidPageToken;

    fn from_str(text: &str) -> Result<Self, InvalidPageToken> {
        let id = text.strip_prefix(TOKEN_SIGN);
        let id = id.filter(|id| !id.is_empty() && id.len() <= MAX_INSTANCE_ID_BYTES);
        id.map(|id| Self { after: InstanceId::from_trusted(id) }).ok_or(InvalidPageToken)
    }
}

impl Client {
    /// Shows the instances that match a filter, page by page, in the order of their ids. Paging is stable while instances
    /// come, change and go: one that exists and matches all the while is shown exactly once. What was acknowledged
    /// before the call is taken into account.
    ///
    /// A page takes some milliseconds however many instances there are and however rare those are that match.
    ///
    /// # Errors
    /// When the hub is closed or the store fails.
    pub async fn query(&self, query: &InstanceQuery) -> Result<Page, ClientError> {
        let limit = match query.page_size {
            0 => PAGE_SIZE_DEFAULT,
            size => size.min(PAGE_SIZE_MAX),
        };
        let after = query.continuation.as_ref().map(|token| token.after.clone());
        let bytes_max = if query.page_bytes == 0 { PAGE_BYTES_DEFAULT } else { query.page_bytes };
        let wanted = Wanted { limit, bytes_max, omit_payloads: query.omit_payloads };
        let Slice { found, more } = self.first_instances(query.filter.clone(), after, wanted).await?;
        let continuation =
            found.last().filter(|_| more).map(|last| PageToken { after: last.instance.clone() });
        let instances = found.into_iter().map(|state| wanted.shown(state)).map(Arc::unwrap_or_clone);
        Ok(Page { instances: instances.collect(), continuation })
    }

    /// The first instances behind `after` that match, by id.
    pub(super) async fn first_instances(
        &self,
        filter: InstanceFilter,
        after: Option<InstanceId>,
        wanted: Wanted,
    ) -> Result<Slice, ClientError> {
        let filter = Arc::new(filter);
        // First what is in memory, then the store: what moves in between is in both, never in neither.
        let overlays = self.overlays(&filter, after.as_ref()).await?;
        let store = self.store()?;
        let found =
            tokio::task::spawn_blocking(move || join_stored(&*store, &filter, after, wanted, overlays));
        Ok(found.await.map_err(|_| ClientError::HubClosed)??)
    }

    /// What the partitions have in memory of the instances that a filter asks for.
    pub(super) async fn overlays(
        &self,
        filter: &Arc<InstanceFilter>,
        after: Option<&InstanceId>,
    ) -> Result<Vec<Overlay>, ClientError> {
        let overlays = (0..self.shared.routes.partitions()).map(|partition| {
            let (filter, after) = (filter.clone(), after.cloned());
            self.ask(PartitionId(partition), None, move |address, answer| {
                let (cursor, overlay) = (OverlayCursor::default(), Overlay::default());
                let (filter, after) = (filter.clone(), after.clone());
                address.do_send(OverlayRead { filter, after, cursor, overlay, answer });
            })
        });
        try_join_all(overlays).await
    }

    /// How many instances there are, by status: known at any moment, without looking at a single one, and exact at a
    /// moment between the call and its answer for each partition.
    ///
    /// # Errors
    /// When the hub is closed or the store fails.
    pub async fn counts(&self) -> Result<InstanceCounts, ClientError> {
        let counts = (0..self.shared.routes.partitions()).map(|partition| {
            self.ask(PartitionId(partition), None, |address, answer| {
                address.do_send(CountsRead { answer });
            })
        });
        let mut sum = InstanceCounts::default();
        try_join_all(counts).await?.into_iter().for_each(|counts| sum += counts);
        Ok(sum)
    }
}

/// How much is wanted at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// How many instances at most, at least one.
    pub(super) limit: usize,
    /// How many bytes, roughly.
    pub(super) bytes_max: usize,
    /// Whether without inputs and outputs.
    pub(super) omit_payloads: bool,
}

impl Wanted {
    /// Some whole states.
    pub(super) fn states(limit: usize) -> Self {
        Self { limit, bytes_max: PAGE_BYTES_DEFAULT, omit_payloads: false }
    }

    fn shown(&self, mut state: Arc<InstanceState>) -> Arc<InstanceState> {
        if self.omit_payloads {
            let state = Arc::make_mut(&mut state);
            (state.input, state.output) = (Payload::null(), None);
        }
        state
    }

    fn bytes_of(&self, state: &InstanceState) -> usize {
        let payloads = state.input.len() + state.output.as_ref().map_or(0, Payload::len);
        state.approximate_bytes() - if self.omit_payloads { payloads } else { 0 }
    }
}

/// Some of the instances that match.
pub(super) struct Slice {
    /// The first ones, by id.
    pub(super) found: Vec<Arc<InstanceState>>,
    /// Whether there may be others behind them.
    pub(super) more: bool,
}

/// The first instances behind `after` that match, from memory and from the store.
fn join_stored(
    store: &dyn Store,
    filter: &InstanceFilter,
    mut after: Option<InstanceId>,
    wanted: Wanted,
    mut overlays: Vec<Overlay>,
) -> Result<Slice, StoreError> {
    // One more than is shown, to know whether there are others.
    let limit = wanted.limit + 1;
    let mut found = Vec::new();
    for overlay in &mut overlays {
        overlay.complete();
        found.extend(overlay.first(filter, after.as_ref(), limit));
    }
    found.sort_unstable_by(|left, right| left.instance.cmp(&right.instance));
    found.truncate(limit);
    // What the store has behind these is not shown.
    let bound = found.get(limit - 1).map(|last| last.instance.clone());
    let detail = if wanted.omit_payloads { Detail::Outline } else { Detail::State };
    let (mut stored, mut bytes) = (0, 0);
    // Where the look into the store ended before it was complete.
    let mut horizon = None;
    'store: while stored < limit {
        let batch = store.find_instances(filter, after.as_ref(), limit - stored, detail)?;
        for instance in &batch.instances {
            if overlays.iter().any(|overlay| overlay.hides(&instance.instance)) {
                continue;
            }
            let state = Arc::new(bridge::instance_state(instance)?);
            if filter.matches(&state) {
                bytes += wanted.bytes_of(&state);
                found.push(wanted.shown(state));
                stored += 1;
                if bytes >= wanted.bytes_max {
                    horizon = Some(instance.instance.clone());
                    break 'store;
                }
            }
        }
        after = batch.upto;
        if after.is_none() || bound.is_some() && after >= bound {
            break;
        }
    }
    found.sort_unstable_by(|left, right| left.instance.cmp(&right.instance));
    if let Some(horizon) = &horizon {
        found.retain(|state| state.instance <= *horizon);
    }
    let mut bytes = 0;
    let fits = found.iter().take(wanted.limit).take_while(|state| {
        let fits = bytes < wanted.bytes_max;
        bytes += wanted.bytes_of(state);
        fits
    });
    let shown = fits.count();
    let more = found.len() > shown || horizon.is_some();
    found.truncate(shown);
    Ok(Slice { found, more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_and_other_texts_are_refused() {
        let token = PageToken { after: InstanceId::from_trusted("order-1") };
        assert_eq!(token.to_string().parse(), Ok(token));
        for text in ["", "0", "order-1", "i1:", "i2:order-1", &format!("i1:{}", "x".repeat(513))] {
            assert_eq!(text.parse::<PageToken>(), Err(InvalidPageToken), "{text}");
        }
    }
}
