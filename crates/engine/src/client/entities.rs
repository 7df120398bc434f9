//! Entities: signals, states, queries and cleaning.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use steadfast_core::entity::{EntityLock, EntityOperation, EntityUnlock};
use steadfast_core::model::{EntityCall, IntoEntityId};
use steadfast_core::partition::Accepted;
use steadfast_core::{
    EntityId, EventKind, IdReuse, InstanceFilter, InstanceId, InstanceKind, InstanceState, Payload,
    TimeRange, Timestamp,
};
use tracing::Instrument;

use super::Client;
use super::query::{PAGE_BYTES_DEFAULT, Slice, Wanted};
use crate::error::ClientError;
use crate::partition::{Call, Wait, WaitFor};
use crate::trace;

const DEFAULT_PAGE_SIZE: usize = 100;

/// How long a cleaning takes at most before it hands out a continuation.
const CLEANING_TIME: Duration = Duration::from_secs(5);

/// What is known of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityMetadata {
    /// Which one.
    pub id: EntityId,
    /// Its user state; none when there is none, or it was not asked for.
    pub state: Option<Payload>,
    /// Whether it has a user state. One without is only there for a while, because it is locked.
    pub exists: bool,
    /// When its last turn was.
    pub last_modified: Timestamp,
    /// How many messages wait for it.
    pub backlog_size: usize,
    /// The orchestration that has locked it.
    pub locked_by: Option<InstanceId>,
}

/// Which entities to return.
#[derive(Debug, Clone, Default)]
pub struct EntityQuery {
    /// Only ids that begin with this, like `@counter@` or `@counter@a`; all when empty.
    pub id_prefix: String,
    /// Only those changed at this moment or later.
    pub modified_from: Option<Timestamp>,
    /// Only those changed before this moment.
    pub modified_to: Option<Timestamp>,
    /// Whether to return the user states.
    pub include_state: bool,
    /// Whether to return entities without user state too.
    pub include_transient: bool,
    /// How many to return at most; 100 when zero.
    pub page_size: usize,
    /// Roughly how large a page may become, in bytes of user states: it is cut short behind the entity that reaches this.
    /// 64 MiB when zero.
    pub page_bytes: usize,
    /// Go on after the page that returned this.
    pub continuation: Option<String>,
}

/// Some entities, in the order of their instance ids.
#[derive(Debug, Clone)]
pub struct EntityPage {
    /// The entities.
    pub entities: Vec<EntityMetadata>,
    /// Where the next page begins; none after the last.
    pub continuation: Option<String>,
}

/// What to clean.
#[derive(Debug, Clone)]
pub struct EntityCleaning {
    /// Remove what is left of entities without user state, lock and backlog. They usually vanish by themselves.
    pub remove_empty: bool,
    /// Free locks whose owners have ended, or are gone. That happens by itself too, unless an owner was removed by force.
    pub release_orphaned_locks: bool,
    /// Go on where a cleaning stopped that returned this.
    pub continuation: Option<String>,
}

impl Default for EntityCleaning {
    fn default() -> Self {
        Self { remove_empty: true, release_orphaned_locks: true, continuation: None }
    }
}

/// What was cleaned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CleanedEntities {
    /// How many entities were removed.
    pub empty_removed: usize,
    /// How many locks were freed.
    pub orphaned_locks_released: usize,
    /// Where to go on; none when everything was looked at.
    pub continuation: Option<String>,
}

impl Client {
    /// Signals an entity: it does the operation some time, and nobody learns of the result. The entity need not exist.
    ///
    /// # Errors
    /// When the id or the input cannot be used, or the hub is closed.
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
        let max = self.shared.options.payload_bytes_max;
        let signal = call.into_signal(at, self.converter(), max);
        let (entity, operation) = signal.map_err(|failure| ClientError::Entity(Box::new(failure)))?;
        self.send_signal(&entity, operation).await
    }

    pub(super) async fn send_signal(
        &self,
        entity: &EntityId,
        mut operation: EntityOperation,
    ) -> Result<(), ClientError> {
        let (span, trace) = trace::signaling(entity, &operation);
        operation.trace = trace;
        self.tell(entity, EventKind::EntityOperationSignaled(Box::new(operation))).instrument(span).await
    }

    pub(super) async fn tell(&self, entity: &EntityId, kind: EventKind) -> Result<(), ClientError> {
        let instance = entity.instance_id();
        let message = Box::new(self.message(instance, None, kind));
        let call = Call::Message { message, fresh_id: false, reuse: IdReuse::default(), watch: None };
        self.call(instance, call).await.map(|_: Accepted| ())
    }

    /// What an entity's user state is; none if it has none.
    ///
    /// # Errors
    /// When the id cannot be used, the state is not an `S`, or the hub is closed.
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
    /// When the id cannot be used or the hub is closed.
    pub async fn entity(&self, entity: impl IntoEntityId) -> Result<Option<EntityMetadata>, ClientError> {
        let entity = entity.entity_id()?;
        let state = self.known_state(entity.instance_id()).await?;
        Ok(state.and_then(|state| metadata(&state, true)))
    }

    async fn known_state(&self, instance: &InstanceId) -> Result<Option<Arc<InstanceState>>, ClientError> {
        let owner = self.shared.routes.owner(instance);
        let wait_for = WaitFor::Nothing;
        self.ask(owner, Some(instance), |address, answer| {
            address.do_send(Wait { instance: instance.clone(), wait_for, may_come: false, answer });
        })
        .await
    }

    /// Returns entities by id, page by page. Paging is stable while entities change: one that exists throughout is
    /// returned once.
    ///
    /// # Errors
    /// When the hub is closed or the store fails.
    pub async fn query_entities(&self, query: &EntityQuery) -> Result<EntityPage, ClientError> {
        let wanted = if query.page_size == 0 { DEFAULT_PAGE_SIZE } else { query.page_size };
        let bytes_max = if query.page_bytes == 0 { PAGE_BYTES_DEFAULT } else { query.page_bytes };
        let prefix = match query.id_prefix.starts_with('@') {
            true => query.id_prefix.clone(),
            false => format!("@{}", query.id_prefix),
        };
        let updated = TimeRange { from: query.modified_from, before: query.modified_to };
        let filter = InstanceFilter {
            updated,
            id_prefix: prefix,
            kind: InstanceKind::Entities,
            ..InstanceFilter::default()
        };
        let mut page = EntityPage { entities: Vec::new(), continuation: query.continuation.clone() };
        let mut bytes = 0;
        loop {
            let after = page.continuation.as_deref().map(InstanceId::from_trusted);
            let Slice { found, more } =
                self.first_instances(filter.clone(), after, Wanted::states(wanted)).await?;
            let mut found = found.into_iter().peekable();
            while let Some(state) = found.next() {
                page.continuation = Some(state.instance.as_str().to_owned());
                let Some(entity) = metadata(&state, query.include_state) else { continue };
                if entity.exists || query.include_transient {
                    bytes += entity.state.as_ref().map_or(0, Payload::len);
                    page.entities.push(entity);
                    let full = page.entities.len() == wanted || bytes >= bytes_max;
                    if full && (more || found.peek().is_some()) {
                        return Ok(page);
                    }
                }
            }
            if !more {
                page.continuation = None;
                return Ok(page);
            }
        }
    }

    /// Removes what is left of empty entities, and frees locks whose owners have ended. Takes a few seconds at most, and
    /// returns a continuation if that was not enough.
    ///
    /// # Errors
    /// When the hub is closed or the store fails.
    pub async fn clean_entity_storage(
        &self,
        wanted: &EntityCleaning,
    ) -> Result<CleanedEntities, ClientError> {
        let began = Instant::now();
        let mut cleaned =
            CleanedEntities { continuation: wanted.continuation.clone(), ..CleanedEntities::default() };
        loop {
            let all = InstanceFilter { kind: InstanceKind::Entities, ..InstanceFilter::default() };
            let after = cleaned.continuation.as_deref().map(InstanceId::from_trusted);
            let Slice { found, more } =
                self.first_instances(all, after, Wanted::states(DEFAULT_PAGE_SIZE)).await?;
            for state in found {
                self.clean_entity(&state, wanted, &mut cleaned).await?;
                cleaned.continuation = Some(state.instance.as_str().to_owned());
                if began.elapsed() >= CLEANING_TIME {
                    return Ok(cleaned);
                }
            }
            if !more {
                cleaned.continuation = None;
                return Ok(cleaned);
            }
        }
    }

    async fn clean_entity(
        &self,
        state: &InstanceState,
        wanted: &EntityCleaning,
        cleaned: &mut CleanedEntities,
    ) -> Result<(), ClientError> {
        let (Some(entity), Some(id)) = (&state.entity, EntityId::of_instance(&state.instance)) else {
            return Ok(());
        };
        match &entity.lock {
            Some(lock) if wanted.release_orphaned_locks && self.is_orphaned(lock).await? => {
                self.tell(&id, unlock(Some(lock))).await?;
                cleaned.orphaned_locks_released += 1;
            }
            None if wanted.remove_empty && entity.state.is_none() && entity.backlog == 0 => {
                // Any turn lets an entity vanish of which nothing has to be kept.
                self.tell(&id, unlock(None)).await?;
                cleaned.empty_removed += 1;
            }
            _ => {}
        }
        Ok(())
    }

    async fn is_orphaned(&self, lock: &EntityLock) -> Result<bool, ClientError> {
        let owner = self.known_state(&lock.owner.instance).await?;
        Ok(owner.is_none_or(|state| state.execution != lock.owner.execution || state.status.is_terminal()))
    }
}

/// Gives back a lock in its owner's name.
fn unlock(lock: Option<&EntityLock>) -> EventKind {
    EventKind::EntityUnlockSent(Box::new(EntityUnlock {
        critical_section: lock.map_or_else(SmolStr::default, |lock| lock.critical_section.clone()),
        target: None,
        owner: lock.map(|lock| lock.owner.clone()),
        then: Vec::new(),
    }))
}

fn metadata(state: &InstanceState, include_state: bool) -> Option<EntityMetadata> {
    let entity = state.entity.as_ref()?;
    Some(EntityMetadata {
        id: EntityId::of_instance(&state.instance)?,
        state: entity.state.clone().filter(|_| include_state),
        exists: entity.state.is_some(),
        last_modified: state.updated_at,
        backlog_size: entity.backlog,
        locked_by: entity.lock.as_ref().map(|lock| lock.owner.instance.clone()),
    })
}
