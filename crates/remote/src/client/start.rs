//! Starting instances.

use smol_str::SmolStr;
use steadfast_core::model::OrchestrationHandle;
use steadfast_core::{
    ExecutionId, IdReuse, InstanceId, OnExisting, OrchestrationStatus, Payload, Tags, check_tags,
};
use steadfast_engine::{ClientError, StartOptions, Started};
use steadfast_grpc::convert::{
    execution_id, payload_to_wire, status_to_wire, tags_to_wire, timestamp_to_wire, trace_to_wire,
};
use steadfast_grpc::wire;
use tonic::Code;
use uuid::Uuid;

use super::{Client, Run, unclear};
use crate::calls::{Repeat, Stub};

/// All that a policy can speak of.
const STATUSES: [OrchestrationStatus; 7] = [
    OrchestrationStatus::Running,
    OrchestrationStatus::Completed,
    OrchestrationStatus::Failed,
    OrchestrationStatus::Canceled,
    OrchestrationStatus::Terminated,
    OrchestrationStatus::Pending,
    OrchestrationStatus::Suspended,
];

impl Client {
    /// Starts an instance under a new id. Its code need not be in this program.
    ///
    /// # Errors
    /// When the input cannot be used, or the server cannot be reached.
    pub async fn start<H: OrchestrationHandle>(
        &self,
        orchestration: H,
        input: H::Input,
    ) -> Result<Run<H::Output>, ClientError> {
        self.start_with(orchestration, input, StartOptions::default()).await
    }

    /// Starts an instance with options. Without a version it begins under whichever the worker finds that runs it.
    ///
    /// # Errors
    /// Those of [`Client::start`], and [`ClientError::AlreadyExists`] when the id is in use by an instance that has
    /// not ended.
    pub async fn start_with<H: OrchestrationHandle>(
        &self,
        orchestration: H,
        input: H::Input,
        options: StartOptions,
    ) -> Result<Run<H::Output>, ClientError> {
        let version = options.version.as_deref().map_or_else(|| orchestration.version(), SmolStr::from);
        let input = self.encode(&input)?;
        let started = self.submit_start(orchestration.name(), version, &input, options).await?;
        Ok(Run::new(self.clone(), started))
    }

    pub(super) async fn submit_start(
        &self,
        name: SmolStr,
        version: SmolStr,
        input: &Payload,
        options: StartOptions,
    ) -> Result<Started, ClientError> {
        let (instance, fresh_id) = match options.instance_id {
            Some(id) => (InstanceId::parse(id)?, false),
            None => (InstanceId::from_trusted(Uuid::now_v7().as_simple().to_string()), true),
        };
        let tags: Tags = options.tags.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        check_tags(&tags)?;
        let request = wire::CreateInstanceRequest {
            instance_id: instance.to_string(),
            name: name.to_string(),
            version: Some(version.to_string()).filter(|version| !version.is_empty()),
            input: payload_to_wire(input),
            scheduled_start_timestamp: options.scheduled_start.map(timestamp_to_wire),
            orchestration_id_reuse_policy: Some(policy(options.reuse)),
            tags: tags_to_wire(&tags),
            parent_trace_context: options.trace.as_ref().map(trace_to_wire),
            ..wire::CreateInstanceRequest::default()
        };
        // An id that was made here is nobody else's: if it exists at the second attempt, the first one was successful.
        let repeat = if fresh_id { Repeat::Always } else { Repeat::IfNotMade };
        let call = |mut stub: Stub, request| async move { stub.start_instance(request).await };
        match self.link.call(repeat, request, call).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let execution = execution_id(Some(&answer.execution_id), "executionId").map_err(unclear)?;
                let execution = execution.unwrap_or_else(|| ExecutionId::new(Uuid::nil()));
                Ok(Started { instance, execution, version: answer.version.into() })
            }
            Err(failed) if failed.code() == Some(Code::AlreadyExists) => {
                let state = self.state(instance.as_str()).await?;
                let ignored = options.reuse.action(state.status) == OnExisting::Ignore;
                if !fresh_id && !ignored {
                    return Err(ClientError::AlreadyExists { id: instance, status: state.status });
                }
                Ok(Started { instance, execution: state.execution, version: state.version })
            }
            Err(failed) => Err(failed.into()),
        }
    }
}

/// Which instances give way, in the protocol's words. Which of the others are given to the caller is decided here.
fn policy(reuse: IdReuse) -> wire::OrchestrationIdReusePolicy {
    let replaced = STATUSES.into_iter().filter(|status| reuse.action(*status) == OnExisting::Replace);
    wire::OrchestrationIdReusePolicy {
        replaceable_status: replaced.map(|status| status_to_wire(status).into()).collect(),
    }
}
