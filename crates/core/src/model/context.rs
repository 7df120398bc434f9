//! The orchestration context: the only way by which orchestration code touches the world.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use foldhash::fast::FixedState;
use futures_util::future::{Either, select};
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::{SmolStr, format_smolstr};
use tracing::Level;
use uuid::Uuid;

use super::events::{EventFuture, Inbox};
use super::handle::{ActivityHandle, OrchestrationHandle};
use super::registry::Outcome;
use super::retry::{RetryPolicy, with_retry};
use super::tasks::{OpenKind, OpenTask, TaskFuture, TimerFuture};
use crate::action::{ActionKind, OrchestratorAction};
use crate::error::{Error, TaskError, TaskKind};
use crate::event::{ExecutionStarted, ParentInstance, SubOrchestrationCreated, Tags};
use crate::failure::{FailureDetails, kinds};
use crate::ids::{ExecutionId, InstanceId};
use crate::payload::Payload;
use crate::time::Timestamp;

/// Namespace of the UUIDs that [`OrchestrationContext::new_uuid`] makes, the one that the .NET SDK uses.
const UUID_NAMESPACE: Uuid = Uuid::from_u128(0x9e95_2958_5e33_4daf_827f_2fa1_2937_b875);

pub(crate) type SharedContext = Rc<RefCell<ContextState>>;

/// A requested continue-as-new; it takes effect when the code returns successfully.
#[derive(Debug)]
pub(crate) struct ContinueAsNew {
    pub(crate) input: Payload,
    pub(crate) version: Option<SmolStr>,
    pub(crate) preserve_events: bool,
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
    pub(crate) custom_status: Option<Payload>,
    pub(crate) continue_as_new: Option<ContinueAsNew>,
    /// The session is going away: futures that are dropped now cancel nothing.
    pub(crate) closed: bool,
    max_payload_bytes: usize,
    awaited_tasks: usize,
    uuids: u32,
    randoms: u64,
}

impl ContextState {
    pub(crate) fn new(instance: InstanceId, started: Rc<ExecutionStarted>, max_payload_bytes: usize) -> Self {
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
            custom_status: None,
            continue_as_new: None,
            closed: false,
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

    fn open_task(&mut self, kind: OpenKind, action: ActionKind) -> i32 {
        let id = self.push_action(action);
        self.open.insert(id, OpenTask { kind, waker: None, outcome: None });
        id
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

    pub(super) fn poll_open(&mut self, id: i32, waker: &Waker) -> Option<Outcome> {
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

    fn check_size(&self, payload: Payload) -> Result<Payload, FailureDetails> {
        if payload.len() <= self.max_payload_bytes {
            return Ok(payload);
        }
        let (len, max) = (payload.len(), self.max_payload_bytes);
        let problem =
            format!("the payload has {len} bytes and the hub allows {max}; pass a reference to the data");
        Err(FailureDetails::new(kinds::PAYLOAD_TOO_LARGE, problem).non_retriable())
    }

    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Payload, FailureDetails> {
        let payload = Payload::encode(value).map_err(|error| {
            FailureDetails::new(kinds::INVALID_PAYLOAD, format!("the value has no JSON form: {error}"))
                .non_retriable()
        })?;
        self.check_size(payload)
    }
}

/// What orchestration code is given: durable operations, deterministic helpers, and facts about the instance.
///
/// Every operation is scheduled at the moment its method is called and returns a plain future, so `join!`, `select`
/// and `FuturesUnordered` compose. Code between awaits must be deterministic: no clocks, randomness or IO except
/// through this context and activities.
#[derive(Clone)]
pub struct OrchestrationContext {
    state: SharedContext,
}

/// How a sub-orchestration is started.
#[derive(Debug, Clone, Default)]
pub struct SubOrchestrationOptions {
    /// Its instance id; derived from the parent's execution when absent.
    pub instance_id: Option<String>,
    /// Its version; that of the handle when absent.
    pub version: Option<String>,
    /// Whether and how a failure is tried again; an explicit `instance_id` is used by each attempt.
    pub retry: Option<RetryPolicy>,
}

/// How an execution is continued by a new one.
#[derive(Debug, Clone)]
pub struct ContinueAsNewOptions {
    /// The version to continue with; the current one when absent.
    pub version: Option<String>,
    /// Whether external events that were not consumed go along (the default) or are dropped.
    pub preserve_events: bool,
}

impl Default for ContinueAsNewOptions {
    fn default() -> Self {
        Self { version: None, preserve_events: true }
    }
}

impl OrchestrationContext {
    pub(crate) fn new(state: SharedContext) -> Self {
        Self { state }
    }

    /// Runs an activity.
    pub fn call<A: ActivityHandle>(&self, activity: A, input: A::Input) -> TaskFuture<A::Output> {
        let encoded = self.state.borrow().encode(&input);
        self.schedule_activity(activity.name(), activity.version(), encoded)
    }

    /// Runs an activity and tries again after failures as the policy says. The last failure is returned.
    pub fn call_with_retry<A: ActivityHandle>(
        &self,
        activity: A,
        input: A::Input,
        policy: RetryPolicy,
    ) -> impl Future<Output = Result<A::Output, TaskError>> + use<A> {
        let encoded = self.state.borrow().encode(&input);
        let (name, version, context) = (activity.name(), activity.version(), self.clone());
        let call = move || context.schedule_activity(name.clone(), version.clone(), encoded.clone());
        with_retry(self.clone(), policy, call(), call)
    }

    fn schedule_activity<O>(
        &self,
        name: SmolStr,
        version: SmolStr,
        input: Result<Payload, FailureDetails>,
    ) -> TaskFuture<O> {
        let context = self.state.clone();
        match input {
            Err(failure) => TaskFuture::rejected(context, TaskKind::Activity, name, failure),
            Ok(input) => {
                let action = ActionKind::ScheduleTask { name: name.clone(), version, input };
                let id = self.state.borrow_mut().open_task(OpenKind::Activity, action);
                TaskFuture::scheduled(context, TaskKind::Activity, name, id)
            }
        }
    }

    /// Runs another orchestration and awaits its result.
    pub fn call_orchestration<H: OrchestrationHandle>(
        &self,
        orchestration: H,
        input: H::Input,
    ) -> TaskFuture<H::Output> {
        let encoded = self.state.borrow().encode(&input);
        self.schedule_child(orchestration.name(), orchestration.version(), None, encoded)
    }

    /// Runs another orchestration with options and awaits its result.
    pub fn call_orchestration_with<H: OrchestrationHandle>(
        &self,
        orchestration: H,
        input: H::Input,
        options: SubOrchestrationOptions,
    ) -> impl Future<Output = Result<H::Output, TaskError>> + use<H> {
        let encoded = self.state.borrow().encode(&input);
        let name = orchestration.name();
        let version = options.version.map_or_else(|| orchestration.version(), SmolStr::from);
        let (instance, context) = (options.instance_id, self.clone());
        let call = move || {
            context.schedule_child(name.clone(), version.clone(), instance.as_deref(), encoded.clone())
        };
        let policy = options.retry.unwrap_or_else(|| RetryPolicy::new(1, Duration::ZERO));
        with_retry(self.clone(), policy, call(), call)
    }

    fn schedule_child<O>(
        &self,
        name: SmolStr,
        version: SmolStr,
        instance: Option<&str>,
        input: Result<Payload, FailureDetails>,
    ) -> TaskFuture<O> {
        let context = self.state.clone();
        let mut state = self.state.borrow_mut();
        match state.new_child(&name, version, instance, input, false) {
            Err(failure) => {
                drop(state);
                TaskFuture::rejected(context, TaskKind::SubOrchestration, name, failure)
            }
            Ok(created) => {
                let action = ActionKind::CreateSubOrchestration(Box::new(created));
                let id = state.open_task(OpenKind::SubOrchestration, action);
                drop(state);
                TaskFuture::scheduled(context, TaskKind::SubOrchestration, name, id)
            }
        }
    }

    /// Starts another orchestration that nobody awaits, and returns its instance id (`instance_id`, or one derived
    /// from this execution). A start whose id is in use is dropped.
    ///
    /// # Errors
    /// When the id or the input cannot be used.
    pub fn start_orchestration<H: OrchestrationHandle>(
        &self,
        orchestration: H,
        input: H::Input,
        instance_id: Option<&str>,
    ) -> Result<InstanceId, Error> {
        let mut state = self.state.borrow_mut();
        let encoded = state.encode(&input);
        let created =
            state.new_child(&orchestration.name(), orchestration.version(), instance_id, encoded, true)?;
        let instance = created.instance.clone();
        state.push_action(ActionKind::CreateSubOrchestration(Box::new(created)));
        Ok(instance)
    }

    /// Waits for a duration on a durable timer.
    pub fn timer(&self, duration: Duration) -> TimerFuture {
        self.timer_until(self.now().after(duration))
    }

    /// Waits until a moment on a durable timer. A moment in the past fires at once.
    pub fn timer_until(&self, fire_at: Timestamp) -> TimerFuture {
        let id = self.state.borrow_mut().open_task(OpenKind::Timer, ActionKind::CreateTimer { fire_at });
        TimerFuture::armed(self.state.clone(), id)
    }

    /// Waits for an external event. Events that arrived before are buffered; names differ in more than case.
    pub fn wait_for_event<T: DeserializeOwned>(&self, name: &str) -> EventFuture<T> {
        EventFuture::register(self.state.clone(), SmolStr::new(name))
    }

    /// Waits for an external event for at most `timeout`. When the time is over the error's
    /// [`FailureDetails::error_type`] is [`kinds::TIMED_OUT`]; an event that is buffered already wins even if
    /// `timeout` is zero.
    pub fn wait_for_event_timeout<T: DeserializeOwned>(
        &self,
        name: &str,
        timeout: Duration,
    ) -> impl Future<Output = Result<T, TaskError>> + use<T> {
        let event = self.wait_for_event::<T>(name);
        let name = SmolStr::new(name);
        let timer = self.timer(timeout);
        async move {
            match select(event, timer).await {
                Either::Left((outcome, _timer)) => outcome,
                Either::Right(((), _event)) => {
                    let details =
                        FailureDetails::new(kinds::TIMED_OUT, format!("no event within {timeout:?}"));
                    Err(TaskError { kind: TaskKind::Event, name, id: -1, details })
                }
            }
        }
    }

    /// Sends an event to another instance. One-way: if there is no such instance, the event is dropped.
    ///
    /// # Errors
    /// When the id or the payload cannot be used.
    pub fn raise_event<T: Serialize + ?Sized>(
        &self,
        instance_id: &str,
        name: &str,
        payload: &T,
    ) -> Result<(), Error> {
        let instance = InstanceId::parse(instance_id)?;
        let mut state = self.state.borrow_mut();
        let input = state.encode(payload)?;
        state.push_action(ActionKind::SendEvent { instance, name: name.into(), input });
        Ok(())
    }

    /// Ends this execution when the code returns successfully, and begins a new one of the same instance with an
    /// empty history. What the code returns is then ignored; the last call wins; external events that nobody
    /// consumed go along.
    ///
    /// # Errors
    /// When the input cannot be used.
    pub fn continue_as_new<T: Serialize + ?Sized>(&self, input: &T) -> Result<(), Error> {
        self.continue_as_new_with(input, ContinueAsNewOptions::default())
    }

    /// [`Self::continue_as_new`] with options.
    ///
    /// # Errors
    /// When the input cannot be used.
    pub fn continue_as_new_with<T: Serialize + ?Sized>(
        &self,
        input: &T,
        options: ContinueAsNewOptions,
    ) -> Result<(), Error> {
        let mut state = self.state.borrow_mut();
        let input = state.encode(input)?;
        let ContinueAsNewOptions { version, preserve_events } = options;
        state.continue_as_new =
            Some(ContinueAsNew { input, version: version.map(SmolStr::from), preserve_events });
        Ok(())
    }

    /// Sets the custom status that clients see with the instance's state, from the end of this turn on.
    ///
    /// # Errors
    /// When the value cannot be used.
    pub fn set_custom_status<T: Serialize + ?Sized>(&self, status: &T) -> Result<(), Error> {
        let mut state = self.state.borrow_mut();
        state.custom_status = Some(state.encode(status)?);
        Ok(())
    }

    /// The time at which the current turn began: the same at every replay, and never going back.
    pub fn now(&self) -> Timestamp {
        self.state.borrow().now
    }

    /// A UUID that is the same at every replay (version 5, of the instance, its generation, the time and a counter).
    pub fn new_uuid(&self) -> Uuid {
        let mut state = self.state.borrow_mut();
        let counter = state.uuids;
        state.uuids += 1;
        // The .NET SDK's recipe prints the time with seven fractional digits. It has no generation; but the counter
        // begins anew with each, and two generations may begin at the same time.
        let time = state.now.to_string();
        let generation = match state.started.generation {
            0 => SmolStr::default(),
            generation => format_smolstr!(":{generation}"),
        };
        let name =
            format_smolstr!("{}{generation}_{}0Z_{counter}", state.instance, time.trim_end_matches('Z'));
        Uuid::new_v5(&UUID_NAMESPACE, name.as_bytes())
    }

    /// A random number that is the same at every replay: SplitMix64 seeded with the execution's id.
    pub fn random(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.randoms = state.randoms.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let (high, low) = state.started.execution.uuid().as_u64_pair();
        let mut mixed = high ^ low.rotate_left(32) ^ state.randoms;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Writes a log line, except while replaying.
    pub fn log(&self, level: Level, message: &str) {
        let state = self.state.borrow();
        if state.replaying {
            return;
        }
        let (instance, name) = (&state.instance, &state.started.name);
        match level {
            Level::ERROR => {
                tracing::error!(target: "steadfast::orchestration", %instance, %name, "{message}")
            }
            Level::WARN => tracing::warn!(target: "steadfast::orchestration", %instance, %name, "{message}"),
            Level::INFO => tracing::info!(target: "steadfast::orchestration", %instance, %name, "{message}"),
            Level::DEBUG => {
                tracing::debug!(target: "steadfast::orchestration", %instance, %name, "{message}")
            }
            _ => tracing::trace!(target: "steadfast::orchestration", %instance, %name, "{message}"),
        }
    }

    /// Whether the code is being run again over what already happened. Must not influence what the code does.
    pub fn is_replaying(&self) -> bool {
        self.state.borrow().replaying
    }

    /// The instance's id.
    pub fn instance_id(&self) -> InstanceId {
        self.state.borrow().instance.clone()
    }

    /// The execution's id.
    pub fn execution_id(&self) -> ExecutionId {
        self.state.borrow().started.execution
    }

    /// The orchestration's name.
    pub fn name(&self) -> SmolStr {
        self.state.borrow().started.name.clone()
    }

    /// The orchestration's version, empty for none.
    pub fn version(&self) -> SmolStr {
        self.state.borrow().started.version.clone()
    }

    /// The instance's tags.
    pub fn tags(&self) -> Tags {
        self.state.borrow().started.tags.clone()
    }

    /// Who awaits this orchestration, if anybody.
    pub fn parent(&self) -> Option<ParentInstance> {
        self.state.borrow().started.parent.clone()
    }

    /// How many executions of this instance came before this one by continue-as-new.
    pub fn generation(&self) -> u32 {
        self.state.borrow().started.generation
    }
}

impl ContextState {
    /// Describes the child that the next action would create.
    fn new_child(
        &self,
        name: &SmolStr,
        version: SmolStr,
        instance: Option<&str>,
        input: Result<Payload, FailureDetails>,
        detached: bool,
    ) -> Result<SubOrchestrationCreated, FailureDetails> {
        let instance = match instance {
            Some(id) => InstanceId::parse(id)
                .map_err(|error| FailureDetails::from_std("InvalidInstanceId", &error))?,
            None => InstanceId::from_trusted(format_smolstr!("{}:{}", self.started.execution, self.next_id)),
        };
        let execution = self.started.execution.derive("child", self.next_id);
        Ok(SubOrchestrationCreated {
            name: name.clone(),
            version,
            instance,
            execution,
            input: input?,
            detached,
        })
    }
}
