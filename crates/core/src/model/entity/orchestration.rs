//! What orchestrations can do with entities.

use smol_str::{SmolStr, format_smolstr};

use super::call::{EntityCall, IntoEntityId};
use super::locks::{LockFuture, Section, misuse};
use crate::action::ActionKind;
use crate::entity::{EntityId, EntityLockRequest};
use crate::error::{Error, TaskKind};
use crate::failure::{FailureDetails, kinds};
use crate::model::context::OrchestrationContext;
use crate::model::shared::ContextState;
use crate::model::tasks::{OpenKind, TaskFuture};
use crate::time::Timestamp;

impl OrchestrationContext {
    /// Calls an operation of an entity. What it returns, or why it failed, comes back; a failure of the operation is not
    /// one of the orchestration.
    ///
    /// Within a critical section only locked entities can be called, each once at a time; anything else is an error with
    /// [`kinds::CRITICAL_SECTION_MISUSED`].
    pub fn call_entity<O>(&self, call: EntityCall<O>) -> TaskFuture<O> {
        let context = self.state.clone();
        let name = call.operation().clone();
        let scheduled = self.state.borrow_mut().schedule_call(call);
        match scheduled {
            Ok((id, name)) => TaskFuture::scheduled(context, TaskKind::Entity, name, id),
            Err(failure) => TaskFuture::rejected(context, TaskKind::Entity, name, failure),
        }
    }

    /// Signals an entity: it does the operation some time, and nobody learns of the result.
    ///
    /// # Errors
    /// When the id or the input cannot be used, and for an entity that this orchestration has locked.
    pub fn signal_entity<O>(&self, call: EntityCall<O>) -> Result<(), Error> {
        self.state.borrow_mut().signal(call, None)
    }

    /// Signals an entity at a moment. The signal is kept until then, however long that is, also when this orchestration
    /// has ended meanwhile.
    ///
    /// # Errors
    /// Those of [`Self::signal_entity`].
    pub fn signal_entity_at<O>(&self, call: EntityCall<O>, at: Timestamp) -> Result<(), Error> {
        self.state.borrow_mut().signal(call, Some(at))
    }

    /// Asks for the locks of some entities, in the one order in which everybody asks, so that nobody waits for each other
    /// in a circle. Operations that the entities were asked for before run first. Within the section the entities do only
    /// what this orchestration calls.
    ///
    /// Not allowed are: a section within a section, no entity at all, and within the section signals to locked entities,
    /// calls of other entities, and sub-orchestrations. These are errors with [`kinds::CRITICAL_SECTION_MISUSED`].
    pub fn lock_entities<E: IntoEntityId>(&self, entities: impl IntoIterator<Item = E>) -> LockFuture {
        let entities: Result<Vec<_>, _> = entities.into_iter().map(|entity| entity.entity_id()).collect();
        let entities = entities.map_err(|error| {
            FailureDetails::new(kinds::INVALID_ENTITY_ID, error.to_string()).non_retriable()
        });
        let mut state = self.state.borrow_mut();
        let request = entities.and_then(|entities| state.request_locks(entities)).map_err(Some);
        drop(state);
        LockFuture { context: self.state.clone(), request }
    }

    /// Whether the orchestration has asked for locks and not given them back.
    pub fn is_in_critical_section(&self) -> bool {
        self.state.borrow().entities.as_ref().is_some_and(|links| links.section.is_some())
    }
}

impl ContextState {
    fn schedule_call<O>(&mut self, call: EntityCall<O>) -> Result<(i32, SmolStr), FailureDetails> {
        let (target, mut operation) = call.into_signal(None, &self.converter(), self.max_payload_bytes())?;
        let request = self.derived_id("entity");
        self.check_call_allowed(&target, &request)?;
        let name = format_smolstr!("{target}.{}", operation.operation);
        operation.request_id = request.clone();
        operation.target = Some(target);
        operation.trace = self.next_trace("entity").map(Box::new);
        let id = self.open_task(OpenKind::EntityCall, ActionKind::CallEntity(Box::new(operation)));
        self.entities.get_or_insert_default().waiting.insert(request, id);
        Ok((id, name))
    }

    fn signal<O>(&mut self, call: EntityCall<O>, at: Option<Timestamp>) -> Result<(), Error> {
        let (target, mut operation) = call.into_signal(at, &self.converter(), self.max_payload_bytes())?;
        self.check_signal_allowed(&target)?;
        operation.request_id = self.derived_id("entity");
        operation.target = Some(target);
        operation.trace = self.next_trace("entity").map(Box::new);
        self.push_action(ActionKind::SignalEntity(Box::new(operation)));
        Ok(())
    }

    fn request_locks(&mut self, mut entities: Vec<EntityId>) -> Result<(i32, SmolStr), FailureDetails> {
        if self.entities.as_ref().is_some_and(|links| links.section.is_some()) {
            return Err(misuse(
                "a critical section is entered within another one; lock all entities that are needed at once, or release \
                 the first ones before",
            ));
        }
        if entities.is_empty() {
            return Err(misuse("a critical section locks no entity; name at least one"));
        }
        entities.sort_unstable();
        entities.dedup();
        let section = self.derived_id("section");
        let request = EntityLockRequest {
            critical_section: section.clone(),
            lock_set: entities.clone(),
            position: 0,
            owner: None,
            trace: None,
        };
        let id = self.open_task(OpenKind::EntityLock, ActionKind::LockEntities(Box::new(request)));
        let links = self.entities.get_or_insert_default();
        links.waiting.insert(section.clone(), id);
        links.section = Some(Section { id: section.clone(), granted: false, entities, calls: Vec::new() });
        Ok((id, section))
    }

    /// An id that is the same at every replay, for the next action.
    fn derived_id(&self, purpose: &str) -> SmolStr {
        format_smolstr!("{}", self.started.root_execution().derive(purpose, self.next_id).uuid())
    }
}
