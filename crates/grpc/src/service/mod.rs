//! `TaskHubSidecarService`: what clients ask, answered by the engine's client.

mod answer;
mod control;
mod entities;
mod look;
mod purge;
mod query;
mod refuse;
mod start;
mod work;

use std::pin::Pin;

use futures_util::Stream;
use steadfast_engine::{Client, Workers};
use tonic::{Request, Response, Status};

use crate::extension::WorkerLinkService;
use crate::wire;
use crate::wire::task_hub_sidecar_service_server::{TaskHubSidecarService, TaskHubSidecarServiceServer};

/// The largest message that is taken, in bytes: SDKs send payloads of any size, and gRPC's default of 4 MiB is too
/// small for them.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// How large a page becomes, in bytes, whatever is asked for: some SDKs take no more than 4 MiB. A single instance may be
/// larger.
const PAGE_BYTES: usize = 2 << 20;

pub(crate) use answer::{Answered, answered};
pub use control::had_ended;

type Answer<T> = Result<Response<T>, Status>;

pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves one hub to clients of the protocol, and to its workers if it has been given any. Instances that clients start
/// are run by the code that is registered with the hub, and by workers if there is none. Without workers, those who ask
/// for work are told so with `UNIMPLEMENTED`.
///
/// ```no_run
/// # async fn serve(client: steadfast_engine::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use steadfast_grpc::TaskHubService;
/// let service = TaskHubService::new(client).into_server();
/// tonic::transport::Server::builder().add_service(service).serve("127.0.0.1:4001".parse()?).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TaskHubService {
    client: Client,
    workers: Option<Workers>,
    partial_answers: work::PartialAnswers,
}

impl TaskHubService {
    /// Serves the hub of this client.
    pub fn new(client: Client) -> Self {
        Self { client, workers: None, partial_answers: work::PartialAnswers::default() }
    }

    /// Gives work to workers of the protocol as well: see [`steadfast_engine::Hub::workers`].
    pub fn with_workers(self, workers: Workers) -> Self {
        Self { workers: Some(workers), ..self }
    }

    fn workers(&self) -> Result<&Workers, Status> {
        self.workers.as_ref().ok_or_else(|| {
            Status::unimplemented(
                "this server gives no work to workers; its instances are run by its own code",
            )
        })
    }

    /// Gives work to workers that speak the extension, if the hub has been given workers.
    pub fn worker_link(&self) -> Option<WorkerLinkService> {
        self.workers.clone().map(WorkerLinkService::new)
    }

    /// The tonic service, which takes messages of up to [`MESSAGE_BYTES_MAX`].
    pub fn into_server(self) -> TaskHubSidecarServiceServer<Self> {
        TaskHubSidecarServiceServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }
}

/// What is asked of this server and is not served by it.
fn not_served<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("this server does not serve {what}")))
}

const HUBS: &str = "task hubs that come and go";

#[tonic::async_trait]
impl TaskHubSidecarService for TaskHubService {
    async fn hello(&self, _: Request<()>) -> Answer<()> {
        Ok(Response::new(()))
    }

    async fn start_instance(
        &self,
        request: Request<wire::CreateInstanceRequest>,
    ) -> Answer<wire::CreateInstanceResponse> {
        self.start(request.into_inner()).await.map(Response::new)
    }

    async fn get_instance(
        &self,
        request: Request<wire::GetInstanceRequest>,
    ) -> Answer<wire::GetInstanceResponse> {
        self.look(request.into_inner()).await.map(Response::new)
    }

    async fn rewind_instance(
        &self,
        request: Request<wire::RewindInstanceRequest>,
    ) -> Answer<wire::RewindInstanceResponse> {
        self.rewind(request.into_inner()).await?;
        Ok(Response::new(wire::RewindInstanceResponse {}))
    }

    async fn restart_instance(
        &self,
        request: Request<wire::RestartInstanceRequest>,
    ) -> Answer<wire::RestartInstanceResponse> {
        self.restart(request.into_inner()).await.map(Response::new)
    }

    async fn wait_for_instance_start(
        &self,
        request: Request<wire::GetInstanceRequest>,
    ) -> Answer<wire::GetInstanceResponse> {
        self.wait_for_start(request.into_inner()).await.map(Response::new)
    }

    async fn wait_for_instance_completion(
        &self,
        request: Request<wire::GetInstanceRequest>,
    ) -> Answer<wire::GetInstanceResponse> {
        self.wait_for_completion(request.into_inner()).await.map(Response::new)
    }

    async fn raise_event(
        &self,
        request: Request<wire::RaiseEventRequest>,
    ) -> Answer<wire::RaiseEventResponse> {
        let ended = self.raise(request.into_inner()).await?;
        Ok(control::answer(wire::RaiseEventResponse {}, ended))
    }

    async fn terminate_instance(
        &self,
        request: Request<wire::TerminateRequest>,
    ) -> Answer<wire::TerminateResponse> {
        let ended = self.terminate(request.into_inner()).await?;
        Ok(control::answer(wire::TerminateResponse {}, ended))
    }

    async fn suspend_instance(
        &self,
        request: Request<wire::SuspendRequest>,
    ) -> Answer<wire::SuspendResponse> {
        let ended = self.suspend(request.into_inner()).await?;
        Ok(control::answer(wire::SuspendResponse {}, ended))
    }

    async fn resume_instance(&self, request: Request<wire::ResumeRequest>) -> Answer<wire::ResumeResponse> {
        let ended = self.resume(request.into_inner()).await?;
        Ok(control::answer(wire::ResumeResponse {}, ended))
    }

    async fn query_instances(
        &self,
        request: Request<wire::QueryInstancesRequest>,
    ) -> Answer<wire::QueryInstancesResponse> {
        self.query(request.into_inner()).await.map(Response::new)
    }

    async fn list_instance_ids(
        &self,
        request: Request<wire::ListInstanceIdsRequest>,
    ) -> Answer<wire::ListInstanceIdsResponse> {
        self.list_ended(request.into_inner()).await.map(Response::new)
    }

    async fn purge_instances(
        &self,
        request: Request<wire::PurgeInstancesRequest>,
    ) -> Answer<wire::PurgeInstancesResponse> {
        self.purge(request.into_inner()).await.map(Response::new)
    }

    type StreamInstanceHistoryStream = Answers<wire::HistoryChunk>;

    async fn stream_instance_history(
        &self,
        request: Request<wire::StreamInstanceHistoryRequest>,
    ) -> Answer<Self::StreamInstanceHistoryStream> {
        self.history(request.into_inner()).await.map(Response::new)
    }

    type GetWorkItemsStream = Answers<wire::WorkItem>;

    async fn get_work_items(
        &self,
        request: Request<wire::GetWorkItemsRequest>,
    ) -> Answer<Self::GetWorkItemsStream> {
        let header = |name: &str| request.metadata().get(name).and_then(|value| value.to_str().ok());
        let from = header("workerid").or_else(|| header("x-user-agent")).unwrap_or_default().to_owned();
        self.work_items(request.into_inner(), from).map(Response::new)
    }

    async fn complete_activity_task(
        &self,
        request: Request<wire::ActivityResponse>,
    ) -> Answer<wire::CompleteTaskResponse> {
        self.complete_activity(request.into_inner())?;
        Ok(Response::new(wire::CompleteTaskResponse {}))
    }

    async fn complete_orchestrator_task(
        &self,
        request: Request<wire::OrchestratorResponse>,
    ) -> Answer<wire::CompleteTaskResponse> {
        self.complete_turn(request.into_inner())?;
        Ok(Response::new(wire::CompleteTaskResponse {}))
    }

    async fn complete_entity_task(
        &self,
        request: Request<wire::EntityBatchResult>,
    ) -> Answer<wire::CompleteTaskResponse> {
        self.complete_entity(request.into_inner())?;
        Ok(Response::new(wire::CompleteTaskResponse {}))
    }

    async fn abandon_task_activity_work_item(
        &self,
        request: Request<wire::AbandonActivityTaskRequest>,
    ) -> Answer<wire::AbandonActivityTaskResponse> {
        self.abandon(&request.into_inner().completion_token)?;
        Ok(Response::new(wire::AbandonActivityTaskResponse {}))
    }

    async fn abandon_task_orchestrator_work_item(
        &self,
        request: Request<wire::AbandonOrchestrationTaskRequest>,
    ) -> Answer<wire::AbandonOrchestrationTaskResponse> {
        self.abandon(&request.into_inner().completion_token)?;
        Ok(Response::new(wire::AbandonOrchestrationTaskResponse {}))
    }

    async fn abandon_task_entity_work_item(
        &self,
        request: Request<wire::AbandonEntityTaskRequest>,
    ) -> Answer<wire::AbandonEntityTaskResponse> {
        self.abandon(&request.into_inner().completion_token)?;
        Ok(Response::new(wire::AbandonEntityTaskResponse {}))
    }

    async fn create_task_hub(
        &self,
        _: Request<wire::CreateTaskHubRequest>,
    ) -> Answer<wire::CreateTaskHubResponse> {
        not_served(HUBS)
    }

    async fn delete_task_hub(
        &self,
        _: Request<wire::DeleteTaskHubRequest>,
    ) -> Answer<wire::DeleteTaskHubResponse> {
        not_served(HUBS)
    }

    async fn signal_entity(
        &self,
        request: Request<wire::SignalEntityRequest>,
    ) -> Answer<wire::SignalEntityResponse> {
        self.signal(request.into_inner()).await.map(Response::new)
    }

    async fn get_entity(&self, request: Request<wire::GetEntityRequest>) -> Answer<wire::GetEntityResponse> {
        self.entity(request.into_inner()).await.map(Response::new)
    }

    async fn query_entities(
        &self,
        request: Request<wire::QueryEntitiesRequest>,
    ) -> Answer<wire::QueryEntitiesResponse> {
        self.entities(request.into_inner()).await.map(Response::new)
    }

    async fn clean_entity_storage(
        &self,
        request: Request<wire::CleanEntityStorageRequest>,
    ) -> Answer<wire::CleanEntityStorageResponse> {
        self.clean_entities(request.into_inner()).await.map(Response::new)
    }

    async fn skip_graceful_orchestration_terminations(
        &self,
        request: Request<wire::SkipGracefulOrchestrationTerminationsRequest>,
    ) -> Answer<wire::SkipGracefulOrchestrationTerminationsResponse> {
        self.end_by_force(request.into_inner()).await.map(Response::new)
    }
}
