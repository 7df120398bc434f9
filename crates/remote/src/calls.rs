//! Calls, and when they are made again.

use std::error::Error;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use smol_str::format_smolstr;
use steadfast_engine::ClientError;
use steadfast_grpc::MESSAGE_BYTES_MAX;
use steadfast_grpc::wire::task_hub_sidecar_service_client::TaskHubSidecarServiceClient;
use tonic::{Code, ConnectError, Response, Status};

use crate::address::Link;
use crate::batched::Calls;

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
            if error.is::<ConnectError>() {
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
        let mut pauses = pauses();
        let mut away_since: Option<Instant> = None;
        loop {
            let asked = Instant::now();
            let failed = match call(self.stub(), question.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) => Failed::new(status),
            };
            let again = match failed {
                Failed::Unreachable(_) => true,
                Failed::Lost(_) => repeat == Repeat::Always,
                Failed::Refused(_) => false,
            };
            // One that waited for long was not without the server all the time.
            let since = away_since.filter(|_| asked.elapsed() < self.patience);
            if since.is_none() {
                pauses = self::pauses();
            }
            let since = since.unwrap_or_else(Instant::now);
            away_since = Some(since);
            let pause = pauses.next().unwrap_or(PAUSE_MAX);
            if !again || since.elapsed() + pause > self.patience {
                return Err(failed);
            }
            tokio::time::sleep(pause).await;
        }
    }
}
