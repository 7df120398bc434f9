//! The two methods whose hub need not exist: making and deleting it.

use tonic::codegen::Bytes;
use tonic::{Request, Response, Status};

use super::hubs::{HubName, Hubs};
use crate::service::{Answered, answered};
use crate::wire;

pub(super) async fn create(hubs: &dyn Hubs, hub: &HubName, message: Bytes) -> Result<Answered, Status> {
    let create = async |request: Request<wire::CreateTaskHubRequest>| {
        hubs.create(hub, request.into_inner().recreate_if_exists).await?;
        Ok(Response::new(wire::CreateTaskHubResponse {}))
    };
    answered(message, create).await
}

pub(super) async fn delete(hubs: &dyn Hubs, hub: &HubName, message: Bytes) -> Result<Answered, Status> {
    let delete = async |_: Request<wire::DeleteTaskHubRequest>| {
        hubs.delete(hub).await?;
        Ok(Response::new(wire::DeleteTaskHubResponse {}))
    };
    answered(message, delete).await
}
