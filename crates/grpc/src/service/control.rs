//! What is done to one instance: events, termination, suspension.

use steadfast_engine::ClientError;
use tonic::Status;

use super::TaskHubService;
use super::refuse::refused;
use crate::convert::payload;
use crate::wire;

/// An instance that has ended takes no messages, and that is no error to the protocol's clients.
fn ignore_ended(outcome: Result<(), ClientError>) -> Result<(), Status> {
    match outcome {
        Err(ClientError::NotRunning { .. }) => Ok(()),
        outcome => outcome.map_err(refused),
    }
}

impl TaskHubService {
    pub(super) async fn raise(&self, request: wire::RaiseEventRequest) -> Result<(), Status> {
        let input = payload(request.input);
        let raised = self.client.raw().raise_event(&request.instance_id, request.name, input).await;
        ignore_ended(raised)
    }

    pub(super) async fn terminate(&self, request: wire::TerminateRequest) -> Result<(), Status> {
        let output = request.output.unwrap_or_default();
        ignore_ended(self.client.terminate(&request.instance_id, &output, request.recursive).await)
    }

    pub(super) async fn suspend(&self, request: wire::SuspendRequest) -> Result<(), Status> {
        let reason = request.reason.unwrap_or_default();
        ignore_ended(self.client.suspend(&request.instance_id, &reason).await)
    }

    pub(super) async fn resume(&self, request: wire::ResumeRequest) -> Result<(), Status> {
        let reason = request.reason.unwrap_or_default();
        ignore_ended(self.client.resume(&request.instance_id, &reason).await)
    }
}
