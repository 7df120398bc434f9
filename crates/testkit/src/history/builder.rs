//! Histories written by hand.

use std::time::Duration;

use serde::Serialize;
use smol_str::SmolStr;
use steadfast_core::{
    EventKind, ExecutionId, ExecutionStarted, FailureDetails, HistoryEvent, InstanceId, NO_EVENT_ID,
    OrchestrationStatus, Payload, SubOrchestrationCreated, Tags, Timestamp,
};
use uuid::Uuid;

/// Writes a history, filling in what follows from the rest: ids in ascending order, timestamps a second apart for each
/// turn, and the brackets of turns. An event that comes in after the code asked for something begins a new turn.
///
/// ```
/// use steadfast_testkit::HistoryBuilder;
/// let mut history = HistoryBuilder::new("greet_all", &["Tokyo", "Seattle"]);
/// let tokyo = history.task_scheduled("greet", &"Tokyo");
/// history.task_completed(tokyo, &"Hello, Tokyo!");
/// let seattle = history.task_scheduled("greet", &"Seattle");
/// history.task_failed(seattle, "no greeting today");
/// let events = history.build();
/// assert_eq!(events.len(), 11); // five events in three turns, of which each has two brackets
/// assert_eq!((tokyo, seattle), (0, 1));
/// steadfast_testkit::check_history(&events).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct HistoryBuilder {
    events: Vec<HistoryEvent>,
    execution: ExecutionId,
    now: Timestamp,
    turn_length: Duration,
    next_id: i32,
    turn: TurnPhase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TurnPhase {
    /// The next event begins a turn.
    Closed,
    /// Events come in.
    In,
    /// The code has asked for something.
    Out,
}

impl HistoryBuilder {
    /// A history that begins with the start of an orchestration.
    ///
    /// # Panics
    /// When the input has no JSON form.
    pub fn new(name: &str, input: &(impl Serialize + ?Sized)) -> Self {
        let execution = ExecutionId::new(Uuid::from_u128(1));
        Self::with_start(ExecutionStarted::new(name.into(), SmolStr::default(), payload(input), execution))
    }

    /// A history that begins with this start, for what [`HistoryBuilder::new`] does not offer.
    pub fn with_start(started: ExecutionStarted) -> Self {
        let mut builder = Self {
            events: Vec::new(),
            execution: started.execution,
            now: Timestamp::from_micros(1_700_000_000_000_000),
            turn_length: Duration::from_secs(1),
            next_id: 0,
            turn: TurnPhase::Closed,
        };
        builder.comes_in(EventKind::ExecutionStarted(Box::new(started)));
        builder
    }

    /// The moment of the turn that is being written.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Ends the turn; the next one begins after `time`.
    pub fn end_turn_and_wait(&mut self, time: Duration) -> &mut Self {
        self.end_turn();
        self.now = self.now.after(time);
        self
    }

    /// Ends the turn, so that what comes in next begins a new one.
    pub fn end_turn(&mut self) -> &mut Self {
        if self.turn != TurnPhase::Closed {
            self.push(NO_EVENT_ID, EventKind::OrchestratorCompleted);
            self.turn = TurnPhase::Closed;
        }
        self
    }

    fn push(&mut self, event_id: i32, kind: EventKind) {
        self.events.push(HistoryEvent { event_id, timestamp: self.now, kind });
    }

    fn comes_in(&mut self, kind: EventKind) {
        if self.turn == TurnPhase::Out {
            self.end_turn();
        }
        if self.turn == TurnPhase::Closed {
            if !self.events.is_empty() {
                self.now = self.now.after(self.turn_length);
            }
            self.push(NO_EVENT_ID, EventKind::OrchestratorStarted);
        }
        self.turn = TurnPhase::In;
        self.push(NO_EVENT_ID, kind);
    }

    fn goes_out(&mut self, kind: EventKind) -> i32 {
        if self.turn == TurnPhase::Closed {
            self.now = self.now.after(self.turn_length);
            self.push(NO_EVENT_ID, EventKind::OrchestratorStarted);
        }
        self.turn = TurnPhase::Out;
        let id = self.next_id;
        self.next_id += 1;
        self.push(id, kind);
        id
    }

    /// The code asks for an activity. Returns the event's id.
    ///
    /// # Panics
    /// When the input has no JSON form.
    pub fn task_scheduled(&mut self, name: &str, input: &(impl Serialize + ?Sized)) -> i32 {
        let (name, version, input) = (name.into(), SmolStr::default(), payload(input));
        self.goes_out(EventKind::TaskScheduled { name, version, input, options: None })
    }

    /// An activity returns.
    ///
    /// # Panics
    /// When the result has no JSON form.
    pub fn task_completed(&mut self, id: i32, result: &(impl Serialize + ?Sized)) -> &mut Self {
        self.comes_in(EventKind::TaskCompleted { task_scheduled_id: id, result: payload(result) });
        self
    }

    /// An activity fails.
    pub fn task_failed(&mut self, id: i32, failure: impl Into<HistoryFailure>) -> &mut Self {
        let failure = Box::new(failure.into().0);
        self.comes_in(EventKind::TaskFailed { task_scheduled_id: id, failure });
        self
    }

    /// The code asks for a timer that is due `after` this turn. Returns the event's id.
    pub fn timer_created(&mut self, after: Duration) -> i32 {
        let fire_at = self.now.after(after);
        self.goes_out(EventKind::TimerCreated { fire_at })
    }

    /// A timer fires, in a turn of its own at the moment at which it is due.
    ///
    /// # Panics
    /// When there is no such timer.
    pub fn timer_fired(&mut self, id: i32) -> &mut Self {
        let due = self.events.iter().find_map(|event| match event.kind {
            EventKind::TimerCreated { fire_at } if event.event_id == id => Some(fire_at),
            _ => None,
        });
        let fire_at = due.unwrap_or_else(|| panic!("there is no timer #{id}"));
        self.end_turn();
        if fire_at > self.now {
            self.now = Timestamp::from_micros(fire_at.as_micros() - self.turn_length.as_micros() as i64)
                .max(self.now);
        }
        self.comes_in(EventKind::TimerFired { timer_id: id, fire_at });
        self
    }

    /// The code asks for a sub-orchestration with the id that it has when it names none. Returns the event's id.
    ///
    /// # Panics
    /// When the input has no JSON form.
    pub fn sub_orchestration_created(&mut self, name: &str, input: &(impl Serialize + ?Sized)) -> i32 {
        let instance = format!("{}:{}", self.execution, self.next_id);
        self.sub_orchestration_created_as(name, &instance, input)
    }

    /// The code asks for a sub-orchestration with an id of its own. Returns the event's id.
    ///
    /// # Panics
    /// When the input has no JSON form.
    pub fn sub_orchestration_created_as(
        &mut self,
        name: &str,
        instance: &str,
        input: &(impl Serialize + ?Sized),
    ) -> i32 {
        self.goes_out(EventKind::SubOrchestrationInstanceCreated(Box::new(SubOrchestrationCreated {
            name: name.into(),
            version: SmolStr::default(),
            instance: InstanceId::from_trusted(instance),
            execution: self.execution.derive("child", self.next_id),
            input: payload(input),
            detached: false,
            tags: Tags::new(),
            trace: None,
        })))
    }

    /// A sub-orchestration completes.
    ///
    /// # Panics
    /// When the result has no JSON form.
    pub fn sub_orchestration_completed(&mut self, id: i32, result: &(impl Serialize + ?Sized)) -> &mut Self {
        let result = payload(result);
        self.comes_in(EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id: id, result });
        self
    }

    /// A sub-orchestration fails.
    pub fn sub_orchestration_failed(&mut self, id: i32, failure: impl Into<HistoryFailure>) -> &mut Self {
        let failure = Box::new(failure.into().0);
        self.comes_in(EventKind::SubOrchestrationInstanceFailed { task_scheduled_id: id, failure });
        self
    }

    /// An external event arrives.
    ///
    /// # Panics
    /// When the event has no JSON form.
    pub fn event_raised(&mut self, name: &str, event: &(impl Serialize + ?Sized)) -> &mut Self {
        self.comes_in(EventKind::EventRaised { name: name.into(), input: payload(event), trace: None });
        self
    }

    /// The code sends an event to another instance. Returns the event's id.
    ///
    /// # Panics
    /// When the event has no JSON form.
    pub fn event_sent(&mut self, instance: &str, name: &str, event: &(impl Serialize + ?Sized)) -> i32 {
        let instance = InstanceId::from_trusted(instance);
        self.goes_out(EventKind::EventSent { instance, name: name.into(), input: payload(event) })
    }

    /// Somebody suspends the instance.
    pub fn suspended(&mut self, reason: &str) -> &mut Self {
        self.comes_in(EventKind::ExecutionSuspended { reason: reason.into() });
        self
    }

    /// Somebody resumes the instance.
    pub fn resumed(&mut self, reason: &str) -> &mut Self {
        self.comes_in(EventKind::ExecutionResumed { reason: reason.into() });
        self
    }

    /// Somebody terminates the instance, which ends in the same turn.
    pub fn terminated(&mut self, reason: &str) -> &mut Self {
        self.comes_in(EventKind::ExecutionTerminated { reason: reason.into(), recurse: false });
        self.ends(OrchestrationStatus::Terminated, None, None)
    }

    /// The code returns.
    ///
    /// # Panics
    /// When the output has no JSON form.
    pub fn completed(&mut self, output: &(impl Serialize + ?Sized)) -> &mut Self {
        self.ends(OrchestrationStatus::Completed, Some(payload(output)), None)
    }

    /// The code fails.
    pub fn failed(&mut self, failure: impl Into<HistoryFailure>) -> &mut Self {
        self.ends(OrchestrationStatus::Failed, None, Some(Box::new(failure.into().0)))
    }

    /// The code continues as new.
    ///
    /// # Panics
    /// When the input has no JSON form.
    pub fn continued_as_new(&mut self, input: &(impl Serialize + ?Sized)) -> &mut Self {
        self.goes_out(EventKind::ContinueAsNew { input: payload(input) });
        self.end_turn()
    }

    fn ends(
        &mut self,
        status: OrchestrationStatus,
        output: Option<Payload>,
        failure: Option<Box<FailureDetails>>,
    ) -> &mut Self {
        self.goes_out(EventKind::ExecutionCompleted { status, output, failure });
        self.end_turn()
    }

    /// The history, with its last turn ended.
    pub fn build(&self) -> Vec<HistoryEvent> {
        let mut whole = self.clone();
        whole.end_turn();
        whole.events
    }

    /// The history up to the last event that was written, as if the turn were still under way. A replay of it says
    /// what the code asks for next.
    pub fn build_open(&self) -> Vec<HistoryEvent> {
        self.events.clone()
    }
}

/// A failure in a history: its details, or just a message.
#[derive(Debug, Clone)]
pub struct HistoryFailure(FailureDetails);

impl From<&str> for HistoryFailure {
    fn from(message: &str) -> Self {
        Self(FailureDetails::new(steadfast_core::failure::kinds::MESSAGE, message))
    }
}

impl From<FailureDetails> for HistoryFailure {
    fn from(details: FailureDetails) -> Self {
        Self(details)
    }
}

fn payload(value: &(impl Serialize + ?Sized)) -> Payload {
    Payload::encode(value).expect("the value has a JSON form")
}
