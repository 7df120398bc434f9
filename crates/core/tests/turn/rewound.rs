//! Rewinding: what becomes of children, entities and locks, when it is refused, and histories that were rewritten
//! elsewhere.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use steadfast_core::entity::EntityId;
use steadfast_core::failure::kinds;
use steadfast_core::model::{
    EntityCall, OrchestrationContext, OrchestrationName, Registry, TurnContext, TurnMiddleware,
};
use steadfast_core::turn::{HistoryRoom, RewindRefusal};
use steadfast_core::{
    EventKind, ExecutionId, ExecutionStarted, FailureDetails, HistoryEvent, OrchestrationStatus,
    ParentInstance, TaskMessage, VersionMatch, VersionOptions,
};

use crate::rewind::{STEP, UNDO, executions, two_steps};
use crate::support::{
    Driver, child_done, child_failed, code, done, failed, fired, instance, raised, resumed, rewound,
    scenario, short, started, suspended,
};

const CHILD: OrchestrationName<u32, u32> = OrchestrationName::new("child");

/// The rewinds that the last turn sent, and to whom.
fn rewinds(run: &Driver) -> Vec<(&TaskMessage, &ExecutionStarted)> {
    let mut rewinds = Vec::new();
    for message in &run.last().messages {
        if let EventKind::ExecutionRewound { child: Some(child), .. } = &message.event.kind {
            rewinds.push((message, &**child));
        }
    }
    rewinds
}

fn with_children() -> Registry {
    code(|ctx: OrchestrationContext, (): ()| async move {
        ctx.start_orchestration(CHILD, 9, Some("detached"))?;
        let results = join_all((0..3).map(|n| ctx.call_orchestration(CHILD, n))).await;
        results.into_iter().try_fold(0, |sum, result| Ok(sum + result?))
    })
}

#[test]
fn children_without_a_result_are_rewound_and_detached_ones_are_not() {
    let run = scenario(with_children(), |run| {
        run.start(());
        run.send([child_done(1, 1)]);
        run.send([child_failed(2, FailureDetails::new("Flaky", "down"))]);
        run.send([child_failed(3, FailureDetails::new("Flaky", "down"))]);
        run.rewind().unwrap();
        let execution = run.last().execution.unwrap();
        let first = executions(run)[0];
        let sent = rewinds(run);
        assert_eq!(sent.iter().map(|(_, child)| child.input.as_str()).collect::<Vec<_>>(), ["1", "2"]);
        for (id, (message, child)) in (2..).zip(sent) {
            assert_eq!(message.instance.as_str(), format!("{first}:{id}"), "it keeps its id");
            assert_eq!(message.execution, None);
            let parent = child.parent.as_ref().unwrap();
            assert_eq!((parent.execution, parent.task_scheduled_id), (execution, id));
            assert_ne!(child.execution, first.derive("child", id), "one that is gone is not the same again");
        }
        run.send([child_done(2, 2)]);
        run.send([child_done(3, 3)]);
    });
    assert_eq!(run.output::<u32>(), 6);
}

#[test]
fn a_child_answers_once_whichever_execution_it_answers() {
    let run = scenario(with_children(), |run| {
        run.start(());
        run.send([
            child_done(1, 1),
            child_failed(2, FailureDetails::new("Flaky", "down")),
            child_failed(3, FailureDetails::new("Flaky", "down")),
        ]);
        let (old, new) = (executions(run)[0], run.rewind().unwrap().execution.unwrap());
        // One was under way all the time and answers whom it knows.
        let late = run.message_to(old, child_done(2, 2));
        assert_eq!(run.turn(vec![late]).discarded, 0);
        for (execution, id) in [(new, 2), (old, 2), (old, 1), (new, 1)] {
            let again = run.message_to(execution, child_done(id, 100));
            assert_eq!(run.turn(vec![again]).discarded, 1);
        }
        run.send([child_done(3, 3)]);
    });
    assert_eq!(run.output::<u32>(), 6);
}

fn link(execution: u128) -> ParentInstance {
    ParentInstance {
        instance: steadfast_core::InstanceId::parse("parent").unwrap(),
        execution: ExecutionId::new(uuid::Uuid::from_u128(execution)),
        task_scheduled_id: 4,
        name: "parent".into(),
    }
}

fn child_of(parent: ParentInstance) -> ExecutionStarted {
    let fresh = started("test", ExecutionId::new(uuid::Uuid::from_u128(77)), steadfast_core::Payload::null());
    ExecutionStarted { parent: Some(parent), ..fresh }
}

#[test]
fn a_child_that_its_parent_rewinds_answers_the_new_execution_of_the_parent() {
    let run = scenario(two_steps(), |run| {
        let mut start = run.start_of("test", ());
        if let EventKind::ExecutionStarted(started) = &mut start.event.kind {
            started.parent = Some(link(1));
        }
        run.turn(vec![start]);
        run.send([failed(0, "down")]);
        run.rewind_for(rewound(Some(child_of(link(2)))), &HistoryRoom::UNLIMITED).unwrap();
        run.send([done(0, 1)]);
        run.send([done(1, 2)]);
    });
    let [answer] = &run.last().messages[..] else { panic!("{:?}", run.last().messages) };
    assert_eq!(answer.execution, Some(link(2).execution));
    assert!(matches!(
        answer.event.kind,
        EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id: 4, .. }
    ));
}

#[test]
fn a_rewind_of_a_live_instance_changes_nothing_and_a_stranger_s_parent_is_told() {
    let run = scenario(two_steps(), |run| {
        let mut start = run.start_of("test", ());
        if let EventKind::ExecutionStarted(started) = &mut start.event.kind {
            started.parent = Some(link(1));
        }
        run.turn(vec![start]);
        for kind in [rewound(None), rewound(Some(child_of(link(2))))] {
            let turn = run.send([kind]);
            assert_eq!((turn.discarded, turn.events.len(), turn.messages.len()), (1, 0, 0));
        }
        let other = ParentInstance { task_scheduled_id: 5, ..link(2) };
        let turn = run.send([rewound(Some(child_of(other)))]);
        let [told] = &turn.messages[..] else { panic!("{turn:?}") };
        let EventKind::SubOrchestrationInstanceFailed { failure, .. } = &told.event.kind else { panic!() };
        assert_eq!(failure.error_type, kinds::ALREADY_EXISTS);
        run.send([done(0, 1)]);
        run.send([done(1, 2)]);
    });
    assert_eq!(run.output::<u32>(), 2);
}

fn counter() -> EntityId {
    EntityId::new("counter", "a").unwrap()
}

fn request(event: &HistoryEvent) -> String {
    match &event.kind {
        EventKind::EntityOperationCalled(operation) => operation.request_id.to_string(),
        other => panic!("not a call: {other:?}"),
    }
}

fn answered(request: &str, outcome: Result<u32, &str>) -> EventKind {
    let request_id = request.into();
    match outcome {
        Ok(n) => EventKind::EntityOperationCompleted {
            request_id,
            output: steadfast_core::Payload::encode(&n).unwrap(),
        },
        Err(problem) => EventKind::EntityOperationFailed {
            request_id,
            failure: Box::new(FailureDetails::new("Flaky", problem)),
        },
    }
}

#[test]
fn a_call_of_an_entity_that_failed_is_made_again() {
    let calls = code(|ctx: OrchestrationContext, (): ()| async move {
        let call = |n: u32| ctx.call_entity(EntityCall::<u32>::new(counter(), "add", n));
        let results = join_all([call(1), call(2), call(3)]).await;
        results.into_iter().try_fold(0, |sum, result| Ok(sum + result?))
    });
    let run = scenario(calls, |run| {
        run.start(());
        let requests: Vec<_> = run.last().events[2..5].iter().map(request).collect();
        run.send([answered(&requests[0], Ok(1)), answered(&requests[1], Err("no"))]);
        run.send([answered(&requests[2], Ok(3))]);
        assert_eq!(run.status(), Some(OrchestrationStatus::Failed));
        let execution = run.rewind().unwrap().execution;
        let [again] = &run.last().messages[..] else { panic!("{:?}", run.last().messages) };
        assert_eq!(again.instance, *counter().instance_id());
        let EventKind::EntityOperationCalled(operation) = &again.event.kind else { panic!("{again:?}") };
        assert_eq!(operation.request_id, requests[1], "so that the code knows its answer");
        assert_eq!(operation.caller.as_ref().unwrap().execution, execution);
        run.send([answered(&requests[1], Ok(2))]);
    });
    assert_eq!(run.output::<u32>(), 6);
}

#[test]
fn an_entity_that_has_not_answered_is_called_again() {
    let calls = code(|ctx: OrchestrationContext, (): ()| async move {
        let called = ctx.call_entity(EntityCall::<u32>::new(counter(), "add", 1));
        let result = ctx.call(STEP, 1).await?;
        Ok(result + called.await?)
    });
    let run = scenario(calls, |run| {
        run.start(());
        let request = request(&run.last().events[2]);
        run.send([failed(1, "down")]);
        run.rewind().unwrap();
        assert_eq!(run.last().messages.len(), 1);
        run.send([done(1, 1)]);
        run.send([answered(&request, Ok(5))]);
    });
    assert_eq!(run.output::<u32>(), 6);
}

#[test]
fn an_instance_that_failed_within_a_critical_section_is_not_rewound() {
    let section = |forgotten: bool| {
        code(move |ctx: OrchestrationContext, (): ()| async move {
            let held = ctx.lock_entities([counter()]).await?;
            let result = ctx.call(STEP, 1).await;
            if forgotten {
                std::mem::forget(held);
            }
            Ok(result?)
        })
    };
    for forgotten in [false, true] {
        scenario(section(forgotten), |run| {
            run.start(());
            let EventKind::EntityLockRequested(lock) = &run.last().events[2].kind else { panic!() };
            let critical_section = lock.critical_section.clone();
            run.send([EventKind::EntityLockGranted { critical_section }]);
            run.send([failed(1, "down")]);
            let before = run.history.clone();
            let refusal = run.rewind().unwrap_err();
            assert!(
                matches!(&refusal, RewindRefusal::HeldLocks(held) if held.contains("@counter@a")),
                "{refusal}"
            );
            assert_eq!(run.history, before);
        });
    }
}

#[test]
fn locks_that_were_given_back_before_are_no_obstacle() {
    let orderly = code(|ctx: OrchestrationContext, (): ()| async move {
        ctx.lock_entities([counter()]).await?.release();
        Ok(ctx.call(STEP, 1).await?)
    });
    let run = scenario(orderly, |run| {
        run.start(());
        let EventKind::EntityLockRequested(lock) = &run.last().events[2].kind else { panic!() };
        let critical_section = lock.critical_section.clone();
        run.send([EventKind::EntityLockGranted { critical_section }]);
        run.send([failed(2, "down")]);
        run.rewind().unwrap();
        run.send([done(2, 4)]);
    });
    assert_eq!(run.output::<u32>(), 4);
}

fn failed_run(run: &mut Driver) {
    run.start(());
    run.send([failed(0, "down")]);
}

#[test]
fn code_that_is_gone_or_disagrees_leaves_the_instance_as_it_is() {
    scenario(two_steps(), |run| {
        failed_run(run);
        let before = run.history.clone();
        run.deploy(Registry::default());
        assert!(matches!(run.rewind(), Err(RewindRefusal::NotRegistered(missing)) if missing.name == "test"));
        run.deploy(code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.call(UNDO, 1).await?) }));
        let refusal = run.rewind().unwrap_err();
        assert!(matches!(&refusal, RewindRefusal::Disagrees(error) if error.event_id == 0), "{refusal}");
        let versions = VersionOptions {
            match_strategy: VersionMatch::Strict,
            version: "9".into(),
            ..VersionOptions::default()
        };
        let mut strict = two_steps();
        strict.set_versions(versions);
        run.deploy(strict);
        assert!(matches!(run.rewind(), Err(RewindRefusal::Version(_))));
        assert_eq!(run.history, before);
        run.deploy(two_steps());
        run.rewind().unwrap();
    });
}

#[test]
fn only_failed_executions_are_rewound() {
    scenario(two_steps(), |run| {
        run.start(());
        assert!(matches!(run.rewind(), Err(RewindRefusal::Damaged(_))));
        run.send([done(0, 1)]);
        run.send([done(1, 1)]);
        assert!(matches!(run.rewind(), Err(RewindRefusal::Damaged(_))));
    });
}

#[test]
fn an_execution_that_disagreed_with_its_history_goes_on_when_the_code_is_mended() {
    let run = scenario(two_steps(), |run| {
        run.start(());
        run.deploy(code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.call(UNDO, 1).await?) }));
        run.send([done(0, 5)]);
        assert_eq!(run.failure().error_type, kinds::NON_DETERMINISM);
        run.deploy(two_steps());
        run.rewind().unwrap();
        run.expect([]);
        // It failed before it took the result; so the activity is run again.
        run.send([done(0, 5)]);
        run.expect(["call #1 step 5"]);
        run.send([done(1, 6)]);
    });
    assert_eq!(run.output::<u32>(), 6);
}

#[test]
fn one_that_was_suspended_when_it_failed_is_so_again() {
    let room = HistoryRoom { events: 0, events_max: 12, bytes: 0, bytes_max: u64::MAX };
    let registry = Arc::new(two_steps());
    let mut run = Driver::new(registry, false);
    run.start(());
    run.send([suspended()]);
    // It ends although it is suspended, because its history has become too long.
    let mut session =
        steadfast_core::turn::Session::new(Arc::new(two_steps()), instance(), crate::support::MAX_PAYLOAD);
    session.replay(&run.history).unwrap();
    let room_now = HistoryRoom { events: run.history.len() as u64, ..room };
    let batch = (0..3).map(|n| run.message(raised("noise", n))).collect();
    let turn = session.try_turn(batch, run.now, &room_now).unwrap();
    assert!(turn.ended);
    run.history.extend(turn.events);
    run.rewind().unwrap();
    run.expect([]);
    run.send([done(0, 1)]);
    run.expect([]);
    run.send([resumed()]);
    run.expect(["call #1 step 1"]);
}

#[test]
fn a_history_that_is_too_long_makes_it_fail_again() {
    let run = scenario(two_steps(), |run| {
        run.start(());
        run.send([done(0, 1)]);
        run.send([failed(1, "down")]);
        let room = HistoryRoom { events: 0, events_max: 10, bytes: 0, bytes_max: u64::MAX };
        run.rewind_for(rewound(None), &room).unwrap();
        assert_eq!(run.failure().error_type, kinds::HISTORY_TOO_LONG);
        run.rewind().unwrap();
        run.send([done(1, 2)]);
    });
    assert_eq!(run.output::<u32>(), 2);
}

#[test]
fn the_custom_status_is_what_the_code_said_before_it_failed() {
    let telling = code(|ctx: OrchestrationContext, (): ()| async move {
        ctx.set_custom_status("begun")?;
        ctx.call(STEP, 1).await?;
        ctx.set_custom_status("half")?;
        let result = ctx.call(STEP, 2).await;
        if result.is_err() {
            ctx.set_custom_status("given up")?;
        }
        Ok(result?)
    });
    scenario(telling, |run| {
        run.start(());
        run.send([done(0, 1)]);
        run.send([failed(1, "down")]);
        run.rewind().unwrap();
        assert_eq!(run.last().custom_status.as_ref().unwrap().as_str(), "\"half\"");
    });
}

struct Closed;

impl TurnMiddleware for Closed {
    fn before(&self, _: &mut TurnContext<'_>) -> Result<(), FailureDetails> {
        Err(FailureDetails::new("app::Closed", "not today"))
    }
}

#[test]
fn middleware_that_refuses_the_turn_leaves_the_instance_as_it_is() {
    scenario(two_steps(), |run| {
        failed_run(run);
        let mut closed = two_steps();
        closed.add_turn_middleware(Arc::new(Closed));
        run.deploy(closed);
        let refusal = run.rewind().unwrap_err();
        assert!(
            matches!(&refusal, RewindRefusal::Middleware(failure) if failure.message == "not today"),
            "{refusal}"
        );
    });
}

/// What an orchestrator in another process makes of the history: the activities that failed are gone as well.
fn rewritten(run: &Driver, execution: ExecutionId) -> Vec<HistoryEvent> {
    let kept = run.history.iter().filter(|event| match &event.kind {
        EventKind::TaskScheduled { .. } => event.event_id != 1,
        EventKind::TaskFailed { .. } | EventKind::SubOrchestrationInstanceFailed { .. } => false,
        EventKind::ExecutionCompleted { .. } | EventKind::OrchestratorCompleted => false,
        _ => true,
    });
    let mut events: Vec<_> = kept.cloned().collect();
    if let EventKind::ExecutionStarted(started) = &mut events[1].kind {
        // Such a process knows little of a start.
        started.execution = execution;
        started.tags.clear();
        started.created_at = None;
    }
    events.push(HistoryEvent::message(run.now, EventKind::OrchestratorStarted));
    events.push(HistoryEvent::message(run.now, rewound(None)));
    events
}

#[test]
fn a_history_that_was_rewritten_elsewhere_is_put_in_place() {
    use steadfast_core::turn::rewound_elsewhere;
    let mixed = code(|ctx: OrchestrationContext, (): ()| async move {
        let calls = [ctx.call(STEP, 0), ctx.call(STEP, 1)];
        let (child, timer) = (ctx.call_orchestration(CHILD, 2), ctx.timer(Duration::from_secs(9)));
        let results = join_all(calls).await;
        timer.await;
        results.into_iter().try_fold(child.await?, |sum, result| Ok(sum + result?))
    });
    let mut run = Driver::new(Arc::new(mixed), false);
    let mut start = run.start_of("test", ());
    if let EventKind::ExecutionStarted(started) = &mut start.event.kind {
        started.tags.insert("tenant".into(), "a".into());
    }
    run.turn(vec![start]);
    run.send([done(0, 1), failed(1, "down"), child_failed(2, FailureDetails::new("Flaky", "down"))]);
    run.send([fired(3)]);
    assert_eq!(run.status(), Some(OrchestrationStatus::Failed));
    let (old, new) = (executions(&run)[0], ExecutionId::new(uuid::Uuid::from_u128(500)));
    let message = run.message(rewound(None));
    let turn = rewound_elsewhere(&instance(), &run.history, &message, rewritten(&run, new)).unwrap();

    assert_eq!((turn.execution, turn.ended), (Some(new), false));
    assert_eq!(turn.events.last().unwrap().kind, EventKind::OrchestratorCompleted);
    let EventKind::ExecutionStarted(started) = &turn.events[1].kind else { panic!() };
    assert_eq!((started.execution, started.root_execution()), (new, old));
    assert_eq!(started.tags["tenant"], "a", "what the other process did not know is not lost");
    let kinds: Vec<_> = turn.messages.iter().map(|it| (it.instance.to_string(), short(&it.event))).collect();
    let child = format!("{old}:2");
    let rewound_twice =
        [(child, "ExecutionRewound".to_owned()), (instance().to_string(), "ExecutionRewound".to_owned())];
    assert_eq!(kinds, rewound_twice);
    assert_eq!(turn.messages[1].execution, Some(new), "nobody has run the code yet");
    assert_eq!(turn.new_events().iter().map(short).collect::<Vec<_>>()[1], "ExecutionRewound");

    let refused = |history: Vec<HistoryEvent>| {
        let refusal = rewound_elsewhere(&instance(), &run.history, &message, history).unwrap_err();
        assert!(matches!(refusal, RewindRefusal::Malformed(_)), "{refusal}");
    };
    refused(Vec::new());
    refused(rewritten(&run, old));
    refused(rewritten(&run, new)[1..].iter().skip(1).cloned().collect());
    refused(run.history.clone());
    let mut unfinished = rewritten(&run, new);
    unfinished.pop();
    refused(unfinished);
}
