//! Entities: signals, states, queries and cleaning.

use steadfast_core::EntityId;
use steadfast_engine::{EntityCleaning, EntityMetadata, EntityQuery};
use tonic::Status;

use super::refuse::{needed_name, refused};
use super::{PAGE_BYTES, TaskHubService};
use crate::convert::{
    WireError, entity_id, entity_prefix, name, page_size, payload, payload_to_wire, time_range, timestamp,
    timestamp_to_wire,
};
use crate::wire;

/// How many entities a page shows at most, whatever is asked for.
const PAGE_SIZE_MAX: usize = 1000;

impl TaskHubService {
    pub(super) async fn signal(
        &self,
        request: wire::SignalEntityRequest,
    ) -> Result<wire::SignalEntityResponse, Status> {
        let entity = entity_id(&request.instance_id)?;
        let operation = needed_name(request.name, "SignalEntityRequest")?;
        let request_id = name(request.request_id, "requestId")?;
        let at = request.scheduled_time.map(|at| timestamp(at, "scheduledTime")).transpose()?;
        let (input, at) = (payload(request.input), self.later(at));
        let raw = self.client.raw();
        let signaled = raw.signal_entity(&entity, operation, input, request_id, at).await;
        signaled.map_err(refused)?;
        Ok(wire::SignalEntityResponse {})
    }

    pub(super) async fn entity(
        &self,
        request: wire::GetEntityRequest,
    ) -> Result<wire::GetEntityResponse, Status> {
        let known = self.client.entity(entity_id(&request.instance_id)?).await.map_err(refused)?;
        let entity = known.map(|known| shown(known, request.include_state));
        Ok(wire::GetEntityResponse { exists: entity.is_some(), entity })
    }

    pub(super) async fn entities(
        &self,
        request: wire::QueryEntitiesRequest,
    ) -> Result<wire::QueryEntitiesResponse, Status> {
        let query = request.query.unwrap_or_default();
        let modified = time_range(
            (query.last_modified_from, "lastModifiedFrom"),
            (query.last_modified_to, "lastModifiedTo"),
        )?;
        let query_of_engine = EntityQuery {
            id_prefix: entity_prefix(&query.instance_id_starts_with.unwrap_or_default())?,
            modified_from: modified.from,
            modified_to: modified.before,
            include_state: query.include_state,
            include_transient: query.include_transient,
            page_size: page_size(query.page_size.unwrap_or_default(), "pageSize")?.min(PAGE_SIZE_MAX),
            page_bytes: PAGE_BYTES,
            continuation: continuation(query.continuation_token)?,
        };
        let page = self.client.query_entities(&query_of_engine).await.map_err(refused)?;
        let show = |entity| shown(entity, query.include_state);
        Ok(wire::QueryEntitiesResponse {
            entities: page.entities.into_iter().map(show).collect(),
            continuation_token: page.continuation,
        })
    }

    pub(super) async fn clean_entities(
        &self,
        request: wire::CleanEntityStorageRequest,
    ) -> Result<wire::CleanEntityStorageResponse, Status> {
        let wanted = EntityCleaning {
            remove_empty: request.remove_empty_entities,
            release_orphaned_locks: request.release_orphaned_locks,
            continuation: continuation(request.continuation_token)?,
        };
        let cleaned = self.client.clean_entity_storage(&wanted).await.map_err(refused)?;
        Ok(wire::CleanEntityStorageResponse {
            continuation_token: cleaned.continuation,
            empty_entities_removed: count(cleaned.empty_removed),
            orphaned_locks_released: count(cleaned.orphaned_locks_released),
        })
    }
}

/// The token of a page of entities is the id of its last one.
fn continuation(token: Option<String>) -> Result<Option<String>, WireError> {
    let token = token.filter(|token| !token.is_empty());
    if token.as_ref().is_some_and(|token| EntityId::parse(token).is_err()) {
        return Err(WireError::InvalidToken { field: "continuationToken" });
    }
    Ok(token)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn shown(entity: EntityMetadata, include_state: bool) -> wire::EntityMetadata {
    let state = entity.state.filter(|_| include_state);
    wire::EntityMetadata {
        instance_id: entity.id.to_string(),
        last_modified_time: Some(timestamp_to_wire(entity.last_modified)),
        backlog_queue_size: count(entity.backlog_size),
        locked_by: entity.locked_by.map(|instance| instance.to_string()),
        serialized_state: state.as_ref().and_then(payload_to_wire),
    }
}
