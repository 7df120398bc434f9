//! Listing instances, page by page.

use std::collections::BTreeMap;
use std::sync::Arc;

use steadfast_core::{InstanceId, InstanceState, OrchestrationStatus, PartitionId};
use steadfast_store::bridge;

use super::Client;
use crate::error::ClientError;
use crate::partition::OverlayRead;

/// Which instances to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only ids that begin with this.
    pub id_prefix: String,
    /// Only these statuses; all when empty.
    pub statuses: Vec<OrchestrationStatus>,
    /// How many to return at most; 100 when zero.
    pub page_size: usize,
    /// Go on after the page that returned this.
    pub continuation: Option<InstanceId>,
}

/// Some instances, in the order of their ids.
#[derive(Debug, Clone)]
pub struct Page {
    /// Their states.
    pub instances: Vec<InstanceState>,
    /// Where the next page begins; none after the last.
    pub continuation: Option<InstanceId>,
}

const DEFAULT_PAGE_SIZE: usize = 100;

impl Client {
    /// Lists instances by id, entities not among them (see [`Client::query_entities`]). Paging is stable while instances change: one that exists throughout is listed once.
    ///
    /// # Errors
    /// When the hub is closed or the store fails.
    pub async fn list(&self, query: &ListQuery) -> Result<Page, ClientError> {
        let wanted = if query.page_size == 0 { DEFAULT_PAGE_SIZE } else { query.page_size };
        let mut page = Page { instances: Vec::new(), continuation: query.continuation.clone() };
        loop {
            let batch = self.next_instances(&query.id_prefix, page.continuation.as_ref(), wanted).await?;
            let exhausted = batch.len() < wanted;
            for (id, state) in batch {
                page.continuation = Some(id);
                let Some(state) = state.filter(|state| state.entity.is_none()) else { continue };
                if query.statuses.is_empty() || query.statuses.contains(&state.status) {
                    page.instances.push(Arc::unwrap_or_clone(state));
                    if page.instances.len() == wanted {
                        return Ok(page);
                    }
                }
            }
            if exhausted {
                page.continuation = None;
                return Ok(page);
            }
        }
    }

    /// The next instances by id, from memory and from the store; purged ones have no state. Fewer than `limit` only at
    /// the end.
    async fn next_instances(
        &self,
        prefix: &str,
        after: Option<&InstanceId>,
        limit: usize,
    ) -> Result<Vec<(InstanceId, Option<Arc<InstanceState>>)>, ClientError> {
        let mut found = BTreeMap::new();
        // First what is in memory, then the store: what moves in between is in both, never in neither.
        for partition in 0..self.shared.routes.partitions() {
            let overlay = self
                .ask(PartitionId(partition), None, |address, answer| {
                    let (prefix, after) = (prefix.to_owned(), after.cloned());
                    address.do_send(OverlayRead { prefix, after, limit, answer });
                })
                .await?;
            found.extend(overlay);
        }
        let (store, prefix, after) = (self.store()?, prefix.to_owned(), after.cloned());
        let stored = tokio::task::spawn_blocking(move || {
            let stored = store.scan_instances(&prefix, after.as_ref(), limit)?;
            stored.iter().map(bridge::instance_state).collect::<Result<Vec<_>, _>>()
        });
        for state in stored.await.map_err(|_| ClientError::HubClosed)?? {
            found.entry(state.instance.clone()).or_insert_with(|| Some(Arc::new(state)));
        }
        Ok(found.into_iter().take(limit).collect())
    }
}
