//! The same orchestrations on Steadfast and on duroxide, in turns, each with its default settings, in one table.
//!
//! ```sh
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- --seconds 5 --rounds 3
//! ```
//!
//! `benches/README.md` says what the figures mean.

mod duroxide;
mod measure;
mod steadfast;
mod table;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};

use measure::{Load, Round, measure};

/// Both systems use the allocator that Steadfast's binary has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whatever goes wrong ends the comparison.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Three activities in sequence.
    Hello,
    /// One activity.
    Ping,
    /// Twenty activities at once, and their results.
    Fanout,
    /// A timer of 10 ms.
    Timer,
}

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Ping => "ping",
            Self::Fanout => "fanout",
            Self::Timer => "timer",
        }
    }
}

/// How many activities a fan-out has.
const FANOUT: usize = 20;

/// What the timer waits.
const TIMER: Duration = Duration::from_millis(10);

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Steadfast as it is.
    Steadfast,
    /// duroxide as it is, with its SQLite provider.
    Duroxide,
    /// Steadfast whose log is written and not synchronised: what it would be with duroxide's durability.
    SteadfastUnsynced,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Steadfast => "steadfast",
            Self::Duroxide => "duroxide",
            Self::SteadfastUnsynced => "steadfast, no sync",
        }
    }

    /// What is still true after a loss of power of what a client was told.
    fn durability(self) -> &'static str {
        match self {
            Self::Steadfast => {
                "fdatasync before every answer, activity and message; one for all that wait for it"
            }
            Self::Duroxide => {
                "SQLite in WAL mode with synchronous = NORMAL: written, and synchronised at checkpoints only"
            }
            Self::SteadfastUnsynced => {
                "written, and never synchronised: survives the process, not a loss of power"
            }
        }
    }
}

/// How the instances of a burst are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Waits {
    /// As is best for the system: where a wait polls, many of them burden it; where it is told, each round trip in turn does.
    Best,
    /// For one after the other.
    InTurn,
    /// For all at once.
    AtOnce,
}

/// A hub, or what goes by another name, with the code of the scenarios.
trait System: Sized {
    /// What [`Waits::Best`] means for it.
    const BEST_WAITS: Waits;

    /// Opens a new one in an empty folder.
    async fn open(folder: &Path) -> Result<Self>;

    /// Starts an instance; `number` is another one each time. Returns its id when it is accepted.
    async fn start(&self, scenario: Scenario, number: u64) -> Result<String>;

    /// Waits until the instance has ended; false if it has failed.
    async fn wait(&self, id: &str) -> Result<bool>;

    /// Ends it.
    async fn close(self) -> Result<()>;
}

/// Runs the same orchestrations on both, in turns.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to run.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["hello", "ping", "fanout", "timer"])]
    scenarios: Vec<Scenario>,
    /// What to compare.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["steadfast", "duroxide"])]
    systems: Vec<Kind>,
    /// How many instances are started together; the next ones begin when all of these have ended. 1 shows what a lone
    /// one takes.
    #[arg(long, value_delimiter = ',', default_values = ["1", "50"], value_parser = clap::value_parser!(u64).range(1..))]
    burst: Vec<u64>,
    /// How the instances of a burst are waited for.
    #[arg(long, value_enum, default_value_t = Waits::Best)]
    waits: Waits,
    /// For how long each system runs each scenario, each time.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How often they take turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where the data goes; a temporary folder when absent. Each turn begins with an empty folder within.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Whoever comes first decides: duroxide would print a line for every step, and for each time that it found its database
    // locked and waits.
    let level = tracing_subscriber::filter::LevelFilter::ERROR;
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    let window = Duration::from_secs_f64(arguments.seconds);
    let mut rows = Vec::new();
    for scenario in &arguments.scenarios {
        for burst in &arguments.burst {
            let mut rounds: Vec<(Kind, Vec<Round>)> =
                arguments.systems.iter().map(|kind| (*kind, Vec::new())).collect();
            for round in 1..=arguments.rounds {
                for (kind, done) in &mut rounds {
                    eprintln!("{}, {burst} at once, round {round}: {}", scenario.name(), kind.name());
                    let folder = folder(&arguments)?;
                    let load = Load { scenario: *scenario, burst: *burst, waits: arguments.waits, window };
                    done.push(on_runtime(run(*kind, folder.path(), load))?);
                }
            }
            rows.extend(rounds.into_iter().map(|(kind, rounds)| (*scenario, *burst, kind, rounds)));
        }
    }
    table::print(&rows, &arguments.systems);
    Ok(())
}

/// An empty folder, which goes away with its value.
fn folder(arguments: &Arguments) -> Result<tempfile::TempDir> {
    Ok(match &arguments.data_dir {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            tempfile::tempdir_in(folder)?
        }
        None => tempfile::tempdir()?,
    })
}

async fn run(kind: Kind, folder: &Path, load: Load) -> Result<Round> {
    match kind {
        Kind::Steadfast => measure::<steadfast::Synced>(folder, load).await,
        Kind::SteadfastUnsynced => measure::<steadfast::Unsynced>(folder, load).await,
        Kind::Duroxide => measure::<duroxide::Duroxide>(folder, load).await,
    }
}

/// A runtime for each turn, so that nothing of the one before is left in it.
fn on_runtime<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}
