//! Workers: who gets what, what becomes of work whose worker is gone, and what a hub does without workers.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use steadfast_core::dispatch::ActivityLimit;
use steadfast_core::failure::kinds;
use steadfast_core::turn::{RemoteTurn, TurnAnswer};
use steadfast_core::{
    ActionKind, Completion, IdReuse, InstanceId, OnExisting, OrchestrationStatus, OrchestratorAction,
    Payload, Timestamp,
};
use steadfast_engine::{
    Client, Clock, Delivered, Hub, HubBuilder, HubOptions, NameFilter, PerKind, StartOptions, SystemClock,
    WorkFilters, WorkItem, WorkKind, WorkerConnection, WorkerProfile, Workers, WorkersOptions,
};
use steadfast_store::{Fault, FaultPoint, MemoryStore, Operation, StoreError};
use steadfast_testkit::VirtualClock;

use crate::support::{Gate, end_of, fence, hub, hub_on, soon, stop, with_id};

pub(crate) async fn started(builder: HubBuilder) -> (Hub, Client, Workers) {
    let hub = builder.workers(WorkersOptions::default()).start().await.unwrap();
    let (client, workers) = (hub.client(), hub.workers().unwrap().clone());
    (hub, client, workers)
}

pub(crate) async fn start(client: &Client, name: &str, id: &str) {
    client.raw().start(name, Payload::null(), None, with_id(id)).await.unwrap();
}

pub(crate) fn worker(workers: &Workers, places: usize) -> WorkerConnection {
    let places = PerKind { orchestrations: places, activities: places, entities: places };
    workers.connect(WorkerProfile { name: "test".into(), places, ..WorkerProfile::default() })
}

pub(crate) async fn turn(worker: &mut WorkerConnection) -> (String, RemoteTurn) {
    match soon("a turn", worker.next()).await {
        Some(WorkItem::Turn { token, turn, .. }) => (token, turn),
        other => panic!("a turn: {other:?}"),
    }
}

pub(crate) async fn activity(worker: &mut WorkerConnection) -> (String, String) {
    match soon("an activity", worker.next()).await {
        Some(WorkItem::Activity { token, task }) => (token, task.name.to_string()),
        other => panic!("an activity: {other:?}"),
    }
}

pub(crate) fn completed() -> TurnAnswer {
    TurnAnswer { completion: Some(Completion::Completed(Payload::from_json("1"))), ..TurnAnswer::default() }
}

pub(crate) fn calls(names: &[&str]) -> TurnAnswer {
    let action = |(at, name): (usize, &&str)| OrchestratorAction {
        id: i32::try_from(at).unwrap(),
        kind: ActionKind::ScheduleTask {
            name: (*name).into(),
            version: Default::default(),
            input: Payload::null(),
            options: None,
        },
    };
    TurnAnswer { actions: names.iter().enumerate().map(action).collect(), ..TurnAnswer::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_a_worker_has_for_too_long_goes_to_another_one() {
    let clock = VirtualClock::default();
    let (hub, client, workers) = started(hub(1).clock(Arc::new(clock.clone()))).await;
    start(&client, "slow", "s").await;
    let mut first = worker(&workers, 1);
    let (stuck, _) = turn(&mut first).await;
    let mut second = worker(&workers, 1);
    clock.advance(Duration::from_secs(5 * 60) - Duration::from_micros(1));
    assert!(second.try_next().is_none());
    clock.advance(Duration::from_micros(1));
    let (token, _) = turn(&mut second).await;
    assert_eq!(workers.complete_turn(&token, completed()), Delivered::Taken);
    end_of(&client, "s").await;
    assert_eq!(workers.complete_turn(&stuck, completed()), Delivered::Stale);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activity_of_a_worker_that_is_gone_may_be_completed_within_the_grace_and_is_repeated_after_it() {
    let clock = VirtualClock::default();
    let (hub, client, workers) = started(hub(1).clock(Arc::new(clock.clone()))).await;
    start(&client, "two", "t").await;
    let mut first = worker(&workers, 2);
    let (token, _) = turn(&mut first).await;
    workers.complete_turn(&token, calls(&["a", "b"]));
    let (a, _) = activity(&mut first).await;
    let (b, _) = activity(&mut first).await;
    drop(first);
    assert_eq!(workers.complete_activity(&a, Ok(Payload::null())), Delivered::Taken);
    let mut second = worker(&workers, 2);
    let (token, _) = turn(&mut second).await;
    workers.complete_turn(&token, TurnAnswer::default());
    fence(&client, "t").await;
    assert!(second.try_next().is_none(), "within the grace it is not repeated");
    clock.advance(Duration::from_secs(2));
    let (again, name) = activity(&mut second).await;
    assert_eq!(name, "b");
    workers.complete_activity(&again, Ok(Payload::null()));
    assert_eq!(workers.complete_activity(&b, Ok(Payload::null())), Delivered::Stale);
    let (token, _) = turn(&mut second).await;
    workers.complete_turn(&token, completed());
    end_of(&client, "t").await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_gives_back_comes_again_after_pauses_that_double() {
    let clock = VirtualClock::default();
    let (hub, client, workers) = started(hub(1).clock(Arc::new(clock.clone()))).await;
    start(&client, "unfit", "u").await;
    let mut alone = worker(&workers, 1);
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        let (token, _) = turn(&mut alone).await;
        assert_eq!(workers.abandon(&token), Delivered::Taken);
        assert_eq!(workers.abandon(&token), Delivered::Stale);
        clock.advance(Duration::from_secs(pause) - Duration::from_micros(1));
        assert!(alone.try_next().is_none(), "not before {pause} s");
        clock.advance(Duration::from_micros(1));
    }
    assert_eq!(client.state("u").await.unwrap().status, OrchestrationStatus::Pending);
    let (token, _) = turn(&mut alone).await;
    workers.complete_turn(&token, completed());
    end_of(&client, "u").await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_worker_gets_more_than_it_has_places_for_and_all_get_some() {
    let (hub, client, workers) = started(hub(2)).await;
    let mut pool = [worker(&workers, 2), worker(&workers, 2), worker(&workers, 2)];
    for n in 0..10 {
        start(&client, "many", &format!("m{n}")).await;
    }
    let mut tokens = vec![];
    for worker in &mut pool {
        for _ in 0..2 {
            tokens.push(turn(worker).await.0);
        }
        assert!(worker.try_next().is_none());
    }
    let waiting = || workers.status().waiting.orchestrations;
    soon("the rest waits", async {
        while waiting() < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for token in tokens {
        workers.complete_turn(&token, completed());
    }
    let mut rest = 0;
    while rest < 4 {
        for worker in &mut pool {
            if let Some(WorkItem::Turn { token, .. }) = worker.try_next() {
                workers.complete_turn(&token, completed());
                rest += 1;
            }
        }
        tokio::task::yield_now().await;
    }
    for n in 0..10 {
        end_of(&client, &format!("m{n}")).await;
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_without_workers_keeps_everything_pending_and_says_what_it_lacks() {
    let (hub, client, workers) = started(hub(1)).await;
    start(&client, "nobody", "n").await;
    let lacking = || workers.status().without_worker;
    soon("it is said", async {
        while lacking().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(lacking(), [(WorkKind::Orchestration, "nobody".into(), "".into(), 1)]);
    assert_eq!(client.state("n").await.unwrap().status, OrchestrationStatus::Pending);
    // One that takes other things is no help.
    let filter = NameFilter { name: "other".into(), versions: vec![] };
    let filters = WorkFilters { orchestrations: vec![filter], ..WorkFilters::default() };
    let _other = workers.connect(WorkerProfile { filters: Some(filters), ..WorkerProfile::default() });
    assert_eq!(lacking().len(), 1);
    let mut fit = worker(&workers, 1);
    let (token, _) = turn(&mut fit).await;
    assert!(lacking().is_empty());
    workers.complete_turn(&token, completed());
    end_of(&client, "n").await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_what_workers_do_and_leaves_the_rest_for_the_next_start() {
    let store = MemoryStore::new(1);
    let (hub, client, workers) = started(hub_on(&store)).await;
    start(&client, "first", "a").await;
    let mut one = worker(&workers, 1);
    let (token, _) = turn(&mut one).await;
    start(&client, "second", "b").await;
    fence(&client, "b").await;
    let mut stopping = Box::pin(hub.stop());
    let waits = std::future::poll_fn(|task| Poll::Ready(stopping.as_mut().poll(task).is_pending()));
    assert!(waits.await);
    workers.complete_turn(&token, completed());
    let (next, stopped) = soon("the stop", async { tokio::join!(one.next(), stopping) }).await;
    assert!(next.is_none(), "nothing more is given out");
    stopped.unwrap();

    let (hub, client, workers) = started(hub_on(&store)).await;
    assert_eq!(client.state("a").await.unwrap().status, OrchestrationStatus::Completed);
    let mut one = worker(&workers, 1);
    let (token, left) = turn(&mut one).await;
    assert_eq!(left.instance.as_str(), "b");
    workers.complete_turn(&token, completed());
    end_of(&client, "b").await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_answer_holds_up_no_stop_and_no_crash_loses_its_turn() {
    let store = MemoryStore::new(1);
    let options = HubOptions { stop_timeout: Duration::from_millis(20), ..HubOptions::default() };
    let (hub, client, workers) = started(hub_on(&store).options(options)).await;
    start(&client, "silent", "s").await;
    let mut one = worker(&workers, 1);
    let (old, first) = turn(&mut one).await;
    stop(hub).await;
    assert_eq!(workers.complete_turn(&old, completed()), Delivered::Stale);

    let (hub, client, workers) = started(hub_on(&store)).await;
    let mut one = worker(&workers, 1);
    let (_, second) = turn(&mut one).await;
    assert_eq!((&second.instance, &second.started), (&first.instance, &first.started));
    drop(hub);

    let (hub, client_again, workers) = started(hub_on(&store)).await;
    assert!(client.state("s").await.is_err(), "the hub of that client is gone");
    let mut one = worker(&workers, 1);
    let (token, _) = turn(&mut one).await;
    assert_eq!(workers.complete_turn(&old, completed()), Delivered::Stale, "tokens are those of one run");
    workers.complete_turn(&token, completed());
    end_of(&client_again, "s").await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_replaces_an_instance_does_not_wait_for_the_worker_that_has_it() {
    let (hub, client, workers) = started(hub(1)).await;
    start(&client, "old", "x").await;
    let mut one = worker(&workers, 4);
    let (old, _) = turn(&mut one).await;
    let options = StartOptions { reuse: IdReuse::default().on_live(OnExisting::Replace), ..with_id("x") };
    soon("the start", client.raw().start("new", Payload::null(), None, options)).await.unwrap();
    let (new, begun) = turn(&mut one).await;
    assert_eq!(begun.started.name, "new");
    workers.complete_turn(&old, TurnAnswer::failed(steadfast_core::FailureDetails::new("late", "late")));
    workers.complete_turn(&new, completed());
    assert_eq!(end_of(&client, "x").await.status, OrchestrationStatus::Completed);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_by_name_hold_for_workers_and_void_activities_are_not_given_out() {
    let mut options = HubOptions::default();
    let limit = ActivityLimit { concurrency: Some(1), ..ActivityLimit::default() };
    options.activity_limits.insert("one".to_owned(), limit);
    let (hub, client, workers) = started(hub(1).options(options)).await;
    start(&client, "limited", "l").await;
    let mut pool = worker(&workers, 10);
    let (token, _) = turn(&mut pool).await;
    workers.complete_turn(&token, calls(&["one", "one", "free"]));
    let mut names = [activity(&mut pool).await, activity(&mut pool).await];
    names.sort_by(|left, right| left.1.cmp(&right.1));
    assert_eq!((names[0].1.as_str(), names[1].1.as_str()), ("free", "one"));
    fence(&client, "l").await;
    assert!(pool.try_next().is_none(), "there is one place");
    client.terminate("l", "enough", false).await.unwrap();
    assert_eq!(end_of(&client, "l").await.status, OrchestrationStatus::Terminated);
    // The place is free, and what waited for it is void.
    workers.complete_activity(&names[1].0, Ok(Payload::null()));
    fence(&client, "l").await;
    assert!(pool.try_next().is_none());
    workers.complete_activity(&names[0].0, Ok(Payload::null()));
    soon("nothing is left", async {
        while !client.activities("l").await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_large_fails_its_instance_and_says_so() {
    let options = HubOptions { payload_bytes_max: 100, ..HubOptions::default() };
    let (hub, client, workers) = started(hub(1).options(options)).await;
    start(&client, "large", "l").await;
    let mut one = worker(&workers, 1);
    let (token, _) = turn(&mut one).await;
    let output = Payload::from_json(format!("\"{}\"", "x".repeat(200)));
    let completion = Some(Completion::Completed(output));
    workers.complete_turn(&token, TurnAnswer { completion, ..calls(&["not-run"]) });
    let state = end_of(&client, "l").await;
    let failure = state.failure.unwrap();
    assert!(failure.message.contains("202 bytes"), "{failure}");
    assert!(one.try_next().is_none(), "nothing of the answer is done");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_gives_to_keep_comes_with_each_turn_of_the_execution_also_after_a_restart() {
    let store = MemoryStore::new(1);
    let kept = |bytes: &[u8]| TurnAnswer { keepsake: Some(bytes.into()), ..TurnAnswer::default() };
    let last = |bytes: &[u8]| TurnAnswer { custom_status: Some(Payload::from_json("7")), ..kept(bytes) };
    // What a state shows is durable.
    let is_durable = async |client: &Client| {
        while client.state("k").await.unwrap().custom_status.is_none() {
            tokio::task::yield_now().await;
        }
    };
    // An event, and the turn that comes of it: what it shows, and the answer to it.
    let step = async |client: &Client, worker: &mut WorkerConnection, workers: &Workers, answer| {
        client.raise_event("k", "go", "on").await.unwrap();
        let (token, turn) = turn(worker).await;
        workers.complete_turn(&token, answer);
        turn.keepsake.map(|keepsake| keepsake.to_vec())
    };
    let (hub, client, workers) = started(hub_on(&store)).await;
    start(&client, "keeps", "k").await;
    let mut one = worker(&workers, 1);
    let (token, first) = turn(&mut one).await;
    assert_eq!(first.keepsake, None);
    workers.complete_turn(&token, kept(b"one"));
    // Neither an answer without it nor one that gives too much changes what is kept.
    for answer in [TurnAnswer::default(), kept(&[0; 257]), last(&[2; 256])] {
        assert_eq!(step(&client, &mut one, &workers, answer).await.as_deref(), Some(&b"one"[..]));
    }
    soon("the last answer", is_durable(&client)).await;
    // As after a crash: out of the log.
    drop((one, hub));

    let (hub, client, workers) = started(hub_on(&store)).await;
    let mut one = worker(&workers, 1);
    assert_eq!(step(&client, &mut one, &workers, kept(b"two")).await, Some(vec![2; 256]));
    assert_eq!(step(&client, &mut one, &workers, last(b"two")).await, Some(b"two".to_vec()));
    soon("the last answer", is_durable(&client)).await;
    drop(one);
    stop(hub).await;

    // Out of the instance store, and as often as the session is not in memory.
    let options = HubOptions { extended_sessions: false, ..HubOptions::default() };
    let (hub, client, workers) = started(hub_on(&store).options(options)).await;
    let mut one = worker(&workers, 1);
    for _ in 0..2 {
        let seen = step(&client, &mut one, &workers, TurnAnswer::default()).await;
        assert_eq!(seen.as_deref(), Some(&b"two"[..]));
    }
    // The next execution is another one.
    let next = Completion::ContinueAsNew {
        input: Payload::null(),
        version: None,
        preserve_events: false,
        new_trace: false,
    };
    let answer = TurnAnswer { completion: Some(next), ..kept(b"three") };
    assert_eq!(step(&client, &mut one, &workers, answer).await.as_deref(), Some(&b"two"[..]));
    let (token, begun) = turn(&mut one).await;
    assert_eq!(begun.keepsake, None);
    workers.complete_turn(&token, completed());
    end_of(&client, "k").await;
    stop(hub).await;
}

/// Stands still on the partition's thread while its gate is closed.
struct GatedClock(Gate);

impl Clock for GatedClock {
    fn now(&self) -> Timestamp {
        if std::thread::current().name().is_some_and(|name| name.starts_with("actix")) {
            self.0.pass();
        }
        SystemClock.now()
    }

    fn on_jump(&self, wake: Box<dyn Fn() + Send + Sync>) -> bool {
        SystemClock.on_jump(wake)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_meets_a_termination_on_its_way_does_not_take_its_place() {
    let gate = Gate::default();
    let (hub, client, workers) = started(hub(1).clock(Arc::new(GatedClock(gate.clone())))).await;
    let mut one = worker(&workers, 1);
    for n in 0..30 {
        let id = format!("met-{n}");
        start(&client, "met", &id).await;
        let (token, _) = turn(&mut one).await;
        fence(&client, &id).await;
        gate.close();
        let terminating = tokio::spawn({
            let (client, id) = (client.clone(), id.clone());
            async move { client.terminate(&id, "enough", false).await }
        });
        // The partition takes the termination; meanwhile the answer comes.
        gate.reached().await;
        workers.complete_turn(&token, TurnAnswer::default());
        gate.open();
        soon("the termination", terminating).await.unwrap().unwrap();
        assert_eq!(end_of(&client, &id).await.status, OrchestrationStatus::Terminated);
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_suspended_instance_is_bounded_as_well() {
    let options = HubOptions { history_events_max: 30, ..HubOptions::default() };
    let (hub, client, workers) = started(hub(1).options(options)).await;
    let mut one = worker(&workers, 1);
    start(&client, "suspended", "s").await;
    let (token, _) = turn(&mut one).await;
    workers.complete_turn(&token, TurnAnswer::default());
    client.suspend("s", "a pause").await.unwrap();
    soon("its end", async { while client.raise_event("s", "go", "on").await.is_ok() {} }).await;
    let failure = end_of(&client, "s").await.failure.unwrap();
    assert_eq!(failure.error_type, kinds::HISTORY_TOO_LONG);
    stop(hub).await;
}

/// A stop that waits for nothing is over at once; one that waits for a worker takes longer than any test.
fn patient() -> HubOptions {
    HubOptions { stop_timeout: Duration::from_secs(3600), ..HubOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_turn_that_was_given_up() {
    let (hub, client, workers) = started(hub(1).options(patient())).await;
    start(&client, "ended", "e").await;
    let mut one = worker(&workers, 1);
    let (given_up, _) = turn(&mut one).await;
    client.terminate("e", "enough", false).await.unwrap();
    assert_eq!(end_of(&client, "e").await.status, OrchestrationStatus::Terminated);
    let (next, stopped) = soon("the stop", async { tokio::join!(one.next(), hub.stop()) }).await;
    assert!(next.is_none());
    stopped.unwrap();
    assert_eq!(workers.complete_turn(&given_up, completed()), Delivered::Stale);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_waits_for_a_turn_learns_that_it_is_given_up() {
    let store = MemoryStore::new(1);
    let (hub, client, workers) = started(hub_on(&store).options(patient())).await;
    let mut one = worker(&workers, 2);
    start(&client, "slow", "s").await;
    let (slow, _) = turn(&mut one).await;
    start(&client, "quick", "q").await;
    let (quick, _) = turn(&mut one).await;
    fence(&client, "q").await;
    let mut stopping = Box::pin(hub.stop());
    let waits = std::future::poll_fn(|task| Poll::Ready(stopping.as_mut().poll(task).is_pending()));
    assert!(waits.await);
    // The partition fails over what becomes of the one turn, and with that gives up the other.
    let error = StoreError::Io { doing: "running a test", problem: "a scripted fault".to_owned() };
    store.fail(Fault { operation: Operation::Append, nth: 1, point: FaultPoint::Before, error });
    assert_eq!(workers.complete_turn(&quick, completed()), Delivered::Taken);
    soon("the stop", stopping).await.unwrap();
    assert_eq!(workers.complete_turn(&slow, completed()), Delivered::Stale);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_was_given_up_takes_a_place_until_its_lease_is_over() {
    let clock = VirtualClock::default();
    let (hub, client, workers) = started(hub(1).clock(Arc::new(clock.clone()))).await;
    start(&client, "ended", "e").await;
    let mut one = worker(&workers, 1);
    let (given_up, _) = turn(&mut one).await;
    client.terminate("e", "enough", false).await.unwrap();
    start(&client, "next", "n").await;
    fence(&client, "n").await;
    assert!(one.try_next().is_none(), "the worker is still busy");
    clock.advance(Duration::from_secs(5 * 60));
    let (token, next) = turn(&mut one).await;
    assert_eq!(next.instance.as_str(), "n");
    assert_eq!(workers.complete_turn(&given_up, completed()), Delivered::Stale);
    client.terminate("n", "enough", false).await.unwrap();
    end_of(&client, "n").await;
    let instance = InstanceId::parse("n").unwrap();
    assert_eq!(workers.token_of_turn(&instance), Some(token));
    drop(one);
    assert_eq!(workers.token_of_turn(&instance), None, "nothing is left of it");
    stop(hub).await;
}
