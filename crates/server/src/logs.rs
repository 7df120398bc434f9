//! The log of the process.

use std::error::Error;
use std::io::IsTerminal;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::settings::LogFormat;

/// The target of what the server itself reports.
pub(crate) const TARGET: &str = "steadfast::server";

/// Writes what passes the filter to stderr from now on.
pub(crate) fn start(filter: Targets, format: LogFormat) {
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // It fails if there is one already, which then goes on.
    let _ = registry().with(lines.with_filter(filter)).try_init();
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
