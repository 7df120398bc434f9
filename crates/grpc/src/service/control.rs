//! What is done to one instance: events, termination, suspension, rewinding.

use steadfast_core::OrchestrationStatus;
use steadfast_engine::ClientError;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Response, Status};

use super::TaskHubService;
use super::refuse::{needed_name, refused};
use crate::convert::{payload, status, status_to_wire};
use crate::wire;

/// How many instances are ended by force in one call at most: that of other servers of the protocol.
const ENDED_AT_ONCE_MAX: usize = 500;

/// The metadata by which an answer says that the instance had ended, and how: a number of `OrchestrationStatus`. For clients
/// that are Rust programs, to which it is an error.
const ENDED_HEADER: &str = "steadfast-ended";

/// How the instance had ended before the call, if it had.
pub(super) type HadEnded = Option<OrchestrationStatus>;

/// An instance that has ended takes no messages, and that is no error to the protocol's clients.
fn ignore_ended(outcome: Result<(), ClientError>) -> Result<HadEnded, Status> {
    match outcome {
        Ok(()) => Ok(None),
        Err(ClientError::NotRunning { status, .. }) => Ok(Some(status)),
        Err(error) => Err(refused(error)),
    }
}

/// An answer that says how the instance had ended.
pub(super) fn answer<T>(answer: T, ended: HadEnded) -> Response<T> {
    let mut response = Response::new(answer);
    if let Some(status) = ended {
        let number = MetadataValue::from(i32::from(status_to_wire(status)));
        response.metadata_mut().insert(ENDED_HEADER, number);
    }
    response
}

/// How the instance had ended before a call that was answered with this metadata, if it had.
pub fn had_ended(metadata: &MetadataMap) -> Option<OrchestrationStatus> {
    let number = metadata.get(ENDED_HEADER)?.to_str().ok()?.parse().ok()?;
    status(number, "runtimeStatus").ok()
}

impl TaskHubService {
    pub(super) async fn raise(&self, request: wire::RaiseEventRequest) -> Result<HadEnded, Status> {
        let input = payload(request.input);
        let event = needed_name(request.name, "RaiseEventRequest")?;
        let raised = self.client.raw().raise_event(&request.instance_id, event, input).await;
        ignore_ended(raised)
    }

    pub(super) async fn terminate(&self, request: wire::TerminateRequest) -> Result<HadEnded, Status> {
        let output = payload(request.output);
        let raw = self.client.raw();
        ignore_ended(raw.terminate(&request.instance_id, output, request.recursive).await)
    }

    /// Ends instances at once, without their code, and says which it did not end: those that have ended or locked entities,
    /// and those that there are not.
    pub(super) async fn end_by_force(
        &self,
        request: wire::SkipGracefulOrchestrationTerminationsRequest,
    ) -> Result<wire::SkipGracefulOrchestrationTerminationsResponse, Status> {
        let instances = request.instance_batch.unwrap_or_default().instance_ids;
        if instances.len() > ENDED_AT_ONCE_MAX {
            let (given, max) = (instances.len(), ENDED_AT_ONCE_MAX);
            return Err(Status::invalid_argument(format!(
                "{given} instances are named, and at most {max} are ended at once"
            )));
        }
        let reason = request.reason.unwrap_or_default();
        let mut unterminated_instance_ids = Vec::new();
        for instance in instances {
            let state = self.client.state(&instance).await;
            if state.is_ok_and(|state| state.requested_locks.is_some()) {
                // The protocol's servers leave them alone, so clients expect to have to terminate them.
                unterminated_instance_ids.push(instance);
                continue;
            }
            match self.client.end_by_force(&instance, &reason).await {
                Ok(()) => {}
                Err(
                    ClientError::InstanceNotFound { .. }
                    | ClientError::NotRunning { .. }
                    | ClientError::InvalidInstanceId(_),
                ) => unterminated_instance_ids.push(instance),
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(wire::SkipGracefulOrchestrationTerminationsResponse { unterminated_instance_ids })
    }

    pub(super) async fn suspend(&self, request: wire::SuspendRequest) -> Result<HadEnded, Status> {
        let reason = request.reason.unwrap_or_default();
        ignore_ended(self.client.suspend(&request.instance_id, &reason).await)
    }

    pub(super) async fn rewind(&self, request: wire::RewindInstanceRequest) -> Result<(), Status> {
        let reason = request.reason.unwrap_or_default();
        self.client.rewind(&request.instance_id, &reason).await.map_err(refused)
    }

    pub(super) async fn resume(&self, request: wire::ResumeRequest) -> Result<HadEnded, Status> {
        let reason = request.reason.unwrap_or_default();
        ignore_ended(self.client.resume(&request.instance_id, &reason).await)
    }
}
