//! `steadfast bench`: what the runtime does on this machine, with every step durable.

mod beside;
mod entities;
mod events;
mod fill;
mod idle;
mod limits;
mod load;
mod open_loop;
mod probe;
mod query;
mod remote;
mod report;
mod scenario;
mod stalls;
mod startup;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use steadfast_core::Result;
use steadfast_engine::{HubBuilder, HubOptions};

use load::Short;
use probe::{fdatasync_micros, median, peak_rss_mb};
use remote::Protocol;
pub(crate) use remote::{WorkerArguments, work};
use report::{Progress, Report};
use watch::Watch;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Three activities in sequence.
    Hello,
    /// One activity.
    Ping,
    /// One orchestration with as many activities in sequence as there are instances asked for.
    Chain,
    /// One orchestration with as many activities in parallel as there are instances asked for.
    Fanout,
    /// Instances that wait on timers.
    Timers,
    /// Instances that wait for an event; reports the memory that each takes once idle.
    Waiting,
    /// Signals to entities (`--entities` of them); counts signals, and ends when all are applied.
    EntitySignals,
    /// Calls of an entity by an orchestration, one after the other; counts calls.
    EntityCall,
    /// Critical sections over three entities with one call each, one after the other; counts sections.
    EntityLock,
    /// Pages of finished instances by each filter, with `hello` beside: fills the store first, unless a run before has
    /// filled that of `--data-dir`.
    Query,
    /// Events for instances that have done `--steps` activities before, `--events` for each; counts events. With `--resident`
    /// fewer than there are instances, each has to be read and replayed.
    Events,
    /// One activity; its input is `--payload-bytes` long and comes back.
    Carry,
    /// A purge of so many finished instances: fills the store first, unless a run before has filled that of `--data-dir`.
    Purge,
    /// Starts after a crash, with a log that so many `hello`s have left; counts starts.
    Startup,
    /// `hello` with a server process and a worker process on this machine; see `--protocol`.
    RemoteHello,
    /// `ping` likewise.
    RemotePing,
    /// So many clients wait at a server process, each on a connection of its own, beside `--concurrency` idle workers: reports
    /// the server's memory for each client, and ends when all have been answered.
    RemoteWaiting,
    /// Limit: the turns and the encoding of `hello` on bare threads, without actors and without a disk.
    Kernel,
    /// Limit: the bytes of `hello`, in the same batches, appended to a plain file with fdatasync.
    Raw,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// What to run.
    #[arg(long, value_enum, default_value = "hello")]
    scenario: Scenario,
    /// How many instances (for chain and fanout: activities).
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    instances: u64,
    /// How many instances are under way at once.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    concurrency: u64,
    /// For entity-signals: how many entities are signaled.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    entities: u64,
    /// For remote scenarios: which protocol worker and client speak.
    #[arg(long, value_enum, default_value = "extended")]
    protocol: Protocol,
    /// How many partitions a new hub gets.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    partitions: u16,
    /// How often what has changed is moved to the instance store, in milliseconds. For runs below an instrumenting tool, in
    /// which a second holds only a fraction of the usual work.
    #[arg(long)]
    materialise_every: Option<u64>,
    /// For events: how many activities each instance has run before, a hundred at a time.
    #[arg(long, default_value_t = 0)]
    steps: u64,
    /// For events: how many each instance gets.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// For carry: how long the payload is. For events: how much longer it makes the input of each instance.
    #[arg(long, default_value_t = 0)]
    payload_bytes: usize,
    /// For hello, ping and carry: so many begin a second, whatever becomes of those before, and latencies count from when each
    /// was due. Reports stalls, and what took long meanwhile.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// For hello, ping and carry: for how long, instead of how many instances.
    #[arg(long, value_parser = positive)]
    seconds: Option<f64>,
    /// Beside the load: so many pages of finished instances are asked for in a second.
    #[arg(long, value_parser = positive)]
    pages_per_second: Option<f64>,
    /// Beside the load: what ended so many seconds ago is purged.
    #[arg(long)]
    retain_seconds: Option<u64>,
    /// How many finished instances are in the store before; those that a run before has left in `--data-dir` count.
    #[arg(long)]
    prefill: Option<u64>,
    /// How many sessions may be in memory.
    #[arg(long)]
    resident: Option<usize>,
    /// Where the data goes; a temporary folder that is removed afterwards when absent.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Print one line of JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Also measure the rate of the bare kernel, to compare with.
    #[arg(long)]
    with_limits: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: BenchArguments) -> Result<()> {
    let (folder, _temporary) = match &arguments.data_dir {
        Some(folder) => (folder.clone(), None),
        None => {
            let temporary = tempfile::tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    std::fs::create_dir_all(&folder)?;
    let progress = Progress::new(arguments.json, arguments.instances);
    let mut syncs = fdatasync_micros(&folder)?;
    let measured = match arguments.scenario {
        Scenario::Kernel => limits::kernel(arguments.instances, arguments.partitions, &progress),
        Scenario::Raw => limits::raw(&arguments, &folder, &progress)?,
        Scenario::RemoteHello => remote::run(&arguments, &folder, &progress, Short::Hello)?,
        Scenario::RemotePing => remote::run(&arguments, &folder, &progress, Short::Ping)?,
        Scenario::RemoteWaiting => idle::run(&arguments, &folder, &progress)?,
        Scenario::Startup => on_runtime(startup::run(&arguments, &folder, &Arc::default(), &progress))?,
        _ => {
            let watch = Arc::default();
            let builder = builder(&arguments, &folder, &watch);
            on_runtime(load::run(&arguments, builder, &folder, &watch, &progress))?
        }
    };
    progress.finish();
    syncs.extend(fdatasync_micros(&folder)?);
    let kernel_per_second = arguments
        .with_limits
        .then(|| {
            limits::kernel(arguments.instances.min(200_000), arguments.partitions, &Progress::new(true, 0))
        })
        .map(|kernel| kernel.orchestrations_per_second());
    let report = Report {
        scenario: arguments.scenario,
        measured,
        peak_rss_mb: peak_rss_mb()?,
        fdatasync_p50_us: median(&mut syncs),
        kernel_per_second,
    };
    report.print(arguments.json);
    Ok(())
}

/// A hub on sled, with the code of the scenarios.
fn builder(arguments: &BenchArguments, folder: &Path, watch: &Arc<Watch>) -> HubBuilder {
    let (folder, watch) = (folder.join("hub"), watch.clone());
    let open = move |partitions| watch.open(&folder, partitions);
    let mut options = HubOptions::default();
    if arguments.scenario == Scenario::Waiting {
        // What is measured is the memory of idle instances, so they are to become idle soon.
        options.session_idle_timeout = Duration::from_secs(1);
    }
    if let Some(millis) = arguments.materialise_every {
        options.materialise_interval = Duration::from_millis(millis);
    }
    if let Some(resident) = arguments.resident {
        options.resident_sessions_max = resident;
    }
    if arguments.scenario == Scenario::Startup {
        options.materialise_interval = startup::NEVER;
        options.materialise_after_bytes = usize::MAX;
        options.overlay_bytes_max = usize::MAX;
    }
    let builder = query::register(entities::register(HubBuilder::new(open)));
    let builder = fill::register(events::register(builder));
    scenario::register(builder.partitions(arguments.partitions).options(options))
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("it is a number greater than 0".to_owned()),
    }
}

fn on_runtime<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}
