//! Answers that last: streams that are ended from here, and what is held while they last.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::HeaderMap;

/// Gives the reason why a long call has to end, when it has to.
pub(super) type Ending = Pin<Box<dyn Future<Output = Status> + Send>>;

/// The body of an answer, which ends with a status when it is told to, and frees its places when it is dropped.
pub(super) struct Held {
    inner: Body,
    ending: Option<Ending>,
    _places: Vec<OwnedSemaphorePermit>,
}

impl Held {
    pub(super) fn new(inner: Body, ending: Ending, places: Vec<OwnedSemaphorePermit>) -> Self {
        Self { inner, ending: Some(ending), _places: places }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(ending) = &mut this.ending else { return Poll::Ready(None) };
        if let Poll::Ready(status) = ending.as_mut().poll(context) {
            this.ending = None;
            // What is behind the body learns now that nobody reads any more.
            this.inner = Body::empty();
            let mut trailers = HeaderMap::new();
            status.add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        if frame.is_none() {
            this.ending = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ending.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
