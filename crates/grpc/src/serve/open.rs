//! The services beside the hub's that anybody may call: health and reflection. They tell nothing about hubs.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};

use super::gate::{Phase, Shared};
use super::held::Held;
use super::http::Answering;

/// A service whose calls count like all others, and whose streams end when the server does.
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

impl<S> Open<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    S::Future: Send + 'static,
{
    pub(super) fn answer(&self, request: Request<Incoming>) -> Answering {
        let place = match self.shared.place() {
            Ok(place) => place,
            Err(status) => return Box::pin(async move { Ok(Status::into_http(status)) }),
        };
        let request = request.map(|body| Body::new(self.shared.receiving.watch(body, self.is_single)));
        let (answer, ending) = (self.inner.clone().call(request), self.shared.at(Phase::Draining));
        Box::pin(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| Body::new(Held::new(body, ending, vec![place]))))
        })
    }
}
