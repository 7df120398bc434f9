//! The orchestration context: the only way by which orchestration code touches the world.

use std::future::Future;
use std::time::Duration;

use futures_util::future::{Either, select};
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;

use super::events::EventFuture;
use super::handle::OrchestrationHandle;
use super::retry::{RetryPolicy, with_retry};
use super::shared::{ChildOptions, ContinueAsNew, SharedContext};
use super::tasks::{OpenKind, TaskFuture, TimerFuture};
use crate::action::ActionKind;
use crate::error::{Error, TaskError, TaskKind};
use crate::event::{EventAddress, Tags};
use crate::failure::{FailureDetails, kinds};
use crate::ids::InstanceId;
use crate::payload::Payload;
use crate::time::Timestamp;

/// What orchestration code is given: durable operations, deterministic helpers, and facts about the instance.
///
/// Every operation is scheduled at the moment its method is called and returns a plain future, so `join!`, `select`
/// and `FuturesUnordered` compose. Code between awaits must be deterministic: no clocks, randomness or IO except
/// through this context and activities.
#[derive(Clone)]
pub struct OrchestrationContext {
    pub(super) state: SharedContext,
}

/// How a sub-orchestration is started.
#[derive(Debug, Clone, Default)]
pub struct SubOrchestrationOptions {
    /// Its instance id; derived from the parent's execution when absent.
    pub instance_id: Option<String>,
    /// Its version; that of the handle when absent. When that is none either, the child inherits the parent's version if
    /// it is registered under it or without version, and begins as if it were started by a client otherwise.
    pub version: Option<String>,
    /// Tags of the child. It also inherits those of its parent; of two with one key these count. See
    /// [`crate::check_tags`] for what tags may be.
    pub tags: Tags,
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
    /// Whether a new trace begins, or the next execution belongs to the same one (the default).
    pub new_trace: bool,
}

impl Default for ContinueAsNewOptions {
    fn default() -> Self {
        Self { version: None, preserve_events: true, new_trace: false }
    }
}

impl OrchestrationContext {
    pub(crate) fn new(state: SharedContext) -> Self {
        Self { state }
    }

    /// Runs another orchestration and awaits its result.
    pub fn call_orchestration<H: OrchestrationHandle>(
        &self,
        orchestration: H,
        input: H::Input,
    ) -> TaskFuture<H::Output> {
        let encoded = self.state.borrow().encode(&input);
        let child = ChildOptions { version: orchestration.version(), ..ChildOptions::default() };
        self.schedule_child(orchestration.name(), &child, encoded)
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
        let instance = options.instance_id.map(SmolStr::from);
        let (child, context) = (ChildOptions { version, instance, tags: options.tags }, self.clone());
        let call = move |_: Option<&TaskError>| context.schedule_child(name.clone(), &child, encoded.clone());
        let policy = options.retry.unwrap_or_else(RetryPolicy::never);
        with_retry(self.clone(), policy, call(None), move |failed| call(Some(failed)))
    }

    fn schedule_child<O>(
        &self,
        name: SmolStr,
        child: &ChildOptions,
        input: Result<Payload, FailureDetails>,
    ) -> TaskFuture<O> {
        let context = self.state.clone();
        let mut state = self.state.borrow_mut();
        let created = match state.check_child_allowed() {
            Ok(()) => state.new_child(&name, child, input, false),
            Err(failure) => Err(failure),
        };
        match created {
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
        let instance_id = instance_id.map(str::to_owned);
        self.start_orchestration_with(
            orchestration,
            input,
            SubOrchestrationOptions { instance_id, ..SubOrchestrationOptions::default() },
        )
    }

    /// [`Self::start_orchestration`] with options. Nobody awaits it, so there is nothing to retry, and
    /// [`SubOrchestrationOptions::retry`] does not count.
    ///
    /// # Errors
    /// When the id, the tags or the input cannot be used.
    pub fn start_orchestration_with<H: OrchestrationHandle>(
        &self,
        orchestration: H,
        input: H::Input,
        options: SubOrchestrationOptions,
    ) -> Result<InstanceId, Error> {
        let mut state = self.state.borrow_mut();
        let encoded = state.encode(&input);
        let child = ChildOptions {
            version: options.version.map_or_else(|| orchestration.version(), SmolStr::from),
            instance: options.instance_id.map(SmolStr::from),
            tags: options.tags,
        };
        let created = state.new_child(&orchestration.name(), &child, encoded, true)?;
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
        self.raise_event_to(instance_id, EventAddress::default(), name, payload)
    }

    /// [`Self::raise_event`] to one execution, or one version, of an instance. If that is not what is there when the event
    /// arrives, the event is dropped. The receiver can read this instance's version with
    /// [`EventFuture::with_sender_version`] in either case.
    ///
    /// # Errors
    /// Those of [`Self::raise_event`].
    pub fn raise_event_to<T: Serialize + ?Sized>(
        &self,
        instance_id: &str,
        address: EventAddress,
        name: &str,
        payload: &T,
    ) -> Result<(), Error> {
        let instance = InstanceId::parse(instance_id)?;
        let mut state = self.state.borrow_mut();
        let input = state.encode(payload)?;
        let address = (address != EventAddress::default()).then(|| Box::new(address));
        state.push_action(ActionKind::SendEvent { instance, name: name.into(), input, address });
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
        let ContinueAsNewOptions { version, preserve_events, new_trace } = options;
        state.continue_as_new =
            Some(ContinueAsNew { input, version: version.map(SmolStr::from), preserve_events, new_trace });
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
}
