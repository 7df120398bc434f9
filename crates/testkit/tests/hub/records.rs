//! What a record takes: all that is ready, some turns at a time, and not without bound.

use std::collections::HashMap;
use std::sync::Arc;

use steadfast_core::model::{OrchestrationContext, Register, Registry, orchestration};
use steadfast_core::partition::{Commit, Partition, PartitionOptions, Record, Token, TurnRequest, Work};
use steadfast_core::turn::Session;
use steadfast_core::{
    Error, EventKind, ExecutionId, ExecutionStarted, HistoryEvent, InstanceId, Origin, PartitionId, Payload,
    TaskMessage, Timestamp,
};
use steadfast_store::{LogRecord, MemoryStore, Store, bridge};

const HERE: PartitionId = PartitionId(0);
const AT_ONCE_MAX: usize = 16;

struct Driven {
    store: MemoryStore,
    partition: Partition,
    registry: Arc<Registry>,
    sessions: HashMap<InstanceId, Session>,
    tokens: u64,
}

impl Driven {
    fn new() -> Self {
        let ends = orchestration("ends", |_: OrchestrationContext, ()| async move { Ok::<_, Error>(()) });
        let goes_on = orchestration("goes on", |ctx: OrchestrationContext, ()| async move {
            ctx.continue_as_new::<()>(&())
        });
        let mut registry = Registry::default();
        ends.register(&mut registry).unwrap();
        goes_on.register(&mut registry).unwrap();
        let store = MemoryStore::new(1);
        let mut partition = bridge::recover_partition(&store, PartitionOptions::new(HERE, 1)).unwrap();
        partition.set_now(Timestamp::from_micros(1));
        Self { store, partition, registry: Arc::new(registry), sessions: HashMap::new(), tokens: 0 }
    }

    fn start(&mut self, name: &str, id: String) {
        self.tokens += 1;
        let execution = ExecutionId::new(uuid::Uuid::from_u128(self.tokens.into()));
        let started = ExecutionStarted::new(name.into(), "".into(), Payload::null(), execution);
        let event =
            HistoryEvent::message(Timestamp::from_micros(1), EventKind::ExecutionStarted(Box::new(started)));
        let instance = InstanceId::from_trusted(id);
        let message = TaskMessage { instance, execution: None, event, origin: Origin::Client };
        self.partition.submit(Token(self.tokens), message, true);
    }

    /// Hands out what there is to do, ends those turns, and commits, until a record is sealed; none when there is nothing to do.
    fn next_record(&mut self) -> Option<Record> {
        loop {
            let mut turns = Vec::new();
            while let Some(work) = self.partition.next_work() {
                match work {
                    Work::Turn(request) => turns.push(request),
                    Work::Evict(instance) => drop(self.sessions.remove(&instance)),
                    other => panic!("{other:?} is not to be done here"),
                }
            }
            assert!(turns.len() <= AT_ONCE_MAX, "{} turns at once", turns.len());
            // The shell looks whether there is something to commit while turns are under way.
            let Commit { record, .. } = self.partition.commit();
            if record.is_some() || turns.is_empty() {
                return record;
            }
            for TurnRequest { instance, batch, now, .. } in turns {
                let new = || Session::new(self.registry.clone(), instance.clone(), 1000);
                let turn = self.sessions.entry(instance.clone()).or_insert_with(new).turn(batch, now);
                self.partition.on_turn(&instance, turn);
            }
        }
    }

    fn make_durable(&mut self, Record { position, bytes, .. }: Record) {
        self.store.append(&[LogRecord { partition: HERE, position, bytes }]).unwrap();
        self.partition.on_durable(position);
    }
}

#[test]
fn all_that_is_ready_shares_a_record_and_no_message_in_it_is_written_twice() {
    let mut driven = Driven::new();
    for n in 0..400 {
        driven.start("ends", format!("i-{n}"));
    }
    let record = driven.next_record().unwrap();
    assert_eq!(record.turns, 400);
    // The start as a message and as an event would take this more for each.
    assert!(record.bytes.len() < 400 * 120, "{} bytes", record.bytes.len());
    driven.make_durable(record);
    assert!(driven.next_record().is_none());
}

#[test]
fn a_crowd_of_instances_does_not_keep_a_record_from_being_written() {
    let mut driven = Driven::new();
    for n in 0..3000 {
        driven.start("ends", format!("i-{n}"));
    }
    let mut turns = Vec::new();
    while let Some(record) = driven.next_record() {
        turns.push(record.turns);
        driven.make_durable(record);
    }
    assert!(turns.iter().all(|turns| *turns <= 512 + AT_ONCE_MAX), "{turns:?}");
    assert_eq!(turns.iter().sum::<usize>(), 3000);
}

#[test]
fn instances_that_are_always_ready_do_not_keep_a_record_from_being_written() {
    let mut driven = Driven::new();
    for n in 0..100 {
        driven.start("goes on", format!("i-{n}"));
    }
    for _ in 0..20 {
        let record = driven.next_record().expect("it goes on for ever");
        assert!(record.turns <= 512 + AT_ONCE_MAX, "{}", record.turns);
        driven.make_durable(record);
    }
}
