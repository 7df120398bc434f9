//! Starting instances, also anew.

use steadfast_core::{IdReuse, OnExisting, OrchestrationStatus, Timestamp};
use steadfast_engine::{ClientError, RestartOptions, StartOptions};
use tonic::Status;
use uuid::Uuid;

use super::TaskHubService;
use super::refuse::{needed_name, refused};
use crate::convert::{name, new_instance_id, payload, shown_status, statuses, timestamp, trace};
use crate::wire;

/// SDKs show this text to their users.
const INVALID_REUSE: &str =
    "Invalid reusable statuses: cannot exclude 'Terminated' while also allowing reuse of running instances";

/// What a start does with an existing instance: one in a status that the policy names is replaced, and any other is an
/// error, also one that has ended.
fn reuse(policy: Option<wire::OrchestrationIdReusePolicy>) -> Result<IdReuse, Status> {
    let statuses = statuses(&policy.unwrap_or_default().replaceable_status, "replaceableStatus")?;
    let replaces_live = statuses.iter().any(|status| !status.is_terminal());
    // A live one ends as a terminated one before it is replaced.
    if replaces_live && !statuses.contains(&OrchestrationStatus::Terminated) {
        return Err(Status::invalid_argument(INVALID_REUSE));
    }
    let never = IdReuse::default().on_live(OnExisting::Error).on_ended(OnExisting::Error);
    Ok(statuses.into_iter().fold(never, |reuse, status| reuse.on(status, OnExisting::Replace)))
}

impl TaskHubService {
    pub(super) async fn start(
        &self,
        request: wire::CreateInstanceRequest,
    ) -> Result<wire::CreateInstanceResponse, Status> {
        let instance = new_instance_id(&request.instance_id)?;
        let orchestration = needed_name(request.name, "CreateInstanceRequest")?;
        let version = request.version.map(|version| name(version, "version")).transpose()?;
        let start_at = request
            .scheduled_start_timestamp
            .map(|at| timestamp(at, "scheduledStartTimestamp"))
            .transpose()?;
        let options = StartOptions {
            instance_id: instance.map(|instance| instance.to_string()),
            version: version.filter(|version| !version.is_empty()),
            tags: request.tags.into_iter().collect(),
            scheduled_start: self.later(start_at),
            reuse: reuse(request.orchestration_id_reuse_policy)?,
            trace: trace(request.parent_trace_context),
        };
        let started = self.client.raw().start(orchestration, payload(request.input), None, options).await;
        let started = started.map_err(refused)?;
        Ok(wire::CreateInstanceResponse {
            instance_id: started.instance.to_string(),
            version: started.version.to_string(),
            execution_id: started.execution.to_string(),
        })
    }

    /// A moment that has passed means "now"; some SDKs always send 1970.
    pub(super) fn later(&self, at: Option<Timestamp>) -> Option<Timestamp> {
        at.filter(|at| *at > self.client.raw().now())
    }

    pub(super) async fn restart(
        &self,
        request: wire::RestartInstanceRequest,
    ) -> Result<wire::RestartInstanceResponse, Status> {
        let new_id = || Uuid::now_v7().simple().to_string();
        let options = RestartOptions { instance_id: request.restart_with_new_instance_id.then(new_id) };
        let restarted = match self.client.restart(&request.instance_id, options).await {
            Err(ClientError::NotEnded { id, status }) => {
                let status = shown_status(status);
                return Err(Status::failed_precondition(format!(
                    "instance '{id}' is {status}; only one that has ended can be restarted under its own id"
                )));
            }
            restarted => restarted.map_err(refused)?,
        };
        Ok(wire::RestartInstanceResponse { instance_id: restarted.instance.to_string() })
    }
}
