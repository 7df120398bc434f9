//! Looking at many instances, and removing many.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use steadfast_core::{InstanceFilter, InstanceKind, InstanceState, OrchestrationStatus, TimeRange};
use steadfast_engine::{ClientError, InstanceQuery, Page, PageToken, PurgeResult};
use steadfast_grpc::convert::{received_state, status_to_wire, timestamp_to_wire};
use steadfast_grpc::wire;

use super::{Client, not_served, unclear};

const PAGE_SIZE_DEFAULT: usize = 100;

const PAGE_SIZE_MAX: usize = 1000;

/// How many are removed at once; the time is looked at in between.
const AT_ONCE: usize = 64;

impl Client {
    /// Shows the instances that match a filter, page by page, in the order of their ids. The protocol filters by status, time of
    /// creation and beginning of the id; what else the filter says is looked at here, so a filter that few match may take
    /// long.
    ///
    /// # Errors
    /// When entities are asked for, which have a query of their own, or the server cannot be reached.
    pub async fn query(&self, query: &InstanceQuery) -> Result<Page, ClientError> {
        if query.filter.kind != InstanceKind::Orchestrations {
            return Err(not_served("queries for instances show no entities; use query_entities"));
        }
        let limit = match query.page_size {
            0 => PAGE_SIZE_DEFAULT,
            size => size.min(PAGE_SIZE_MAX),
        };
        let mut page = Page { instances: Vec::new(), continuation: query.continuation.clone() };
        loop {
            let missing = limit - page.instances.len();
            let (found, next) = self.page(query, page.continuation.take(), missing).await?;
            page.instances.extend(found.into_iter().filter(|state| query.filter.matches(state)));
            page.continuation = next;
            if page.continuation.is_none() || page.instances.len() >= limit {
                return Ok(page);
            }
        }
    }

    async fn page(
        &self,
        query: &InstanceQuery,
        continuation: Option<PageToken>,
        size: usize,
    ) -> Result<(Vec<InstanceState>, Option<PageToken>), ClientError> {
        let InstanceFilter { statuses, created, id_prefix, .. } = &query.filter;
        let TimeRange { from, before } = *created;
        let request = wire::QueryInstancesRequest {
            query: Some(wire::InstanceQuery {
                runtime_status: statuses.iter().map(|status| status_to_wire(*status).into()).collect(),
                created_time_from: from.map(timestamp_to_wire),
                created_time_to: before.map(timestamp_to_wire),
                max_instance_count: i32::try_from(size).unwrap_or(i32::MAX),
                continuation_token: continuation.map(|token| token.to_string()),
                instance_id_prefix: Some(id_prefix.clone()).filter(|prefix| !prefix.is_empty()),
                fetch_inputs_and_outputs: !query.omit_payloads,
                ..wire::InstanceQuery::default()
            }),
        };
        let found =
            self.ask(request, |mut stub, request| async move { stub.query_instances(request).await }).await;
        let found = found.map_err(ClientError::from)?;
        let states = found.orchestration_state.into_iter().map(received_state);
        let states = states.collect::<Result<Vec<_>, _>>().map_err(unclear)?;
        let token = found.continuation_token.filter(|token| !token.is_empty());
        let token = token.map(|token| token.parse::<PageToken>()).transpose();
        let token = token.map_err(|error| not_served(&format!("its pages cannot be continued: {error}")))?;
        Ok((states, token))
    }

    /// Removes all instances that match the filter and have ended, with their histories, in the order of their ids; what
    /// has not ended is passed over, also when the filter asks for it. Stops soon after `time_budget` is used up, if one
    /// is given, but not before it has removed something.
    ///
    /// # Errors
    /// Those of [`Client::query`]. What was removed before stays removed.
    pub async fn purge_matching(
        &self,
        filter: &InstanceFilter,
        time_budget: Option<Duration>,
    ) -> Result<PurgeResult, ClientError> {
        let began = Instant::now();
        let mut result = PurgeResult { deleted: 0, complete: true };
        let wanted =
            |status: &OrchestrationStatus| filter.statuses.is_empty() || filter.statuses.contains(status);
        let ended = [
            OrchestrationStatus::Completed,
            OrchestrationStatus::Failed,
            OrchestrationStatus::Canceled,
            OrchestrationStatus::Terminated,
        ];
        let statuses: Vec<_> = ended.into_iter().filter(wanted).collect();
        if statuses.is_empty() {
            return Ok(result);
        }
        let mut query = InstanceQuery {
            filter: InstanceFilter { statuses, ..filter.clone() },
            page_size: PAGE_SIZE_MAX,
            omit_payloads: true,
            ..InstanceQuery::default()
        };
        loop {
            let page = self.query(&query).await?;
            let mut chunks = page.instances.chunks(AT_ONCE).peekable();
            while let Some(chunk) = chunks.next() {
                let purges = chunk.iter().map(|state| self.purge(state.instance.as_str()));
                for outcome in join_all(purges).await {
                    match outcome {
                        Ok(()) => result.deleted += 1,
                        // Somebody else removed it, or it was started anew.
                        Err(ClientError::InstanceNotFound { .. } | ClientError::NotEnded { .. }) => {}
                        Err(error @ ClientError::Unreachable { .. }) => return Err(error),
                        Err(error) => {
                            tracing::warn!(%error, "an instance could not be purged");
                            result.complete = false;
                        }
                    }
                }
                let more = chunks.peek().is_some() || page.continuation.is_some();
                if more && time_budget.is_some_and(|budget| began.elapsed() >= budget) {
                    return Ok(PurgeResult { complete: false, ..result });
                }
            }
            query.continuation = page.continuation;
            if query.continuation.is_none() {
                return Ok(result);
            }
        }
    }
}
