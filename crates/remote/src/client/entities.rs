//! Entities: signals, states, queries and cleaning.

use serde::de::DeserializeOwned;
use steadfast_core::Timestamp;
use steadfast_core::model::{EntityCall, IntoEntityId};
use steadfast_engine::{
    CleanedEntities, ClientError, EntityCleaning, EntityMetadata, EntityPage, EntityQuery,
};
use steadfast_grpc::convert::{payload_to_wire, received_entity, timestamp_to_wire};
use steadfast_grpc::wire;

use super::{Client, unclear};

impl Client {
    /// Signals an entity: it does the operation some time, and nobody learns of the result. The entity need not exist.
    ///
    /// # Errors
    /// When the id or the input cannot be used, or the server cannot be reached.
    pub async fn signal_entity<O>(&self, call: EntityCall<O>) -> Result<(), ClientError> {
        self.signal(call, None).await
    }

    /// Signals an entity at a moment. The signal is durable until then, however long that is, and the entity does not
    /// exist on its account.
    ///
    /// # Errors
    /// Those of [`Client::signal_entity`].
    pub async fn signal_entity_at<O>(&self, call: EntityCall<O>, at: Timestamp) -> Result<(), ClientError> {
        self.signal(call, Some(at)).await
    }

    async fn signal<O>(&self, call: EntityCall<O>, at: Option<Timestamp>) -> Result<(), ClientError> {
        let signal = call.into_signal(at, self.converter(), self.payload_bytes_max);
        let (entity, operation) = signal.map_err(|failure| ClientError::Entity(Box::new(failure)))?;
        let request = wire::SignalEntityRequest {
            instance_id: entity.to_string(),
            name: operation.operation.to_string(),
            input: payload_to_wire(&operation.input),
            request_id: operation.request_id.to_string(),
            scheduled_time: at.map(timestamp_to_wire),
            ..wire::SignalEntityRequest::default()
        };
        let signaled =
            self.change(request, |mut stub, request| async move { stub.signal_entity(request).await }).await;
        signaled.map(|_| ()).map_err(ClientError::from)
    }

    /// What an entity's user state is; none if it has none.
    ///
    /// # Errors
    /// When the id cannot be used, the state is not an `S`, or the server cannot be reached.
    pub async fn entity_state<S: DeserializeOwned>(
        &self,
        entity: impl IntoEntityId,
    ) -> Result<Option<S>, ClientError> {
        let state = self.entity(entity).await?.and_then(|known| known.state);
        let decoded = state.map(|state| self.converter().decode(&state)).transpose();
        decoded.map_err(|error| ClientError::InvalidPayload(Box::new(error)))
    }

    /// What is known of an entity; none if it has no user state and nobody has locked it.
    ///
    /// # Errors
    /// When the id cannot be used or the server cannot be reached.
    pub async fn entity(&self, entity: impl IntoEntityId) -> Result<Option<EntityMetadata>, ClientError> {
        let request =
            wire::GetEntityRequest { instance_id: entity.entity_id()?.to_string(), include_state: true };
        let found =
            self.ask(request, |mut stub, request| async move { stub.get_entity(request).await }).await;
        let found = found.map_err(ClientError::from)?;
        let entity = found.entity.filter(|_| found.exists);
        entity.map(|entity| received_entity(entity, true)).transpose().map_err(unclear)
    }

    /// Returns entities by id, page by page. Paging is stable while entities change: one that exists throughout is
    /// returned once.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn query_entities(&self, query: &EntityQuery) -> Result<EntityPage, ClientError> {
        let request = wire::QueryEntitiesRequest {
            query: Some(wire::EntityQuery {
                instance_id_starts_with: Some(query.id_prefix.clone()).filter(|it| !it.is_empty()),
                last_modified_from: query.modified_from.map(timestamp_to_wire),
                last_modified_to: query.modified_to.map(timestamp_to_wire),
                include_state: query.include_state,
                include_transient: query.include_transient,
                page_size: (query.page_size > 0).then(|| i32::try_from(query.page_size).unwrap_or(i32::MAX)),
                continuation_token: query.continuation.clone(),
            }),
        };
        let page =
            self.ask(request, |mut stub, request| async move { stub.query_entities(request).await }).await;
        let page = page.map_err(ClientError::from)?;
        let entities = page.entities.into_iter().map(|entity| received_entity(entity, query.include_state));
        Ok(EntityPage {
            entities: entities.collect::<Result<_, _>>().map_err(unclear)?,
            continuation: page.continuation_token.filter(|token| !token.is_empty()),
        })
    }

    /// Removes what is left of empty entities, and frees locks whose owners have ended. Takes a few seconds at most, and
    /// returns a continuation if that was not enough.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn clean_entity_storage(
        &self,
        wanted: &EntityCleaning,
    ) -> Result<CleanedEntities, ClientError> {
        let request = wire::CleanEntityStorageRequest {
            continuation_token: wanted.continuation.clone(),
            remove_empty_entities: wanted.remove_empty,
            release_orphaned_locks: wanted.release_orphaned_locks,
        };
        // What is clean already stays so, so it can be repeated.
        let cleaned = self
            .ask(request, |mut stub, request| async move { stub.clean_entity_storage(request).await })
            .await;
        let cleaned = cleaned.map_err(ClientError::from)?;
        let count = |count: i32| usize::try_from(count).unwrap_or_default();
        Ok(CleanedEntities {
            empty_removed: count(cleaned.empty_entities_removed),
            orphaned_locks_released: count(cleaned.orphaned_locks_released),
            continuation: cleaned.continuation_token.filter(|token| !token.is_empty()),
        })
    }
}
