//! The state of an instance, derived from its history event by event.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::codec::{self, DecodeError};
use crate::entity::{EntityId, EntityState, RequestedLocks};
use crate::event::{EventKind, ExecutionStarted, HistoryEvent, ParentInstance, Tags};
use crate::failure::FailureDetails;
use crate::ids::{ExecutionId, InstanceId};
use crate::payload::Payload;
use crate::time::Timestamp;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OrchestrationStatus {
    /// Its code has begun.
    Running,
    /// It returned.
    Completed,
    /// One execution ended and the next has not begun.
    ContinuedAsNew,
    /// It failed.
    Failed,
    /// Reserved by the Durable Task vocabulary; not used.
    Canceled,
    /// It was terminated.
    Terminated,
    /// It was accepted and has not begun.
    Pending,
    /// It emits nothing until it is resumed.
    Suspended,
}

impl OrchestrationStatus {
    /// Whether the instance has ended.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled | Self::Terminated)
    }

    /// Whether code is under way, so that a session made anew has to replay the history.
    pub const fn needs_replay(self) -> bool {
        matches!(self, Self::Running | Self::Suspended)
    }
}

impl fmt::Display for OrchestrationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What is known of an instance without reading its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceState {
    /// The instance.
    pub instance: InstanceId,
    /// Its current execution.
    pub execution: ExecutionId,
    /// The orchestration's name.
    pub name: SmolStr,
    /// Its version, empty for none.
    pub version: SmolStr,
    /// Where it is in its life.
    pub status: OrchestrationStatus,
    /// Its input.
    pub input: Payload,
    /// Its result.
    pub output: Option<Payload>,
    /// Why it failed.
    pub failure: Option<Box<FailureDetails>>,
    /// Why it is suspended, or why it was terminated.
    pub reason: Option<SmolStr>,
    /// What its code last set as custom status.
    pub custom_status: Option<Payload>,
    /// Its tags.
    pub tags: Tags,
    /// Who awaits it.
    pub parent: Option<ParentInstance>,
    /// When it was created; continuing as new and rewinding do not change it.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Not to begin before this moment.
    pub scheduled_start: Option<Timestamp>,
    /// How many executions came before this one by continue-as-new.
    pub generation: u32,
    /// Number of events in the current execution's history.
    pub history_events: u64,
    /// Size of that history in the record encoding, in bytes.
    pub history_bytes: u64,
    /// Timers that are armed: timer id and due time.
    pub open_timers: BTreeMap<i32, Timestamp>,
    /// Sub-orchestrations that are awaited and have not ended.
    pub open_children: BTreeMap<i32, InstanceId>,
    /// Of an entity: its user state and its lock.
    pub entity: Option<Box<EntityState>>,
    /// How many instances had this id before this one, as far as is known: what the Durable Task Framework calls
    /// generation. Purging an instance forgets it.
    pub incarnation: u32,
    /// A number greater than that of any action so far.
    pub next_event_id: i32,
    /// As long as it waits to begin: the status of what was there under this id before.
    pub replaces: Option<OrchestrationStatus>,
    /// Entities' locks that the execution has asked for and not given back. Stored behind the rest, and only if there are
    /// any: see [`InstanceState::encode`].
    #[serde(skip)]
    pub requested_locks: Option<Box<RequestedLocks>>,
    /// What the worker that runs the execution gave to keep for its next turns. Stored behind the rest as well.
    #[serde(skip)]
    pub keepsake: Option<Arc<[u8]>>,
}

impl InstanceState {
    /// The state of an instance whose start was accepted and whose code has not begun.
    pub fn pending(instance: InstanceId, started: &ExecutionStarted, at: Timestamp) -> Self {
        Self {
            instance,
            execution: started.execution,
            name: started.name.clone(),
            version: started.version.clone(),
            status: OrchestrationStatus::Pending,
            input: started.input.clone(),
            output: None,
            failure: None,
            reason: None,
            custom_status: None,
            tags: started.tags.clone(),
            parent: started.parent.clone(),
            created_at: started.created_at.unwrap_or(at),
            updated_at: at,
            completed_at: None,
            scheduled_start: started.scheduled_start,
            generation: started.generation,
            history_events: 0,
            history_bytes: 0,
            open_timers: BTreeMap::new(),
            open_children: BTreeMap::new(),
            incarnation: started.incarnation,
            next_event_id: 0,
            replaces: None,
            requested_locks: None,
            keepsake: None,
            entity: None,
        }
    }

    /// The state of an entity. It has no history, and is running as long as it exists.
    pub fn entity(instance: InstanceId, entity: EntityState, at: Timestamp) -> Self {
        let name = EntityId::of_instance(&instance).map_or_else(SmolStr::default, |id| id.name().into());
        let execution = ExecutionId::new(uuid::Uuid::nil());
        let started = ExecutionStarted::new(name, SmolStr::default(), Payload::null(), execution);
        Self {
            status: OrchestrationStatus::Running,
            entity: Some(Box::new(entity)),
            ..Self::pending(instance, &started, at)
        }
    }

    /// Applies one event of the current execution. Live turns and recovery both go through here, so that they agree.
    pub fn apply(&mut self, event: &HistoryEvent) {
        self.history_events = self.history_events.saturating_add(1);
        self.updated_at = self.updated_at.max(event.timestamp);
        self.next_event_id = self.next_event_id.max(event.event_id.saturating_add(1));
        match &event.kind {
            EventKind::ExecutionStarted(_) => self.status = OrchestrationStatus::Running,
            EventKind::ExecutionCompleted { status, output, failure } => {
                self.status = *status;
                self.output.clone_from(output);
                self.failure.clone_from(failure);
                self.end(event.timestamp);
            }
            EventKind::ContinueAsNew { .. } => {
                self.status = OrchestrationStatus::ContinuedAsNew;
                self.end(event.timestamp);
                self.completed_at = None;
            }
            EventKind::ExecutionTerminated { reason, .. } => self.reason = Some(reason.clone()),
            EventKind::ExecutionSuspended { reason } if !self.status.is_terminal() => {
                self.status = OrchestrationStatus::Suspended;
                self.reason = Some(reason.clone());
            }
            EventKind::ExecutionResumed { .. } if self.status == OrchestrationStatus::Suspended => {
                self.status = OrchestrationStatus::Running;
                self.reason = None;
            }
            EventKind::TimerCreated { fire_at } => {
                self.open_timers.insert(event.event_id, *fire_at);
            }
            EventKind::TimerFired { timer_id, .. } => {
                self.open_timers.remove(timer_id);
            }
            EventKind::SubOrchestrationInstanceCreated(created) if !created.detached => {
                self.open_children.insert(event.event_id, created.instance.clone());
            }
            EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, .. }
            | EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, .. } => {
                self.open_children.remove(task_scheduled_id);
            }
            kind @ (EventKind::EntityLockRequested(_) | EventKind::EntityUnlockSent(_)) => {
                RequestedLocks::note_in(&mut self.requested_locks, kind);
            }
            _ => {}
        }
    }

    fn end(&mut self, at: Timestamp) {
        self.completed_at = Some(at);
        self.open_timers.clear();
        self.open_children.clear();
        self.requested_locks = None;
        self.keepsake = None;
    }

    /// As the instance store keeps it. What most instances do not have comes last, if it is there, so that it costs others
    /// nothing and what was written without it can be read.
    pub fn encode(&self, into: &mut Vec<u8>) {
        codec::encode(self, into);
        if self.requested_locks.is_none() && self.keepsake.is_none() {
            return;
        }
        codec::encode(self.requested_locks.as_deref().unwrap_or(&RequestedLocks::default()), into);
        if let Some(keepsake) = &self.keepsake {
            codec::encode(keepsake, into);
        }
    }

    /// Reads what [`InstanceState::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not a state.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut state: Self = codec::decode(&mut bytes)?;
        if !bytes.is_empty() {
            let locks: Box<RequestedLocks> = codec::decode(&mut bytes)?;
            state.requested_locks = Some(locks).filter(|locks| **locks != RequestedLocks::default());
        }
        if !bytes.is_empty() {
            state.keepsake = Some(codec::decode_all(bytes)?);
        }
        Ok(state)
    }

    /// Roughly how much memory this state takes, in bytes, for the bounds on what is kept in memory.
    pub fn approximate_bytes(&self) -> usize {
        let payload = |payload: &Option<Payload>| payload.as_ref().map_or(0, Payload::len);
        size_of::<Self>()
            + self.instance.as_str().len()
            + self.input.len()
            + payload(&self.output)
            + payload(&self.custom_status)
            + self.entity.as_ref().map_or(0, |entity| entity.approximate_bytes())
            + 64 * (self.tags.len() + self.open_timers.len() + self.open_children.len())
            + self.requested_locks.as_ref().map_or(0, |locks| 64 * locks.len())
            + self.keepsake.as_ref().map_or(0, |keepsake| keepsake.len())
    }
}
