//! What can be wrong before anything is called.

use steadfast_core::model::DuplicateRegistration;
use steadfast_engine::ClientError;

/// A client or a worker cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address of the server cannot be used.
    #[error("'{url}' is no address of a server ({problem}); write one like http://127.0.0.1:4001")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The name of the hub, or the token, has characters that cannot be sent.
    #[error("{what} has characters that cannot be sent; use ASCII")]
    Text {
        /// Which of them.
        what: &'static str,
    },
    /// What TLS needs cannot be used.
    #[error("the certificates or the key cannot be used: {problem}")]
    Tls {
        /// What is wrong.
        problem: String,
    },
    /// Two pieces of code have one name.
    #[error(transparent)]
    Registration(#[from] DuplicateRegistration),
    /// The threads that run orchestrations could not be started.
    #[error("the worker's threads could not be started: {problem}")]
    Threads {
        /// What happened.
        problem: String,
    },
    /// The server did not answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
}
