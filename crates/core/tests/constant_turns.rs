//! Invariant I7: the cost of a turn in a resident session does not grow with the length of the history. Cost is counted,
//! not timed: polls of the user's code, events of the turn, and bytes of its record.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use steadfast_core::model::{ActivityName, OrchestrationContext, Register, Registry, orchestration};
use steadfast_core::partition::{Effect, Partition, PartitionOptions, SessionSource, Token, Work};
use steadfast_core::turn::Session;
use steadfast_core::{
    ActivityId, Error, EventKind, ExecutionId, ExecutionStarted, HistoryEvent, InstanceId, Origin,
    PartitionId, Payload, Position, TaskMessage, Timestamp,
};

const STEPS: u32 = 5000;
const STEP: ActivityName<u32, u32> = ActivityName::new("step");

/// Counts how often the code is polled.
struct Counted<F>(Pin<Box<F>>, Arc<AtomicUsize>);

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.as_mut().poll(context)
    }
}

#[test]
fn a_resident_turn_costs_the_same_after_five_thousand_steps_as_at_the_start() {
    let polls = Arc::new(AtomicUsize::new(0));
    let counter = polls.clone();
    let chain = orchestration("chain", move |ctx: OrchestrationContext, (): ()| {
        let steps = async move {
            for step in 0..STEPS {
                ctx.call(STEP, step).await?;
            }
            Ok::<_, Error>(())
        };
        Counted(Box::pin(steps), counter.clone())
    });
    let mut registry = Registry::default();
    chain.register(&mut registry).unwrap();
    let instance = InstanceId::parse("chain").unwrap();
    let mut session = Session::new(Arc::new(registry), instance.clone(), 1 << 20);
    let mut partition =
        Partition::restore(PartitionOptions::new(PartitionId(0), 1), Position::ZERO, []).unwrap();
    partition.submit(Token(1), start(&instance), true);

    let mut costs = Vec::new();
    while let Some(id) = next_step(&mut partition, &mut session, &polls, &mut costs) {
        partition.complete_activity(id, Ok(Payload::from_json("7")));
    }

    let (first, last) = (costs[1], costs[STEPS as usize - 1]);
    assert_eq!((first.0, first.1), (1, 4), "one poll, and four events: begin, result, next step, end");
    assert_eq!((last.0, last.1), (1, 4));
    assert!(last.2 <= first.2 + 16, "records grew from {} to {} bytes", first.2, last.2);
}

/// Runs until the partition waits for an activity, noting what each turn cost: polls, events, bytes.
fn next_step(
    partition: &mut Partition,
    session: &mut Session,
    polls: &AtomicUsize,
    costs: &mut Vec<(usize, usize, usize)>,
) -> Option<ActivityId> {
    let mut next = None;
    loop {
        while let Some(work) = partition.next_work() {
            let Work::Turn(request) = work else { continue };
            assert!(costs.is_empty() || request.session == SessionSource::Resident);
            let before = polls.load(Ordering::Relaxed);
            let turn = session.turn(request.batch, request.now);
            costs.push((polls.load(Ordering::Relaxed) - before, turn.events.len(), 0));
            partition.on_turn(&request.instance, turn);
        }
        let commit = partition.commit();
        for effect in commit.effects {
            match effect {
                Effect::Dispatch(task) => next = Some(task.id),
                Effect::Materialise(capture) => partition.on_materialised(capture.upto),
                _ => {}
            }
        }
        let Some(record) = commit.record else { return next };
        if let Some(cost) = costs.last_mut() {
            cost.2 = record.bytes.len();
        }
        partition.on_durable(record.position);
    }
}

fn start(instance: &InstanceId) -> TaskMessage {
    let execution = ExecutionId::new(uuid::Uuid::from_u128(7));
    let started = ExecutionStarted::new("chain".into(), "".into(), Payload::null(), execution);
    let kind = EventKind::ExecutionStarted(Box::new(started));
    let event = HistoryEvent::message(Timestamp::from_micros(1), kind);
    TaskMessage { instance: instance.clone(), execution: None, event, origin: Origin::Client }
}
