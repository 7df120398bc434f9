//! One execution as it is held in memory: the user's future and what drives it, event by event. Live turns and replay
//! go through the same [`Execution::feed`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use smol_str::SmolStr;

use super::ledger::Ledger;
use super::nondeterminism::NonDeterminism;
use super::waker::TurnWaker;
use crate::action::Completion;
use crate::event::{CarriedEvent, EventKind, ExecutionStarted, HistoryEvent};
use crate::failure::{FailureDetails, kinds};
use crate::ids::InstanceId;
use crate::model::{
    ContextState, Converter, LocalFuture, OpenKind, OrchestrationContext, OrchestrationFn, SharedContext,
};
use crate::payload::Payload;
use crate::time::Timestamp;

/// After this many polls in a row that only woke themselves, the code is taken to wait for something not durable.
const SELF_WAKES_MAX: u32 = 10_000;

pub(super) struct Execution {
    pub(super) started: Rc<ExecutionStarted>,
    pub(super) context: SharedContext,
    code: Option<OrchestrationFn>,
    future: Option<LocalFuture>,
    waker: Arc<TurnWaker>,
    task_waker: Waker,
    pub(super) suspended: bool,
    /// Events that arrived while suspended.
    held: VecDeque<HistoryEvent>,
    pub(super) completion: Option<Completion>,
    /// The code asked for something else than the history says.
    pub(super) disagreed: bool,
    /// Its end is in the history.
    pub(super) ended: bool,
    pub(super) ledger: Ledger,
    /// How many of the middleware let the turn under way pass.
    pub(super) middleware_passed: usize,
    /// No turn of it has ended yet.
    pub(super) first_turn: bool,
    max_payload_bytes: usize,
    /// What the code last set as custom status, as far as this session has seen it; only kept where turns are taken for a hub
    /// elsewhere, and in replays.
    pub(super) custom_status: Option<Payload>,
    /// The last durable step, for reports.
    last_step: Option<(i32, &'static str)>,
}

impl Execution {
    pub(super) fn new(
        instance: InstanceId,
        started: Rc<ExecutionStarted>,
        code: Option<OrchestrationFn>,
        converter: Converter,
        max_payload_bytes: usize,
        started_at: Timestamp,
    ) -> Self {
        let context = ContextState::new(instance, started.clone(), converter, max_payload_bytes);
        let waker = Arc::new(TurnWaker::default());
        Self {
            ledger: Ledger::new(started.created_at.unwrap_or(started_at)),
            started,
            context: Rc::new(RefCell::new(context)),
            code,
            future: None,
            task_waker: Waker::from(waker.clone()),
            waker,
            suspended: false,
            held: VecDeque::new(),
            completion: None,
            disagreed: false,
            ended: false,
            middleware_passed: 0,
            first_turn: false,
            max_payload_bytes,
            custom_status: None,
            last_step: None,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.context.borrow().now
    }

    pub(super) fn set_replaying(&mut self, replaying: bool) {
        self.context.borrow_mut().replaying = replaying;
    }

    /// Applies one event: to the bookkeeping, and to the user's future, which is polled when the event woke it.
    pub(super) fn feed(&mut self, event: &HistoryEvent) -> Result<(), NonDeterminism> {
        self.note_step(event);
        // Before the event is applied: applying it is what wakes the future.
        self.waker.enter_turn();
        let fed = self.apply(event);
        self.waker.leave_turn();
        fed?;
        match self.context.borrow_mut().patches.outdated.take() {
            Some(patch) => Err(NonDeterminism::outdated_patch(&patch)),
            None => Ok(()),
        }
    }

    /// Lets the execution begin suspended: its code does not run before the resumption.
    pub(super) fn begin_suspended(&mut self, start: &HistoryEvent) {
        self.suspended = true;
        self.held.push_back(start.clone());
    }

    fn apply(&mut self, event: &HistoryEvent) -> Result<(), NonDeterminism> {
        match &event.kind {
            EventKind::OrchestratorStarted => {
                let mut context = self.context.borrow_mut();
                context.now = context.now.max(event.timestamp);
            }
            EventKind::OrchestratorCompleted => return self.end_of_turn(),
            EventKind::TaskScheduled { .. }
            | EventKind::TimerCreated { .. }
            | EventKind::SubOrchestrationInstanceCreated(_)
            | EventKind::EventSent { .. }
            | EventKind::EntityOperationSignaled(_)
            | EventKind::EntityOperationCalled(_)
            | EventKind::EntityLockRequested(_)
            | EventKind::EntityUnlockSent(_) => return self.confirm(event),
            EventKind::ExecutionSuspended { .. } => self.suspended = true,
            EventKind::ExecutionResumed { .. } => {
                self.suspended = false;
                while let Some(event) = self.held.pop_front() {
                    self.deliver(&event)?;
                }
            }
            EventKind::ExecutionTerminated { reason, recurse } => self.terminate(reason.clone(), *recurse),
            EventKind::ExecutionCompleted { .. } | EventKind::ContinueAsNew { .. } => {
                self.ended = true;
                self.drop_future();
            }
            EventKind::PatchApplied { .. } => {}
            _ if self.suspended => self.held.push_back(event.clone()),
            _ => return self.deliver(event),
        }
        Ok(())
    }

    /// Terminating wins over everything but an end that was there before; it also overrides continue-as-new.
    fn terminate(&mut self, reason: SmolStr, recurse: bool) {
        let ended_before = match &self.completion {
            None | Some(Completion::ContinueAsNew { .. }) => false,
            Some(Completion::Terminated(_)) => true,
            Some(_) => !self.suspended,
        };
        if !ended_before {
            self.completion = Some(Completion::Terminated(reason));
            self.ledger.terminated_recursively = recurse;
            self.drop_future();
        }
    }

    /// Whether an event answers for a child that has answered before: a child that was rewound, or whose parent was, may
    /// answer again.
    pub(super) fn has_answer(&self, kind: &EventKind) -> bool {
        let (EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, .. }
        | EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, .. }) = kind
        else {
            return false;
        };
        !self.ledger.children.contains_key(task_scheduled_id)
            && !self.context.borrow().open.contains_key(task_scheduled_id)
    }

    /// Ends the execution with a failure, whatever the code wanted.
    pub(super) fn fail(&mut self, failure: FailureDetails) {
        self.completion = Some(Completion::Failed(Box::new(failure.bounded())));
        self.drop_future();
    }

    /// Ends the execution because the code disagrees with the history. What it asked for is not what the history
    /// says, so none of it is done.
    pub(super) fn fail_nondeterministic(&mut self, error: NonDeterminism) {
        self.disagreed = true;
        let mut failure = FailureDetails::from(error);
        if let Some(Completion::Failed(cause)) = self.completion.take() {
            failure = failure.caused_by(*cause);
        }
        self.fail(failure);
        let mut context = self.context.borrow_mut();
        context.actions.clear();
        context.patches.taken.clear();
        context.cancelled_timers.clear();
        context.custom_status = None;
    }

    /// Takes note of an event of the history behind the point where the code disagreed with it.
    pub(super) fn skip(&mut self, event: &HistoryEvent) {
        {
            let mut context = self.context.borrow_mut();
            context.next_id = context.next_id.max(event.event_id.saturating_add(1));
            if event.kind == EventKind::OrchestratorStarted {
                context.now = context.now.max(event.timestamp);
            }
        }
        match &event.kind {
            EventKind::ExecutionSuspended { .. } => self.suspended = true,
            EventKind::ExecutionResumed { .. } => self.suspended = false,
            EventKind::ExecutionCompleted { .. } | EventKind::ContinueAsNew { .. } => self.ended = true,
            kind => self.ledger.note_locks(kind),
        }
    }

    /// Drops the user's future without letting it cancel or schedule anything.
    fn drop_future(&mut self) {
        self.context.borrow_mut().closed = true;
        // A panic in a destructor must not take the thread down either.
        let future = self.future.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
    }

    /// Whether termination was asked for, so that not even a suspension holds the end back.
    pub(super) fn is_terminated(&self) -> bool {
        matches!(self.completion, Some(Completion::Terminated(_)))
    }

    fn deliver(&mut self, event: &HistoryEvent) -> Result<(), NonDeterminism> {
        let (id, kind, outcome) = match &event.kind {
            EventKind::ExecutionStarted(started) => {
                for carried in &started.carried_events {
                    self.context.borrow_mut().inbox.push(carried.clone());
                }
                self.start();
                return Ok(());
            }
            EventKind::EventRaised { .. } | EventKind::VersionedEventRaised(_) => {
                let Some(carried) = CarriedEvent::of(event) else { return Ok(()) };
                self.context.borrow_mut().inbox.push(carried);
                self.poll_if_woken();
                return Ok(());
            }
            EventKind::TaskCompleted { task_scheduled_id, result } => {
                (*task_scheduled_id, OpenKind::Activity, Ok(result.clone()))
            }
            EventKind::TaskFailed { task_scheduled_id, failure } => {
                (*task_scheduled_id, OpenKind::Activity, Err((**failure).clone()))
            }
            EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, result } => {
                self.ledger.note_answer(&event.kind);
                (*task_scheduled_id, OpenKind::SubOrchestration, Ok(result.clone()))
            }
            EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, failure } => {
                self.ledger.note_answer(&event.kind);
                (*task_scheduled_id, OpenKind::SubOrchestration, Err((**failure).clone()))
            }
            EventKind::TimerFired { timer_id, .. } => (*timer_id, OpenKind::Timer, Ok(Payload::null())),
            EventKind::EntityOperationCompleted { request_id, output } => {
                return self.answer(request_id, Ok(output.clone()));
            }
            EventKind::EntityOperationFailed { request_id, failure } => {
                return self.answer(request_id, Err((**failure).clone()));
            }
            EventKind::EntityLockGranted { critical_section } => {
                return self.answer(critical_section, Ok(Payload::null()));
            }
            _ => return Ok(()),
        };
        let resolved = self.context.borrow_mut().resolve(id, kind, outcome);
        resolved.map_err(|found| {
            let found = match found {
                OpenKind::Activity => "an activity",
                OpenKind::SubOrchestration => "a sub-orchestration",
                OpenKind::Timer => "a timer",
                OpenKind::EntityCall => "an entity",
                OpenKind::EntityLock => "the locks of entities",
            };
            NonDeterminism::wrong_kind(id, &event.kind, found)
        })?;
        self.poll_if_woken();
        Ok(())
    }

    /// An entity's answer, named by the request.
    fn answer(
        &mut self,
        request: &SmolStr,
        outcome: Result<Payload, FailureDetails>,
    ) -> Result<(), NonDeterminism> {
        self.context.borrow_mut().resolve_entity(request, outcome);
        self.poll_if_woken();
        Ok(())
    }

    /// An event that records an action of the code: the code must have asked for just that.
    fn confirm(&mut self, event: &HistoryEvent) -> Result<(), NonDeterminism> {
        let mut context = self.context.borrow_mut();
        NonDeterminism::check(event, context.actions.front())?;
        context.actions.pop_front();
        drop(context);
        self.ledger.note_action(event);
        Ok(())
    }

    /// The end of a turn that is being replayed: everything that the code asked for must have been confirmed.
    fn end_of_turn(&mut self) -> Result<(), NonDeterminism> {
        let mut context = self.context.borrow_mut();
        context.take_cancelled_timers();
        context.take_cancelled_activities(false);
        if let Some(status) = context.custom_status.take() {
            self.custom_status = Some(status);
        }
        if self.suspended || self.ended || self.is_terminated() {
            return Ok(());
        }
        if let Some(action) = context.actions.front() {
            return Err(NonDeterminism::unexpected(action));
        }
        if self.completion.is_some() {
            return Err(NonDeterminism::early_end(context.next_id));
        }
        Ok(())
    }

    fn start(&mut self) {
        let Some(code) = self.code.take() else {
            let ExecutionStarted { name, version, .. } = &*self.started;
            let problem = format!("no orchestration is registered as '{name}' version '{version}'");
            self.fail(FailureDetails::new(kinds::ORCHESTRATION_NOT_REGISTERED, problem).non_retriable());
            return;
        };
        let context = OrchestrationContext::new(self.context.clone());
        let input = self.started.input.clone();
        match catch_unwind(AssertUnwindSafe(|| code(context, &input))) {
            Ok(future) => {
                self.future = Some(future);
                self.poll();
            }
            Err(panic) => self.fail(FailureDetails::from_panic(&*panic)),
        }
    }

    fn poll_if_woken(&mut self) {
        if self.waker.take_woken() {
            self.poll();
        }
    }

    /// Polls the user's future until it is pending and has not woken itself.
    fn poll(&mut self) {
        let mut self_wakes = 0;
        while let Some(future) = &mut self.future {
            let mut task = Context::from_waker(&self.task_waker);
            match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut task))) {
                Err(panic) => self.fail(FailureDetails::from_panic(&*panic)),
                // Whatever it returned may depend on what woke it.
                Ok(_) if self.waker.saw_foreign() => self.fail_not_durable(),
                Ok(Poll::Ready(outcome)) => {
                    self.finish(outcome);
                }
                Ok(Poll::Pending) if self.waker.take_woken() && self_wakes < SELF_WAKES_MAX => {
                    self_wakes += 1;
                    continue;
                }
                Ok(Poll::Pending) => {
                    let stuck = self.context.borrow().awaited() == 0;
                    if stuck || self_wakes >= SELF_WAKES_MAX {
                        self.fail_not_durable();
                    }
                }
            }
            break;
        }
    }

    fn finish(&mut self, outcome: Result<Payload, FailureDetails>) {
        let next = self.context.borrow_mut().continue_as_new.take();
        let completion = match (outcome, next) {
            (Err(failure), _) => Completion::Failed(Box::new(failure.bounded())),
            (Ok(_), Some(next)) => Completion::ContinueAsNew {
                input: next.input,
                version: next.version,
                preserve_events: next.preserve_events,
                new_trace: next.new_trace,
            },
            (Ok(output), None) if output.len() > self.max_payload_bytes => {
                let (len, max) = (output.len(), self.max_payload_bytes);
                let problem = format!("the result has {len} bytes and the hub allows {max}");
                Completion::Failed(Box::new(
                    FailureDetails::new(kinds::PAYLOAD_TOO_LARGE, problem).non_retriable(),
                ))
            }
            (Ok(output), None) => Completion::Completed(output),
        };
        self.completion = Some(completion);
        // A completed future is dropped like any other; what it still held gives up interest, and timers are
        // cancelled with the execution.
        self.drop_future();
    }

    fn note_step(&mut self, event: &HistoryEvent) {
        let id = match &event.kind {
            EventKind::OrchestratorStarted
            | EventKind::OrchestratorCompleted
            | EventKind::PatchApplied { .. } => return,
            EventKind::TaskCompleted { task_scheduled_id, .. }
            | EventKind::TaskFailed { task_scheduled_id, .. }
            | EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, .. }
            | EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, .. } => *task_scheduled_id,
            EventKind::TimerFired { timer_id, .. } => *timer_id,
            _ => event.event_id,
        };
        self.last_step = Some((id, event.kind.type_name()));
    }

    fn fail_not_durable(&mut self) {
        let step = match self.last_step {
            Some((id, name)) if id >= 0 => format!("{name} of #{id}"),
            Some((_, name)) => name.to_owned(),
            None => "its start".to_owned(),
        };
        let problem = format!(
            "instance '{}' awaits something that is not durable, after {step}: nothing in its history could ever wake \
             it; do such work in an activity, and wait with the context's timers and events",
            self.context.borrow().instance
        );
        self.fail(FailureDetails::new(kinds::NON_DURABLE_AWAIT, problem).non_retriable());
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.drop_future();
    }
}
