//! Critical sections of orchestrations, and what waits for entities' answers.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use foldhash::fast::FixedState;
use smol_str::SmolStr;

use crate::action::ActionKind;
use crate::entity::{EntityId, EntityUnlock};
use crate::error::{TaskError, TaskKind};
use crate::failure::{FailureDetails, kinds};
use crate::model::shared::{ContextState, SharedContext};

/// What an execution has to do with entities; most have nothing.
#[derive(Debug, Default)]
pub(crate) struct EntityLinks {
    /// Which action an answer belongs to, by the id of the request or of the critical section.
    pub(super) waiting: HashMap<SmolStr, i32, FixedState>,
    /// The critical section that was asked for and not left.
    pub(super) section: Option<Section>,
}

#[derive(Debug)]
pub(super) struct Section {
    pub(super) id: SmolStr,
    pub(super) granted: bool,
    pub(super) entities: Vec<EntityId>,
    /// The calls under way: the entity's place, and the request.
    pub(super) calls: Vec<(usize, SmolStr)>,
}

/// Why something is not allowed in a critical section.
pub(super) fn misuse(problem: impl Into<String>) -> FailureDetails {
    FailureDetails::new(kinds::CRITICAL_SECTION_MISUSED, problem).non_retriable()
}

impl EntityLinks {
    /// An answer has come: which action it is for, if it is for any.
    pub(crate) fn answered(&mut self, request: &SmolStr) -> Option<i32> {
        if let Some(section) = &mut self.section {
            section.calls.retain(|(_, call)| call != request);
            section.granted |= section.id == *request;
        }
        self.waiting.remove(request)
    }
}

impl ContextState {
    /// Whether an orchestration may be called now.
    pub(in crate::model) fn check_child_allowed(&self) -> Result<(), FailureDetails> {
        match self.entities.as_ref().and_then(|links| links.section.as_ref()) {
            None => Ok(()),
            Some(_) => Err(misuse(
                "an orchestration holds (or waits for) locks and calls a sub-orchestration, which could wait for them; \
                 release the locks first, or start it detached",
            )),
        }
    }

    /// Notes a call within a critical section. Says why it is not allowed, if it is not.
    pub(super) fn check_call_allowed(
        &mut self,
        entity: &EntityId,
        request: &SmolStr,
    ) -> Result<(), FailureDetails> {
        let Some(section) = self.entities.as_mut().and_then(|links| links.section.as_mut()) else {
            return Ok(());
        };
        let place = section.place_of(entity, "called")?.ok_or_else(|| {
            misuse(format!(
                "'{entity}' is called within a critical section and is not locked by it; lock it as well, or call it outside"
            ))
        })?;
        if section.calls.iter().any(|(other, _)| *other == place) {
            return Err(misuse(format!(
                "'{entity}' is locked and called while another call of it is under way; await one before making the next"
            )));
        }
        section.calls.push((place, request.clone()));
        Ok(())
    }

    /// Says why a signal is not allowed, if it is not.
    pub(super) fn check_signal_allowed(&mut self, entity: &EntityId) -> Result<(), FailureDetails> {
        match self.entities.as_mut().and_then(|links| links.section.as_mut()) {
            Some(section) if section.place_of(entity, "signaled")?.is_some() => Err(misuse(format!(
                "'{entity}' is signaled within the critical section that locks it, where the signal would wait; call it instead"
            ))),
            _ => Ok(()),
        }
    }

    /// Leaves the critical section, in whatever state it is.
    fn leave_section(&mut self, id: &SmolStr) {
        if self.closed {
            return;
        }
        let Some(links) = &mut self.entities else { return };
        let Some(section) = links.section.take_if(|section| section.id == *id) else { return };
        links.waiting.remove(id);
        let unlock = |target, then| EntityUnlock {
            critical_section: section.id.clone(),
            target: Some(target),
            owner: None,
            then,
        };
        let mut entities = section.entities.into_iter();
        let unlocks: Vec<_> = match section.granted {
            true => entities.map(|entity| unlock(entity, Vec::new())).collect(),
            // The request is still on its way, and the unlock must not overtake it.
            false => entities.next().map(|first| unlock(first, entities.collect())).into_iter().collect(),
        };
        for unlock in unlocks {
            self.push_action(ActionKind::UnlockEntity(Box::new(unlock)));
        }
    }
}

impl Section {
    fn place_of(&self, entity: &EntityId, done: &str) -> Result<Option<usize>, FailureDetails> {
        if !self.granted {
            return Err(misuse(format!(
                "'{entity}' is {done} while locks were asked for and not awaited; await them first"
            )));
        }
        Ok(self.entities.binary_search(entity).ok())
    }
}

/// Locks that were asked for. The request was made when this was; dropping it takes the request back.
#[must_use = "locks that nobody awaits are given back at once"]
pub struct LockFuture {
    pub(super) context: SharedContext,
    pub(super) request: Result<(i32, SmolStr), Option<FailureDetails>>,
}

impl Future for LockFuture {
    type Output = Result<CriticalSection, TaskError>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let error = |id, details| TaskError { kind: TaskKind::Lock, name: SmolStr::default(), id, details };
        match &mut this.request {
            Err(failure) => {
                let again = || misuse("locks were awaited again after they had been given or refused");
                Poll::Ready(Err(error(-1, failure.take().unwrap_or_else(again))))
            }
            Ok((id, section)) => {
                let Some(outcome) = this.context.borrow_mut().poll_open(*id, task.waker()) else {
                    return Poll::Pending;
                };
                let (id, section) = (*id, section.clone());
                this.request = Err(None);
                Poll::Ready(match outcome {
                    Ok(_) => Ok(CriticalSection { context: this.context.clone(), section }),
                    Err(failure) => Err(error(id, failure)),
                })
            }
        }
    }
}

impl Drop for LockFuture {
    fn drop(&mut self) {
        if let Ok((id, section)) = &self.request {
            let mut context = self.context.borrow_mut();
            context.close_open(*id);
            context.leave_section(section);
        }
    }
}

/// A critical section: as long as it lives, the entities do only what this orchestration calls. Dropping it gives the
/// locks back, as do the end of the orchestration, however it ends, and continue-as-new.
#[must_use = "the locks are given back when this is dropped"]
pub struct CriticalSection {
    context: SharedContext,
    section: SmolStr,
}

impl CriticalSection {
    /// Gives the locks back.
    pub fn release(self) {
        drop(self);
    }

    /// The entities that are locked, in the order in which they were.
    pub fn entities(&self) -> Vec<EntityId> {
        let context = self.context.borrow();
        let section = context.entities.as_ref().and_then(|links| links.section.as_ref());
        section.map_or_else(Vec::new, |section| section.entities.clone())
    }
}

impl Drop for CriticalSection {
    fn drop(&mut self) {
        self.context.borrow_mut().leave_section(&self.section);
    }
}
