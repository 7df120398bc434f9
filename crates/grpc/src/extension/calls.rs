//! Calls that come many in a message: which may, and how one of them is made.

use prost::Message;
use tonic::codegen::Bytes;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Request, Response, Status};

use crate::service::TaskHubService;
use crate::wire::extension::{Answer, Call};
use crate::wire::task_hub_sidecar_service_server::TaskHubSidecarService;

/// Larger messages are sent by themselves: others would have to wait behind them.
pub const BATCHED_MESSAGE_BYTES_MAX: usize = 32 << 10;

macro_rules! methods {
    ($($name:literal => $method:ident,)*) => {
        /// The methods that may be called many in a message: all of clients that answer with one message.
        pub const BATCHED_METHODS: &[&str] = &[$($name),*];

        impl TaskHubService {
            /// Answers a call, but for its number.
            pub(crate) async fn answer_call(&self, call: Call) -> Result<Answer, Status> {
                match call.method.as_str() {
                    $($name => answer(call.message, |request| self.$method(request)).await,)*
                    other => Err(Status::unimplemented(format!("'{other}' cannot be called among others"))),
                }
            }
        }
    };
}

methods! {
    "StartInstance" => start_instance,
    "GetInstance" => get_instance,
    "RewindInstance" => rewind_instance,
    "RestartInstance" => restart_instance,
    "WaitForInstanceStart" => wait_for_instance_start,
    "WaitForInstanceCompletion" => wait_for_instance_completion,
    "RaiseEvent" => raise_event,
    "TerminateInstance" => terminate_instance,
    "SuspendInstance" => suspend_instance,
    "ResumeInstance" => resume_instance,
    "QueryInstances" => query_instances,
    "ListInstanceIds" => list_instance_ids,
    "PurgeInstances" => purge_instances,
    "SignalEntity" => signal_entity,
    "GetEntity" => get_entity,
    "QueryEntities" => query_entities,
    "CleanEntityStorage" => clean_entity_storage,
    "SkipGracefulOrchestrationTerminations" => skip_graceful_orchestration_terminations,
}

async fn answer<Q, A, Answering>(
    message: Bytes,
    method: impl FnOnce(Request<Q>) -> Answering,
) -> Result<Answer, Status>
where
    Q: Message + Default,
    A: Message,
    Answering: Future<Output = Result<Response<A>, Status>>,
{
    let question = Q::decode(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let (metadata, answer, _) = method(Request::new(question)).await?.into_parts();
    Ok(Answer { message: answer.encode_to_vec().into(), metadata: texts(&metadata), ..Answer::default() })
}

fn texts(metadata: &MetadataMap) -> std::collections::HashMap<String, String> {
    metadata
        .iter()
        .filter_map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => Some((key.to_string(), value.to_str().ok()?.to_owned())),
            KeyAndValueRef::Binary(..) => None,
        })
        .collect()
}

/// The answer to a call that failed, but for its number.
pub(crate) fn refusal(status: &Status) -> Answer {
    Answer { code: status.code().into(), problem: status.message().to_owned(), ..Answer::default() }
}
