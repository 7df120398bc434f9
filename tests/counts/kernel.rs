//! The kernel alone, on the thread of the test: turns, records and replay, with nothing around them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use steadfast::{
    ExecutionId, ExecutionStarted, HistoryEvent, InstanceId, Payload, Register, Registry, Timestamp,
};
use steadfast_core::partition::{Effect, Partition, PartitionOptions, Token, Work};
use steadfast_core::turn::Session;
use steadfast_core::{ActivityId, EventKind, Origin, PartitionId, Position, TaskMessage};

use crate::programs::{fanout, steps};

const NOW: Timestamp = Timestamp::from_micros(1 << 50);

/// One partition, whose activities are done as soon as they are asked for.
pub(crate) struct Kernel {
    registry: Arc<Registry>,
    partition: Partition,
    sessions: BTreeMap<InstanceId, Session>,
    started: u64,
}

impl Kernel {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        steps().register(&mut registry).unwrap();
        fanout().register(&mut registry).unwrap();
        let options = PartitionOptions::new(PartitionId(0), 1);
        let mut partition = Partition::restore(options, Position::ZERO, []).unwrap();
        partition.set_now(NOW);
        Self { registry: Arc::new(registry), partition, sessions: BTreeMap::new(), started: 0 }
    }

    /// Runs one instance to its end.
    pub(crate) fn run(&mut self, name: &str, input: u64) {
        self.started += 1;
        let execution = ExecutionId::new(uuid::Uuid::from_u128(u128::from(self.started)));
        let instance = InstanceId::from_trusted(execution.to_string());
        let input = Payload::encode(&input).unwrap();
        let started = ExecutionStarted::new(name.into(), "".into(), input, execution);
        let event = HistoryEvent::message(NOW, EventKind::ExecutionStarted(Box::new(started)));
        let message = TaskMessage { instance, execution: Some(execution), event, origin: Origin::Client };
        self.partition.submit(Token(self.started), message, true);
        let mut dispatched = VecDeque::new();
        loop {
            self.go_on(&mut dispatched);
            let Some(id) = dispatched.pop_front() else { break };
            self.partition.complete_activity(id, Ok(Payload::from_json("\"Hello, Tokyo!\"")));
        }
        assert!(self.sessions.is_empty(), "the instance has ended");
    }

    fn go_on(&mut self, dispatched: &mut VecDeque<ActivityId>) {
        loop {
            while let Some(work) = self.partition.next_work() {
                self.perform(work);
            }
            let commit = self.partition.commit();
            for effect in commit.effects {
                match effect {
                    Effect::Dispatch(task) => dispatched.push_back(task.id),
                    Effect::Materialise(capture) => self.partition.on_materialised(capture.upto),
                    _ => {}
                }
            }
            let Some(record) = commit.record else { return };
            self.partition.on_durable(record.position);
        }
    }

    fn perform(&mut self, work: Work) {
        match work {
            Work::Load(instance) | Work::LoadEnded(instance) => self.partition.on_loaded(&instance, None),
            Work::Evict(instance) => drop(self.sessions.remove(&instance)),
            Work::Turn(request) => {
                let (registry, instance) = (&self.registry, &request.instance);
                let new = || Session::new(registry.clone(), instance.clone(), 1 << 20);
                let session = self.sessions.entry(instance.clone()).or_insert_with(new);
                let turn = session.turn(request.batch, request.now);
                self.partition.on_turn(instance, turn);
            }
        }
    }

    /// The history of a chain of so many steps that waits for its last one.
    pub(crate) fn history(&self, steps: u64) -> Vec<HistoryEvent> {
        let instance = InstanceId::from_trusted("replayed");
        let mut session = Session::new(self.registry.clone(), instance.clone(), 1 << 20);
        let message = |kind| TaskMessage {
            instance: instance.clone(),
            execution: None,
            event: HistoryEvent::message(NOW, kind),
            origin: Origin::Client,
        };
        let (input, execution) =
            (Payload::encode(&steps).unwrap(), ExecutionId::new(uuid::Uuid::from_u128(7)));
        let started = ExecutionStarted::new("steps".into(), "".into(), input, execution);
        let mut history =
            session.turn(vec![message(EventKind::ExecutionStarted(Box::new(started)))], NOW).events;
        for step in 0..steps - 1 {
            let result = Payload::from_json("\"Hello, Tokyo!\"");
            let completed = EventKind::TaskCompleted { task_scheduled_id: step as i32, result };
            history.extend(session.turn(vec![message(completed)], NOW).events);
        }
        history
    }

    /// Replays a history in a new session.
    pub(crate) fn replay(&self, history: &[HistoryEvent]) -> Session {
        let mut session = Session::new(self.registry.clone(), InstanceId::from_trusted("replayed"), 1 << 20);
        session.replay(history).unwrap();
        session
    }
}
