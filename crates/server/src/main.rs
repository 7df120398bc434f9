//! The `steadfast` binary.

mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A service that starts and ends millions of small objects a second on several threads: this allocator is made for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "steadfast", version, about = "Durable orchestrations")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the runtime on this machine.
    Bench(bench::BenchArguments),
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let outcome = match command {
        Command::Bench(arguments) => bench::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            bench::report::complain(&error);
            ExitCode::FAILURE
        }
    }
}
