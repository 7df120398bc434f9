//! Calls, and when they are made again.

use std::error::Error;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use smol_str::format_smolstr;
use steadfast_engine::ClientError;
use steadfast_grpc::MESSAGE_BYTES_MAX;
use steadfast_grpc::wire::task_hub_sidecar_service_client::TaskHubSidecarServiceClient;
use tonic::codegen::Bytes;
use tonic::{Code, Response, Status};

use crate::address::Link;
use crate::batched::Calls;
use crate::connection::NotConnected;

const PAUSE_MIN: Duration = Duration::from_millis(50);

const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The pauses between attempts: they double, up to a bound, and vary, so that many who lost one server do not come back to it
/// together.
pub(crate) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

pub(crate) type Stub = TaskHubSidecarServiceClient<Calls>;

/// Whether a call may be made again that may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Made twice, it does what it does once.
    Always,
    /// Only if it was surely not made.
    IfNotMade,
}

/// A call that was not answered, or was refused.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It was not made.
    Unreachable(Status),
    /// It may have taken effect.
    Lost(Status),
    /// The server says no.
    Refused(Status),
}

impl Failed {
    fn new(status: Status) -> Self {
        let mut source = status.source();
        if source.is_none() {
            // The server itself says so. With this code it promises that nothing was changed.
            return match status.code() {
                Code::Unavailable => Self::Unreachable(status),
                _ => Self::Refused(status),
            };
        }
        while let Some(error) = source {
            if error.is::<NotConnected>() {
                return Self::Unreachable(status);
            }
            source = error.source();
        }
        Self::Lost(status)
    }

    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(status) => Some(status.code()),
            _ => None,
        }
    }

    fn status(&self) -> &Status {
        let (Self::Unreachable(status) | Self::Lost(status) | Self::Refused(status)) = self;
        status
    }
}

/// What it says, with its causes: a lost connection says why only in those.
pub(crate) fn problem(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl From<Failed> for ClientError {
    fn from(failed: Failed) -> Self {
        let problem = problem(failed.status());
        match failed {
            Failed::Unreachable(_) => Self::Unreachable { problem },
            Failed::Lost(_) => Self::ConnectionLost { problem },
            Failed::Refused(status) if status.code() == Code::Aborted => Self::Interrupted,
            Failed::Refused(status) => {
                Self::Refused { code: format_smolstr!("{:?}", status.code()), problem }
            }
        }
    }
}

impl Link {
    pub(crate) fn stub(&self) -> Stub {
        TaskHubSidecarServiceClient::new(self.calls.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Makes a call, and makes it again while the server is away, as far as that changes nothing, until the patience is over.
    pub(crate) async fn call<Question: Clone, T, Answer>(
        &self,
        repeat: Repeat,
        question: Question,
        call: impl Fn(Stub, Question) -> Answer,
    ) -> Result<Response<T>, Failed>
    where
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.persist(repeat, || call(self.stub(), question.clone())).await
    }

    /// Likewise, for a message that says how work went. It is encoded once, and makes its way without tonic's client.
    pub(crate) async fn tell(&self, path: &'static str, framed: Bytes) -> Result<(), Failed> {
        self.persist(Repeat::Always, || self.calls.connection().tell(path, framed.clone())).await
    }

    async fn persist<T, Answer>(&self, repeat: Repeat, call: impl Fn() -> Answer) -> Result<T, Failed>
    where
        Answer: Future<Output = Result<T, Status>>,
    {
        let mut attempts = Attempts::new(self.patience);
        loop {
            let asked = Instant::now();
            let failed = match call().await {
                Ok(answer) => return Ok(answer),
                Err(status) => Failed::new(status),
            };
            match attempts.pause(repeat, &failed, asked) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(failed),
            }
        }
    }
}

/// How long the server has been away, as far as attempts have shown.
struct Attempts {
    patience: Duration,
    away: Option<(Instant, ExponentialBackoff)>,
}

impl Attempts {
    const fn new(patience: Duration) -> Self {
        Self { patience, away: None }
    }

    /// How long to wait after an attempt that began at `asked` before the next one; none when there is to be none.
    fn pause(&mut self, repeat: Repeat, failed: &Failed, asked: Instant) -> Option<Duration> {
        match failed {
            Failed::Unreachable(_) => {}
            Failed::Lost(_) if repeat == Repeat::Always => {}
            Failed::Lost(_) | Failed::Refused(_) => return None,
        }
        // One that waited for long was not without the server all the time.
        let away = self.away.take().filter(|_| asked.elapsed() < self.patience);
        let (since, mut pauses) = away.unwrap_or_else(|| (Instant::now(), pauses()));
        let pause = pauses.next().unwrap_or(PAUSE_MAX);
        let goes_on = since.elapsed() + pause <= self.patience;
        self.away = Some((since, pauses));
        goes_on.then_some(pause)
    }
}
