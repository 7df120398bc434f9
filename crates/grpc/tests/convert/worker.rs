//! A worker's side of the conversations: work comes in as it was handed out, answers go out as they were given, and what the
//! protocol has no words for is refused.

use std::sync::Arc;
use std::time::Duration;

use steadfast_core::entity::{EntityCaller, EntityId, EntityLockRequest, EntityOperation, EntityUnlock};
use steadfast_core::model::{BatchOperation, EntityAction};
use steadfast_core::partition::ActivityTask;
use steadfast_core::turn::{RemoteTurn, TurnAnswer};
use steadfast_core::{
    ActionKind, ActivityId, ActivityOptions, CarriedEvent, Completion, EventKind, ExecutionStarted,
    FailureDetails, HistoryEvent, InstanceId, OrchestratorAction, Predecessor, SubOrchestrationCreated,
    TraceContext,
};
use steadfast_engine::{EntityAnswer, EntityWork};
use steadfast_grpc::convert::{
    Inexpressible, activity_item, activity_outcome, activity_response, entity_answer, entity_item,
    entity_response, received_activity, received_batch, received_turn, turn_answer, turn_item, turn_response,
};
use steadfast_grpc::wire::work_item::Request;

use crate::{at, json, whose};

fn trace() -> TraceContext {
    TraceContext { parent: format!("00-{:032x}-{:016x}-01", 5, 6).into(), state: "a=b".into() }
}

fn entity(key: &str) -> EntityId {
    EntityId::new("counter", key).unwrap()
}

fn operation(target: &str) -> Box<EntityOperation> {
    Box::new(EntityOperation {
        request_id: "request-1".into(),
        operation: "add".into(),
        input: json("5"),
        scheduled_time: Some(at(9)),
        target: Some(entity(target)),
        caller: None,
        trace: None,
    })
}

fn task(options: ActivityOptions) -> ActionKind {
    let options = (options != ActivityOptions::default()).then(|| Box::new(options));
    ActionKind::ScheduleTask { name: "greet".into(), version: "2".into(), input: json("\"x\""), options }
}

fn child(detached: bool) -> ActionKind {
    ActionKind::CreateSubOrchestration(Box::new(SubOrchestrationCreated {
        name: "child".into(),
        version: "1.0".into(),
        instance: InstanceId::parse("order-17-child").unwrap(),
        execution: whose().execution.derive("child", 2),
        input: json("null"),
        detached,
        tags: [("team".into(), "blue".into())].into(),
        trace: Some(Box::new(trace())),
    }))
}

fn answer(kinds: impl IntoIterator<Item = ActionKind>) -> TurnAnswer {
    let actions = (0..).zip(kinds).map(|(id, kind)| OrchestratorAction { id, kind }).collect();
    TurnAnswer { actions, ..TurnAnswer::default() }
}

fn all_kinds() -> Vec<ActionKind> {
    let tagged = ActivityOptions {
        tags: [("kind".into(), "fact".into())].into(),
        trace: Some(trace()),
        ..ActivityOptions::default()
    };
    let request = EntityLockRequest {
        critical_section: "section".into(),
        lock_set: vec![entity("a"), entity("b")],
        position: 0,
        owner: None,
        trace: None,
    };
    let unlock = EntityUnlock {
        critical_section: "section".into(),
        target: Some(entity("a")),
        owner: None,
        then: vec![entity("b"), entity("c")],
    };
    vec![
        task(ActivityOptions::default()),
        task(tagged),
        child(false),
        ActionKind::CreateTimer { fire_at: at(3) },
        ActionKind::SendEvent {
            instance: whose().instance,
            name: "go".into(),
            input: json("[1]"),
            address: None,
        },
        ActionKind::SignalEntity(operation("a")),
        ActionKind::CallEntity(operation("b")),
        ActionKind::LockEntities(Box::new(request)),
        ActionKind::UnlockEntity(Box::new(unlock)),
    ]
}

#[test]
fn every_action_of_an_answer_comes_back_as_it_went_out() {
    let mut given = answer(all_kinds());
    // Its execution follows from its number.
    if let ActionKind::CreateSubOrchestration(created) = &mut given.actions[2].kind {
        created.execution = whose().execution.derive("child", 2);
    }
    given.custom_status = Some(json("\"half way\""));
    given.terminations.push((InstanceId::parse("other").unwrap(), "enough".into(), true));
    let response = turn_response("token-1".to_owned(), &whose(), given.clone()).unwrap();
    assert_eq!(response.completion_token, "token-1");
    assert_eq!(turn_answer(response, &whose()).unwrap(), given);
}

#[test]
fn every_end_of_an_answer_comes_back_as_it_went_out() {
    let failure = FailureDetails::new("app::Broken", "it broke").caused_by(FailureDetails::new("io", "disk"));
    let next = Completion::ContinueAsNew {
        input: json("7"),
        version: Some("3".into()),
        preserve_events: false,
        new_trace: false,
    };
    let carried =
        CarriedEvent { name: "go".into(), input: json("1"), timestamp: at(1), trace: None, versions: None };
    for (completion, carried_events) in [
        (Completion::Completed(json("{}")), Vec::new()),
        (Completion::Failed(Box::new(failure)), Vec::new()),
        (next, vec![carried]),
    ] {
        let given = TurnAnswer {
            completion: Some(completion),
            completion_id: Some(12),
            carried_events,
            ..TurnAnswer::default()
        };
        let response = turn_response(String::new(), &whose(), given.clone()).unwrap();
        assert_eq!(turn_answer(response, &whose()).unwrap(), given);
    }
}

#[test]
fn what_the_protocol_cannot_say_is_refused_and_the_refusal_says_what_to_do() {
    let options = |change: fn(&mut ActivityOptions)| {
        let mut options = ActivityOptions::default();
        change(&mut options);
        answer([task(options)])
    };
    let ends = Completion::ContinueAsNew {
        input: json("1"),
        version: None,
        preserve_events: false,
        new_trace: true,
    };
    let cases = [
        TurnAnswer { patches: vec!["new-way".into()], ..TurnAnswer::default() },
        answer([child(true)]),
        options(|options| options.priority = 1),
        options(|options| options.start_to_close = Some(Duration::from_secs(1))),
        options(|options| options.heartbeat = Some(Duration::from_secs(1))),
        options(|options| options.last_heartbeat = Some(json("1"))),
        TurnAnswer { completion: Some(ends), ..TurnAnswer::default() },
    ];
    for given in cases {
        let error = turn_response(String::new(), &whose(), given.clone()).unwrap_err();
        assert!(error.to_string().contains("use a server that offers"), "{given:?}: {error}");
        assert!(FailureDetails::from(error).non_retriable);
    }
}

#[test]
fn a_turn_comes_in_as_it_was_handed_out() {
    let started = ExecutionStarted {
        generation: 4,
        predecessors: vec![Predecessor { execution: whose().execution.derive("before", 1), kept_below: 0 }],
        ..ExecutionStarted::new("order".into(), "2".into(), json("1"), whose().execution)
    };
    let event = |event_id, kind| HistoryEvent { event_id, timestamp: at(event_id.into()), kind };
    let past = vec![
        event(-1, EventKind::OrchestratorStarted),
        event(-1, EventKind::ExecutionStarted(Box::new(started.clone()))),
        event(0, EventKind::TimerCreated { fire_at: at(5) }),
        event(-1, EventKind::OrchestratorCompleted),
    ];
    let new = vec![
        event(-1, EventKind::OrchestratorStarted),
        event(-1, EventKind::TimerFired { timer_id: 0, fire_at: at(5) }),
    ];
    let turn = RemoteTurn {
        instance: whose().instance,
        started: Arc::new(started),
        past: Arc::new(past.clone()),
        new: new.clone().into(),
        keepsake: None,
    };
    let item = turn_item("token".to_owned(), &turn, usize::MAX);
    let Some(Request::OrchestratorRequest(request)) = item.request else { panic!("a turn") };
    let received = received_turn(request.clone()).unwrap();
    assert_eq!((received.whose, received.past, received.new), (whose(), past, new));
    let empty = steadfast_grpc::wire::OrchestratorRequest { new_events: Vec::new(), ..request };
    assert!(received_turn(empty).unwrap_err().to_string().contains("newEvents"));
}

#[test]
fn a_worker_gets_its_trace_context_again() {
    let context = |span: &str| steadfast_grpc::wire::OrchestrationTraceContext {
        span_id: Some(span.to_owned()),
        span_start_time: Some(prost_types::Timestamp { seconds: 5, nanos: 123_456_789 }),
    };
    let again = |answered| {
        let response = steadfast_grpc::wire::OrchestratorResponse {
            orchestration_trace_context: Some(answered),
            ..Default::default()
        };
        let keepsake = turn_answer(response, &whose()).unwrap().keepsake;
        let started = ExecutionStarted::new("order".into(), "".into(), json("1"), whose().execution);
        let (past, new) = (Arc::default(), Arc::from([]));
        let turn = RemoteTurn { instance: whose().instance, started: Arc::new(started), past, new, keepsake };
        match turn_item("token".to_owned(), &turn, usize::MAX).request {
            Some(Request::OrchestratorRequest(request)) => request.orchestration_trace_context,
            other => panic!("a turn, not {other:?}"),
        }
    };
    assert_eq!(again(context("b7ad6b7169203331")), Some(context("b7ad6b7169203331")));
}

#[test]
fn an_activity_comes_in_as_it_was_handed_out_and_so_does_its_outcome() {
    let options = ActivityOptions {
        tags: [("kind".into(), "fact".into())].into(),
        trace: Some(trace()),
        ..ActivityOptions::default()
    };
    let task = ActivityTask {
        id: ActivityId(0),
        instance: whose().instance,
        execution: whose().execution,
        task_id: 6,
        name: "greet".into(),
        version: "2".into(),
        instance_version: "1.5".into(),
        input: json("\"x\""),
        options: Some(Box::new(options)),
        cancelled: None,
    };
    let Some(Request::ActivityRequest(request)) = activity_item("token".to_owned(), &task).request else {
        panic!("an activity")
    };
    assert_eq!(received_activity(request).unwrap(), task);
    for outcome in [Ok(json("5")), Err(FailureDetails::new("app::Broken", "it broke"))] {
        let response = activity_response("token".to_owned(), &task, &outcome);
        assert_eq!((response.task_id, response.completion_token.as_str()), (6, "token"));
        assert_eq!(activity_outcome(response), outcome);
    }
}

#[test]
fn a_batch_comes_in_as_it_was_handed_out_and_so_does_its_answer() {
    let caller = EntityCaller { instance: whose().instance, execution: Some(whose().execution) };
    let asked = |is_signal: bool| BatchOperation {
        operation: "add".into(),
        input: json("5"),
        request_id: "request-1".into(),
        caller: (!is_signal).then(|| caller.clone()),
        scheduled_time: None,
        trace: None,
        is_signal,
    };
    let work = EntityWork {
        entity: entity("a"),
        state: Some(json("37")),
        operations: vec![asked(true), asked(false)],
        now: at(2),
    };
    let Some(Request::EntityRequestV2(request)) = entity_item("token".to_owned(), &work).request else {
        panic!("a batch")
    };
    assert_eq!(received_batch(request).unwrap(), work);
    let start = |tags| EntityAction::Start {
        trace: None,
        instance: whose().instance,
        name: "order".into(),
        version: "2".into(),
        input: json("1"),
        tags,
        scheduled_start: Some(at(8)),
    };
    let given = EntityAnswer {
        results: vec![Ok(json("42")), Err(FailureDetails::new("app::Broken", "it broke"))],
        actions: vec![start([].into())],
        state: Some(json("42")),
        failure: None,
    };
    let response = entity_response("token".to_owned(), given.clone()).unwrap();
    assert_eq!(entity_answer(response).unwrap(), given);
    let tagged = EntityAnswer { actions: vec![start([("a".into(), "b".into())].into())], ..given };
    let error: Inexpressible = entity_response(String::new(), tagged).unwrap_err();
    assert!(error.to_string().contains("tags"), "{error}");
}
