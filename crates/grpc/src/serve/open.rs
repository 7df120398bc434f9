//! The services beside the hub's that anybody may call: health and reflection. They tell nothing about hubs.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;

use super::gate::{Phase, Shared};
use super::held::Held;

/// A service whose calls count like all others, and whose streams end when the server does.
#[derive(Clone)]
pub(super) struct Open<S> {
    inner: S,
    shared: Arc<Shared>,
    /// Its calls are one message each.
    is_single: bool,
}

impl<S> Open<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>, is_single: bool) -> Self {
        Self { inner, shared, is_single }
    }
}

impl<S: NamedService> NamedService for Open<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Open<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let place = match self.shared.place() {
            Ok(place) => place,
            Err(status) => return Box::pin(async move { Ok(Status::into_http(status)) }),
        };
        let request = request.map(|body| self.shared.receiving.watch(body, self.is_single));
        let (answer, ending) = (self.inner.call(request), self.shared.at(Phase::Draining));
        Box::pin(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| Body::new(Held::new(body, ending, vec![place]))))
        })
    }
}
