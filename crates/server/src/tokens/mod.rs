//! Who may call: bearer tokens from a file that can change while the server runs.

mod file;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use steadfast_grpc::{Access, Denied, HubName, Role};
use tokio::sync::watch;

use crate::logs;
use file::Tokens;
pub(crate) use file::{Grant, TokenFileError, new_token};

/// How often it is looked whether the file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Lets those call who are in the file.
pub(crate) struct TokenAccess {
    path: PathBuf,
    tokens: RwLock<Tokens>,
    changes: watch::Sender<u64>,
}

impl TokenAccess {
    pub(crate) fn read(path: PathBuf) -> Result<Self, TokenFileError> {
        let tokens = RwLock::new(Tokens::read(&path)?);
        Ok(Self { path, tokens, changes: watch::Sender::new(0) })
    }

    /// Reads the file again. If it cannot be used, those stay who were there.
    pub(crate) fn reload(&self) {
        match Tokens::read(&self.path) {
            Ok(tokens) => {
                *self.tokens.write() = tokens;
                self.changes.send_modify(|version| *version += 1);
                tracing::info!(target: logs::TARGET, path = %self.path.display(), "tokens read again");
            }
            Err(error) => {
                let error = logs::chain(&error);
                tracing::error!(target: logs::TARGET, error, "tokens stay as they were");
            }
        }
    }

    /// Reads the file again whenever it has changed.
    pub(crate) async fn follow(&self) {
        let stamp = || std::fs::metadata(&self.path).ok().map(|found| (found.modified().ok(), found.len()));
        let mut last: Option<(Option<SystemTime>, u64)> = stamp();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            let now = stamp();
            // While it is replaced there may be none for a moment.
            if now.is_some() && now != last {
                last = now;
                self.reload();
            }
        }
    }
}

impl Access for TokenAccess {
    fn check(&self, token: Option<&str>, hub: &HubName, any_of: &[Role]) -> Result<(), Denied> {
        let token = token.ok_or(Denied::NoToken)?;
        let tokens = self.tokens.read();
        let granted = tokens.find(token).ok_or(Denied::UnknownToken)?;
        if any_of.is_empty() || granted.allows(hub, any_of) { Ok(()) } else { Err(Denied::NotAllowed) }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
