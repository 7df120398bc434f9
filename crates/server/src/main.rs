//! The `steadfast` binary.

mod bench;
mod commands;
mod hubs;
mod logs;
mod serve;
mod settings;
mod tokens;

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use commands::{ConfigCommand, HubCommand, TokenCommand};
use settings::{ConfigFile, Layers, Settings};
use steadfast_core::{Error, Result};

/// A service that starts and ends millions of small objects a second on several threads: this allocator is made for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "steadfast", version, propagate_version = true, about = "Durable orchestrations")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve task hubs to programs in other processes and languages, by the Durable Task gRPC protocol.
    #[command(after_help = SERVE_HELP)]
    Serve(Box<ServeArguments>),
    /// List, make and delete task hubs while no server uses them.
    #[command(subcommand)]
    Hub(HubCommand),
    /// Make tokens for callers.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Measure the runtime on this machine.
    Bench(bench::BenchArguments),
    /// The worker of a remote scenario of `bench`, which starts it.
    #[command(hide = true)]
    BenchWorker(bench::WorkerArguments),
}

/// What `serve` is started with.
#[derive(Debug, Args)]
struct ServeArguments {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    settings: Settings,
}

const SERVE_HELP: &str = "\
Every setting is a flag, a variable in the environment and a key in the settings file, under one name: --data-dir,
STEADFAST_DATA_DIR and data-dir. A flag goes before the environment, and that before the file.

When calls are taken, one line is printed to stdout, with the real addresses:
  steadfast 0.1.0 ready: address=127.0.0.1:4001,[::1]:4001 hub=default ...

SIGTERM and SIGINT: no call is taken, waits get UNAVAILABLE, workers bring the results of what they have begun and are sent
away, everything is written, and the exit code is 0. A second one stops at once; what was acknowledged is durable anyway.
SIGHUP: tokens and certificates are read again.

Examples:
  steadfast serve
      One hub in ./steadfast-data for programs on this machine. SDKs connect to localhost:4001 by default.
  steadfast serve --data-dir /var/lib/steadfast --listen 0.0.0.0:4001 \\
      --tls-cert server.pem --tls-key server.key --token-file tokens
      For other machines: encrypted, and with a token for each caller (see 'steadfast token new --help').
  steadfast serve --config /etc/steadfast.toml
      Settings from a file. 'steadfast config check --config /etc/steadfast.toml' checks it, and prints what counts.
";

fn run(command: Command, matches: &ArgMatches) -> Result<()> {
    match command {
        Command::Serve(arguments) => {
            let ServeArguments { file, settings } = *arguments;
            serve::run(Layers::read(settings, file.config.as_deref())?.merged().complete()?)
        }
        Command::Hub(command) => command.run(),
        Command::Token(command) => command.run(),
        Command::Config(command) => command.run(matches),
        Command::Bench(arguments) => bench::run(arguments),
        Command::BenchWorker(arguments) => bench::work(arguments),
    }
}

/// Prints what went wrong, and what lies below it.
fn complain(error: &Error) {
    let mut text = String::new();
    for (depth, cause) in error.details().chain().enumerate() {
        text.push_str(if depth == 0 { "steadfast: " } else { "\n  caused by: " });
        text.push_str(&cause.message);
    }
    // There is nobody left to tell if it fails.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn main() -> ExitCode {
    let matches = Arguments::command().get_matches();
    let Arguments { command } = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let of_command = matches.subcommand().map(|(_, matches)| matches);
    match run(command, of_command.unwrap_or(&matches)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}
