//! Starting instances.

use std::collections::BTreeMap;

use steadfast_core::{InstanceState, OrchestrationStatus, Timestamp};
use steadfast_engine::{ClientError, StartOptions};
use tonic::Status;

use super::TaskHubService;
use super::refuse::refused;
use crate::convert::{new_instance_id, payload, statuses, timestamp, trace};
use crate::wire;

/// SDKs show this text to their users.
const INVALID_REUSE: &str =
    "Invalid reusable statuses: cannot exclude 'Terminated' while also allowing reuse of running instances";

/// Statuses of instances that have not ended.
const LIVE: [OrchestrationStatus; 3] =
    [OrchestrationStatus::Running, OrchestrationStatus::Pending, OrchestrationStatus::Suspended];

impl TaskHubService {
    pub(super) async fn start(
        &self,
        request: wire::CreateInstanceRequest,
    ) -> Result<wire::CreateInstanceResponse, Status> {
        let instance = new_instance_id(&request.instance_id)?;
        if request.name.is_empty() {
            return Err(Status::invalid_argument("the orchestration's name is missing"));
        }
        let replaceable = match request.orchestration_id_reuse_policy {
            Some(policy) => statuses(&policy.replaceable_status, "replaceableStatus")?,
            None => Vec::new(),
        };
        let reuses_live = LIVE.iter().any(|live| replaceable.contains(live));
        if reuses_live && !replaceable.contains(&OrchestrationStatus::Terminated) {
            return Err(Status::invalid_argument(INVALID_REUSE));
        }
        let start_at = request
            .scheduled_start_timestamp
            .map(|at| timestamp(at, "scheduledStartTimestamp"))
            .transpose()?;
        if let Some(instance) = &instance {
            self.make_room(instance.as_str(), &replaceable).await?;
        }
        let options = StartOptions {
            instance_id: instance.map(|instance| instance.to_string()),
            version: request.version.filter(|version| !version.is_empty()),
            scheduled_start: self.later(start_at),
            ..StartOptions::default()
        };
        let options = StartOptions { tags: request.tags.into_iter().collect(), ..options };
        let trace = trace(request.parent_trace_context);
        let started = self.client.raw().start(request.name, payload(request.input), trace, options).await;
        let started = started.map_err(refused)?;
        Ok(wire::CreateInstanceResponse {
            instance_id: started.instance.to_string(),
            version: started.version.to_string(),
        })
    }

    /// A moment that has passed means "now"; some SDKs always send 1970.
    pub(super) fn later(&self, at: Option<Timestamp>) -> Option<Timestamp> {
        at.filter(|at| *at > self.client.raw().now())
    }

    /// Makes the id free for a new instance if the one that has it may be replaced; one that has not ended is
    /// terminated.
    async fn make_room(&self, instance: &str, replaceable: &[OrchestrationStatus]) -> Result<(), Status> {
        let state = match self.client.state(instance).await {
            Ok(state) => state,
            Err(ClientError::InstanceNotFound { .. }) => return Ok(()),
            Err(error) => return Err(refused(error)),
        };
        if !replaceable.contains(&shown(&state)) {
            let status = state.status;
            return Err(refused(ClientError::AlreadyExists { id: state.instance, status }));
        }
        if state.status.is_terminal() {
            return Ok(());
        }
        match self.client.terminate(instance, "replaced by a new instance", true).await {
            Ok(()) | Err(ClientError::NotRunning { .. } | ClientError::InstanceNotFound { .. }) => {}
            Err(error) => return Err(refused(error)),
        }
        match self.client.wait_for_completion(instance, None).await {
            Ok(_) | Err(ClientError::InstanceNotFound { .. }) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }

    pub(super) async fn restart(
        &self,
        request: wire::RestartInstanceRequest,
    ) -> Result<wire::RestartInstanceResponse, Status> {
        let state = self.client.state(&request.instance_id).await.map_err(refused)?;
        if !request.restart_with_new_instance_id && !state.status.is_terminal() {
            return Err(not_ended(&state));
        }
        let InstanceState { instance, name, version, input, tags, .. } = state;
        let tags: BTreeMap<_, _> =
            tags.into_iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let options = StartOptions {
            instance_id: (!request.restart_with_new_instance_id).then(|| instance.to_string()),
            version: Some(version.to_string()).filter(|version| !version.is_empty()),
            tags,
            ..StartOptions::default()
        };
        let started = match self.client.raw().start(name, input, None, options).await {
            // Somebody else was faster.
            Err(error @ ClientError::AlreadyExists { .. }) => {
                return Err(Status::failed_precondition(error.to_string()));
            }
            started => started.map_err(refused)?,
        };
        Ok(wire::RestartInstanceResponse { instance_id: started.instance.to_string() })
    }
}

/// The status that clients see.
fn shown(state: &InstanceState) -> OrchestrationStatus {
    match state.status {
        OrchestrationStatus::ContinuedAsNew => OrchestrationStatus::Running,
        status => status,
    }
}

fn not_ended(state: &InstanceState) -> Status {
    let (instance, status) = (&state.instance, shown(state));
    Status::failed_precondition(format!(
        "instance '{instance}' is {status}; only one that has ended can be restarted under its own id"
    ))
}
