//! Looking at one instance: its state, its start and end, its history.

use futures_util::stream;
use prost::Message;
use steadfast_core::InstanceState;
use steadfast_engine::ClientError;
use tonic::Status;

use super::refuse::refused;
use super::{Answers, TaskHubService};
use crate::convert::{execution_id, history_to_wire, orchestration_state};
use crate::wire;

/// How large a chunk of a history becomes, in bytes; a single event may be larger. Some SDKs take 4 MiB.
const CHUNK_BYTES: usize = 256 << 10;

/// How many events a chunk holds at most.
const CHUNK_EVENTS: usize = 500;

/// An instance that does not exist is no error to the protocol's clients.
fn found(
    state: Result<InstanceState, ClientError>,
    inputs_and_outputs: bool,
) -> Result<wire::GetInstanceResponse, Status> {
    match state {
        Ok(state) => Ok(wire::GetInstanceResponse {
            exists: true,
            orchestration_state: Some(orchestration_state(&state, inputs_and_outputs)),
        }),
        Err(ClientError::InstanceNotFound { .. }) => Ok(wire::GetInstanceResponse::default()),
        Err(error) => Err(refused(error)),
    }
}

impl TaskHubService {
    pub(super) async fn look(
        &self,
        request: wire::GetInstanceRequest,
    ) -> Result<wire::GetInstanceResponse, Status> {
        found(self.client.state(&request.instance_id).await, request.get_inputs_and_outputs)
    }

    /// Ends when the instance has begun or the caller goes away; the caller's deadline is the only one.
    pub(super) async fn wait_for_start(
        &self,
        request: wire::GetInstanceRequest,
    ) -> Result<wire::GetInstanceResponse, Status> {
        let state = self.client.raw().wait_for_start(&request.instance_id).await;
        found(state, request.get_inputs_and_outputs)
    }

    /// Ends when the instance has ended or the caller goes away; the caller's deadline is the only one.
    pub(super) async fn wait_for_completion(
        &self,
        request: wire::GetInstanceRequest,
    ) -> Result<wire::GetInstanceResponse, Status> {
        let state = self.client.raw().wait_for_completion(&request.instance_id).await;
        found(state, request.get_inputs_and_outputs)
    }

    pub(super) async fn history(
        &self,
        request: wire::StreamInstanceHistoryRequest,
    ) -> Result<Answers<wire::HistoryChunk>, Status> {
        let wanted = execution_id(request.execution_id.as_deref(), "executionId")?;
        let state = self.client.state(&request.instance_id).await.map_err(refused)?;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != state.execution) {
            let instance = &state.instance;
            return Err(Status::not_found(format!(
                "the history of execution {wanted} of instance '{instance}' is not kept"
            )));
        }
        let events = self.client.history(&request.instance_id).await.map_err(refused)?;
        let chunks = chunks(history_to_wire(&state.instance, &events));
        Ok(Box::pin(stream::iter(chunks.into_iter().map(Ok))))
    }
}

fn chunks(events: Vec<wire::HistoryEvent>) -> Vec<wire::HistoryChunk> {
    let mut chunks: Vec<wire::HistoryChunk> = Vec::new();
    let mut bytes = 0;
    for event in events {
        let size = event.encoded_len();
        let full =
            |chunk: &wire::HistoryChunk| bytes + size > CHUNK_BYTES || chunk.events.len() == CHUNK_EVENTS;
        if chunks.last().is_none_or(full) {
            chunks.push(wire::HistoryChunk::default());
            bytes = 0;
        }
        bytes += size;
        if let Some(chunk) = chunks.last_mut() {
            chunk.events.push(event);
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: usize) -> wire::HistoryEvent {
        let data = Some("x".repeat(bytes));
        let event_type = wire::history_event::EventType::GenericEvent(wire::GenericEvent { data });
        wire::HistoryEvent { event_type: Some(event_type), ..wire::HistoryEvent::default() }
    }

    #[test]
    fn chunks_are_bounded_in_events_and_bytes_and_keep_the_order() {
        let sizes = |events: Vec<usize>| -> Vec<usize> {
            let chunks = chunks(events.into_iter().map(event).collect());
            chunks.iter().map(|chunk| chunk.events.len()).collect()
        };
        assert_eq!(sizes(vec![]), [0; 0]);
        assert_eq!(sizes(vec![1; CHUNK_EVENTS + 1]), [CHUNK_EVENTS, 1]);
        assert_eq!(
            sizes(vec![CHUNK_BYTES / 2 - 100, CHUNK_BYTES / 2 - 100, 1000, 10 * CHUNK_BYTES, 1]),
            [2, 1, 1, 1]
        );
    }
}
