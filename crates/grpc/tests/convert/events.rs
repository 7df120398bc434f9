//! What SDKs rely on in a history.

use steadfast_core::{
    CarriedEvent, EventKind, ExecutionId, ExecutionStarted, FailureDetails, HistoryEvent, InstanceId,
    OrchestrationStatus, ParentInstance, TraceContext,
};
use steadfast_grpc::convert::{failure_to_wire, history_to_wire, trace_to_wire};
use steadfast_grpc::wire;
use steadfast_grpc::wire::history_event::EventType;
use uuid::Uuid;

use crate::{at, json, whose};

fn out(kinds: Vec<EventKind>) -> Vec<EventType> {
    let events: Vec<_> = kinds.into_iter().map(|kind| HistoryEvent::message(at(0), kind)).collect();
    let written = history_to_wire(&whose().instance, &events);
    written.into_iter().map(|event| event.event_type.unwrap()).collect()
}

fn started() -> ExecutionStarted {
    ExecutionStarted::new("order".into(), "".into(), json(""), whose().execution)
}

#[test]
fn the_end_of_a_turn_is_left_out() {
    let events = out(vec![EventKind::OrchestratorStarted, EventKind::OrchestratorCompleted]);
    assert_eq!(events, [EventType::OrchestratorStarted(wire::OrchestratorStartedEvent {})]);
}

#[test]
fn a_start_names_its_execution_in_32_hexadecimal_digits_and_leaves_out_what_is_not_there() {
    let events = out(vec![EventKind::ExecutionStarted(Box::new(started()))]);
    let [EventType::ExecutionStarted(event)] = &events[..] else { panic!("{events:?}") };
    let own = event.orchestration_instance.as_ref().unwrap();
    assert_eq!(own.instance_id, "order-17");
    assert_eq!(own.execution_id.as_deref(), Some("0123456789abcdef0123456789abcdef"));
    assert_eq!((&event.version, &event.input, &event.parent_instance), (&None, &None, &None));
}

#[test]
fn a_child_is_told_its_parent_s_name_id_execution_and_task() {
    let execution = ExecutionId::new(Uuid::from_u128(9));
    let parent = ParentInstance {
        instance: InstanceId::parse("checkout-3").unwrap(),
        execution,
        task_scheduled_id: 7,
        name: "checkout".into(),
    };
    let child = ExecutionStarted { parent: Some(parent), ..started() };
    let events = out(vec![EventKind::ExecutionStarted(Box::new(child))]);
    let [EventType::ExecutionStarted(event)] = &events[..] else { panic!("{events:?}") };
    let parent = event.parent_instance.as_ref().unwrap();
    assert_eq!((parent.name.as_deref(), parent.task_scheduled_id), (Some("checkout"), 7));
    let instance = parent.orchestration_instance.as_ref().unwrap();
    assert_eq!(instance.instance_id, "checkout-3");
    assert_eq!(instance.execution_id, Some(execution.to_string()));
}

#[test]
fn carried_events_follow_the_start_in_their_order() {
    let carried = |name: &str, second| CarriedEvent {
        name: name.into(),
        input: json("1"),
        timestamp: at(second),
        trace: None,
        versions: None,
    };
    let next = ExecutionStarted { carried_events: vec![carried("b", 2), carried("a", 3)], ..started() };
    let events = out(vec![EventKind::ExecutionStarted(Box::new(next)), EventKind::OrchestratorStarted]);
    let names: Vec<_> = events
        .iter()
        .map(|event| match event {
            EventType::EventRaised(raised) => raised.name.as_str(),
            EventType::ExecutionStarted(_) => "start",
            _ => "other",
        })
        .collect();
    assert_eq!(names, ["start", "b", "a", "other"]);
}

#[test]
fn the_reason_of_a_termination_is_the_result_as_it_was_given_if_it_is_json() {
    for (reason, result) in [("\"bye\"", Some("\"bye\"")), ("bye", Some("\"bye\"")), ("", None)] {
        let status = OrchestrationStatus::Terminated;
        let events = out(vec![
            EventKind::ExecutionTerminated { reason: reason.into(), recurse: true },
            EventKind::ExecutionCompleted { status, output: None, failure: None },
        ]);
        let [EventType::ExecutionTerminated(terminated), EventType::ExecutionCompleted(completed)] =
            &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!((terminated.input.as_deref(), terminated.recurse), (result, true));
        assert_eq!(completed.result.as_deref(), result);
        assert_eq!(completed.orchestration_status(), wire::OrchestrationStatus::Terminated);
    }
}

#[test]
fn a_failure_goes_out_with_its_type_and_message_unchanged() {
    let cause = FailureDetails::new("ValueError", "no such city").non_retriable();
    let mut failure = FailureDetails::new("TaskFailed", "Activity task #1 failed: no such city")
        .caused_by(cause)
        .with_property("attempt", "3")
        .with_property("note", "plain text");
    failure.stack_trace = Some("at main".to_owned());
    let out = failure_to_wire(&failure);
    assert_eq!(
        (out.error_type.as_str(), out.error_message.as_str()),
        ("TaskFailed", "Activity task #1 failed: no such city")
    );
    assert_eq!(out.stack_trace.as_deref(), Some("at main"));
    let inner = out.inner_failure.unwrap();
    assert_eq!((inner.error_type.as_str(), inner.is_non_retriable), ("ValueError", true));
    let kind = |name: &str| out.properties[name].kind.clone().unwrap();
    assert_eq!(kind("attempt"), prost_types::value::Kind::NumberValue(3.0));
    assert_eq!(kind("note"), prost_types::value::Kind::StringValue("plain text".to_owned()));
}

#[test]
fn a_trace_context_has_its_span_in_a_field_of_its_own() {
    let trace = TraceContext {
        parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        state: "".into(),
    };
    let out = trace_to_wire(&trace);
    assert_eq!((out.span_id.as_str(), out.trace_state), ("b7ad6b7169203331", None));
    let odd = trace_to_wire(&TraceContext { parent: "odd".into(), state: "a=b".into() });
    assert_eq!((odd.span_id.as_str(), odd.trace_state.as_deref()), ("", Some("a=b")));
}
