//! Calling activities: with options, with retries.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use smol_str::SmolStr;

use super::context::OrchestrationContext;
use super::handle::ActivityHandle;
use super::retry::{RetryPolicy, with_retry};
use super::tasks::{OpenKind, TaskFuture};
use crate::action::ActionKind;
use crate::error::{TaskError, TaskKind};
use crate::event::ActivityOptions;
use crate::failure::{FailureDetails, LAST_HEARTBEAT};
use crate::payload::Payload;

/// How an activity is called. Only `retry` and the timeouts' failures change what the orchestration sees; the rest may be
/// changed while instances are running.
///
/// ```
/// use std::time::Duration;
/// use steadfast_core::model::{CallOptions, RetryPolicy};
/// let options = CallOptions {
///     retry: Some(RetryPolicy::new(3, Duration::from_secs(1))),
///     start_to_close_timeout: Some(Duration::from_secs(60)),
///     heartbeat_timeout: Some(Duration::from_secs(5)),
///     priority: 10,
///     ..CallOptions::default()
/// };
/// ```
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// Whether and how a failure is tried again; not at all when absent.
    pub retry: Option<RetryPolicy>,
    /// Among the activities that wait for a free place those with a greater priority begin first; 0 is the usual one.
    pub priority: i32,
    /// How long one attempt may take, from when its code begins. After that it has failed with
    /// [`kinds::ACTIVITY_TIMED_OUT`](crate::failure::kinds::ACTIVITY_TIMED_OUT), which a retry policy may try again; it is
    /// told that it is cancelled, and what it returns is ignored.
    pub start_to_close_timeout: Option<Duration>,
    /// How long an attempt may go on without a [heartbeat](super::ActivityContext::heartbeat). After that it has failed with
    /// [`kinds::HEARTBEAT_TIMED_OUT`](crate::failure::kinds::HEARTBEAT_TIMED_OUT).
    pub heartbeat_timeout: Option<Duration>,
    /// Tags that the activity can read.
    pub tags: BTreeMap<String, String>,
    /// Its version; that of the handle when absent.
    pub version: Option<String>,
}

impl CallOptions {
    /// What of it travels with the call; none when nothing was asked for.
    fn for_activity(&self) -> Option<Box<ActivityOptions>> {
        let Self { priority, start_to_close_timeout, heartbeat_timeout, tags, .. } = self;
        let options = ActivityOptions {
            tags: tags.iter().map(|(key, value)| (key.into(), value.into())).collect(),
            priority: *priority,
            start_to_close: *start_to_close_timeout,
            heartbeat: *heartbeat_timeout,
            ..ActivityOptions::default()
        };
        (options != ActivityOptions::default()).then(|| Box::new(options))
    }
}

impl OrchestrationContext {
    /// Runs an activity.
    pub fn call<A: ActivityHandle>(&self, activity: A, input: A::Input) -> TaskFuture<A::Output> {
        let encoded = self.state.borrow().encode(&input);
        self.schedule_activity(activity.name(), activity.version(), encoded, None)
    }

    /// Runs an activity and tries again after failures as the policy says. The last failure is returned.
    pub fn call_with_retry<A: ActivityHandle>(
        &self,
        activity: A,
        input: A::Input,
        policy: RetryPolicy,
    ) -> impl Future<Output = Result<A::Output, TaskError>> + use<A> {
        self.call_with(activity, input, CallOptions { retry: Some(policy), ..CallOptions::default() })
    }

    /// Runs an activity with options.
    pub fn call_with<A: ActivityHandle>(
        &self,
        activity: A,
        input: A::Input,
        options: CallOptions,
    ) -> impl Future<Output = Result<A::Output, TaskError>> + use<A> {
        let encoded = self.state.borrow().encode(&input);
        let asked = options.for_activity();
        let version = options.version.map_or_else(|| activity.version(), SmolStr::from);
        let (name, context) = (activity.name(), self.clone());
        let first = self.schedule_activity(name.clone(), version.clone(), encoded.clone(), asked.clone());
        let again = move |failed: &TaskError| {
            let mut asked = asked.clone();
            // What the failed attempt had reached goes to the next one, through the history.
            if let Some(detail) = failed.details.property(LAST_HEARTBEAT) {
                asked.get_or_insert_default().last_heartbeat = Some(Payload::from_json(detail.clone()));
            }
            context.schedule_activity(name.clone(), version.clone(), encoded.clone(), asked)
        };
        with_retry(self.clone(), options.retry.unwrap_or_else(RetryPolicy::never), first, again)
    }

    fn schedule_activity<O>(
        &self,
        name: SmolStr,
        version: SmolStr,
        input: Result<Payload, FailureDetails>,
        options: Option<Box<ActivityOptions>>,
    ) -> TaskFuture<O> {
        let context = self.state.clone();
        match input {
            Err(failure) => TaskFuture::rejected(context, TaskKind::Activity, name, failure),
            Ok(input) => {
                let options = self.state.borrow().traced(options);
                let action = ActionKind::ScheduleTask { name: name.clone(), version, input, options };
                let id = self.state.borrow_mut().open_task(OpenKind::Activity, action);
                TaskFuture::scheduled(context, TaskKind::Activity, name, id)
            }
        }
    }
}
