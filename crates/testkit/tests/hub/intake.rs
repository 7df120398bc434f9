//! What a partition answers, step by step, where the order of two small things matters.

use std::sync::Arc;

use steadfast_core::model::{OrchestrationContext, Register, Registry, orchestration};
use steadfast_core::partition::{
    Accepted, Effect, Overlay, OverlayCursor, ParkReason, Partition, PartitionOptions, Rejection, Token, Work,
};
use steadfast_core::turn::{Session, Turn};
use steadfast_core::{
    EventKind, ExecutionId, ExecutionStarted, HistoryEvent, IdReuse, InstanceFilter, InstanceId,
    InstanceState, OnExisting, OrchestrationStatus, Origin, ParentInstance, PartitionId, Payload,
    TaskMessage, Timestamp,
};
use steadfast_store::{LogRecord, MemoryStore, Store, bridge};

const HERE: PartitionId = PartitionId(0);
const THERE: PartitionId = PartitionId(1);

fn partition() -> Partition {
    bridge::recover_partition(&MemoryStore::new(2), PartitionOptions::new(HERE, 2)).unwrap()
}

/// An id that belongs to the partition under test.
fn instance() -> InstanceId {
    instances().next().unwrap()
}

fn instances() -> impl Iterator<Item = InstanceId> {
    let ids = (0..).map(|n| InstanceId::from_trusted(format!("instance-{n}")));
    ids.filter(|id| id.partition(2) == HERE)
}

fn message(kind: EventKind, origin: Origin) -> TaskMessage {
    let event = HistoryEvent::message(Timestamp::from_micros(1), kind);
    TaskMessage { instance: instance(), execution: None, event, origin }
}

fn start(execution: u128) -> EventKind {
    let execution = ExecutionId::new(uuid::Uuid::from_u128(execution));
    let started = ExecutionStarted::new("any".into(), "".into(), Payload::null(), execution);
    EventKind::ExecutionStarted(Box::new(started))
}

fn raise() -> EventKind {
    EventKind::EventRaised { name: "event".into(), input: Payload::null(), trace: None }
}

fn replies(partition: &mut Partition) -> Vec<(Token, Result<Accepted, Rejection>)> {
    let reply = |effect| match effect {
        Effect::Reply(token, answer) => Some((token, answer)),
        _ => None,
    };
    partition.commit().effects.into_iter().filter_map(reply).collect()
}

fn acknowledged(partition: &mut Partition) -> Vec<u64> {
    let acknowledged = |effect| match effect {
        Effect::Acknowledge(THERE, upto) => Some(upto),
        _ => None,
    };
    partition.commit().effects.into_iter().filter_map(acknowledged).collect()
}

#[test]
fn an_answer_waits_until_the_record_is_durable() {
    let mut partition = partition();
    partition.submit(Token(1), message(start(1), Origin::Client), true);
    let record = partition.commit().record.unwrap();
    assert!(replies(&mut partition).is_empty());
    partition.on_durable(record.position);
    assert_eq!(replies(&mut partition), [(Token(1), Ok(Accepted::Message))]);
}

#[test]
fn a_read_waits_until_what_it_shows_is_durable() {
    let mut partition = partition();
    partition.submit(Token(1), message(start(1), Origin::Client), true);
    let record = partition.commit().record.unwrap();
    assert!(partition.read_state(Token(2), &instance()));
    assert!(partition.read_history(Token(3), &instance()).is_some());
    let (filter, mut overlay) = (InstanceFilter::default(), Overlay::default());
    let next = partition.read_overlay(Token(4), &filter, None, OverlayCursor::default(), &mut overlay);
    overlay.complete();
    assert_eq!((next, overlay.first(&filter, None, 10).len()), (None, 1));
    assert!(partition.commit().effects.is_empty());
    partition.on_durable(record.position);
    let effects: Vec<_> = partition.commit().effects.into_iter().skip(1).collect();
    let [Effect::State(Token(2), Some(state)), Effect::Release(Token(3)), Effect::Release(Token(4))] =
        &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(state.status, OrchestrationStatus::Pending);
}

#[test]
fn all_calls_that_wait_for_one_look_up_are_answered() {
    let mut partition = partition();
    partition.submit(Token(1), message(raise(), Origin::Client), false);
    partition.submit(Token(2), message(raise(), Origin::Client), false);
    partition.purge(Token(3), &instance());
    assert!(matches!(partition.next_work(), Some(Work::Load(_))));
    partition.on_loaded(&instance(), None);
    let not_found = |token| (Token(token), Err(Rejection::NotFound));
    assert_eq!(replies(&mut partition), [not_found(1), not_found(2), not_found(3)]);
    assert!(partition.is_settled());
    assert_eq!(partition.counts().entries, 0);
}

#[test]
fn calls_while_the_first_turn_runs_see_a_living_instance() {
    let mut partition = partition();
    partition.submit(Token(1), message(start(1), Origin::Client), true);
    assert!(matches!(partition.next_work(), Some(Work::Turn(_))));
    partition.submit(Token(2), message(start(2), Origin::Client), false);
    partition.submit(Token(3), message(raise(), Origin::Client), false);
    partition.purge(Token(4), &instance());
    let pending = OrchestrationStatus::Pending;
    let refused =
        [(Token(2), Err(Rejection::AlreadyExists(pending))), (Token(4), Err(Rejection::NotEnded(pending)))];
    assert_eq!(replies(&mut partition), refused);
}

#[test]
fn a_start_that_is_in_a_record_comes_before_one_that_waits_for_the_look_up() {
    let mut partition = partition();
    partition.submit(Token(1), message(start(1), Origin::Client), false);
    partition.receive(message(start(2), Origin::Remote { source: THERE, sequence: 1 }));
    let record =
        partition.commit().record.expect("what came from another partition needs no look-up to be accepted");
    partition.on_durable(record.position);
    assert!(matches!(partition.next_work(), Some(Work::Load(_))));
    partition.on_loaded(&instance(), None);
    let refused = Err(Rejection::AlreadyExists(OrchestrationStatus::Pending));
    assert_eq!(replies(&mut partition), [(Token(1), refused)]);
}

#[test]
fn a_duplicate_is_acknowledged_again_once_the_first_is_durable() {
    let mut partition = partition();
    let first = message(start(1), Origin::Remote { source: THERE, sequence: 1 });
    partition.receive(first.clone());
    let record = partition.commit().record.unwrap();
    partition.receive(first.clone());
    assert!(acknowledged(&mut partition).is_empty(), "it is not durable yet");
    partition.on_durable(record.position);
    assert_eq!(acknowledged(&mut partition), [1, 1]);
    partition.receive(first);
    assert_eq!(acknowledged(&mut partition), [1]);
}

#[test]
fn a_message_before_its_predecessors_is_not_taken() {
    let mut partition = partition();
    partition.receive(message(start(1), Origin::Remote { source: THERE, sequence: 2 }));
    assert_eq!(acknowledged(&mut partition), [0]);
    assert_eq!(partition.counts().entries, 0);
}

/// Runs the turn that the partition hands out next, with no code registered.
fn take_turn(partition: &mut Partition) -> (InstanceId, Turn) {
    let Some(Work::Turn(request)) = partition.next_work() else { panic!("there is a turn to run") };
    let mut session = Session::new(Arc::default(), request.instance.clone(), 1000);
    (request.instance, session.turn(request.batch, request.now))
}

/// What holds a start back must not outlive it, also when a message overtakes the turn that consumes the start.
#[test]
fn a_recovered_instance_is_not_held_by_a_start_that_was_consumed() {
    let store = MemoryStore::new(2);
    let mut partition = partition();
    let (sender, held) = (instance(), instances().nth(1).unwrap());
    let EventKind::ExecutionStarted(mut later) = start(2) else { unreachable!("it is a start") };
    later.scheduled_start = Some(Timestamp::from_micros(3_600_000_000));
    let to_held = |kind| TaskMessage { instance: held.clone(), ..message(kind, Origin::Client) };
    partition.submit(Token(1), message(start(1), Origin::Client), true);
    partition.submit(Token(2), to_held(EventKind::ExecutionStarted(later)), true);
    let first = partition.commit().record.unwrap();
    partition.on_durable(first.position);
    let terminated = EventKind::ExecutionTerminated { reason: "test".into(), recurse: false };
    partition.submit(Token(3), to_held(terminated), false);
    let (one, mut sends) = take_turn(&mut partition);
    let (other, terminates) = take_turn(&mut partition);
    assert_eq!((&one, &other), (&sender, &held));
    sends.messages.push(TaskMessage { origin: Origin::Local, ..to_held(raise()) });
    partition.on_turn(&sender, sends);
    partition.on_turn(&held, terminates);
    let second = partition.commit().record.unwrap();
    let records = [first, second].map(|record| LogRecord {
        partition: HERE,
        position: record.position,
        bytes: record.bytes,
    });
    store.append(&records).unwrap();

    let mut recovered = bridge::recover_partition(&store, PartitionOptions::new(HERE, 2)).unwrap();
    let (instance, turn) = take_turn(&mut recovered);
    assert_eq!(
        (&instance, turn.discarded),
        (&held, 1),
        "the message that came too late is discarded at once"
    );
}

fn running(partition: &mut Partition) {
    let request = loop {
        match partition.next_work().expect("there is a turn to run") {
            Work::Turn(request) => break request,
            Work::Evict(_) => {}
            other => panic!("{other:?}"),
        }
    };
    let mut registry = Registry::default();
    let waits = |ctx: OrchestrationContext, (): ()| async move { ctx.wait_for_event::<()>("go").await };
    orchestration("any", waits).register(&mut registry).unwrap();
    let mut session = Session::new(Arc::new(registry), request.instance.clone(), 1000);
    partition.on_turn(&request.instance, session.turn(request.batch, request.now));
}

/// Seals the open record and makes it durable; what it lets out.
fn durable(partition: &mut Partition) -> Vec<Effect> {
    let mut commit = partition.commit();
    let record = commit.record.expect("there is something to write");
    partition.on_durable(record.position);
    commit.effects.extend(partition.commit().effects);
    commit.effects
}

fn state_of(partition: &mut Partition) -> Arc<InstanceState> {
    assert!(partition.read_state(Token(99), &instance()));
    let state = partition.commit().effects.into_iter().find_map(|effect| match effect {
        Effect::State(_, state) => state,
        _ => None,
    });
    state.expect("it exists and is durable")
}

#[test]
fn a_live_instance_is_replaced_in_one_record_and_its_end_and_the_new_one_are_never_seen_apart() {
    let mut partition = partition();
    partition.submit(Token(1), message(start(1), Origin::Client), true);
    running(&mut partition);
    durable(&mut partition);
    let replace = IdReuse::default().on_live(OnExisting::Replace);
    partition.submit(Token(2), message(raise(), Origin::Client), false);
    partition.submit_start(Token(3), message(start(2), Origin::Client), false, replace);
    let effects = durable(&mut partition);
    let ended = effects.iter().any(|effect| {
        matches!(effect, Effect::Ended(_, Some(state)) if state.status == OrchestrationStatus::Terminated)
    });
    assert!(ended, "{effects:?}");
    let state = state_of(&mut partition);
    assert_eq!((state.status, state.incarnation), (OrchestrationStatus::Pending, 1));
    assert_eq!(state.execution, ExecutionId::new(uuid::Uuid::from_u128(2)));
    running(&mut partition);
    durable(&mut partition);
    let state = state_of(&mut partition);
    // The event that was sent to the old one is not the new one's.
    assert_eq!((state.status, state.incarnation, state.history_events), (OrchestrationStatus::Running, 1, 3));
}

#[test]
fn a_replacement_waits_for_the_turn_under_way_and_a_pending_instance_is_replaced_too() {
    let replace = IdReuse::default().on_live(OnExisting::Replace);
    let mut partition = partition();
    partition.submit(Token(1), message(start(1), Origin::Client), true);
    let Some(Work::Turn(request)) = partition.next_work() else { panic!("there is a turn to run") };
    partition.submit_start(Token(2), message(start(2), Origin::Client), false, replace);
    assert!(replies(&mut partition).is_empty());
    let mut session = Session::new(Arc::default(), request.instance.clone(), 1000);
    partition.on_turn(&request.instance, session.turn(request.batch, request.now));
    durable(&mut partition);
    // Not begun yet, and replaced again.
    partition.submit_start(Token(3), message(start(3), Origin::Client), false, replace);
    let effects = durable(&mut partition);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Reply(Token(3), Ok(Accepted::Message)))));
    let state = state_of(&mut partition);
    assert_eq!(state.execution, ExecutionId::new(uuid::Uuid::from_u128(3)));
    assert_eq!((state.status, state.incarnation), (OrchestrationStatus::Pending, 2));
}

#[test]
fn a_start_that_ignores_an_existing_instance_is_answered_when_that_one_is_durable() {
    let mut partition = partition();
    partition.submit(Token(1), message(start(1), Origin::Client), true);
    let ignore = IdReuse::default().on_live(OnExisting::Ignore);
    partition.submit_start(Token(2), message(start(2), Origin::Client), false, ignore);
    let mut commit = partition.commit();
    assert!(commit.effects.is_empty());
    partition.on_durable(commit.record.take().unwrap().position);
    let expected = [(Token(1), Ok(Accepted::Message)), (Token(2), Ok(Accepted::Existing))];
    assert_eq!(replies(&mut partition), expected);
}

#[test]
fn a_parked_instance_obeys_a_termination_at_once_and_whoever_awaits_it_is_told() {
    let parent = InstanceId::from_trusted("the-parent");
    let mut partition = partition();
    let EventKind::ExecutionStarted(mut started) = start(1) else { unreachable!("it is a start") };
    started.parent = Some(ParentInstance {
        instance: parent.clone(),
        execution: ExecutionId::new(uuid::Uuid::from_u128(9)),
        task_scheduled_id: 4,
        name: "parent".into(),
    });
    partition.submit(Token(1), message(EventKind::ExecutionStarted(started), Origin::Client), true);
    running(&mut partition);
    durable(&mut partition);
    partition.submit(Token(2), message(raise(), Origin::Client), false);
    let Some(Work::Turn(request)) = partition.next_work() else { panic!("there is a turn to run") };
    let reason = ParkReason::NotRegistered { name: "any".into(), version: "".into() };
    partition.on_parked(&request.instance, request.batch, reason);
    assert!(!matches!(partition.next_work(), Some(Work::Turn(_))));
    let terminated = EventKind::ExecutionTerminated { reason: "gone".into(), recurse: true };
    partition.submit(Token(3), message(terminated, Origin::Client), false);
    assert!(!matches!(partition.next_work(), Some(Work::Turn(_))), "no code is needed for that");
    let effects = durable(&mut partition);
    let told = effects.iter().any(|effect| match effect {
        Effect::Send(_, message) => message.instance == parent,
        _ => false,
    });
    assert!(told || parent.partition(2) == HERE, "{effects:?}");
    let state = state_of(&mut partition);
    assert_eq!((state.status, state.reason.as_deref()), (OrchestrationStatus::Terminated, Some("gone")));
    // The id is free again.
    partition.submit(Token(4), message(start(2), Origin::Client), false);
    running(&mut partition);
    durable(&mut partition);
    assert_eq!(state_of(&mut partition).status, OrchestrationStatus::Running);
}

#[test]
fn the_same_start_again_is_not_another_instance() {
    let replace = IdReuse::default().on_live(OnExisting::Replace);
    let mut partition = partition();
    partition.submit_start(Token(1), message(start(1), Origin::Client), true, replace);
    partition.submit_start(Token(2), message(start(1), Origin::Client), false, replace);
    let effects = durable(&mut partition);
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Reply(_, Ok(_)))).count(), 2);
    running(&mut partition);
    durable(&mut partition);
    partition.submit_start(Token(3), message(start(1), Origin::Client), false, replace);
    assert_eq!(replies(&mut partition), [(Token(3), Ok(Accepted::Existing))]);
    assert_eq!(state_of(&mut partition).incarnation, 0);
}

fn suspend() -> EventKind {
    EventKind::ExecutionSuspended { reason: "lunch".into() }
}

/// What a query for suspended instances finds in memory, and how many there are by the counts.
fn suspended(partition: &mut Partition) -> (usize, u64) {
    let filter =
        InstanceFilter { statuses: vec![OrchestrationStatus::Suspended], ..InstanceFilter::default() };
    let mut overlay = Overlay::default();
    partition.read_overlay(Token(97), &filter, None, OverlayCursor::default(), &mut overlay);
    overlay.complete();
    let counts = partition.read_counts(Token(98)).unwrap();
    partition.commit();
    (overlay.first(&filter, None, 10).len(), counts.of(OrchestrationStatus::Suspended))
}

#[test]
fn a_suspension_shows_from_its_acceptance_on_while_a_turn_holds_it_and_after_a_recovery() {
    let mut partition = partition();
    let store = MemoryStore::new(2);
    let log = |commit: steadfast_core::partition::Commit, partition: &mut Partition| {
        let record = commit.record.unwrap();
        let bytes = record.bytes.clone();
        store.append(&[LogRecord { partition: HERE, position: record.position, bytes }]).unwrap();
        partition.on_durable(record.position);
        partition.commit();
    };
    partition.submit(Token(1), message(start(1), Origin::Client), true);
    running(&mut partition);
    let commit = partition.commit();
    log(commit, &mut partition);
    partition.submit(Token(2), message(suspend(), Origin::Client), false);
    let commit = partition.commit();
    // Whoever reads it meanwhile is not told before it is durable.
    assert!(partition.read_state(Token(3), &instance()));
    assert!(partition.commit().effects.is_empty());
    log(commit, &mut partition);
    let state = state_of(&mut partition);
    assert_eq!((state.status, state.reason.as_deref()), (OrchestrationStatus::Suspended, Some("lunch")));
    assert_eq!(suspended(&mut partition), (1, 1));
    let mut again = bridge::recover_partition(&store, PartitionOptions::new(HERE, 2)).unwrap();
    again.commit();
    assert_eq!(state_of(&mut again).status, OrchestrationStatus::Suspended);
    assert_eq!(suspended(&mut again), (1, 1));
    // A turn has taken it, and does not answer.
    let Some(Work::Turn(request)) = partition.next_work() else { panic!("there is a turn to run") };
    assert_eq!(state_of(&mut partition).status, OrchestrationStatus::Suspended);
    let resumed = EventKind::ExecutionResumed { reason: "".into() };
    partition.submit(Token(4), message(resumed, Origin::Client), false);
    drop(request);
    assert_eq!(suspended(&mut partition), (0, 0), "the resumption counts, which came last");
}

#[test]
fn a_suspension_of_what_is_suspended_and_a_resumption_of_what_is_not_are_no_messages() {
    let mut partition = partition();
    let resume = || EventKind::ExecutionResumed { reason: "".into() };
    let mut submit = |token, kind: EventKind| {
        partition.submit(Token(token), message(kind, Origin::Client), token == 1);
        if token == 1 {
            running(&mut partition);
        }
        let mut commit = partition.commit();
        if let Some(record) = &commit.record {
            partition.on_durable(record.position);
            commit = partition.commit();
        }
        let answered = commit.effects.into_iter().find_map(|effect| match effect {
            Effect::Reply(to, Ok(accepted)) if to == Token(token) => Some(accepted),
            _ => None,
        });
        answered.expect("it is answered")
    };
    assert_eq!(submit(1, start(1)), Accepted::Message);
    assert_eq!(submit(2, resume()), Accepted::Existing);
    assert_eq!(submit(3, suspend()), Accepted::Message);
    assert_eq!(submit(4, suspend()), Accepted::Existing);
    assert_eq!(submit(5, resume()), Accepted::Message);
    assert_eq!(submit(6, resume()), Accepted::Existing);
    assert_eq!(submit(7, suspend()), Accepted::Message);
}

#[test]
fn an_end_by_force_needs_no_code_waits_for_the_turn_under_way_and_is_told_when_it_is_durable() {
    let mut partition = partition();
    partition.end(Token(1), &instance(), "enough".into());
    assert!(matches!(partition.next_work(), Some(Work::Load(_))));
    partition.on_loaded(&instance(), None);
    assert_eq!(replies(&mut partition), [(Token(1), Err(Rejection::NotFound))]);
    partition.submit(Token(2), message(start(1), Origin::Client), true);
    let Some(Work::Turn(request)) = partition.next_work() else { panic!("there is a turn to run") };
    partition.end(Token(3), &instance(), "enough".into());
    partition.end(Token(4), &instance(), "enough".into());
    assert!(!partition.is_settled());
    let reason = ParkReason::NotRegistered { name: "any".into(), version: "".into() };
    partition.on_parked(&request.instance, request.batch, reason);
    let mut commit = partition.commit();
    assert!(!commit.effects.iter().any(|effect| matches!(effect, Effect::Reply(..))));
    partition.on_durable(commit.record.take().unwrap().position);
    let ended = Err(Rejection::Ended(OrchestrationStatus::Terminated));
    let accepted = |token| (Token(token), Ok(Accepted::Message));
    assert_eq!(replies(&mut partition), [accepted(2), accepted(3), (Token(4), ended)]);
    let state = state_of(&mut partition);
    assert_eq!((state.status, state.reason.as_deref()), (OrchestrationStatus::Terminated, Some("enough")));
    while let Some(work) = partition.next_work() {
        assert!(matches!(work, Work::Evict(_)), "{work:?}");
    }
    assert!(partition.is_settled());
}

#[test]
fn an_instance_does_not_show_as_suspended_while_a_turn_goes_on_that_knows_nothing_of_it() {
    let mut partition = partition();
    partition.submit(Token(1), message(start(1), Origin::Client), true);
    durable(&mut partition);
    let Some(Work::Turn(request)) = partition.next_work() else { panic!("there is a turn to run") };
    partition.submit(Token(2), message(suspend(), Origin::Client), false);
    assert_eq!(suspended(&mut partition), (0, 0));
    let mut registry = Registry::default();
    let waits = |ctx: OrchestrationContext, (): ()| async move { ctx.wait_for_event::<()>("go").await };
    orchestration("any", waits).register(&mut registry).unwrap();
    let mut session = Session::new(Arc::new(registry), request.instance.clone(), 1000);
    partition.on_turn(&request.instance, session.turn(request.batch, request.now));
    assert_eq!(suspended(&mut partition), (1, 1));
}
