//! `steadfast token`.

use clap::Subcommand;
use steadfast_core::Result;

use super::print;
use crate::tokens::{Grant, new_token};

/// Makes the tokens that callers show.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token. Two lines are printed: the token, which is for the caller and is kept nowhere, and its line for the file
    /// that the server's --token-file names.
    #[command(after_help = HELP)]
    New {
        /// What the caller is called in the file.
        #[arg(long, value_parser = name)]
        name: String,
        /// What the caller may do, as role@hub, or role@* for all hubs; several times, or separated by commas.
        #[arg(long = "grant", value_name = "ROLE@HUB", required = true, value_delimiter = ',')]
        grants: Vec<Grant>,
    },
}

const HELP: &str = "\
Roles:
  read    look at instances and entities, and wait for them
  write   start, signal, change and purge them
  worker  take work items, and complete them
  admin   create and delete the hub, and all of the above

Example:
  steadfast token new --name orders-service --grant read@orders,write@orders
";

/// A name is one word in its line, and no comment.
fn name(text: &str) -> Result<String, &'static str> {
    let is_word = !text.is_empty() && !text.starts_with('#') && !text.contains(char::is_whitespace);
    if is_word { Ok(text.to_owned()) } else { Err("a name is one word that does not begin with '#'") }
}

impl TokenCommand {
    pub(crate) fn run(self) -> Result<()> {
        let Self::New { name, grants } = self;
        let (token, line) = new_token(&name, &grants)?;
        print(token)?;
        print(line)?;
        Ok(())
    }
}
