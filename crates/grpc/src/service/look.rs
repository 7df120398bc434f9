//! Looking at one instance: its state, its start and end, its history.

use std::collections::VecDeque;

use futures_util::stream;
use prost::Message;
use steadfast_core::{HistoryEvent, InstanceId, InstanceState};
use steadfast_engine::ClientError;
use tonic::Status;

use super::refuse::refused;
use super::{Answers, TaskHubService};
use crate::convert::{HistoryWriter, execution_id, orchestration_state};
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
        // A worker that streams the history of a work item wants all that was committed before, which is the same.
        let events = match wanted {
            Some(execution) => self.client.history_of(&request.instance_id, execution).await,
            None => self.client.history(&request.instance_id).await,
        };
        let instance = InstanceId::from_trusted(request.instance_id);
        let chunks = Chunks::new(HistoryWriter::new(instance), events.map_err(refused)?);
        Ok(Box::pin(stream::iter(chunks.map(Ok))))
    }
}

/// A history as chunks, each of which is made when it is asked for.
struct Chunks {
    writer: HistoryWriter,
    events: std::vec::IntoIter<HistoryEvent>,
    /// What was converted and is in no chunk yet.
    converted: VecDeque<wire::HistoryEvent>,
}

impl Chunks {
    fn new(writer: HistoryWriter, events: Vec<HistoryEvent>) -> Self {
        Self { writer, events: events.into_iter(), converted: VecDeque::new() }
    }

    fn next_event(&mut self) -> Option<wire::HistoryEvent> {
        while self.converted.is_empty() {
            let mut converted = Vec::new();
            self.writer.write(&self.events.next()?, &mut converted);
            self.converted.extend(converted);
        }
        self.converted.pop_front()
    }
}

impl Iterator for Chunks {
    type Item = wire::HistoryChunk;

    fn next(&mut self) -> Option<wire::HistoryChunk> {
        let mut chunk = wire::HistoryChunk::default();
        let mut bytes = 0;
        while let Some(event) = self.next_event() {
            let size = event.encoded_len();
            if chunk.events.len() == CHUNK_EVENTS || bytes > 0 && bytes + size > CHUNK_BYTES {
                self.converted.push_front(event);
                break;
            }
            bytes += size;
            chunk.events.push(event);
        }
        (!chunk.events.is_empty()).then_some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use steadfast_core::{EventKind, Timestamp};

    use super::*;

    fn event(bytes: usize) -> HistoryEvent {
        let data = "x".repeat(bytes).into();
        HistoryEvent::message(Timestamp::from_micros(1), EventKind::GenericEvent { data })
    }

    #[test]
    fn chunks_are_bounded_in_events_and_bytes_and_keep_the_order() {
        let sizes = |events: Vec<usize>| -> Vec<usize> {
            let writer = HistoryWriter::new(InstanceId::from_trusted("any"));
            let chunks = Chunks::new(writer, events.into_iter().map(event).collect());
            chunks.map(|chunk| chunk.events.len()).collect()
        };
        assert_eq!(sizes(vec![]), [0; 0]);
        assert_eq!(sizes(vec![1; CHUNK_EVENTS + 1]), [CHUNK_EVENTS, 1]);
        assert_eq!(
            sizes(vec![CHUNK_BYTES / 2 - 100, CHUNK_BYTES / 2 - 100, 1000, 10 * CHUNK_BYTES, 1]),
            [2, 1, 1, 1]
        );
    }
}
