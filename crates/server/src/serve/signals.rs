//! The signals that stop a server.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM, from when this was made on.
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct StopSignal {
    pub(super) name: &'static str,
    pub(super) number: i32,
}

impl StopSignals {
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next one that comes.
    pub(super) async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.interrupt.recv() => {
                StopSignal { name: "SIGINT", number: SignalKind::interrupt().as_raw_value() }
            }
            _ = self.terminate.recv() => {
                StopSignal { name: "SIGTERM", number: SignalKind::terminate().as_raw_value() }
            }
        }
    }
}
