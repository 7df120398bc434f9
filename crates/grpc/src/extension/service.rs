//! The hub's side of the stream of a worker.

use std::time::Duration;

use futures_util::stream;
use steadfast_core::FailureDetails;
use steadfast_engine::{WorkItem, WorkResult, WorkerConnection, Workers};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::message::{FORMAT, Report, decode_profile, decode_reports, encode_item};
use super::sound::is_sound;
use super::{BATCH_BYTES, Profile};
use crate::service::Answers;
use crate::wire::extension::worker_link_server::WorkerLink;
use crate::wire::extension::{FromServer, FromWorker};

/// How long a stream is idle before it says that it is alive.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long a worker may take to say what it is.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// How many orders wait for the stream before no more reports are read.
const ORDERS: usize = 256;

/// Gives work of one hub to workers that speak the extension.
#[derive(Debug, Clone)]
pub struct WorkerLinkService {
    workers: Workers,
}

impl WorkerLinkService {
    /// Gives the work of these workers' hub.
    pub fn new(workers: Workers) -> Self {
        Self { workers }
    }
}

#[tonic::async_trait]
impl WorkerLink for WorkerLinkService {
    type WorkStream = Answers<FromServer>;

    async fn work(
        &self,
        request: Request<Streaming<FromWorker>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let mut reports = request.into_inner();
        let first = tokio::time::timeout(GREETING_TIMEOUT, reports.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the worker says nothing of itself"))?;
        let profile = greeted(first?)?;
        let connection = Some(self.workers.connect(profile.into()));
        let (orders, ordered) = mpsc::channel(ORDERS);
        tokio::spawn(read(self.workers.clone(), reports, orders));
        let link = Link { connection, ordered, greeted: false };
        let messages = stream::unfold(link, |mut link| async move {
            let message = link.next().await?;
            Some((message, link))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

fn greeted(first: Option<FromWorker>) -> Result<Profile, Status> {
    let first = first.ok_or_else(|| Status::invalid_argument("the worker says nothing of itself"))?;
    if first.format != FORMAT {
        let theirs = first.format;
        return Err(Status::failed_precondition(format!(
            "the worker speaks format {theirs} of the extension and the server {FORMAT}; use the same version of Steadfast, or the \
             standard protocol"
        )));
    }
    decode_profile(&first.content).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// What the reports cause on the way to the worker.
enum Order {
    /// The worker needs this item whole.
    Whole(WorkItem),
    /// It takes no more work.
    Leave,
    /// It cannot be understood.
    Refuse(Status),
}

/// Takes a worker's reports until it has said all.
async fn read(workers: Workers, mut reports: Streaming<FromWorker>, orders: mpsc::Sender<Order>) {
    loop {
        // Whatever ends it: what the worker has not reported, others do.
        let Ok(Some(message)) = reports.message().await else { return };
        if message.leaving && orders.send(Order::Leave).await.is_err() {
            return;
        }
        let decoded = decode_reports(&message.content).map_err(|error| error.to_string());
        let sound = decoded.and_then(|reports| match reports.iter().all(is_sound) {
            true => Ok(reports),
            false => Err("a report has an id that is none, or locks out of order".to_owned()),
        });
        let reports = match sound {
            Ok(reports) => reports,
            Err(problem) => {
                // If nobody is there any more, nobody need know.
                let _ = orders.send(Order::Refuse(Status::invalid_argument(problem))).await;
                return;
            }
        };
        let mut results = Vec::with_capacity(reports.len());
        for report in reports {
            match report {
                Report::Turn { token, answer } => results.push((token, WorkResult::Turn(*answer))),
                Report::Activity { token, outcome } => results.push((token, WorkResult::Activity(outcome))),
                Report::Entity { token, answer } => results.push((token, WorkResult::Entity(answer))),
                Report::GivenBack { token } => {
                    workers.abandon(&token);
                }
                Report::NeedsHistory { token } => {
                    if let Some(item) = workers.item(&token)
                        && orders.send(Order::Whole(item)).await.is_err()
                    {
                        return;
                    }
                }
                Report::Heartbeat { token, detail } => {
                    let beaten: Result<(), FailureDetails> = workers.heartbeat(&token, detail);
                    if let Err(failure) = beaten {
                        tracing::warn!(target: "steadfast::workers", %failure, "a heartbeat is ignored");
                    }
                }
            }
        }
        workers.complete(results);
    }
}

/// The way to the worker.
struct Link {
    /// None when it takes no more work.
    connection: Option<WorkerConnection>,
    ordered: mpsc::Receiver<Order>,
    greeted: bool,
}

impl Link {
    /// The next message; none when the worker has said all.
    async fn next(&mut self) -> Option<Result<FromServer, Status>> {
        if !self.greeted {
            self.greeted = true;
            return Some(Ok(FromServer { format: FORMAT, content: Vec::new() }));
        }
        let mut content = Vec::new();
        tokio::select! {
            item = next_item(self.connection.as_mut()) => match item {
                Some(item) => encode_item(&item, &mut content),
                None => return Some(Err(Status::unavailable("the hub stops; connect again"))),
            },
            order = self.ordered.recv() => match order? {
                Order::Whole(item) => encode_item(&item, &mut content),
                Order::Leave => self.connection = None,
                Order::Refuse(status) => return Some(Err(status)),
            },
            () = tokio::time::sleep(PING_INTERVAL) => {}
        }
        while content.len() < BATCH_BYTES
            && let Some(item) = self.connection.as_mut().and_then(WorkerConnection::try_next)
        {
            encode_item(&item, &mut content);
        }
        Some(Ok(FromServer { format: 0, content }))
    }
}

async fn next_item(connection: Option<&mut WorkerConnection>) -> Option<WorkItem> {
    match connection {
        Some(connection) => connection.next().await,
        None => std::future::pending().await,
    }
}
