//! What a worker answers to a turn.

use steadfast_core::turn::TurnAnswer;
use steadfast_core::{ActionKind, Completion, Timestamp};
use steadfast_grpc::convert::turn_answer;
use steadfast_grpc::wire;
use steadfast_grpc::wire::history_event::EventType;
use steadfast_grpc::wire::orchestrator_action::OrchestratorActionType as Action;
use steadfast_grpc::wire::send_entity_message_action::EntityMessageType;

use crate::{at, json, whose, wire_at};

fn answer(actions: Vec<(i32, Action)>) -> TurnAnswer {
    let actions = actions
        .into_iter()
        .map(|(id, action)| wire::OrchestratorAction { id, orchestrator_action_type: Some(action) });
    let response = wire::OrchestratorResponse { actions: actions.collect(), ..Default::default() };
    turn_answer(response, &whose()).unwrap()
}

fn complete(status: wire::OrchestrationStatus, result: Option<&str>) -> wire::CompleteOrchestrationAction {
    wire::CompleteOrchestrationAction {
        orchestration_status: status.into(),
        result: result.map(str::to_owned),
        ..Default::default()
    }
}

#[test]
fn the_end_of_an_execution_stands_apart_wherever_it_stood_and_actions_keep_their_order() {
    let timer = |seconds| Action::CreateTimer(wire::CreateTimerAction { fire_at: wire_at(seconds) });
    let end = complete(wire::OrchestrationStatus::Completed, Some("5"));
    let answer = answer(vec![(7, timer(1)), (9, Action::CompleteOrchestration(end)), (8, timer(2))]);
    assert_eq!(answer.completion, Some(Completion::Completed(json("5"))));
    let ids: Vec<_> = answer.actions.iter().map(|action| action.id).collect();
    assert_eq!(ids, [7, 8]);
    assert_eq!(answer.actions[1].kind, ActionKind::CreateTimer { fire_at: at(2) });
}

#[test]
fn a_timer_is_never_due_before_the_moment_that_was_asked_for() {
    let fire_at = Some(prost_types::Timestamp { seconds: 10, nanos: 1_001 });
    let answer = answer(vec![(1, Action::CreateTimer(wire::CreateTimerAction { fire_at }))]);
    let fire_at = Timestamp::from_micros(10_000_002);
    assert_eq!(answer.actions[0].kind, ActionKind::CreateTimer { fire_at });
}

#[test]
fn a_child_without_an_id_gets_one_that_is_derived_from_its_parent_s() {
    let child = |id: &str| {
        Action::CreateSubOrchestration(wire::CreateSubOrchestrationAction {
            instance_id: id.to_owned(),
            name: "child".to_owned(),
            ..Default::default()
        })
    };
    let answer = answer(vec![(31, child("")), (32, child("mine"))]);
    let children: Vec<_> = answer
        .actions
        .iter()
        .map(|action| match &action.kind {
            ActionKind::CreateSubOrchestration(created) => (created.instance.as_str(), created.execution),
            kind => panic!("{kind:?}"),
        })
        .collect();
    let execution = whose().execution;
    assert_eq!(
        children,
        [("order-17:001f", execution.derive("child", 31)), ("mine", execution.derive("child", 32))]
    );
}

#[test]
fn continuing_as_new_takes_along_the_events_that_the_worker_names() {
    let raised = wire::EventRaisedEvent { name: "go".to_owned(), input: Some("1".to_owned()) };
    let carried = wire::HistoryEvent {
        event_id: -1,
        timestamp: wire_at(4),
        event_type: Some(EventType::EventRaised(raised)),
    };
    let next = wire::CompleteOrchestrationAction {
        new_version: Some("2".to_owned()),
        carryover_events: vec![carried],
        ..complete(wire::OrchestrationStatus::ContinuedAsNew, Some("[]"))
    };
    let answer = answer(vec![(1, Action::CompleteOrchestration(next))]);
    let version = Some("2".into());
    let expected =
        Completion::ContinueAsNew { input: json("[]"), version, preserve_events: false, new_trace: false };
    assert_eq!(answer.completion, Some(expected));
    let [event] = &answer.carried_events[..] else { panic!("{answer:?}") };
    assert_eq!((event.name.as_str(), event.input.as_str(), event.timestamp), ("go", "1", at(4)));
}

#[test]
fn failing_without_details_takes_the_text_that_there_is() {
    let failed = wire::CompleteOrchestrationAction {
        details: Some("out of luck".to_owned()),
        ..complete(wire::OrchestrationStatus::Failed, None)
    };
    let answer = answer(vec![(-1, Action::CompleteOrchestration(failed))]);
    let Some(Completion::Failed(failure)) = answer.completion else { panic!("{answer:?}") };
    assert_eq!(failure.message, "out of luck");
}

#[test]
fn locks_are_asked_for_in_one_order_whatever_the_order_of_the_message() {
    let request = wire::EntityLockRequestedEvent {
        critical_section_id: "cs".to_owned(),
        lock_set: ["@b@1", "@A@2", "@b@1"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let message = wire::SendEntityMessageAction {
        entity_message_type: Some(EntityMessageType::EntityLockRequested(request)),
    };
    let answer = answer(vec![(1, Action::SendEntityMessage(message))]);
    let ActionKind::LockEntities(lock) = &answer.actions[0].kind else { panic!("{answer:?}") };
    let ids: Vec<_> = lock.lock_set.iter().map(ToString::to_string).collect();
    assert_eq!(ids, ["@a@2", "@b@1"]);
}

#[test]
fn terminations_and_a_rewound_history_have_places_of_their_own() {
    let terminate = wire::TerminateOrchestrationAction {
        instance_id: "other".to_owned(),
        reason: Some("\"why\"".to_owned()),
        recurse: true,
    };
    let started = wire::HistoryEvent {
        event_id: -1,
        timestamp: wire_at(0),
        event_type: Some(EventType::OrchestratorStarted(wire::OrchestratorStartedEvent {})),
    };
    let rewind = wire::RewindOrchestrationAction { new_history: vec![started.clone(), started] };
    let answer = answer(vec![
        (1, Action::TerminateOrchestration(terminate)),
        (-1, Action::RewindOrchestration(rewind)),
    ]);
    assert!(answer.actions.is_empty());
    let [(instance, reason, true)] = &answer.terminations[..] else { panic!("{answer:?}") };
    assert_eq!((instance.as_str(), reason.as_str()), ("other", "\"why\""));
    // The ends of the turns are put back.
    assert_eq!(answer.rewound.unwrap().len(), 4);
}
