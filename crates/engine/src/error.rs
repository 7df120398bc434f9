//! What a program that uses the engine can be told.

use std::time::Duration;

use smol_str::SmolStr;
use steadfast_core::model::DuplicateRegistration;
use steadfast_core::turn::RewindRefusal;
use steadfast_core::{
    ExecutionId, FailureDetails, InstanceId, InvalidInstanceId, InvalidTags, OrchestrationStatus,
};
use steadfast_store::StoreError;

/// A hub could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The store could not be opened or read.
    #[error("the hub's store cannot be used")]
    Store(#[from] StoreError),
    /// Two pieces of code have one name.
    #[error(transparent)]
    Registration(#[from] DuplicateRegistration),
    /// The hub's threads could not be started, or have died.
    #[error("the hub's threads failed: {problem}")]
    Threads {
        /// What happened.
        problem: String,
    },
    /// Options contradict one another.
    #[error("the options cannot be used: {problem}")]
    Options {
        /// What is wrong.
        problem: String,
    },
}

/// A client call did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A start: the id is in use.
    #[error("instance '{id}' exists and is {status}; choose another id, or wait until it has ended")]
    AlreadyExists {
        /// The id.
        id: InstanceId,
        /// Where that instance is in its life.
        status: OrchestrationStatus,
    },
    /// There is no such instance.
    #[error("there is no instance '{id}'; it was never started, or it was purged")]
    InstanceNotFound {
        /// The id.
        id: InstanceId,
    },
    /// The instance has ended and takes no messages.
    #[error("instance '{id}' has ended ({status}) and takes no messages")]
    NotRunning {
        /// The id.
        id: InstanceId,
        /// How it ended.
        status: OrchestrationStatus,
    },
    /// A purge or a restart: the instance has not ended.
    #[error(
        "instance '{id}' is {status}; only instances that have ended can be purged or restarted, so terminate it first"
    )]
    NotEnded {
        /// The id.
        id: InstanceId,
        /// Where it is in its life.
        status: OrchestrationStatus,
    },
    /// A rewind: the instance has not failed.
    #[error(
        "instance '{id}' is {status}, so rewinding it is not allowed; only instances that have failed can be rewound"
    )]
    NotFailed {
        /// The id.
        id: InstanceId,
        /// Where it is in its life.
        status: OrchestrationStatus,
    },
    /// A rewind: the instance has failed, and cannot go on. It stays as it is.
    #[error("instance '{id}' cannot be rewound and stays failed: {refusal}")]
    NotRewound {
        /// The id.
        id: InstanceId,
        /// Why not.
        #[source]
        refusal: RewindRefusal,
    },
    /// The instance is in another execution than the one asked for.
    #[error("instance '{id}' has no execution {wanted} any more; its last one is {current}")]
    OtherExecution {
        /// The id.
        id: InstanceId,
        /// The execution asked for.
        wanted: ExecutionId,
        /// The one that there is.
        current: ExecutionId,
    },
    /// An event was for another version than the instance has. It was not sent.
    #[error("instance '{id}' has version '{version}', for which the event is not meant")]
    OtherVersion {
        /// The id.
        id: InstanceId,
        /// Its version, empty for none.
        version: SmolStr,
    },
    /// A release: no turn of the instance has crashed.
    #[error("instance '{id}' is not poisoned: none of its turns has crashed since it last went on")]
    NotPoisoned {
        /// The id.
        id: InstanceId,
    },
    /// As many messages wait for the instance as may. It was not sent.
    #[error(
        "{waiting} messages wait for instance '{id}' and it has not consumed them; try again when it has, or raise \
         instance_messages_max"
    )]
    TooManyMessages {
        /// The id.
        id: InstanceId,
        /// How many wait.
        waiting: usize,
    },
    /// No orchestration of that name and version is registered.
    #[error(
        "no orchestration '{name}' version '{version}' is registered; register it before the hub is started \
         (registered are: {registered})"
    )]
    UnknownOrchestration {
        /// The name asked for.
        name: SmolStr,
        /// The version asked for.
        version: SmolStr,
        /// What is registered.
        registered: String,
    },
    /// A payload is larger than the hub allows.
    #[error(
        "the payload has {bytes} bytes and the hub allows {max}; pass a reference to the data, or raise \
         payload_bytes_max"
    )]
    PayloadTooLarge {
        /// Its size.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// A value has no JSON form, or a result is not of the type asked for.
    #[error("the payload cannot be converted")]
    InvalidPayload(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An entity cannot be asked for that: its id or the input cannot be used. The details say why.
    #[error("the entity cannot be asked for that: {0}")]
    Entity(Box<FailureDetails>),
    /// The id cannot be used.
    #[error(transparent)]
    InvalidInstanceId(#[from] InvalidInstanceId),
    /// The tags cannot be used.
    #[error(transparent)]
    InvalidTags(#[from] InvalidTags),
    /// What was waited for did not happen in time.
    #[error("waiting for instance '{id}' ended after {timeout:?}; it goes on, so wait again if you like")]
    TimedOut {
        /// The id.
        id: InstanceId,
        /// How long the wait was.
        timeout: Duration,
    },
    /// The orchestration failed.
    #[error("instance '{id}' failed: {details}")]
    Failed {
        /// The id.
        id: InstanceId,
        /// Why.
        details: Box<FailureDetails>,
    },
    /// The orchestration was terminated.
    #[error("instance '{id}' was terminated: {reason}")]
    Terminated {
        /// The id.
        id: InstanceId,
        /// The reason given.
        reason: SmolStr,
    },
    /// The hub was stopped or dropped.
    #[error("the hub is closed; start it again to go on")]
    HubClosed,
    /// The store failed while the call was under way. Whether it took effect is known after the partition's recovery:
    /// ask for the instance's state before repeating a call that must not happen twice.
    #[error("the store failed while the call was under way; it may have taken effect")]
    Store(#[from] StoreError),
    /// The partition was rebuilt while the call was under way. Whether it took effect is known now: ask for the
    /// instance's state before repeating a call that must not happen twice.
    #[error("the instance's partition was rebuilt while the call was under way; it may have taken effect")]
    Interrupted,
    /// The partition that owns the instance is being rebuilt after an error and did not come back in time. The call was
    /// not made.
    #[error("the instance's partition is not available; try again later, the log of the program says why")]
    Unavailable,
    /// A hub that is served elsewhere: the server could not be reached for longer than the client's patience. The call was not
    /// made.
    #[error("the server cannot be reached: {problem}; the call was not made")]
    Unreachable {
        /// What happened.
        problem: String,
    },
    /// A hub that is served elsewhere: the connection was lost while the call was under way. Ask for the instance's state
    /// before repeating a call that must not happen twice.
    #[error("the connection was lost while the call was under way ({problem}); it may have taken effect")]
    ConnectionLost {
        /// What happened.
        problem: String,
    },
    /// A hub that is served elsewhere: the server refused the call, and it was not made.
    #[error("the server refused the call ({code}): {problem}")]
    Refused {
        /// The gRPC code, such as `PermissionDenied`.
        code: SmolStr,
        /// What the server says.
        problem: String,
    },
}
