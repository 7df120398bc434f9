//! What cannot be understood is refused, with a reason that names the field.

use steadfast_grpc::convert::{
    WireError, entity_id, event_from_wire, execution_id, history_from_wire, new_instance_id, status,
    timestamp, turn_answer,
};
use steadfast_grpc::wire;
use steadfast_grpc::wire::history_event::EventType;
use steadfast_grpc::wire::orchestrator_action::OrchestratorActionType as Action;
use steadfast_grpc::wire::send_entity_message_action::EntityMessageType;

use crate::{whose, wire_at};

fn event(event_type: Option<EventType>) -> wire::HistoryEvent {
    wire::HistoryEvent { event_id: 1, timestamp: wire_at(0), event_type }
}

fn refused_action(action: Option<Action>) -> WireError {
    let action = wire::OrchestratorAction { id: 1, orchestrator_action_type: action };
    let response = wire::OrchestratorResponse { actions: vec![action], ..Default::default() };
    turn_answer(response, &whose()).unwrap_err()
}

fn assert_says(error: &WireError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[test]
fn numbers_that_stand_for_no_status_are_refused() {
    for value in [-1, 8, i32::MAX] {
        let error = status(value, "runtimeStatus").unwrap_err();
        assert_eq!(error, WireError::UnknownValue { field: "runtimeStatus", value });
    }
}

#[test]
fn timestamps_beyond_the_years_1_to_9999_are_refused() {
    let cases = [(-62_135_596_801, 0), (253_402_300_800, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)];
    for (seconds, nanos) in cases {
        let error = timestamp(prost_types::Timestamp { seconds, nanos }, "fireAt").unwrap_err();
        assert_says(&error, &["'fireAt'", "9999"]);
    }
}

#[test]
fn ids_longer_than_100_characters_are_refused_with_their_length() {
    assert!(new_instance_id(&"ü".repeat(100)).unwrap().is_some());
    assert_says(&new_instance_id(&"ü".repeat(101)).unwrap_err(), &["length of 101", "at most 100"]);
    assert_says(&entity_id(&format!("@a@{}", "k".repeat(98))).unwrap_err(), &["length of 101"]);
    assert_eq!(new_instance_id("").unwrap(), None);
    assert_says(&new_instance_id("@a@b").unwrap_err(), &["entities"]);
    assert_says(&entity_id("counter").unwrap_err(), &["@name@key"]);
}

#[test]
fn execution_ids_are_uuids_or_absent() {
    assert_eq!(execution_id(None, "executionId").unwrap(), None);
    assert_eq!(execution_id(Some(""), "executionId").unwrap(), None);
    let text = whose().execution.to_string();
    assert_eq!(execution_id(Some(&text), "executionId").unwrap(), Some(whose().execution));
    assert_says(&execution_id(Some("xyz"), "executionId").unwrap_err(), &["'executionId'", "32"]);
}

#[test]
fn events_without_a_type_a_time_or_their_content_are_refused() {
    let refused = |event| event_from_wire(event, &whose()).unwrap_err();
    assert_says(&refused(event(None)), &["HistoryEvent", "eventType"]);
    let timeless = wire::HistoryEvent {
        timestamp: None,
        ..event(Some(EventType::OrchestratorStarted(wire::OrchestratorStartedEvent {})))
    };
    assert_says(&refused(timeless), &["timestamp"]);
    let created = event(Some(EventType::TimerCreated(wire::TimerCreatedEvent { fire_at: None })));
    assert_says(&refused(created), &["TimerCreatedEvent", "fireAt"]);
    let failed = wire::TaskFailedEvent { task_scheduled_id: 1, failure_details: None };
    assert_says(&refused(event(Some(EventType::TaskFailed(failed)))), &["failureDetails"]);
    let state = wire::HistoryStateEvent { orchestration_state: None };
    assert_says(&refused(event(Some(EventType::HistoryState(state)))), &["HistoryState"]);
    let child = wire::SubOrchestrationInstanceCreatedEvent::default();
    assert_says(&refused(event(Some(EventType::SubOrchestrationInstanceCreated(child)))), &["empty"]);
    assert!(history_from_wire(vec![event(None)], &whose()).is_err());
}

#[test]
fn actions_without_a_type_or_their_content_are_refused() {
    assert_says(&refused_action(None), &["OrchestratorAction", "orchestratorActionType"]);
    let task = wire::ScheduleTaskAction::default();
    assert_says(&refused_action(Some(Action::ScheduleTask(task))), &["ScheduleTaskAction", "name"]);
    let timer = wire::CreateTimerAction { fire_at: None };
    assert_says(&refused_action(Some(Action::CreateTimer(timer))), &["fireAt"]);
    let event = wire::SendEventAction::default();
    assert_says(&refused_action(Some(Action::SendEvent(event))), &["SendEventAction", "instance"]);
    let nothing = wire::SendEntityMessageAction { entity_message_type: None };
    assert_says(&refused_action(Some(Action::SendEntityMessage(nothing))), &["EntityMessageType"]);
    for status in [wire::OrchestrationStatus::Running, wire::OrchestrationStatus::Canceled] {
        let orchestration_status = status.into();
        let end = wire::CompleteOrchestrationAction { orchestration_status, ..Default::default() };
        assert_says(&refused_action(Some(Action::CompleteOrchestration(end))), &["completion"]);
    }
    let end = wire::CompleteOrchestrationAction { orchestration_status: 77, ..Default::default() };
    assert_says(&refused_action(Some(Action::CompleteOrchestration(end))), &["77", "orchestrationStatus"]);
}

#[test]
fn messages_to_entities_name_the_entity_the_call_and_the_locks() {
    let refused = |message| {
        let entity_message_type = Some(message);
        refused_action(Some(Action::SendEntityMessage(wire::SendEntityMessageAction { entity_message_type })))
    };
    let call = |request_id: &str, target: Option<&str>| {
        EntityMessageType::EntityOperationCalled(wire::EntityOperationCalledEvent {
            request_id: request_id.to_owned(),
            target_instance_id: target.map(str::to_owned),
            ..Default::default()
        })
    };
    assert_says(&refused(call("r", None)), &["targetInstanceId"]);
    assert_says(&refused(call("", Some("@a@b"))), &["requestId"]);
    assert_says(&refused(call("r", Some("a"))), &["@name@key"]);
    let none = wire::EntityLockRequestedEvent::default();
    assert_says(&refused(EntityMessageType::EntityLockRequested(none)), &["lockSet"]);
}

#[test]
fn two_ends_of_one_execution_are_refused() {
    let end = || {
        let complete = wire::CompleteOrchestrationAction {
            orchestration_status: wire::OrchestrationStatus::Completed.into(),
            ..Default::default()
        };
        let action = Some(Action::CompleteOrchestration(complete));
        wire::OrchestratorAction { id: 1, orchestrator_action_type: action }
    };
    let response = wire::OrchestratorResponse { actions: vec![end(), end()], ..Default::default() };
    assert_says(&turn_answer(response, &whose()).unwrap_err(), &["second completion"]);
}
