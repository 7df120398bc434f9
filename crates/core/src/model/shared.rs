//! What the context, the durable futures and the turn that drives them share.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::task::Waker;

use foldhash::fast::FixedState;
use serde::Serialize;
use smol_str::{SmolStr, format_smolstr};

use super::converter::Converter;
use super::entity::EntityLinks;
use super::events::Inbox;
use super::middleware::Properties;
use super::patch::Patches;
use super::registry::Outcome;
use super::tasks::{OpenKind, OpenTask};
use crate::action::{ActionKind, OrchestratorAction};
use crate::event::{ActivityOptions, ExecutionStarted, SubOrchestrationCreated, Tags, TraceContext};
use crate::failure::{FailureDetails, kinds};
use crate::ids::InstanceId;
use crate::payload::Payload;
use crate::tags::check_tags;
use crate::time::Timestamp;

pub(crate) type SharedContext = Rc<RefCell<ContextState>>;

/// A requested continue-as-new; it takes effect when the code returns successfully.
#[derive(Debug)]
pub(crate) struct ContinueAsNew {
    pub(crate) input: Payload,
    pub(crate) version: Option<SmolStr>,
    pub(crate) preserve_events: bool,
    pub(crate) new_trace: bool,
}

/// What is asked of a child beyond its name and input.
#[derive(Debug, Clone, Default)]
pub(super) struct ChildOptions {
    /// Empty for that of the parent.
    pub(super) version: SmolStr,
    pub(super) instance: Option<SmolStr>,
    pub(super) tags: Tags,
}

/// What the context's methods and the durable futures share with the turn that drives them.
#[derive(Debug)]
pub(crate) struct ContextState {
    pub(crate) instance: InstanceId,
    pub(crate) started: Rc<ExecutionStarted>,
    pub(crate) now: Timestamp,
    pub(crate) replaying: bool,
    pub(crate) next_id: i32,
    /// Actions that no event of the history has confirmed yet, by ascending id.
    pub(crate) actions: VecDeque<OrchestratorAction>,
    pub(crate) open: HashMap<i32, OpenTask, FixedState>,
    pub(crate) inbox: Inbox,
    pub(crate) cancelled_timers: Vec<i32>,
    /// Activities whose futures were dropped before their outcome came.
    pub(crate) cancelled_activities: Vec<i32>,
    pub(crate) custom_status: Option<Payload>,
    pub(crate) continue_as_new: Option<ContinueAsNew>,
    pub(crate) patches: Patches,
    /// What waits for entities, and locks; most orchestrations have nothing to do with any.
    pub(crate) entities: Option<Box<EntityLinks>>,
    /// The session is going away: futures that are dropped now cancel nothing.
    pub(crate) closed: bool,
    /// What middleware put in; none without middleware.
    pub(crate) properties: Option<Box<Properties>>,
    /// That of whoever runs the turns, empty for none.
    pub(crate) worker_version: SmolStr,
    converter: Converter,
    max_payload_bytes: usize,
    awaited_tasks: usize,
    pub(super) uuids: u32,
    pub(super) randoms: u64,
}

impl ContextState {
    pub(crate) fn new(
        instance: InstanceId,
        started: Rc<ExecutionStarted>,
        converter: Converter,
        max_payload_bytes: usize,
    ) -> Self {
        Self {
            instance,
            started,
            now: Timestamp::default(),
            replaying: false,
            next_id: 0,
            actions: VecDeque::new(),
            open: HashMap::default(),
            inbox: Inbox::default(),
            cancelled_timers: Vec::new(),
            cancelled_activities: Vec::new(),
            custom_status: None,
            continue_as_new: None,
            patches: Patches::default(),
            entities: None,
            closed: false,
            properties: None,
            worker_version: SmolStr::default(),
            converter,
            max_payload_bytes,
            awaited_tasks: 0,
            uuids: 0,
            randoms: 0,
        }
    }

    /// How many durable operations have been polled and are pending. When it is zero and the code is pending, nothing
    /// durable can ever wake it.
    pub(crate) fn awaited(&self) -> usize {
        self.awaited_tasks + self.inbox.awaited
    }

    pub(crate) fn push_action(&mut self, kind: ActionKind) -> i32 {
        let id = self.next_id;
        self.next_id += 1;
        self.actions.push_back(OrchestratorAction { id, kind });
        id
    }

    pub(super) fn open_task(&mut self, kind: OpenKind, action: ActionKind) -> i32 {
        if self.actions.capacity() == 0 {
            // Most code asks for one thing at a time.
            self.actions.reserve_exact(1);
        }
        let id = self.push_action(action);
        self.open.insert(id, OpenTask { kind, waker: None, outcome: None });
        id
    }

    /// Hands an entity's answer to whoever waits for it.
    pub(crate) fn resolve_entity(&mut self, request: &SmolStr, outcome: Outcome) {
        let Some(id) = self.entities.as_mut().and_then(|links| links.answered(request)) else { return };
        let kind = self.open.get(&id).map(|open| open.kind);
        if let Some(kind) = kind {
            // It is resolved as what it is, so there is nothing to disagree about.
            let _ = self.resolve(id, kind, outcome);
        }
    }

    pub(super) fn max_payload_bytes(&self) -> usize {
        self.max_payload_bytes
    }

    /// Hands an outcome to the open task `id`. Says what kind of task was open instead if the kinds differ; an
    /// outcome that nobody waits for is ignored.
    pub(crate) fn resolve(&mut self, id: i32, kind: OpenKind, outcome: Outcome) -> Result<(), OpenKind> {
        let Some(open) = self.open.get_mut(&id) else { return Ok(()) };
        if open.kind != kind {
            return Err(open.kind);
        }
        if open.outcome.is_none() {
            open.outcome = Some(outcome);
            if let Some(waker) = open.waker.take() {
                self.awaited_tasks -= 1;
                waker.wake();
            }
        }
        Ok(())
    }

    pub(in crate::model) fn poll_open(&mut self, id: i32, waker: &Waker) -> Option<Outcome> {
        let open = self.open.get_mut(&id)?;
        if open.outcome.is_some() {
            return self.open.remove(&id).and_then(|open| open.outcome);
        }
        match &mut open.waker {
            Some(known) => known.clone_from(waker),
            none => {
                *none = Some(waker.clone());
                self.awaited_tasks += 1;
            }
        }
        None
    }

    /// Forgets the open task `id`; true if its outcome had not arrived.
    pub(super) fn close_open(&mut self, id: i32) -> bool {
        if self.closed {
            return false;
        }
        match self.open.remove(&id) {
            Some(open) => {
                self.awaited_tasks -= usize::from(open.waker.is_some());
                open.outcome.is_none()
            }
            None => false,
        }
    }

    /// The timers that the code lost interest in and whose creation nothing holds back, which leaves the others.
    pub(crate) fn take_cancelled_timers(&mut self) -> Vec<i32> {
        let first_held_back = self.actions.front().map_or(i32::MAX, |action| action.id);
        self.cancelled_timers.extract_if(.., |id| *id < first_held_back).collect()
    }

    /// The activities that the code lost interest in, by the same rule. An execution that has ended has lost interest in
    /// all that are open.
    pub(crate) fn take_cancelled_activities(&mut self, ended: bool) -> Vec<i32> {
        if ended {
            let open = self
                .open
                .iter()
                .filter(|(_, open)| open.kind == OpenKind::Activity && open.outcome.is_none());
            self.cancelled_activities.extend(open.map(|(id, _)| *id));
            self.cancelled_activities.sort_unstable();
        }
        let first_held_back = self.actions.front().map_or(i32::MAX, |action| action.id);
        self.cancelled_activities.extract_if(.., |id| *id < first_held_back).collect()
    }

    fn check_size(&self, payload: Payload) -> Result<Payload, FailureDetails> {
        if payload.len() <= self.max_payload_bytes {
            return Ok(payload);
        }
        let (len, max) = (payload.len(), self.max_payload_bytes);
        let problem =
            format!("the payload has {len} bytes and the hub allows {max}; pass a reference to the data");
        Err(FailureDetails::new(kinds::PAYLOAD_TOO_LARGE, problem).non_retriable())
    }

    pub(super) fn converter(&self) -> Converter {
        self.converter.clone()
    }

    pub(super) fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Payload, FailureDetails> {
        let payload = self.converter.encode(value).map_err(|error| {
            FailureDetails::new(
                kinds::INVALID_PAYLOAD,
                format!("the value has no form as a payload: {error}"),
            )
            .non_retriable()
        })?;
        self.check_size(payload)
    }
}

impl ContextState {
    /// The context of what the next action asks for; none when the execution is not traced.
    pub(super) fn next_trace(&self, purpose: &str) -> Option<TraceContext> {
        let trace = self.started.trace.as_deref()?;
        Some(trace.child(self.started.execution, purpose, self.next_id))
    }

    /// An activity's options with the context that it runs in.
    pub(super) fn traced(&self, mut options: Option<Box<ActivityOptions>>) -> Option<Box<ActivityOptions>> {
        if let Some(trace) = self.next_trace("activity") {
            options.get_or_insert_default().trace = Some(trace);
        }
        options
    }

    /// Describes the child that the next action would create.
    pub(super) fn new_child(
        &self,
        name: &SmolStr,
        child: &ChildOptions,
        input: Result<Payload, FailureDetails>,
        detached: bool,
    ) -> Result<SubOrchestrationCreated, FailureDetails> {
        let root = self.started.root_execution();
        let instance = match &child.instance {
            Some(id) => InstanceId::parse(id)
                .map_err(|error| FailureDetails::from_std("InvalidInstanceId", &error))?,
            None => InstanceId::from_trusted(format_smolstr!("{root}:{}", self.next_id)),
        };
        if !child.tags.is_empty() {
            let mut merged = self.started.tags.clone();
            merged.extend(child.tags.clone());
            check_tags(&merged)
                .map_err(|error| FailureDetails::from_std(kinds::INVALID_TAGS, &error).non_retriable())?;
        }
        let execution = root.derive("child", self.next_id);
        Ok(SubOrchestrationCreated {
            name: name.clone(),
            version: child.version.clone(),
            instance,
            execution,
            input: input?,
            detached,
            tags: child.tags.clone(),
            trace: self.next_trace("child").map(Box::new),
        })
    }
}
