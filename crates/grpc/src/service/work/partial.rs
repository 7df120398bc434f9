//! Answers that are too large for one message and come in several.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message;
use steadfast_engine::Workers;
use tonic::Status;

use crate::wire;

/// So many bytes of unfinished answers are kept.
const BYTES_MAX: usize = 512 << 20;

/// The answers that have begun, by their tokens.
#[derive(Debug, Clone, Default)]
pub(in crate::service) struct PartialAnswers(Arc<Mutex<HashMap<String, Partial>>>);

#[derive(Debug, Default)]
struct Partial {
    actions: Vec<wire::OrchestratorAction>,
    custom_status: Option<String>,
    trace: Option<wire::OrchestrationTraceContext>,
    bytes: usize,
}

impl PartialAnswers {
    /// Takes a message of an answer, and gives the whole when this is the last one.
    ///
    /// # Errors
    /// When there is no room for it.
    pub(super) fn add(
        &self,
        token: &str,
        mut response: wire::OrchestratorResponse,
        workers: &Workers,
    ) -> Result<Option<wire::OrchestratorResponse>, Status> {
        // Deprecated, and still what the SDKs that have it say.
        let is_partial = response.is_partial;
        let mut unfinished = self.0.lock();
        if !is_partial {
            if let Some(before) = unfinished.remove(token) {
                let rest = std::mem::replace(&mut response.actions, before.actions);
                response.actions.extend(rest);
                response.custom_status = response.custom_status.or(before.custom_status);
                response.orchestration_trace_context = response.orchestration_trace_context.or(before.trace);
            }
            return Ok(Some(response));
        }
        // Those whose items have gone to others meanwhile.
        unfinished.retain(|token, _| workers.item(token).is_some());
        if workers.item(token).is_none() {
            return Ok(None);
        }
        let bytes = response.encoded_len();
        if unfinished.values().map(|partial| partial.bytes).sum::<usize>() + bytes > BYTES_MAX {
            return Err(Status::resource_exhausted("too many unfinished answers; complete them first"));
        }
        let partial = unfinished.entry(token.to_owned()).or_default();
        if response.chunk_index == Some(0) {
            *partial = Partial::default();
        }
        partial.bytes += bytes;
        partial.actions.extend(response.actions);
        partial.custom_status = response.custom_status.or(partial.custom_status.take());
        partial.trace = response.orchestration_trace_context.or(partial.trace.take());
        Ok(None)
    }
}
