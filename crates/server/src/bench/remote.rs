//! Scenarios with a server process and a worker process on this machine: what a program pays that is served.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use clap::{Args, ValueEnum};
use steadfast_core::{Error, Result};
use steadfast_remote::{Client, Server, Worker};

use super::load::{Short, short};
use super::probe::resident_bytes_of;
use super::report::{Measured, Progress};
use super::scenario::{greeting, hello, ping};
use super::{BenchArguments, on_runtime};

/// Which protocol the worker and the client speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// That of the SDKs.
    Standard,
    /// The extension for Rust programs.
    Extended,
}

/// A worker with the code of the scenarios, for a bench that has started the server.
#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    /// The server.
    #[arg(long)]
    url: String,
    /// Which protocol to speak.
    #[arg(long, value_enum)]
    protocol: Protocol,
}

/// A process that ends with this.
pub(super) struct Process(Child);

impl Process {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self(command.spawn()?))
    }

    /// The first line that it prints.
    fn first_line(&mut self) -> Result<String> {
        let stdout = self.0.stdout.take().ok_or_else(|| Error::msg("the process has no output"))?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server process on this machine.
pub(super) struct Served {
    process: Process,
    pub(super) url: String,
}

impl Served {
    /// Starts it, and waits until it takes calls.
    pub(super) fn start(arguments: &BenchArguments, folder: &Path) -> Result<Self> {
        let data = folder.join("served");
        let partitions = arguments.partitions.to_string();
        let data = data.to_str().ok_or_else(|| Error::msg("the data folder's name is no text"))?;
        let flags = ["serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--partitions", &partitions];
        let mut process = Process::start(&[&flags[..], &["--log", "warn"]].concat())?;
        let ready = process.first_line()?;
        let address = ready.split_once("address=").and_then(|(_, rest)| rest.split([' ', ',']).next());
        let address = address.ok_or_else(|| Error::msg(format!("the server did not begin: {ready:?}")))?;
        let url = format!("http://{address}");
        Ok(Self { process, url })
    }

    /// Starts a worker process with the code of the scenarios.
    pub(super) fn worker(&self, protocol: Protocol) -> Result<Process> {
        let protocol = match protocol {
            Protocol::Standard => "standard",
            Protocol::Extended => "extended",
        };
        Process::start(&["bench-worker", "--url", &self.url, "--protocol", protocol])
    }

    /// The memory that the server has now.
    pub(super) fn resident_bytes(&self) -> Result<u64> {
        resident_bytes_of(self.process.0.id())
    }
}

/// Starts both processes, runs the scenario, and ends them.
pub(super) fn run(
    arguments: &BenchArguments,
    folder: &Path,
    progress: &Progress,
    which: Short,
) -> Result<Measured> {
    let served = Served::start(arguments, folder)?;
    let _worker = served.worker(arguments.protocol)?;
    let (instances, concurrency) = (arguments.instances, arguments.concurrency);
    on_runtime(async {
        let server = Server::at(served.url.as_str());
        let client = Client::connect(match arguments.protocol {
            Protocol::Standard => server.single_calls(),
            Protocol::Extended => server,
        });
        let client = client.await?;
        // The worker is there, and everything is warm, when the first ones have come through.
        short(&client, instances.min(concurrency), concurrency, &Progress::new(true, 0), which.clone())
            .await?;
        short(&client, instances, concurrency, progress, which).await
    })
}

/// The worker's process. It ends when whoever started it does.
pub(crate) fn work(arguments: WorkerArguments) -> Result<()> {
    on_runtime(async {
        let protocol = match arguments.protocol {
            Protocol::Standard => steadfast_remote::Protocol::Standard,
            Protocol::Extended => steadfast_remote::Protocol::Negotiated,
        };
        let worker = Worker::builder(arguments.url.as_str()).protocol(protocol);
        let worker = worker.register(hello()).register(ping()).register(greeting()).start().await?;
        let over = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        over.await??;
        worker.stop().await;
        Ok(())
    })
}
