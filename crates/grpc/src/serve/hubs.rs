//! How the service finds the hub that a call is for.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use futures_util::future::BoxFuture;
use smol_str::SmolStr;
use tonic::{Code, Status};

use crate::service::TaskHubService;

/// The name of a task hub: 1 to 64 ASCII letters, digits, `-` and `_`, the first one a letter or a digit. So it is also
/// the name of a folder, and never that of another one.
///
/// ```
/// use steadfast_grpc::HubName;
/// assert_eq!("orders-2".parse::<HubName>()?.as_str(), "orders-2");
/// assert!("../orders".parse::<HubName>().is_err());
/// # Ok::<(), steadfast_grpc::InvalidHubName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HubName(SmolStr);

impl HubName {
    /// How many characters a name has at most.
    pub const LENGTH_MAX: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HubName {
    type Err = InvalidHubName;

    fn from_str(text: &str) -> Result<Self, InvalidHubName> {
        let refused = |problem| {
            let shown = text.chars().take(Self::LENGTH_MAX).collect();
            Err(InvalidHubName { shown, problem })
        };
        if text.is_empty() || text.len() > Self::LENGTH_MAX {
            return refused("it has 1 to 64 characters");
        }
        if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return refused("it begins with a letter or a digit");
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return refused("it has only letters, digits, '-' and '_'");
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot be the name of a task hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} cannot be the name of a task hub: {problem}")]
pub struct InvalidHubName {
    shown: String,
    problem: &'static str,
}

/// The hubs of a server. Each is isolated from the others.
pub trait Hubs: Send + Sync + 'static {
    /// The hub of calls that name none.
    fn default_hub(&self) -> &HubName;

    /// The service of a hub, which is opened if it isn't open.
    fn find<'a>(&'a self, hub: &'a HubName) -> BoxFuture<'a, Result<TaskHubService, HubsError>>;

    /// Makes a new hub. One of that name is an error, or is deleted first if `recreate` says so.
    fn create<'a>(&'a self, hub: &'a HubName, recreate: bool) -> BoxFuture<'a, Result<(), HubsError>>;

    /// Ends the work in all hubs: gives none out any more, waits as long as the hubs are set to for the results of what is
    /// under way, and stops them. Meanwhile [`Self::find`] gives those that are open, so that results find their way.
    fn drain(&self) -> BoxFuture<'_, ()>;

    /// Deletes a hub with everything in it. Calls that are under way in it fail.
    fn delete<'a>(&'a self, hub: &'a HubName) -> BoxFuture<'a, Result<(), HubsError>>;
}

/// A hub cannot be had, made or deleted.
#[derive(Debug, thiserror::Error)]
pub enum HubsError {
    /// There is none of that name.
    #[error("there is no task hub '{hub}' on this server; create it first")]
    NotFound {
        /// Its name.
        hub: HubName,
    },
    /// There is one of that name.
    #[error("task hub '{hub}' exists already")]
    AlreadyExists {
        /// Its name.
        hub: HubName,
    },
    /// The server has as many hubs open as it may.
    #[error("{max} task hubs are open, and the server allows no more")]
    TooMany {
        /// How many may be.
        max: usize,
    },
    /// The server is ending.
    #[error("the server is shutting down")]
    Closed,
    /// It could not be opened, made or deleted.
    #[error("task hub '{hub}' cannot be {doing}")]
    Failed {
        /// Its name.
        hub: HubName,
        /// What was not done: opened, created, deleted.
        doing: &'static str,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl From<InvalidHubName> for Status {
    fn from(error: InvalidHubName) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<HubsError> for Status {
    fn from(error: HubsError) -> Self {
        let code = match &error {
            HubsError::NotFound { .. } => Code::NotFound,
            HubsError::AlreadyExists { .. } => Code::AlreadyExists,
            HubsError::TooMany { .. } => Code::ResourceExhausted,
            HubsError::Closed => Code::Unavailable,
            HubsError::Failed { .. } => Code::Internal,
        };
        // What lies below names files of the server; it is in the server's log.
        Self::new(code, error.to_string())
    }
}
