//! Activities on their way to a worker, and what became of them.

use steadfast_core::partition::ActivityTask;
use steadfast_core::{FailureDetails, Payload};

use super::failure::failure_from_wire;
use super::scalars::{payload, payload_to_wire, tags_to_wire, text_to_wire, trace_to_wire};
use crate::wire;

/// What a worker needs to run an activity.
pub fn activity_request(task: &ActivityTask) -> wire::ActivityRequest {
    let options = task.options.as_deref();
    wire::ActivityRequest {
        name: task.name.to_string(),
        version: text_to_wire(&task.version),
        input: payload_to_wire(&task.input),
        orchestration_instance: Some(wire::OrchestrationInstance {
            instance_id: task.instance.to_string(),
            execution_id: Some(task.execution.to_string()),
        }),
        task_id: task.task_id,
        parent_trace_context: options.and_then(|options| options.trace.as_ref()).map(trace_to_wire),
        tags: options.map(|options| tags_to_wire(&options.tags)).unwrap_or_default(),
        instance_version: text_to_wire(&task.instance_version),
    }
}

/// What became of an activity: it failed if there are details of a failure, whatever they say.
///
/// # Errors
/// The failure, if it failed.
pub fn activity_outcome(response: wire::ActivityResponse) -> Result<Payload, FailureDetails> {
    match response.failure_details {
        Some(failure) => Err(failure_from_wire(failure)),
        None => Ok(payload(response.result)),
    }
}
