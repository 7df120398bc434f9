//! Results of activities cause no record by themselves, and are in one before long.

use std::sync::Arc;
use std::time::Duration;

use steadfast_core::model::{ActivityName, OrchestrationContext, Register, Registry, orchestration};
use steadfast_core::partition::{Effect, Partition, PartitionOptions, Token, TurnRequest, Work};
use steadfast_core::turn::Session;
use steadfast_core::{
    Error, EventKind, ExecutionId, ExecutionStarted, HistoryEvent, InstanceId, Origin, PartitionId, Payload,
    TaskMessage, Timestamp,
};
use steadfast_store::{LogRecord, MemoryStore, Store, bridge};

const ANY: ActivityName<(), ()> = ActivityName::new("any");
const HERE: PartitionId = PartitionId(0);

fn registry() -> Arc<Registry> {
    let code = orchestration("one", |ctx: OrchestrationContext, ()| async move {
        ctx.call(ANY, ()).await?;
        Ok::<_, Error>(())
    });
    let mut registry = Registry::default();
    code.register(&mut registry).unwrap();
    Arc::new(registry)
}

/// A partition whose one instance has a turn outside, with the result of its activity, and nothing else to write.
struct Waiting {
    store: MemoryStore,
    partition: Partition,
    session: Session,
    batch: Vec<TaskMessage>,
}

impl Waiting {
    fn new() -> Self {
        let store = MemoryStore::new(1);
        let mut partition = bridge::recover_partition(&store, PartitionOptions::new(HERE, 1)).unwrap();
        partition.set_now(Timestamp::from_micros(1));
        let instance = InstanceId::from_trusted("one");
        let execution = ExecutionId::new(uuid::Uuid::from_u128(1));
        let started = ExecutionStarted::new("one".into(), "".into(), Payload::null(), execution);
        let event =
            HistoryEvent::message(Timestamp::from_micros(1), EventKind::ExecutionStarted(Box::new(started)));
        let message =
            TaskMessage { instance: instance.clone(), execution: None, event, origin: Origin::Client };
        partition.submit(Token(1), message, true);
        let mut session = Session::new(registry(), instance.clone(), 1000);
        let TurnRequest { batch, now, .. } = turn(&mut partition);
        partition.on_turn(&instance, session.turn(batch, now));
        let mut waiting = Self { store, partition, session, batch: Vec::new() };
        assert!(waiting.commit());
        let dispatched = waiting.partition.commit().effects.into_iter().find_map(|effect| match effect {
            Effect::Dispatch(task) => Some(task.id),
            _ => None,
        });
        assert!(waiting.partition.complete_activity(dispatched.unwrap(), Ok(Payload::null())));
        waiting.batch = turn(&mut waiting.partition).batch;
        waiting.partition.on_turn_outside(&instance, waiting.batch.clone());
        waiting
    }

    /// Commits, durably; whether there was something to write.
    fn commit(&mut self) -> bool {
        let Some(record) = self.partition.commit().record else { return false };
        let position = record.position;
        self.store.append(&[LogRecord { partition: HERE, position, bytes: record.bytes }]).unwrap();
        self.partition.on_durable(position);
        true
    }

    /// Whether the result is still there after a crash.
    fn is_result_durable(&self) -> bool {
        let options = PartitionOptions::new(HERE, 1);
        let mut recovered = bridge::recover_partition(&self.store, options).unwrap();
        let dispatched = |effect: &Effect| matches!(effect, Effect::Dispatch(_));
        !recovered.commit().effects.iter().any(dispatched)
    }
}

fn turn(partition: &mut Partition) -> TurnRequest {
    match partition.next_work() {
        Some(Work::Turn(request)) => request,
        other => panic!("there is a turn to run, and not {other:?}"),
    }
}

#[test]
fn a_result_is_written_with_the_turn_that_takes_it() {
    let mut waiting = Waiting::new();
    assert!(!waiting.commit());
    assert!(!waiting.is_result_durable(), "the activity runs again after a crash");
    assert!(!waiting.partition.is_settled());
    let turn = waiting.session.turn(std::mem::take(&mut waiting.batch), Timestamp::from_micros(2));
    waiting.partition.on_turn(&InstanceId::from_trusted("one"), turn);
    assert!(waiting.commit());
    assert!(waiting.is_result_durable());
}

#[test]
fn a_result_whose_turn_takes_long_is_written_before_long() {
    let mut waiting = Waiting::new();
    let due = waiting.partition.next_due().expect("there is a time");
    assert!(due <= Timestamp::from_micros(1).after(Duration::from_millis(10)));
    waiting.partition.set_now(due);
    waiting.partition.tick();
    assert!(waiting.commit());
    assert!(waiting.is_result_durable());
    assert!(!waiting.commit());
}

#[test]
fn a_result_is_written_before_what_is_there_is_moved_to_the_instance_store() {
    let mut waiting = Waiting::new();
    waiting.partition.want_materialisation();
    assert!(waiting.commit());
    assert!(waiting.is_result_durable());
    let captured = |effect: &Effect| matches!(effect, Effect::Materialise(_));
    assert!(waiting.partition.commit().effects.iter().any(captured));
}

#[test]
fn a_result_is_written_when_the_partition_closes() {
    let mut waiting = Waiting::new();
    waiting.partition.begin_no_more_turns();
    assert!(waiting.commit());
    assert!(waiting.is_result_durable());
}
