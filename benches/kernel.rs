//! The kernel alone: a turn, the replay of a long history, the encoding of events, whole instances in a partition.

#[path = "../tests/counts/kernel.rs"]
#[expect(clippy::unwrap_used, reason = "written for tests")]
mod counted;
#[path = "../tests/counts/programs.rs"]
#[expect(dead_code, reason = "the tests have more scenarios")]
mod programs;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use steadfast::{
    ActivityName, Error, EventKind, ExecutionId, ExecutionStarted, HistoryEvent, InstanceId,
    OrchestrationContext, Payload, Register, Registry, Timestamp, orchestration,
};
use steadfast_core::turn::{Session, Turn};
use steadfast_core::{Origin, TaskMessage, codec};

use counted::Kernel;

const STEP: ActivityName<u32, u32> = ActivityName::new("step");

/// Steps of the history that is replayed.
const LONG: u64 = 1000;

fn registry() -> Arc<Registry> {
    let mut registry = Registry::default();
    let chain =
        orchestration::<u32, u32, Error, _, _>("chain", |ctx: OrchestrationContext, steps: u32| async move {
            let mut sum = 0;
            for step in 0..steps {
                sum += ctx.call(STEP, step).await?;
            }
            Ok(sum)
        });
    chain.register(&mut registry).expect("the registry is empty");
    Arc::new(registry)
}

fn instance() -> InstanceId {
    InstanceId::parse("bench").expect("a usable id")
}

fn message(kind: EventKind) -> TaskMessage {
    let event = HistoryEvent::message(Timestamp::from_micros(1), kind);
    TaskMessage { instance: instance(), execution: None, event, origin: Origin::Client }
}

fn start(steps: u32) -> TaskMessage {
    let input = Payload::encode(&steps).expect("a number has a JSON form");
    let execution = ExecutionId::new(uuid::Uuid::from_u128(7));
    let started = ExecutionStarted::new("chain".into(), "".into(), input, execution);
    message(EventKind::ExecutionStarted(Box::new(started)))
}

fn completed(step: u32) -> TaskMessage {
    let result = Payload::encode(&step).expect("a number has a JSON form");
    message(EventKind::TaskCompleted { task_scheduled_id: step as i32, result })
}

fn session(registry: &Arc<Registry>) -> Session {
    Session::new(registry.clone(), instance(), 1 << 20)
}

fn run(session: &mut Session, batch: Vec<TaskMessage>) -> Turn {
    session.turn(batch, Timestamp::from_micros(1))
}

fn turns(criterion: &mut Criterion) {
    let registry = registry();
    let mut group = criterion.benchmark_group("turn");
    group.throughput(Throughput::Elements(1));
    group.bench_function("first", |bencher| {
        bencher.iter_batched(
            || (session(&registry), vec![start(3)]),
            |(mut session, batch)| black_box(run(&mut session, batch)),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("resident", |bencher| {
        let mut session = session(&registry);
        run(&mut session, vec![start(u32::MAX)]);
        let mut step = 0;
        bencher.iter(|| {
            let turn = run(&mut session, vec![completed(step)]);
            step += 1;
            black_box(turn)
        });
    });
    group.finish();
}

fn replay(criterion: &mut Criterion) {
    let kernel = Kernel::new();
    let history = kernel.history(LONG);
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(history.len() as u64));
    group.bench_function("thousand_steps", |bencher| {
        bencher.iter(|| kernel.replay(black_box(&history)));
    });
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let history = Kernel::new().history(LONG);
    let mut encoded = Vec::new();
    history.iter().for_each(|event| codec::encode(event, &mut encoded));
    let mut group = criterion.benchmark_group("codec");
    let (elements, bytes) = (history.len() as u64, encoded.len() as u64);
    group.throughput(Throughput::ElementsAndBytes { elements, bytes });
    group.bench_function("encode_history", |bencher| {
        let mut buffer = Vec::with_capacity(encoded.len());
        bencher.iter(|| {
            buffer.clear();
            history.iter().for_each(|event| codec::encode(black_box(event), &mut buffer));
            buffer.len()
        });
    });
    group.bench_function("decode_history", |bencher| {
        bencher
            .iter(|| codec::decode_many::<HistoryEvent>(black_box(&encoded)).expect("it was just encoded"));
    });
    group.finish();
}

/// One instance from its start to its end, with all that a partition does for it; nothing is stored or sent.
fn partition(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("partition");
    group.throughput(Throughput::Elements(1));
    for (name, steps) in [("ping", 1), ("hello", 3)] {
        group.bench_function(name, |bencher| {
            let mut kernel = Kernel::new();
            bencher.iter(|| kernel.run("steps", steps));
        });
    }
    group.finish();
}

criterion_group!(benches, turns, replay, encoding, partition);
criterion_main!(benches);
