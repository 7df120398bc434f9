//! Random orchestrations under random schedules: kept and replaying sessions, whole and piecewise replay, and
//! messages that come twice must all give the same.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, join_all, select_all};
use proptest::prelude::*;
use steadfast_core::model::{ActivityName, OrchestrationContext, OrchestrationName, Registry, RetryPolicy};
use steadfast_core::turn::Session;
use steadfast_core::{EventKind, FailureDetails, HistoryEvent, TaskMessage};

use crate::support::{
    Driver, MAX_PAYLOAD, child_done, child_failed, code, done, failed, fired, instance, raised, resumed,
    suspended, terminated_with_children,
};

const STEP: ActivityName<u32, u32> = ActivityName::new("step");
const CHILD: OrchestrationName<u32, u32> = OrchestrationName::new("child");

/// A program: what a random orchestration does.
#[derive(Debug, Clone)]
enum Op {
    Call,
    Retry,
    Timer,
    Child,
    Detached,
    Send,
    Event(u8),
    EventTimeout(u8),
    Status,
    Draw,
    Sequence(Vec<Op>),
    Join(Vec<Op>),
    Race(Vec<Op>),
    Forget(Box<Op>),
}

fn op() -> impl Strategy<Value = Op> {
    let leaf = prop_oneof![
        4 => Just(Op::Call),
        1 => Just(Op::Retry),
        2 => Just(Op::Timer),
        2 => Just(Op::Child),
        1 => Just(Op::Detached),
        1 => Just(Op::Send),
        3 => (0..2u8).prop_map(Op::Event),
        2 => (0..2u8).prop_map(Op::EventTimeout),
        1 => Just(Op::Status),
        1 => Just(Op::Draw),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        let several = || prop::collection::vec(inner.clone(), 1..5);
        prop_oneof![
            several().prop_map(Op::Sequence),
            several().prop_map(Op::Join),
            several().prop_map(Op::Race),
            inner.clone().prop_map(|op| Op::Forget(Box::new(op))),
        ]
    })
}

/// Runs one operation to a number that depends on everything it observed.
fn run_op(ctx: OrchestrationContext, op: Op) -> LocalBoxFuture<'static, u32> {
    let minute = Duration::from_secs(60);
    let number = |outcome: Result<u32, steadfast_core::TaskError>| match outcome {
        Ok(value) => value,
        Err(error) => 1000 + error.details.message.len() as u32,
    };
    match op {
        Op::Call => ctx.call(STEP, 1).map(number).boxed_local(),
        Op::Retry => {
            let policy = RetryPolicy::new(2, minute);
            ctx.call_with_retry(STEP, 2, policy).map(number).boxed_local()
        }
        Op::Timer => ctx.timer(minute).map(|()| 2).boxed_local(),
        Op::Child => ctx.call_orchestration(CHILD, 3).map(number).boxed_local(),
        Op::Detached => async move { ctx.start_orchestration(CHILD, 4, None).unwrap().as_str().len() as u32 }
            .boxed_local(),
        Op::Send => async move {
            ctx.raise_event("other", "hello", &5).unwrap();
            3
        }
        .boxed_local(),
        Op::Event(name) => ctx.wait_for_event(&format!("e{name}")).map(number).boxed_local(),
        Op::EventTimeout(name) => {
            ctx.wait_for_event_timeout(&format!("e{name}"), minute).map(number).boxed_local()
        }
        Op::Status => async move {
            ctx.set_custom_status(&"busy").unwrap();
            4
        }
        .boxed_local(),
        // Whatever it draws goes into an input, so that it shows.
        Op::Draw => async move {
            let drawn = ctx.random() ^ ctx.now().as_micros() as u64 ^ ctx.new_uuid().as_u64_pair().0;
            ctx.raise_event("other", "drawn", &drawn).unwrap();
            5
        }
        .boxed_local(),
        Op::Sequence(ops) => async move {
            let mut sum = 0u32;
            for op in ops {
                sum = sum.wrapping_mul(31).wrapping_add(run_op(ctx.clone(), op).await);
            }
            sum
        }
        .boxed_local(),
        Op::Join(ops) => {
            let all = join_all(ops.into_iter().map(|op| run_op(ctx.clone(), op)));
            all.map(|all| all.into_iter().fold(0u32, |sum, n| sum.wrapping_mul(31).wrapping_add(n)))
                .boxed_local()
        }
        Op::Race(ops) => {
            let race = select_all(ops.into_iter().map(|op| run_op(ctx.clone(), op)));
            race.map(|(n, at, _losers)| n.wrapping_add(at as u32)).boxed_local()
        }
        Op::Forget(op) => {
            drop(run_op(ctx, *op));
            async { 6 }.boxed_local()
        }
    }
}

/// Code that runs a program in each of a few generations.
fn interpreter(program: Op, generations: u32) -> Registry {
    code(move |ctx: OrchestrationContext, generation: u32| {
        let program = program.clone();
        async move {
            let number = run_op(ctx.clone(), program).await;
            if generation < generations {
                ctx.continue_as_new(&(generation + 1))?;
            }
            Ok(number)
        }
    })
}

/// What happens to an instance: a script that is applied to whatever the program asks for.
#[derive(Debug, Clone, Copy)]
enum Happening {
    /// The nth open operation ends, well or badly.
    End(usize, bool),
    Raise(u8),
    Suspend,
    Resume,
    /// The turn ends here.
    Cut,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        12 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(at, well)| Happening::End(at, well)),
        4 => (0..2u8).prop_map(Happening::Raise),
        1 => Just(Happening::Suspend),
        3 => Just(Happening::Resume),
        6 => Just(Happening::Cut),
    ]
}

fn script() -> impl Strategy<Value = Vec<Happening>> {
    prop::collection::vec(happening(), 0..60)
}

/// The operations that are under way, by what would end them.
fn open(history: &[HistoryEvent]) -> Vec<(i32, u8)> {
    let mut open = Vec::new();
    for event in history {
        match &event.kind {
            EventKind::TaskScheduled { .. } => open.push((event.event_id, 0)),
            EventKind::TimerCreated { .. } => open.push((event.event_id, 1)),
            EventKind::SubOrchestrationInstanceCreated(child) if !child.detached => {
                open.push((event.event_id, 2));
            }
            EventKind::TaskCompleted { task_scheduled_id: id, .. }
            | EventKind::TaskFailed { task_scheduled_id: id, .. }
            | EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id: id, .. }
            | EventKind::SubOrchestrationInstanceFailed { task_scheduled_id: id, .. }
            | EventKind::TimerFired { timer_id: id, .. } => open.retain(|(other, _)| other != id),
            _ => {}
        }
    }
    open
}

fn ending(id: i32, kind: u8, well: bool) -> EventKind {
    match (kind, well) {
        (0, true) => done(id, id),
        (0, false) => failed(id, "no"),
        (1, _) => fired(id),
        (_, true) => child_done(id, 100 + id),
        (_, false) => child_failed(id, FailureDetails::new("ChildFailed", "no")),
    }
}

/// Plays a script, and resumes and ends it all at the end. With
/// `duplicate` the messages of each batch come twice.
fn play(run: &mut Driver, script: &[Happening], duplicate: bool) {
    let mut batch: Vec<TaskMessage> = vec![run.start_of("test", 0)];
    let mut taken: Vec<i32> = Vec::new();
    let end = [Happening::Resume, Happening::Cut];
    for happening in script.iter().chain(&end) {
        let kind = match *happening {
            Happening::Cut => {
                flush(run, &mut batch, duplicate);
                taken.clear();
                continue;
            }
            Happening::End(at, well) => {
                let mut open = open(&run.history);
                open.retain(|(id, _)| !taken.contains(id));
                let Some((id, kind)) = (!open.is_empty()).then(|| open[at % open.len()]) else { continue };
                taken.push(id);
                ending(id, kind, well)
            }
            Happening::Raise(name) => raised(&format!("E{name}"), 10 + run.turns.len()),
            Happening::Suspend => suspended(),
            Happening::Resume => resumed(),
        };
        batch.push(run.message(kind));
    }
    // The rest of the program, in the order of its ids.
    while !run.is_over() && !open(&run.history).is_empty() {
        for (id, kind) in open(&run.history) {
            batch.push(run.message(ending(id, kind, true)));
        }
        flush(run, &mut batch, duplicate);
    }
    if !run.is_over() {
        run.send([terminated_with_children("still waits for events")]);
    }
}

fn flush(run: &mut Driver, batch: &mut Vec<TaskMessage>, duplicate: bool) {
    let current = run.turns.last().and_then(|turn| turn.execution);
    if batch.is_empty() {
        return;
    }
    let mut messages = std::mem::take(batch);
    // An end is for the execution that it was made for.
    for message in &mut messages {
        if !matches!(message.event.kind, EventKind::EventRaised { .. } | EventKind::ExecutionStarted(_)) {
            message.execution = message.execution.or(current);
        }
    }
    if duplicate {
        let ends = |message: &&TaskMessage| !matches!(message.event.kind, EventKind::EventRaised { .. });
        let copies: Vec<_> = messages.iter().filter(ends).cloned().collect();
        messages.extend(copies);
    }
    run.turn(messages);
    let mut continued = 0;
    while run.is_over() && run.last().messages.iter().any(is_start_of_self) && continued < 5 {
        run.next_generation([]);
        continued += 1;
    }
}

fn is_start_of_self(message: &TaskMessage) -> bool {
    message.instance == instance() && matches!(message.event.kind, EventKind::ExecutionStarted(_))
}

fn played(registry: &Arc<Registry>, script: &[Happening], replaying: bool, duplicate: bool) -> Driver {
    let mut run = Driver::new(registry.clone(), replaying);
    play(&mut run, script, duplicate);
    run
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_kept_session_and_one_that_replays_before_every_turn_do_the_same(
        program in op(), generations in 0..3u32, script in script()
    ) {
        let registry = Arc::new(interpreter(program, generations));
        let kept = played(&registry, &script, false, false);
        let replaying = played(&registry, &script, true, false);
        prop_assert_eq!(kept.turns, replaying.turns);
    }

    #[test]
    fn replaying_a_prefix_and_then_the_rest_is_replaying_the_whole(
        program in op(), script in script(), stop in 0..20usize
    ) {
        let registry = Arc::new(interpreter(program, 0));
        let stopped: Vec<_> = script.into_iter().take(stop).collect();
        let mut run = Driver::new(registry.clone(), false);
        play_without_end(&mut run, &stopped);
        let wake = vec![run.message(resumed()), run.message(raised("e0", 1)), run.message(raised("e1", 1))];
        let mut whole = session(&registry, &[&run.history]);
        let expected = whole.turn(wake.clone(), run.now);
        let turns = run.history.iter().enumerate().filter(|(_, event)| event.kind == EventKind::OrchestratorStarted);
        for (cut, _) in turns {
            let (prefix, rest) = run.history.split_at(cut);
            prop_assert_eq!(&session(&registry, &[prefix, rest]).turn(wake.clone(), run.now), &expected);
        }
    }

    #[test]
    fn every_prefix_of_a_history_is_a_history_that_can_go_on(program in op(), script in script()) {
        let registry = Arc::new(interpreter(program, 0));
        let run = played(&registry, &script, false, false);
        let ends = run.history.iter().enumerate().filter(|(_, event)| event.kind == EventKind::OrchestratorCompleted);
        for (end, _) in ends {
            let mut session = session(&registry, &[&run.history[..=end]]);
            let turn = session.turn(vec![run.message(resumed())], run.now);
            let disagrees = turn.events.iter().any(|event| match &event.kind {
                EventKind::ExecutionCompleted { failure: Some(failure), .. } => failure.is_caused_by("NonDeterminism"),
                _ => false,
            });
            prop_assert!(!disagrees, "{:#?}", turn.events);
        }
    }

    #[test]
    fn messages_that_come_twice_change_nothing_in_what_is_asked_for_or_returned(
        program in op(), script in script()
    ) {
        let registry = Arc::new(interpreter(program, 0));
        // Suspensions are left out: a second one after the resumption would hold the rest.
        let script: Vec<_> = script.into_iter().filter(|it| !matches!(it, Happening::Suspend)).collect();
        let once = played(&registry, &script, false, false);
        let twice = played(&registry, &script, false, true);
        prop_assert_eq!(asked(&once), asked(&twice));
    }
}

/// What the executions asked for and returned, without what arrived.
fn asked(run: &Driver) -> Vec<String> {
    let events = run.turns.iter().flat_map(|turn| &turn.events);
    events.filter(|event| event.event_id >= 0).map(crate::support::short).collect()
}

/// Plays a script and stops where it stops.
fn play_without_end(run: &mut Driver, script: &[Happening]) {
    run.start(0);
    for happening in script {
        let kind = match *happening {
            Happening::End(at, well) => match open(&run.history).as_slice() {
                [] => continue,
                open => ending(open[at % open.len()].0, open[at % open.len()].1, well),
            },
            Happening::Raise(name) => raised(&format!("e{name}"), 1),
            Happening::Suspend => suspended(),
            Happening::Resume => resumed(),
            Happening::Cut => continue,
        };
        run.send([kind]);
    }
}

fn session(registry: &Arc<Registry>, pieces: &[&[HistoryEvent]]) -> Session {
    let mut session = Session::new(registry.clone(), instance(), MAX_PAYLOAD);
    for piece in pieces {
        session.replay(piece).unwrap();
    }
    session
}
