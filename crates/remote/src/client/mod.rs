//! The client: starts instances on a server and talks to them.

mod entities;
mod lifecycle;
mod many;
mod read;
mod run;
mod start;

use std::fmt;

use serde::Serialize;
use smol_str::SmolStr;
use steadfast_core::failure::bounded_reason;
use steadfast_core::model::{Converter, DataConverter};
use steadfast_core::{InstanceId, Payload};
use steadfast_engine::{ClientError, HubOptions};
use steadfast_grpc::convert::{WireError, payload_to_wire};
use steadfast_grpc::{had_ended, wire};
use tonic::{Code, Response, Status};

use crate::address::{Link, Server};
use crate::calls::{Failed, Repeat, Stub};
use crate::error::ConnectError;

pub use run::Run;

/// Talks to a task hub on a server. Clones are cheap, and share one connection.
///
/// It has the methods of the client of a hub in this process, with the same types and errors. A call that changes something
/// returns once the change is durable. While the server is away, calls wait for it up to the [patience](Server::patience), and
/// waits go on when it is back. A call that may have taken effect is not made again, unless twice is the same as once; then it
/// fails with [`ClientError::ConnectionLost`].
#[derive(Clone)]
pub struct Client {
    link: Link,
    converter: Converter,
    payload_bytes_max: usize,
}

impl Client {
    /// A client of a server, once that has answered.
    ///
    /// # Errors
    /// When the address cannot be used, or the server does not answer or refuses.
    pub async fn connect(server: impl Into<Server>) -> Result<Self, ConnectError> {
        let client = Self {
            link: server.into().link()?,
            converter: Converter::default(),
            payload_bytes_max: HubOptions::default().payload_bytes_max,
        };
        let hello =
            client.link.call(Repeat::Always, (), |mut stub, ()| async move { stub.hello(()).await }).await;
        hello.map_err(ClientError::from)?;
        client.link.calls.open().await;
        Ok(client)
    }

    /// Replaces the data converter, JSON by default. Workers must have the same.
    pub fn data_converter(self, converter: impl DataConverter) -> Self {
        Self { converter: Converter::new(converter), ..self }
    }

    /// How large a payload may be that is sent, in bytes; 16 MiB without a call. The hub has a limit of its own.
    pub fn payload_bytes_max(self, bytes: usize) -> Self {
        Self { payload_bytes_max: bytes, ..self }
    }

    /// Sends an event to an instance. It is kept until the orchestration waits for an event of that name.
    ///
    /// # Errors
    /// When there is no such instance, it has ended, or the payload cannot be used.
    pub async fn raise_event<T: Serialize + ?Sized>(
        &self,
        instance: &str,
        name: &str,
        payload: &T,
    ) -> Result<(), ClientError> {
        let instance = InstanceId::parse(instance)?;
        let request = wire::RaiseEventRequest {
            instance_id: instance.to_string(),
            name: name.to_owned(),
            input: payload_to_wire(&self.encode(payload)?),
        };
        let raised =
            self.change(request, |mut stub, request| async move { stub.raise_event(request).await }).await;
        sent(&instance, raised)
    }

    /// Ends an instance from outside, whatever it is doing; with `recurse` also the sub-orchestrations that it awaits,
    /// and theirs.
    ///
    /// # Errors
    /// When there is no such instance or it has ended.
    pub async fn terminate(&self, instance: &str, reason: &str, recurse: bool) -> Result<(), ClientError> {
        let instance = InstanceId::parse(instance)?;
        let request = wire::TerminateRequest {
            instance_id: instance.to_string(),
            // The protocol has values there; a text is a JSON string.
            output: payload_to_wire(&self.json(&*bounded_reason(reason))?),
            recursive: recurse,
        };
        let terminated = self
            .change(request, |mut stub, request| async move { stub.terminate_instance(request).await })
            .await;
        sent(&instance, terminated)
    }

    /// Lets an instance emit nothing until it is resumed. What arrives meanwhile is kept, in order.
    ///
    /// # Errors
    /// When there is no such instance or it has ended.
    pub async fn suspend(&self, instance: &str, reason: &str) -> Result<(), ClientError> {
        let instance = InstanceId::parse(instance)?;
        let (instance_id, reason) = (instance.to_string(), Some(bounded_reason(reason).to_string()));
        let request = wire::SuspendRequest { instance_id, reason };
        let suspended = self
            .change(request, |mut stub, request| async move { stub.suspend_instance(request).await })
            .await;
        sent(&instance, suspended)
    }

    /// Lets a suspended instance go on.
    ///
    /// # Errors
    /// When there is no such instance or it has ended.
    pub async fn resume(&self, instance: &str, reason: &str) -> Result<(), ClientError> {
        let instance = InstanceId::parse(instance)?;
        let (instance_id, reason) = (instance.to_string(), Some(bounded_reason(reason).to_string()));
        let request = wire::ResumeRequest { instance_id, reason };
        let resumed = self
            .change(request, |mut stub, request| async move { stub.resume_instance(request).await })
            .await;
        sent(&instance, resumed)
    }

    /// A call that changes something; it is not repeated when it may have taken effect.
    async fn change<Question: Clone, T, Answer>(
        &self,
        question: Question,
        call: impl Fn(Stub, Question) -> Answer,
    ) -> Result<Response<T>, Failed>
    where
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.link.call(Repeat::IfNotMade, question, call).await
    }

    /// A call that changes nothing, or nothing more when it is made twice.
    async fn ask<Question: Clone, T, Answer>(
        &self,
        question: Question,
        call: impl Fn(Stub, Question) -> Answer,
    ) -> Result<T, Failed>
    where
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.link.call(Repeat::Always, question, call).await.map(Response::into_inner)
    }

    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Payload, ClientError> {
        let converted = self.converter.encode(value);
        let payload = converted.map_err(|error| ClientError::InvalidPayload(Box::new(error)))?;
        let (bytes, max) = (payload.len(), self.payload_bytes_max);
        if bytes > max { Err(ClientError::PayloadTooLarge { bytes, max }) } else { Ok(payload) }
    }

    fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<Payload, ClientError> {
        Payload::encode(value).map_err(|error| ClientError::InvalidPayload(Box::new(error)))
    }

    fn converter(&self) -> &Converter {
        &self.converter
    }
}

/// What came of a message for an instance.
fn sent<T>(instance: &InstanceId, outcome: Result<Response<T>, Failed>) -> Result<(), ClientError> {
    match outcome {
        Ok(answer) => match had_ended(answer.metadata()) {
            Some(status) => Err(ClientError::NotRunning { id: instance.clone(), status }),
            None => Ok(()),
        },
        Err(failed) => Err(of_instance(instance, failed)),
    }
}

/// An error of a call about one instance.
fn of_instance(instance: &InstanceId, failed: Failed) -> ClientError {
    match failed.code() {
        Some(Code::NotFound) => ClientError::InstanceNotFound { id: instance.clone() },
        _ => failed.into(),
    }
}

/// An answer that cannot be understood.
fn unclear(error: WireError) -> ClientError {
    let problem = format!("its answer cannot be understood: {error}");
    ClientError::Refused { code: SmolStr::new_static("Internal"), problem }
}

/// What only some servers can do, or none over this protocol.
fn not_served(problem: &str) -> ClientError {
    ClientError::Refused { code: SmolStr::new_static("Unimplemented"), problem: problem.to_owned() }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
