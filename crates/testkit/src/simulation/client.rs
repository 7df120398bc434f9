//! The client of a simulated hub: calls that are made in phases, and made again when a crash swallowed the answer.

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast_core::entity::EntityOperation;
use steadfast_core::partition::{Accepted, Partition, Rejection, Token};
use steadfast_core::{
    EntityId, EventKind, ExecutionId, ExecutionStarted, HistoryEvent, IdReuse, InstanceId, Origin, Payload,
    TaskMessage, Timestamp,
};
use uuid::Uuid;

/// A call of the client, in the order in which they were planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request(pub(super) usize);

/// The answer to a call.
pub type Answer = Result<Accepted, Rejection>;

/// When a phase may begin, once all calls of those before it are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// At once.
    Answered,
    /// When nothing can happen any more without time passing.
    Idle,
    /// When nothing will ever happen any more.
    Rest,
}

#[derive(Debug, Clone)]
pub(super) enum Wanted {
    Start { started: Box<ExecutionStarted>, delay: Option<Duration>, fresh_id: bool, reuse: IdReuse },
    Message(EventKind),
    Signal { operation: Box<EntityOperation>, delay: Option<Duration> },
    Purge,
    Release,
}

#[derive(Debug)]
struct Call {
    instance: InstanceId,
    wanted: Wanted,
    phase: usize,
    sent: Option<Token>,
    attempts: u32,
    answer: Option<Answer>,
}

#[derive(Debug)]
pub(super) struct Client {
    calls: Vec<Call>,
    gates: Vec<Gate>,
    phase: usize,
    next_token: u64,
    by_token: BTreeMap<Token, usize>,
}

impl Client {
    pub(super) fn new() -> Self {
        Self {
            calls: Vec::new(),
            gates: vec![Gate::Answered],
            phase: 0,
            next_token: 1,
            by_token: BTreeMap::new(),
        }
    }

    pub(super) fn begin_phase(&mut self, gate: Gate) {
        self.gates.push(gate);
    }

    pub(super) fn plan(&mut self, instance: &str, wanted: Wanted) -> Request {
        let instance = InstanceId::from_trusted(instance);
        let phase = self.gates.len() - 1;
        self.calls.push(Call { instance, wanted, phase, sent: None, attempts: 0, answer: None });
        Request(self.calls.len() - 1)
    }

    pub(super) fn plan_start(
        &mut self,
        name: &str,
        instance: &str,
        input: Payload,
        delay: Option<Duration>,
    ) -> Request {
        let execution = ExecutionId::new(Uuid::from_u128(0x5afe_0000 + self.calls.len() as u128));
        let started = Box::new(ExecutionStarted::new(name.into(), "".into(), input, execution));
        // An id that only one call ever uses may skip the look-up, as one made by the runtime does.
        let fresh_id = instance.starts_with("fresh-");
        self.plan(instance, Wanted::Start { started, delay, fresh_id, reuse: IdReuse::default() })
    }

    /// What a planned start does if its id is in use.
    pub(super) fn set_reuse(&mut self, request: Request, with: IdReuse) {
        if let Some(Wanted::Start { reuse, .. }) = self.calls.get_mut(request.0).map(|call| &mut call.wanted)
        {
            *reuse = with;
        }
    }

    pub(super) fn plan_signal(
        &mut self,
        entity: &str,
        operation: &str,
        input: Payload,
        delay: Option<Duration>,
    ) -> Request {
        let entity = EntityId::parse(entity).expect("the id of an entity");
        let operation = EntityOperation {
            request_id: "".into(),
            operation: operation.into(),
            input,
            scheduled_time: None,
            target: None,
            caller: None,
            trace: None,
        };
        let operation = Box::new(operation);
        self.plan(entity.instance_id().as_str(), Wanted::Signal { operation, delay })
    }

    pub(super) fn answer(&self, request: Request) -> Option<&Answer> {
        self.calls.get(request.0)?.answer.as_ref()
    }

    pub(super) fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token - 1)
    }

    /// The calls that could be made now.
    pub(super) fn callable(&self) -> impl Iterator<Item = usize> {
        let open = self.calls.iter().enumerate();
        open.filter(|(_, call)| call.phase == self.phase && call.answer.is_none() && call.sent.is_none())
            .map(|(index, _)| index)
    }

    /// Goes on to the next phase if it may begin; `rest` says that nothing will ever happen any more otherwise, and
    /// `idle` that nothing can without time passing.
    pub(super) fn advance(&mut self, idle: bool, rest: bool) -> bool {
        let answered = self.calls.iter().all(|call| call.phase > self.phase || call.answer.is_some());
        let open = match self.gates.get(self.phase + 1) {
            Some(Gate::Answered) => true,
            Some(Gate::Idle) => idle,
            Some(Gate::Rest) => rest,
            None => false,
        };
        if answered && open {
            self.phase += 1;
        }
        answered && open
    }

    pub(super) fn is_done(&self) -> bool {
        self.phase + 1 == self.gates.len() && self.calls.iter().all(|call| call.answer.is_some())
    }

    /// The partition to call, by the instance.
    pub(super) fn instance(&self, index: usize) -> &InstanceId {
        &self.calls[index].instance
    }

    pub(super) fn make(&mut self, index: usize, partition: &mut Partition, now: Timestamp) -> Token {
        let token = self.token();
        let call = &mut self.calls[index];
        call.sent = Some(token);
        call.attempts += 1;
        self.by_token.insert(token, index);
        let mut reuse_id = IdReuse::default();
        let (kind, fresh_id) = match &mut call.wanted {
            Wanted::Purge => {
                partition.purge(token, &call.instance);
                return token;
            }
            Wanted::Release => {
                partition.release(token, &call.instance);
                return token;
            }
            Wanted::Start { started, delay, fresh_id, reuse } => {
                reuse_id = *reuse;
                if let Some(delay) = delay {
                    started.scheduled_start.get_or_insert(now.after(*delay));
                }
                let kind = EventKind::ExecutionStarted(started.clone());
                (kind, *fresh_id && call.attempts == 1)
            }
            Wanted::Message(kind) => (kind.clone(), false),
            Wanted::Signal { operation, delay } => {
                if let Some(delay) = delay {
                    operation.scheduled_time.get_or_insert(now.after(*delay));
                }
                (EventKind::EntityOperationSignaled(operation.clone()), false)
            }
        };
        let execution = match &kind {
            EventKind::ExecutionStarted(started) => Some(started.execution),
            _ => None,
        };
        let event = HistoryEvent::message(now, kind);
        let instance = call.instance.clone();
        let message = TaskMessage { instance, execution, event, origin: Origin::Client };
        partition.submit_start(token, message, fresh_id, reuse_id);
        token
    }

    /// An answer came. One to a call that had to be made again may be the echo of its first attempt: that what was
    /// wanted has happened already.
    pub(super) fn on_reply(&mut self, token: Token, answer: Answer) {
        let Some(call) = self.by_token.remove(&token).map(|index| &mut self.calls[index]) else { return };
        assert!(call.answer.is_none(), "a call on {} was answered twice", call.instance);
        let echo = call.attempts > 1 && answer.is_err();
        call.answer = Some(match (echo, &call.wanted) {
            (false, _) => answer,
            (true, Wanted::Purge) => Ok(Accepted::Purged),
            (true, Wanted::Release) => Ok(Accepted::Released),
            (true, _) => Ok(Accepted::Message),
        });
    }

    /// The answers under way are lost: the calls are made again.
    pub(super) fn lose_answers(&mut self, lost: impl Fn(&InstanceId) -> bool) {
        self.by_token.retain(|_, index| {
            let call = &mut self.calls[*index];
            let lost = lost(&call.instance);
            if lost {
                call.sent = None;
            }
            !lost
        });
    }

    pub(super) fn unanswered(&self) -> Vec<String> {
        let open = self.calls.iter().filter(|call| call.answer.is_none());
        open.map(|call| format!("{:?} on {} in phase {}", call.wanted, call.instance, call.phase)).collect()
    }
}
