//! Who may call what.

use tokio::sync::watch;
use tonic::Status;

use super::hubs::HubName;

/// What a caller may do in a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at instances and entities, and wait for them.
    Read,
    /// Start, signal, change and purge them.
    Write,
    /// Take work items, and complete them.
    Worker,
    /// Create and delete the hub, and everything else.
    Admin,
}

/// Decides about calls by the bearer tokens that they carry.
pub trait Access: Send + Sync + 'static {
    /// Whether whoever has this token may do what one of these roles may, in this hub. With no role asked for, any
    /// caller who is known will do.
    ///
    /// # Errors
    /// Says whether the caller is unknown, or may not do it.
    fn check(&self, token: Option<&str>, hub: &HubName, any_of: &[Role]) -> Result<(), Denied>;

    /// Changes whenever an earlier answer of [`Self::check`] may no longer hold. Long calls are then checked again.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// A call is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No token came with it.
    #[error("this server asks for a token: send it in the metadata as 'authorization: Bearer <token>'")]
    NoToken,
    /// The token is none of the server's.
    #[error("the token is not known to this server")]
    UnknownToken,
    /// The token's roles do not suffice.
    #[error("the token does not allow this call in this task hub")]
    NotAllowed,
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NoToken | Denied::UnknownToken => Self::unauthenticated(denied.to_string()),
            Denied::NotAllowed => Self::permission_denied(denied.to_string()),
        }
    }
}

/// Lets everybody do everything.
#[derive(Debug)]
pub struct OpenAccess {
    never: watch::Sender<u64>,
}

impl Default for OpenAccess {
    fn default() -> Self {
        Self { never: watch::Sender::new(0) }
    }
}

impl Access for OpenAccess {
    fn check(&self, _: Option<&str>, _: &HubName, _: &[Role]) -> Result<(), Denied> {
        Ok(())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.never.subscribe()
    }
}
