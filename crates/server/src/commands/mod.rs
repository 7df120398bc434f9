//! The small commands: hubs, tokens and settings, without a server.

mod config;
mod hub;
mod token;

pub(crate) use config::ConfigCommand;
pub(crate) use hub::HubCommand;
pub(crate) use token::TokenCommand;

use std::io::{self, Write};

/// Prints a line of the command's result.
fn print(line: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}
