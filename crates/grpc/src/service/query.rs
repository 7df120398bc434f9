//! Looking at many instances.

use steadfast_core::{InstanceFilter, InstanceKind};
use steadfast_engine::{EndedQuery, InstanceQuery};
use tonic::Status;

use super::refuse::refused;
use super::{PAGE_BYTES, TaskHubService};
use crate::convert::{WireError, name, orchestration_state, page_size, statuses, time_range};
use crate::wire;

impl TaskHubService {
    pub(super) async fn query(
        &self,
        request: wire::QueryInstancesRequest,
    ) -> Result<wire::QueryInstancesResponse, Status> {
        let query = request.query.unwrap_or_default();
        let wanted = statuses(&query.runtime_status, "runtimeStatus")?;
        // None but those that clients never see.
        let nothing = wanted.is_empty() && !query.runtime_status.is_empty();
        let filter = InstanceFilter {
            statuses: wanted,
            created: time_range(
                (query.created_time_from, "createdTimeFrom"),
                (query.created_time_to, "createdTimeTo"),
            )?,
            id_prefix: name(query.instance_id_prefix.unwrap_or_default(), "instanceIdPrefix")?,
            kind: InstanceKind::Orchestrations,
            ..InstanceFilter::default()
        };
        let query_of_engine = InstanceQuery {
            filter,
            page_size: page_size(query.max_instance_count, "maxInstanceCount")?,
            page_bytes: PAGE_BYTES,
            continuation: token(query.continuation_token, "continuationToken")?,
            omit_payloads: !query.fetch_inputs_and_outputs,
        };
        if nothing {
            return Ok(wire::QueryInstancesResponse::default());
        }
        let page = self.client.query(&query_of_engine).await.map_err(refused)?;
        let shown =
            page.instances.iter().map(|state| orchestration_state(state, query.fetch_inputs_and_outputs));
        Ok(wire::QueryInstancesResponse {
            orchestration_state: shown.collect(),
            continuation_token: page.continuation.map(|token| token.to_string()),
        })
    }

    pub(super) async fn list_ended(
        &self,
        request: wire::ListInstanceIdsRequest,
    ) -> Result<wire::ListInstanceIdsResponse, Status> {
        let wanted = statuses(&request.runtime_status, "runtimeStatus")?;
        let nothing = wanted.is_empty() && !request.runtime_status.is_empty();
        let query = EndedQuery {
            statuses: wanted,
            completed: time_range(
                (request.completed_time_from, "completedTimeFrom"),
                (request.completed_time_to, "completedTimeTo"),
            )?,
            page_size: page_size(request.page_size, "pageSize")?,
            continuation: token(request.last_instance_key, "lastInstanceKey")?,
        };
        if nothing {
            return Ok(wire::ListInstanceIdsResponse::default());
        }
        let page = self.client.list_ended(&query).await.map_err(refused)?;
        Ok(wire::ListInstanceIdsResponse {
            instance_ids: page.instances.iter().map(|ended| ended.instance.to_string()).collect(),
            last_instance_key: page.continuation.map(|last| last.to_string()),
        })
    }
}

/// Where a page is to begin; at the beginning when nothing is said.
fn token<T: std::str::FromStr>(text: Option<String>, field: &'static str) -> Result<Option<T>, WireError> {
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|_| WireError::InvalidToken { field })).transpose()
}
