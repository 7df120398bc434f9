//! What an activity is given, and what connects it with the hub that runs it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use super::converter::Converter;
use super::middleware::Properties;
use crate::error::Error;
use crate::event::{Tags, TraceContext};
use crate::failure::{FailureDetails, kinds};
use crate::ids::{ExecutionId, InstanceId};
use crate::message::ActivityId;
use crate::partition::ActivityTask;
use crate::payload::Payload;

/// What an activity may know of why it runs, and how it talks to the hub while it does.
#[derive(Debug, Clone)]
pub struct ActivityContext {
    /// The orchestration that asked for it.
    pub instance: InstanceId,
    /// Its execution.
    pub execution: ExecutionId,
    /// The version of that orchestration's instance, empty for none: part of the instance's identity.
    pub instance_version: SmolStr,
    /// The activity's name.
    pub name: SmolStr,
    /// The event id of its `TaskScheduled`: together with the execution it identifies this call, also when it is
    /// tried again after a crash, so it can serve as an idempotency key.
    pub task_id: i32,
    attempt: Attempt,
    converter: Converter,
    worker_version: SmolStr,
    properties: Option<Arc<Properties>>,
}

/// The way from a running activity to the hub that runs it.
pub trait ActivityLink: Send + Sync {
    /// The activity is alive, and `detail` says how far it has come.
    ///
    /// # Errors
    /// When the detail is larger than the hub allows.
    fn heartbeat(&self, id: ActivityId, detail: Payload) -> Result<(), FailureDetails>;

    /// Why nobody waits for this attempt any more; none as long as somebody does. Then `waker`, if there is one, is woken
    /// when that changes.
    fn poll_cancelled(&self, id: ActivityId, waker: Option<&Waker>) -> Option<CancelReason>;
}

/// Why nobody waits for an attempt any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelReason {
    /// The execution that asked for it has ended: it completed, failed, was terminated, or continued as new.
    Ended,
    /// The orchestration dropped the future that waited for it.
    NotAwaited,
    /// It has taken longer than its start-to-close timeout allows.
    TimedOut,
    /// There was no heartbeat for longer than its heartbeat timeout allows.
    HeartbeatTimedOut,
    /// The hub recovered from an error, or stopped without waiting for it: another attempt will be made.
    Superseded,
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "the orchestration has ended",
            Self::NotAwaited => "the orchestration no longer waits for it",
            Self::TimedOut => "it has taken too long",
            Self::HeartbeatTimedOut => "it has not given a heartbeat for too long",
            Self::Superseded => "another attempt will be made",
        })
    }
}

/// One attempt at an activity.
#[derive(Clone)]
struct Attempt {
    /// What was asked for; none outside of a hub.
    task: Option<Arc<ActivityTask>>,
    link: Option<Arc<dyn ActivityLink>>,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("id", &self.task.as_ref().map(|task| task.id)).finish_non_exhaustive()
    }
}

impl Attempt {
    fn poll_cancelled(&self, waker: Option<&Waker>) -> Option<CancelReason> {
        let (task, link) = (self.task.as_ref()?, self.link.as_ref()?);
        link.poll_cancelled(task.id, waker)
    }
}

impl ActivityContext {
    /// The context of an attempt at `task`. Without a link its heartbeats go nowhere and it is never cancelled.
    pub fn new(task: Arc<ActivityTask>, link: Option<Arc<dyn ActivityLink>>) -> Self {
        Self {
            instance: task.instance.clone(),
            execution: task.execution,
            instance_version: task.instance_version.clone(),
            name: task.name.clone(),
            task_id: task.task_id,
            attempt: Attempt { task: Some(task), link },
            converter: Converter::default(),
            worker_version: SmolStr::default(),
            properties: None,
        }
    }

    /// A context that belongs to no hub, for calling the code of an activity directly in a test.
    pub fn outside_hub(name: impl Into<SmolStr>) -> Self {
        Self {
            instance: InstanceId::from_trusted("outside-hub"),
            execution: ExecutionId::new(Uuid::nil()),
            instance_version: SmolStr::default(),
            name: name.into(),
            task_id: 0,
            attempt: Attempt { task: None, link: None },
            converter: Converter::default(),
            worker_version: SmolStr::default(),
            properties: None,
        }
    }

    /// The same context, whose values become payloads in another way.
    pub fn converted_by(self, converter: Converter) -> Self {
        Self { converter, ..self }
    }

    pub(super) fn with_properties(self, properties: Properties) -> Self {
        Self { properties: Some(Arc::new(properties)), ..self }
    }

    pub(super) fn on_worker(self, worker_version: SmolStr) -> Self {
        Self { worker_version, ..self }
    }

    /// The version of the worker that runs this attempt ([`crate::VersionOptions::version`]), empty for none.
    pub fn worker_version(&self) -> &SmolStr {
        &self.worker_version
    }

    pub(super) fn converter(&self) -> Converter {
        self.converter.clone()
    }

    /// The trace context of this run: what it causes elsewhere belongs below it. None when it is not traced.
    pub fn trace_context(&self) -> Option<TraceContext> {
        let task = self.attempt.task.as_ref()?;
        let caller = task.options.as_deref()?.trace.as_ref()?;
        Some(caller.child(task.execution, "activity run", task.task_id))
    }

    /// What middleware put in for this call, by its type.
    pub fn property<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.properties.as_ref()?.get()
    }

    /// A text that is equal for every attempt at this one call and differs from that of any other call.
    pub fn idempotency_key(&self) -> String {
        format!("{}:{}", self.execution, self.task_id)
    }

    /// The tags that the orchestration gave to this call.
    pub fn tags(&self) -> Tags {
        let options = self.attempt.task.as_ref().and_then(|task| task.options.as_deref());
        options.map(|options| options.tags.clone()).unwrap_or_default()
    }

    /// Tells the hub that the activity is alive, and how far it has come. It is cheap: the detail is kept in memory, where
    /// [`Client::activities`] shows it, and now and then goes to disk together with something else. An attempt that begins
    /// because this one has failed, timed out or died with its process gets the last detail that is known as
    /// [`ActivityContext::last_heartbeat`].
    ///
    /// [`Client::activities`]: https://docs.rs/steadfast/latest/steadfast/struct.Client.html
    ///
    /// # Errors
    /// When the detail has no JSON form or is larger than the hub allows.
    pub fn heartbeat<T: Serialize + ?Sized>(&self, detail: &T) -> Result<(), Error> {
        let detail = self.converter.encode(detail).map_err(|error| {
            FailureDetails::new(
                kinds::INVALID_PAYLOAD,
                format!("the detail has no form as a payload: {error}"),
            )
        })?;
        match (&self.attempt.task, &self.attempt.link) {
            (Some(task), Some(link)) => Ok(link.heartbeat(task.id, detail)?),
            _ => Ok(()),
        }
    }

    /// The last heartbeat's detail that is known of the attempt before this one: of an earlier attempt of a retry policy,
    /// or of one that died with its process. What was on the way when a process died may be missing.
    ///
    /// # Errors
    /// When the detail is not a `T`.
    pub fn last_heartbeat<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let options = self.attempt.task.as_ref().and_then(|task| task.options.as_deref());
        let Some(detail) = options.and_then(|options| options.last_heartbeat.as_ref()) else {
            return Ok(None);
        };
        Ok(Some(self.converter.decode(detail)?))
    }

    /// Whether, and why, nobody waits for the result any more. Work that can be given up should be.
    pub fn cancel_reason(&self) -> Option<CancelReason> {
        self.attempt.poll_cancelled(None)
    }

    /// Whether nobody waits for the result any more.
    pub fn is_cancelled(&self) -> bool {
        self.cancel_reason().is_some()
    }

    /// Waits until nobody waits for the result any more, and says why. To be raced with the activity's work:
    ///
    /// ```
    /// use futures_util::future::{Either, select};
    /// use steadfast_core::{Error, Result, model::ActivityContext};
    ///
    /// async fn download(ctx: ActivityContext, url: String) -> Result<Vec<u8>> {
    ///     match select(std::pin::pin!(fetch(&url)), ctx.cancelled()).await {
    ///         Either::Left((bytes, _)) => bytes,
    ///         Either::Right((reason, _)) => Err(Error::msg(format!("given up: {reason}"))),
    ///     }
    /// }
    /// # async fn fetch(_: &str) -> Result<Vec<u8>> { Ok(Vec::new()) }
    /// ```
    pub fn cancelled(&self) -> Cancelled {
        Cancelled { attempt: self.attempt.clone() }
    }
}

/// Ends when nobody waits for the attempt any more: see [`ActivityContext::cancelled`].
#[derive(Debug, Clone)]
#[must_use = "it does nothing unless it is awaited"]
pub struct Cancelled {
    attempt: Attempt,
}

impl Future for Cancelled {
    type Output = CancelReason;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<CancelReason> {
        match self.attempt.poll_cancelled(Some(task.waker())) {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        }
    }
}
