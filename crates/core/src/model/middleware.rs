//! Middleware: what a hub's owner puts around turns of orchestrations and around activities; what is around entities is in
//! [`super::entity`].
//!
//! What is registered first is outermost: of two, `before` of the first comes first and `after` of the first comes last.
//! A hub without middleware pays nothing for it.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::activity::ActivityContext;
use super::entity::EntityMiddleware;
use super::registry::{Outcome, Registry, SendFuture};
use crate::action::{Completion, OrchestratorAction};
use crate::event::ExecutionStarted;
use crate::failure::{FailureDetails, kinds};
use crate::ids::InstanceId;
use crate::partition::ActivityTask;
use crate::payload::Payload;
use crate::time::Timestamp;

/// Values by their types, at most one of each: what middleware hands to what is within, and to the code.
#[derive(Clone, Default)]
pub struct Properties(BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Properties {
    /// Puts a value in; one of the same type that was there is replaced.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// The value of that type, if somebody put one in.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).and_then(|value| value.clone().downcast().ok())
    }
}

impl std::fmt::Debug for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Properties({})", self.0.len())
    }
}

/// Wraps the turns of orchestrations. It runs on the partition's thread, so it must not block, nor wait for anything.
///
/// A turn may be run again, after a crash or because a session was evicted; then the past is replayed without calling
/// `before` and `after`. So what these change must not depend on anything but the turn: they can refuse a turn, end the
/// execution, and replace its result or its custom status, all of which is written down. [`TurnMiddleware::begin`] is
/// called whenever an execution comes into memory, also before a replay; what it puts into the properties must be the
/// same each time.
///
/// There are hooks before and after, and not one that wraps a call: what lies between is a call only for code in this
/// process. For an orchestration elsewhere it is a message and its answer: `before` comes before a worker is asked, and
/// `after` when its answer is there. A turn that is given up meanwhile, because the instance is terminated or suspended,
/// begins anew and has another `before`. What `begin` puts in cannot be read by code elsewhere, and the custom status in
/// the outcome is the whole one, not only a new one, where the worker tells it with each answer. While such an instance is
/// suspended, hooks see its turns, and what they refuse or end counts only with a turn after the resumption.
pub trait TurnMiddleware: Send + Sync + 'static {
    /// An execution comes into memory: sets properties that its code can read with
    /// [`OrchestrationContext::property`](super::OrchestrationContext::property). Deterministic.
    fn begin(&self, _instance: &InstanceId, _started: &ExecutionStarted, _properties: &mut Properties) {}

    /// A turn begins.
    ///
    /// # Errors
    /// To refuse it: the execution then ends with this failure, and neither its code nor middleware further in sees
    /// the turn.
    fn before(&self, _turn: &mut TurnContext<'_>) -> Result<(), FailureDetails> {
        Ok(())
    }

    /// A turn is done, and nothing of it is written yet. Not called for turns that were refused further out.
    fn after(&self, _turn: &mut TurnContext<'_>, _outcome: &mut TurnOutcome<'_>) {}
}

/// The turn that middleware is around.
pub struct TurnContext<'a> {
    /// Whose turn.
    pub instance: &'a InstanceId,
    /// The start of the execution: name, version, tags and so on.
    pub started: &'a ExecutionStarted,
    /// The time of the turn.
    pub now: Timestamp,
    /// Whether it is the execution's first.
    pub is_first: bool,
    /// What was put in for this execution; what is put in now stays for the rest of this turn and the next ones, as long
    /// as the execution is in memory.
    pub properties: &'a mut Properties,
}

/// What a turn did.
pub struct TurnOutcome<'a> {
    pub(crate) completion: &'a mut Option<Completion>,
    pub(crate) custom_status: &'a mut Option<Payload>,
    pub(crate) actions: &'a [OrchestratorAction],
}

impl TurnOutcome<'_> {
    /// How the execution ends, if it ends in this turn.
    pub fn completion(&self) -> Option<&Completion> {
        self.completion.as_ref()
    }

    /// What the code asked for, in order; empty when the execution was terminated or is suspended.
    pub fn actions(&self) -> &[OrchestratorAction] {
        self.actions
    }

    /// The custom status that the code set in this turn.
    pub fn custom_status(&self) -> Option<&Payload> {
        self.custom_status.as_ref()
    }

    /// Sets the custom status.
    pub fn set_custom_status(&mut self, status: Payload) {
        *self.custom_status = Some(status);
    }

    /// Replaces the result, if the execution completes in this turn; else nothing happens.
    pub fn replace_output(&mut self, output: Payload) {
        if let Some(Completion::Completed(current)) = self.completion {
            *current = output;
        }
    }

    /// Ends the execution with a failure, whatever the code did. Only a termination is stronger.
    pub fn fail(&mut self, failure: FailureDetails) {
        if !matches!(self.completion, Some(Completion::Terminated(_))) {
            *self.completion = Some(Completion::Failed(Box::new(failure)));
        }
    }
}

/// Wraps the runs of activities. It runs where the activity runs, and may wait.
///
/// ```
/// use steadfast_core::model::{ActivityCall, ActivityFuture, ActivityMiddleware, ActivityNext};
///
/// struct Outcomes;
///
/// impl ActivityMiddleware for Outcomes {
///     fn call<'a>(&'a self, call: ActivityCall, next: ActivityNext<'a>) -> ActivityFuture<'a> {
///         Box::pin(async move {
///             let name = call.task().name.clone();
///             let outcome = next.run(call).await;
///             println!("{name} was {}", if outcome.is_ok() { "good" } else { "bad" });
///             outcome
///         })
///     }
/// }
/// ```
pub trait ActivityMiddleware: Send + Sync + 'static {
    /// Runs the activity by calling [`ActivityNext::run`], and returns its outcome or another one. Without that call the
    /// activity is not run.
    fn call<'a>(&'a self, call: ActivityCall, next: ActivityNext<'a>) -> ActivityFuture<'a>;
}

/// A run of an activity, on its way inwards.
pub struct ActivityCall {
    task: Arc<ActivityTask>,
    /// The input that the activity gets.
    pub input: Payload,
    /// What the activity can read with [`ActivityContext::property`].
    pub properties: Properties,
}

impl ActivityCall {
    /// What was asked for, by whom.
    pub fn task(&self) -> &ActivityTask {
        &self.task
    }
}

/// An activity or a middleware under way.
pub type ActivityFuture<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

type Innermost<'a> = Box<dyn FnOnce(ActivityCall) -> ActivityFuture<'a> + Send + 'a>;

/// What is further in: more middleware, and at last the activity.
pub struct ActivityNext<'a> {
    rest: &'a [Arc<dyn ActivityMiddleware>],
    innermost: Innermost<'a>,
}

impl<'a> ActivityNext<'a> {
    /// Runs it.
    pub fn run(self, call: ActivityCall) -> ActivityFuture<'a> {
        match self.rest.split_first() {
            Some((first, rest)) => first.call(call, Self { rest, innermost: self.innermost }),
            None => (self.innermost)(call),
        }
    }
}

/// The middleware of a hub.
#[derive(Clone, Default)]
pub(crate) struct Middleware {
    pub(crate) turns: Vec<Arc<dyn TurnMiddleware>>,
    pub(crate) activities: Arc<[Arc<dyn ActivityMiddleware>]>,
    pub(crate) entities: Vec<Arc<dyn EntityMiddleware>>,
}

impl Registry {
    /// Puts middleware around the turns of all orchestrations, within what was added before.
    pub fn add_turn_middleware(&mut self, middleware: Arc<dyn TurnMiddleware>) {
        self.middleware.turns.push(middleware);
    }

    /// Puts middleware around all activities, within what was added before.
    pub fn add_activity_middleware(&mut self, middleware: Arc<dyn ActivityMiddleware>) {
        let mut activities = self.middleware.activities.to_vec();
        activities.push(middleware);
        self.middleware.activities = activities.into();
    }

    /// Starts an activity of this registry, with all that is around it.
    pub fn start_activity(&self, task: &Arc<ActivityTask>, context: ActivityContext) -> SendFuture {
        let context = context.converted_by(self.converter().clone());
        let context = context.on_worker(self.versions().version.clone());
        let code = self.find_activity_for(&task.name, &task.version, &task.instance_version);
        if self.middleware.activities.is_empty() {
            return match code {
                Some(code) => code(context, &task.input),
                None => Box::pin(std::future::ready(Err(not_registered(task)))),
            };
        }
        let (code, name) = (code.cloned(), task.clone());
        self.wrap_activity(task, move |call| {
            let context = context.with_properties(call.properties);
            match code {
                Some(code) => code(context, &call.input),
                None => Box::pin(std::future::ready(Err(not_registered(&name)))),
            }
        })
    }

    /// Runs `innermost` within the middleware: whatever runs activities, here or elsewhere.
    pub fn wrap_activity(
        &self,
        task: &Arc<ActivityTask>,
        innermost: impl FnOnce(ActivityCall) -> SendFuture + Send + 'static,
    ) -> SendFuture {
        let (around, input) = (self.middleware.activities.clone(), task.input.clone());
        let call = ActivityCall { task: task.clone(), input, properties: Properties::default() };
        Box::pin(async move {
            let innermost: Innermost<'_> = Box::new(move |call| innermost(call));
            ActivityNext { rest: &around, innermost }.run(call).await
        })
    }
}

fn not_registered(task: &ActivityTask) -> FailureDetails {
    let problem = format!("no activity is registered as '{}' version '{}'", task.name, task.version);
    FailureDetails::new(kinds::ACTIVITY_NOT_REGISTERED, problem).non_retriable()
}
