//! Statuses, and what is known of an instance without its history.

use std::collections::BTreeMap;

use smol_str::SmolStr;
use steadfast_core::{ExecutionId, InstanceId, InstanceState, OrchestrationStatus, ParentInstance, Payload};
use uuid::Uuid;

use super::error::WireError;
use super::failure::{failure_from_wire, failure_to_wire};
use super::scalars::{
    execution_id, optional_payload, payload, payload_to_wire, reason_to_wire, tags, tags_to_wire, text,
    text_to_wire, timestamp, timestamp_to_wire,
};
use crate::wire;

/// A status.
///
/// # Errors
/// [`WireError::UnknownValue`].
pub fn status(value: i32, field: &'static str) -> Result<OrchestrationStatus, WireError> {
    use wire::OrchestrationStatus as Wire;
    let status = Wire::try_from(value).map_err(|_| WireError::UnknownValue { field, value })?;
    Ok(match status {
        Wire::Running => OrchestrationStatus::Running,
        Wire::Completed => OrchestrationStatus::Completed,
        Wire::ContinuedAsNew => OrchestrationStatus::ContinuedAsNew,
        Wire::Failed => OrchestrationStatus::Failed,
        Wire::Canceled => OrchestrationStatus::Canceled,
        Wire::Terminated => OrchestrationStatus::Terminated,
        Wire::Pending => OrchestrationStatus::Pending,
        Wire::Suspended => OrchestrationStatus::Suspended,
    })
}

/// The statuses that a client names by those that it sees, each once. An instance between two executions is running to
/// clients, so whoever asks for running ones means it too.
///
/// # Errors
/// [`WireError::UnknownValue`].
pub fn statuses(values: &[i32], field: &'static str) -> Result<Vec<OrchestrationStatus>, WireError> {
    let mut statuses = Vec::new();
    for value in values {
        let status = status(*value, field)?;
        if status != OrchestrationStatus::ContinuedAsNew && !statuses.contains(&status) {
            statuses.push(status);
        }
    }
    if statuses.contains(&OrchestrationStatus::Running) {
        statuses.push(OrchestrationStatus::ContinuedAsNew);
    }
    Ok(statuses)
}

/// The status that clients see.
pub fn shown_status(status: OrchestrationStatus) -> OrchestrationStatus {
    match status {
        OrchestrationStatus::ContinuedAsNew => OrchestrationStatus::Running,
        status => status,
    }
}

/// A status on its way out.
pub fn status_to_wire(status: OrchestrationStatus) -> wire::OrchestrationStatus {
    use wire::OrchestrationStatus as Wire;
    match status {
        OrchestrationStatus::Running => Wire::Running,
        OrchestrationStatus::Completed => Wire::Completed,
        OrchestrationStatus::ContinuedAsNew => Wire::ContinuedAsNew,
        OrchestrationStatus::Failed => Wire::Failed,
        OrchestrationStatus::Canceled => Wire::Canceled,
        OrchestrationStatus::Terminated => Wire::Terminated,
        OrchestrationStatus::Pending => Wire::Pending,
        OrchestrationStatus::Suspended => Wire::Suspended,
    }
}

/// What a client is told of an instance; without its input and output if they are not asked for.
///
/// An instance between two executions is running to its clients. One that was terminated has the reason as its output,
/// which is how SDKs give a reason. Failures are only shown of instances that failed, because SDKs take their presence
/// for a failure.
pub fn orchestration_state(state: &InstanceState, inputs_and_outputs: bool) -> wire::OrchestrationState {
    let status = shown_status(state.status);
    let output = match &state.output {
        Some(output) => payload_to_wire(output),
        None if status == OrchestrationStatus::Terminated => state.reason.as_deref().and_then(reason_to_wire),
        None => None,
    };
    let failure = state.failure.as_deref().filter(|_| status == OrchestrationStatus::Failed);
    wire::OrchestrationState {
        instance_id: state.instance.to_string(),
        name: state.name.to_string(),
        version: text_to_wire(&state.version),
        orchestration_status: status_to_wire(status).into(),
        scheduled_start_timestamp: state.scheduled_start.map(timestamp_to_wire),
        created_timestamp: Some(timestamp_to_wire(state.created_at)),
        last_updated_timestamp: Some(timestamp_to_wire(state.updated_at)),
        input: payload_to_wire(&state.input).filter(|_| inputs_and_outputs),
        output: output.filter(|_| inputs_and_outputs),
        custom_status: state.custom_status.as_ref().map(ToString::to_string),
        failure_details: failure.map(failure_to_wire),
        execution_id: Some(state.execution.to_string()),
        completed_timestamp: state.completed_at.map(timestamp_to_wire),
        parent_instance_id: state.parent.as_ref().map(|parent| parent.instance.to_string()),
        tags: tags_to_wire(&state.tags),
    }
}

/// What a server says of an instance. Of its parent the protocol says only the id; the sizes of its history, its generation,
/// its timers and its children are not known.
///
/// # Errors
/// When it cannot be understood.
pub fn received_state(state: wire::OrchestrationState) -> Result<InstanceState, WireError> {
    let time = |at: Option<prost_types::Timestamp>, field| at.map(|at| timestamp(at, field)).transpose();
    let nil = ExecutionId::new(Uuid::nil());
    let created_at = time(state.created_timestamp, "createdTimestamp")?.unwrap_or_default();
    let status = status(state.orchestration_status, "orchestrationStatus")?;
    let mut output = optional_payload(state.output);
    let mut reason = None;
    if status == OrchestrationStatus::Terminated {
        reason = output.take().map(|output| reason_of(&output));
    }
    let parent = state.parent_instance_id.filter(|parent| !parent.is_empty()).map(|parent| {
        let instance = InstanceId::parse(parent)?;
        Ok::<_, WireError>(ParentInstance {
            instance,
            execution: nil,
            task_scheduled_id: steadfast_core::NO_EVENT_ID,
            name: SmolStr::default(),
        })
    });
    Ok(InstanceState {
        instance: InstanceId::parse(state.instance_id)?,
        execution: execution_id(state.execution_id.as_deref(), "executionId")?.unwrap_or(nil),
        name: state.name.into(),
        version: text(state.version),
        status,
        input: payload(state.input),
        output,
        failure: state.failure_details.map(|failure| Box::new(failure_from_wire(failure))),
        reason,
        custom_status: optional_payload(state.custom_status),
        tags: tags(state.tags),
        parent: parent.transpose()?,
        created_at,
        updated_at: time(state.last_updated_timestamp, "lastUpdatedTimestamp")?.unwrap_or(created_at),
        completed_at: time(state.completed_timestamp, "completedTimestamp")?,
        scheduled_start: time(state.scheduled_start_timestamp, "scheduledStartTimestamp")?,
        generation: 0,
        history_events: 0,
        history_bytes: 0,
        open_timers: BTreeMap::new(),
        open_children: BTreeMap::new(),
        entity: None,
        incarnation: 0,
        next_event_id: 0,
        replaces: None,
        requested_locks: None,
        keepsake: None,
    })
}

/// A reason that stands where results do: the text of a JSON string, or the JSON of anything else.
fn reason_of(output: &Payload) -> SmolStr {
    serde_json::from_str::<String>(output.as_str()).map_or_else(|_| output.as_str().into(), SmolStr::from)
}
