//! The two methods whose hub need not exist: making and deleting it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::hubs::{HubName, Hubs};
use crate::wire;

type Answer<T> = BoxFuture<'static, Result<Response<T>, Status>>;

struct Create(Arc<dyn Hubs>, HubName);

impl UnaryService<wire::CreateTaskHubRequest> for Create {
    type Response = wire::CreateTaskHubResponse;
    type Future = Answer<wire::CreateTaskHubResponse>;

    fn call(&mut self, request: Request<wire::CreateTaskHubRequest>) -> Self::Future {
        let Self(hubs, hub) = self;
        let (hubs, hub) = (hubs.clone(), hub.clone());
        Box::pin(async move {
            hubs.create(&hub, request.into_inner().recreate_if_exists).await?;
            Ok(Response::new(wire::CreateTaskHubResponse {}))
        })
    }
}

struct Delete(Arc<dyn Hubs>, HubName);

impl UnaryService<wire::DeleteTaskHubRequest> for Delete {
    type Response = wire::DeleteTaskHubResponse;
    type Future = Answer<wire::DeleteTaskHubResponse>;

    fn call(&mut self, _: Request<wire::DeleteTaskHubRequest>) -> Self::Future {
        let Self(hubs, hub) = self;
        let (hubs, hub) = (hubs.clone(), hub.clone());
        Box::pin(async move {
            hubs.delete(&hub).await?;
            Ok(Response::new(wire::DeleteTaskHubResponse {}))
        })
    }
}

pub(super) async fn create(
    hubs: Arc<dyn Hubs>,
    hub: HubName,
    request: http::Request<Body>,
) -> http::Response<Body> {
    Grpc::new(ProstCodec::default()).unary(Create(hubs, hub), request).await
}

pub(super) async fn delete(
    hubs: Arc<dyn Hubs>,
    hub: HubName,
    request: http::Request<Body>,
) -> http::Response<Body> {
    Grpc::new(ProstCodec::default()).unary(Delete(hubs, hub), request).await
}
