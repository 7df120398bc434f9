//! What clients are told of an instance.

use steadfast_core::{ExecutionStarted, FailureDetails, InstanceState, OrchestrationStatus};
use steadfast_grpc::convert::{orchestration_state, status, status_to_wire};
use steadfast_grpc::wire;

use crate::{at, json, whose};

fn state(status: OrchestrationStatus) -> InstanceState {
    let started = ExecutionStarted::new("order".into(), "".into(), json("1"), whose().execution);
    InstanceState { status, ..InstanceState::pending(whose().instance, &started, at(0)) }
}

#[test]
fn every_status_comes_back_the_same() {
    for number in 0..8 {
        assert_eq!(status_to_wire(status(number, "s").unwrap()) as i32, number);
    }
}

#[test]
fn between_two_executions_an_instance_is_running() {
    let out = orchestration_state(&state(OrchestrationStatus::ContinuedAsNew), true);
    assert_eq!(out.orchestration_status(), wire::OrchestrationStatus::Running);
}

#[test]
fn inputs_and_outputs_are_left_out_unless_they_are_asked_for() {
    let mut state = state(OrchestrationStatus::Completed);
    state.output = Some(json("2"));
    state.custom_status = Some(json("\"\""));
    let with = orchestration_state(&state, true);
    assert_eq!((with.input.as_deref(), with.output.as_deref()), (Some("1"), Some("2")));
    let without = orchestration_state(&state, false);
    assert_eq!((without.input, without.output), (None, None));
    assert_eq!(without.custom_status.as_deref(), Some("\"\""));
}

#[test]
fn only_failed_instances_have_failure_details() {
    for status in [OrchestrationStatus::Failed, OrchestrationStatus::Running] {
        let mut state = state(status);
        state.failure = Some(Box::new(FailureDetails::new("E", "m")));
        let out = orchestration_state(&state, false);
        assert_eq!(out.failure_details.is_some(), status == OrchestrationStatus::Failed);
    }
}

#[test]
fn the_reason_of_a_termination_is_the_output() {
    for (reason, output) in [("{\"a\":1}", "{\"a\":1}"), ("enough", "\"enough\"")] {
        let mut state = state(OrchestrationStatus::Terminated);
        state.reason = Some(reason.into());
        assert_eq!(orchestration_state(&state, true).output.as_deref(), Some(output));
    }
}

#[test]
fn what_an_instance_does_not_have_is_absent() {
    let out = orchestration_state(&state(OrchestrationStatus::Pending), true);
    assert_eq!((out.version, out.parent_instance_id, out.custom_status), (None, None, None));
    assert_eq!((out.completed_timestamp, out.scheduled_start_timestamp), (None, None));
    assert_eq!(out.execution_id, Some(whose().execution.to_string()));
}
