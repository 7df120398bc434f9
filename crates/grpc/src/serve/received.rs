//! Messages on their way in: how long they may take, and how many bytes of them there may be at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::codegen::{Bytes, StdError};

/// What stands before each message: whether it is compressed, and how long it is.
const HEAD_BYTES: usize = 5;

/// A message gets its time anew for so many bytes that have come of it.
const PROGRESS_BYTES: usize = 1 << 20;

/// What messages on their way in may take.
#[derive(Clone)]
pub(super) struct Receiving {
    /// The bytes that the messages on their way may have, all together.
    bytes: Arc<Semaphore>,
    bytes_max: usize,
    /// A longer message is refused where it is decoded.
    message_bytes_max: usize,
    timeout: Duration,
}

/// The body of a call, as far as it has not come.
pub(super) struct Received<B> {
    inner: B,
    limits: Receiving,
    /// It is one message and no more, so that it is on its way until it ends.
    is_single: bool,
    ended: bool,
    head: Head,
    /// How long the message is, and how much of it is missing.
    length: usize,
    missing: usize,
    /// Bytes that have come since the time began.
    progress: usize,
    /// Room for the message that is on its way.
    place: Option<OwnedSemaphorePermit>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What has come of the head of the next message.
#[derive(Default)]
struct Head {
    bytes: [u8; HEAD_BYTES],
    filled: usize,
}

impl Receiving {
    pub(super) fn new(bytes_max: usize, message_bytes_max: usize, timeout: Duration) -> Self {
        let bytes = Arc::new(Semaphore::new(bytes_max.min(Semaphore::MAX_PERMITS)));
        Self { bytes, bytes_max, message_bytes_max, timeout }
    }

    /// Watches the body of a call.
    pub(super) fn watch<B>(&self, inner: B, is_single: bool) -> Received<B> {
        Received {
            inner,
            limits: self.clone(),
            is_single,
            ended: false,
            head: Head::default(),
            length: 0,
            missing: 0,
            progress: 0,
            place: None,
            timer: None,
        }
    }
}

impl<B> Received<B> {
    /// Takes note of bytes that have come.
    fn note(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        self.progress += bytes.len();
        // What was there when the time was over, but was not asked for, is not late.
        if self.progress >= PROGRESS_BYTES || self.timer.as_ref().is_some_and(|timer| timer.is_elapsed()) {
            self.begin_anew();
        }
        while !bytes.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(bytes.len());
                self.missing -= taken;
                bytes = &bytes[taken..];
                if self.missing == 0 {
                    self.begin_anew();
                    self.place = None;
                }
                continue;
            }
            let taken = (HEAD_BYTES - self.head.filled).min(bytes.len());
            self.head.bytes[self.head.filled..][..taken].copy_from_slice(&bytes[..taken]);
            self.head.filled += taken;
            bytes = &bytes[taken..];
            if self.head.filled == HEAD_BYTES {
                let [_, length @ ..] = std::mem::take(&mut self.head).bytes;
                self.length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.missing = self.length;
            }
        }
        if self.missing > 0 && self.place.is_none() {
            self.place = self.room()?;
        }
        Ok(())
    }

    /// Room for a message that did not come whole. Most do, and need none.
    fn room(&self) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if self.length > self.limits.message_bytes_max {
            return Ok(None);
        }
        let wanted = u32::try_from(self.length).unwrap_or(u32::MAX);
        self.limits.bytes.clone().try_acquire_many_owned(wanted).map(Some).map_err(|_| {
            let max = self.limits.bytes_max;
            Status::resource_exhausted(format!(
                "the messages on their way to the server would have more than {max} bytes together; send it again later"
            ))
        })
    }

    fn begin_anew(&mut self) {
        (self.progress, self.timer) = (0, None);
    }

    /// Whether something is on its way that has to come to its end.
    fn is_awaited(&self) -> bool {
        self.missing > 0 || self.head.filled > 0 || self.is_single
    }

    /// Nothing has come: is it too late for it?
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if !self.is_awaited() {
            return Poll::Pending;
        }
        let timeout = self.limits.timeout;
        let far = || Instant::now().checked_add(timeout);
        let Some(timer) = self.timer.take().or_else(|| Some(Box::pin(tokio::time::sleep_until(far()?))))
        else {
            return Poll::Pending;
        };
        let timer = self.timer.insert(timer);
        timer.as_mut().poll(context).map(|()| {
            Status::deadline_exceeded(format!("the rest of the message did not come within {timeout:?}"))
        })
    }
}

impl<B> HttpBody for Received<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let frame = match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                return this.poll_late(context).map(|status| {
                    this.end();
                    Some(Err(status))
                });
            }
        };
        let noted = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(Ok(()), |bytes| this.note(bytes)),
            _ => {
                this.end();
                Ok(())
            }
        };
        if let Err(status) = noted {
            this.end();
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| Status::from_error(error.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> Received<B> {
    /// Nothing is taken any more.
    fn end(&mut self) {
        (self.ended, self.place, self.timer) = (true, None, None);
    }
}
