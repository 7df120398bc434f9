//! Calls of one message each way, by their names.

use prost::Message;
use tonic::codegen::Bytes;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::TaskHubService;
use crate::framing;
use crate::wire::task_hub_sidecar_service_server::TaskHubSidecarService;

/// The answer to a call.
pub(crate) struct Answered {
    /// Its message, with what stands before it in a body.
    pub(crate) framed: Bytes,
    /// What is said beside it.
    pub(crate) metadata: MetadataMap,
}

macro_rules! methods {
    ($($name:literal => $method:ident,)*) => {
        impl TaskHubService {
            /// Answers a call of one message, which is given without what stands before it in a body.
            pub(crate) async fn answer(&self, method: &str, message: Bytes) -> Result<Answered, Status> {
                match method {
                    $($name => answered(message, |request| self.$method(request)).await,)*
                    other => Err(Status::unimplemented(format!("'{other}' is no call of one message"))),
                }
            }
        }
    };
}

methods! {
    "Hello" => hello,
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
    "CompleteActivityTask" => complete_activity_task,
    "CompleteOrchestratorTask" => complete_orchestrator_task,
    "CompleteEntityTask" => complete_entity_task,
    "SignalEntity" => signal_entity,
    "GetEntity" => get_entity,
    "QueryEntities" => query_entities,
    "CleanEntityStorage" => clean_entity_storage,
    "AbandonTaskActivityWorkItem" => abandon_task_activity_work_item,
    "AbandonTaskOrchestratorWorkItem" => abandon_task_orchestrator_work_item,
    "AbandonTaskEntityWorkItem" => abandon_task_entity_work_item,
    "SkipGracefulOrchestrationTerminations" => skip_graceful_orchestration_terminations,
}

/// Decodes a question, and answers it.
pub(crate) async fn answered<Q, A, Answering>(
    message: Bytes,
    method: impl FnOnce(Request<Q>) -> Answering,
) -> Result<Answered, Status>
where
    Q: Message + Default,
    A: Message,
    Answering: Future<Output = Result<Response<A>, Status>>,
{
    let question = Q::decode(message)
        .map_err(|error| Status::invalid_argument(format!("the message cannot be read: {error}")))?;
    let (metadata, answer, _) = method(Request::new(question)).await?.into_parts();
    Ok(Answered { framed: framing::frame(&answer)?, metadata })
}
