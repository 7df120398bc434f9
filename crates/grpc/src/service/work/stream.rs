//! The stream of work items to one worker.

use std::time::Duration;

use futures_util::stream;
use steadfast_engine::{PerKind, WorkItem, WorkerConnection, WorkerProfile};
use tonic::Status;

use crate::convert::{activity_item, entity_item, turn_item, work_filters};
use crate::service::{Answers, TaskHubService};
use crate::wire;
use crate::wire::work_item::Request;

/// How long a stream is idle before it says that it is alive: SDKs give up one that is silent for two minutes.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Histories of more bytes are left out of work items for workers that can ask for them.
const INLINE_HISTORY_BYTES_MAX: usize = 1 << 20;

impl TaskHubService {
    pub(in crate::service) fn work_items(
        &self,
        request: wire::GetWorkItemsRequest,
        from: String,
    ) -> Result<Answers<wire::WorkItem>, Status> {
        let workers = self.workers()?;
        let streams_history = request.capabilities().any(|it| it == wire::WorkerCapability::HistoryStreaming);
        let inline_bytes_max = if streams_history { INLINE_HISTORY_BYTES_MAX } else { usize::MAX };
        let places = |asked: i32| match usize::try_from(asked) {
            Ok(0) | Err(_) => workers.options().default_places,
            Ok(asked) => asked,
        };
        let connection = workers.connect(WorkerProfile {
            name: if request.worker_instance_id.is_empty() { from } else { request.worker_instance_id }
                .into(),
            places: PerKind {
                orchestrations: places(request.max_concurrent_orchestration_work_items),
                activities: places(request.max_concurrent_activity_work_items),
                entities: places(request.max_concurrent_entity_work_items),
            },
            filters: request.work_item_filters.map(work_filters),
            extended: false,
        });
        let items = stream::unfold(connection, move |mut connection| async move {
            let item = next(&mut connection, inline_bytes_max).await?;
            Some((item, connection))
        });
        Ok(Box::pin(items))
    }
}

/// The next item, or a sign of life. Its end is not one in good order: some SDKs would come back at once.
async fn next(
    connection: &mut WorkerConnection,
    inline_bytes_max: usize,
) -> Option<Result<wire::WorkItem, Status>> {
    let item = match tokio::time::timeout(PING_INTERVAL, connection.next()).await {
        Err(_) => return Some(Ok(sign_of_life())),
        Ok(item) => item,
    };
    Some(match item {
        Some(WorkItem::Turn { token, turn, .. }) => Ok(turn_item(token, &turn, inline_bytes_max)),
        Some(WorkItem::Activity { token, task }) => Ok(activity_item(token, &task)),
        Some(WorkItem::Entity { token, batch }) => Ok(entity_item(token, &batch)),
        // The protocol has no word for it.
        Some(WorkItem::Cancelled { .. }) => Ok(sign_of_life()),
        None => Err(Status::unavailable("the hub stops; connect again")),
    })
}

fn sign_of_life() -> wire::WorkItem {
    let request = Some(Request::HealthPing(wire::HealthPing {}));
    wire::WorkItem { request, ..wire::WorkItem::default() }
}
