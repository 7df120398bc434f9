//! Very many clients that wait, each on a connection of its own, beside idle workers: what the server needs for each, and
//! whether all are answered in the end.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use steadfast_core::model::{OrchestrationContext, orchestration};
use steadfast_core::{Error, InstanceState, OrchestrationStatus, Result};
use steadfast_engine::ClientError;
use steadfast_remote::{Client, Protocol, Server, Worker};

use super::remote::Served;
use super::report::{Measured, Progress};
use super::scenario::PING;
use super::{BenchArguments, on_runtime};
use crate::serve::raise_descriptor_limit;

/// How many calls and connections are begun at once.
const AT_ONCE: usize = 64;

/// How long the server's memory is left to settle.
const SETTLING: Duration = Duration::from_secs(2);

type Waiting = BoxFuture<'static, std::result::Result<InstanceState, ClientError>>;

/// Starts the server, lets so many clients wait as there are instances, and so many workers be idle as concurrency says; then
/// lets a worker run what the clients wait for.
pub(super) fn run(arguments: &BenchArguments, folder: &Path, progress: &Progress) -> Result<Measured> {
    raise_descriptor_limit();
    let served = Served::start(arguments, folder)?;
    let url = served.url.clone();
    on_runtime(async {
        let caller = Client::connect(url.as_str()).await?;
        let mut idle = Vec::new();
        for number in 0..arguments.concurrency {
            idle.push(idle_worker(&url, number, &caller).await?);
        }
        // Nobody runs them yet.
        let starts =
            stream::iter(0..arguments.instances).map(|_| caller.start(PING, ())).buffer_unordered(AT_ONCE);
        let ids: Vec<String> = starts.map_ok(|run| run.id().to_string()).try_collect().await?;
        tokio::time::sleep(SETTLING).await;
        let before = served.resident_bytes()?;
        let waits = stream::iter(ids).map(|id| wait(&url, id)).buffer_unordered(AT_ONCE);
        let waits: Vec<Waiting> = waits.try_collect().await?;
        tokio::time::sleep(SETTLING).await;
        let each = served.resident_bytes()?.saturating_sub(before) as f64 / waits.len() as f64;

        let began = Instant::now();
        let _worker = served.worker(arguments.protocol)?;
        let mut taken = Vec::new();
        let mut ends: stream::FuturesUnordered<_> = waits.into_iter().collect();
        while let Some(state) = ends.next().await {
            let status = state?.status;
            if status != OrchestrationStatus::Completed {
                return Err(Error::msg(format!("a client was told that its instance is {status}")));
            }
            taken.push(began.elapsed());
            progress.advance();
        }
        let mut measured = Measured::new(arguments.instances, arguments.instances, began.elapsed(), taken);
        measured.bytes_per_instance = Some(each);
        Ok(measured)
    })
}

/// A worker with code that nobody needs, once it is connected: then it has run it once.
async fn idle_worker(url: &str, number: u64, caller: &Client) -> Result<Worker> {
    let code =
        orchestration(
            format!("idle-{number}"),
            |_: OrchestrationContext, ()| async move { Ok::<_, Error>(()) },
        );
    let handle = code.handle();
    let worker = Worker::builder(url).protocol(Protocol::Standard).threads(1).register(code).start().await?;
    caller.start(handle, ()).await?.result().await?;
    Ok(worker)
}

/// The wait of a client with a connection of its own, once the server has it.
async fn wait(url: &str, id: String) -> Result<Waiting> {
    let client = Client::connect(Server::at(url).single_calls()).await?;
    let (asker, asked) = (client.clone(), id.clone());
    let waiting: Waiting = Box::pin(async move { client.wait_for_completion(&id, None).await });
    // It goes the same way, behind the wait.
    let asking = Box::pin(async move { asker.state(&asked).await });
    match select(waiting, asking).await {
        Either::Right((state, waiting)) => {
            state?;
            Ok(waiting)
        }
        Either::Left(_) => Err(Error::msg("an instance has ended that nobody runs")),
    }
}
