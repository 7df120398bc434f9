//! A message as it stands in the body of a call, and bodies of one message. tonic's own codec reads and writes any number of them,
//! through buffers and tasks that cost a call of one message more than the message does.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body as HttpBody, Frame, SizeHint};
pub use prost::Message;
use prost::bytes::{BufMut, Bytes, BytesMut};
use tonic::Status;
use tonic::codegen::StdError;
use tonic::codegen::http::{HeaderMap, HeaderValue};

/// What stands before each message: whether it is compressed, and its length.
pub const PREFIX_BYTES: usize = 5;

/// A message with its prefix.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` for one of 4 GiB or more, whose length cannot be said.
pub fn frame(message: &impl Message) -> Result<Bytes, Status> {
    framed(message.encoded_len(), |to| message.encode_raw(to))
}

/// A message that is encoded already, with its prefix.
///
/// # Errors
/// As [`frame`].
pub fn frame_bytes(message: &[u8]) -> Result<Bytes, Status> {
    framed(message.len(), |to| to.put_slice(message))
}

fn framed(length: usize, put: impl FnOnce(&mut BytesMut)) -> Result<Bytes, Status> {
    let said = u32::try_from(length)
        .map_err(|_| Status::resource_exhausted(format!("a message of {length} bytes cannot be sent")))?;
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(said);
    put(&mut framed);
    Ok(framed.freeze())
}

/// Reads a body to its end, and gives its message, without its prefix. What comes behind the message does not count.
///
/// # Errors
/// What the body ends with; `OUT_OF_RANGE` for a message of more than `bytes_max`, `UNIMPLEMENTED` for a compressed one, and
/// `INTERNAL` when it is not whole.
pub async fn read<B>(body: &mut B, bytes_max: usize) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    let mut framed = Bytes::new();
    while !body.is_end_stream()
        && let Some(frame) = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
    {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        framed = match length(&framed)? {
            _ if framed.is_empty() => data,
            // It is whole.
            Some(length) if framed.len() >= PREFIX_BYTES + length => continue,
            length => joined(framed, &data, length),
        };
        if let Some(length) = length(&framed)?.filter(|length| *length > bytes_max) {
            return Err(Status::out_of_range(format!(
                "the message is too large: it has {length} bytes, and {bytes_max} are allowed"
            )));
        }
    }
    match length(&framed)? {
        Some(length) if framed.len() >= PREFIX_BYTES + length => {
            Ok(framed.slice(PREFIX_BYTES..PREFIX_BYTES + length))
        }
        _ => Err(Status::internal("the call ended before its message did")),
    }
}

/// Reads a body to its end, and gives what it says there, without its messages.
///
/// # Errors
/// What the body ends with.
pub async fn skip<B>(body: &mut B) -> Result<Option<HeaderMap>, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    let mut trailers = None;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        trailers = frame.into_trailers().ok().or(trailers);
    }
    Ok(trailers)
}

/// What has come of a message, and what came now, in a buffer for all of it, or for twice as much as there is if that is less.
fn joined(framed: Bytes, data: &[u8], length: Option<usize>) -> Bytes {
    let mut joined = framed.try_into_mut().unwrap_or_else(|framed| BytesMut::from(&framed[..]));
    let whole = length.map_or(0, |length| PREFIX_BYTES + length);
    let have = joined.len() + data.len();
    joined.reserve(whole.min(2 * have).max(have) - joined.len());
    joined.extend_from_slice(data);
    joined.freeze()
}

/// How long the message is, once its prefix is there.
fn length(framed: &[u8]) -> Result<Option<usize>, Status> {
    let Some([compressed, length @ ..]) = framed.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    if *compressed != 0 {
        return Err(Status::unimplemented("the message is compressed, which is not understood here"));
    }
    Ok(Some(u32::from_be_bytes(*length) as usize))
}

/// A body of one message, which is there already.
pub struct Framed {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Framed {
    /// The body of a question.
    pub const fn question(framed: Bytes) -> Self {
        Self { data: Some(framed), trailers: None }
    }

    /// The body of an answer, which says that all went well.
    pub fn answer(framed: Bytes) -> Self {
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Self { data: Some(framed), trailers: Some(trailers) }
    }
}

impl HttpBody for Framed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let data = self.data.take().map(Frame::data);
        Poll::Ready(data.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tonic::Code;

    use super::*;

    /// A body that comes in these parts.
    struct Parts(VecDeque<Bytes>);

    impl HttpBody for Parts {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
        }
    }

    async fn read_in_parts(bytes: &[u8], size: usize, bytes_max: usize) -> Result<Bytes, Status> {
        let parts = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
        read(&mut Parts(parts), bytes_max).await
    }

    #[tokio::test]
    async fn a_message_is_read_however_it_comes() {
        let message = "a message of some length".to_owned();
        let mut framed = frame(&message).unwrap().to_vec();
        let length = framed.len() - PREFIX_BYTES;
        framed.extend_from_slice(b"and more");
        for size in 1..=framed.len() {
            let read = read_in_parts(&framed, size, length).await.unwrap();
            assert_eq!(String::decode(read).unwrap(), message);
        }
        let body = &mut Framed::answer(frame(&message).unwrap());
        assert_eq!(String::decode(read(body, length).await.unwrap()).unwrap(), message);
    }

    #[tokio::test]
    async fn what_is_no_whole_message_is_refused() {
        let framed = frame(&"abc".to_owned()).unwrap();
        for size in 1..=framed.len() {
            for end in 0..framed.len() {
                let status = read_in_parts(&framed[..end], size, 100).await.unwrap_err();
                assert_eq!(status.code(), Code::Internal);
            }
            let status = read_in_parts(&framed, size, 4).await.unwrap_err();
            assert_eq!(status.code(), Code::OutOfRange);
        }
        let mut compressed = framed.to_vec();
        compressed[0] = 1;
        assert_eq!(read_in_parts(&compressed, 3, 100).await.unwrap_err().code(), Code::Unimplemented);
    }
}
