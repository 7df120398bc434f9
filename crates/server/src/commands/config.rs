//! `steadfast config`.

use clap::{ArgMatches, Subcommand};
use steadfast_core::Result;
use steadfast_grpc::Tls;

use super::print;
use crate::ServeArguments;
use crate::serve::check_addresses;
use crate::settings::{Layers, Sources};
use crate::tokens::TokenAccess;

/// Looks at settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check what `serve` would be started with, and the files that it names, and print all settings with where each comes
    /// from. What is printed can be used as a settings file.
    Check(Box<ServeArguments>),
}

impl ConfigCommand {
    /// `matches` are those of `steadfast config`.
    pub(crate) fn run(self, matches: &ArgMatches) -> Result<()> {
        let Self::Check(arguments) = self;
        let ServeArguments { file, settings } = *arguments;
        let layers = Layers::read(settings, file.config.as_deref())?;
        let config = layers.merged().complete()?;
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(check_addresses(&config))?;
        config.tls.map(Tls::load).transpose()?;
        config.token_file.map(TokenAccess::read).transpose()?;
        if let Some((_, matches)) = matches.subcommand() {
            print(Sources::of(matches).show(&layers).to_string().trim_end())?;
        }
        Ok(())
    }
}
