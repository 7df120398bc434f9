//! Work over the standard protocol: a stream of items, and a call for each result.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::Waker;

use smol_str::SmolStr;
use steadfast_core::failure::kinds;
use steadfast_core::model::{ActivityLink, CancelReason, Registry};
use steadfast_core::turn::TurnAnswer;
use steadfast_core::{ActivityId, FailureDetails, Payload, VersionFailure, VersionMatch, VersionOptions};
use steadfast_engine::{NameFilter, PerKind, WorkFilters};
use steadfast_grpc::convert::{
    ReceivedTurn, activity_response, entity_response, received_activity, received_batch, received_turn,
    turn_response,
};
use steadfast_grpc::wire;
use steadfast_grpc::wire::work_item::Request;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

use super::code::{Code, refused_batch};
use super::{Shared, UnderWay};
use crate::calls::{Repeat, Stub, pauses, problem};

/// Target of what a worker says in the log.
pub(super) const TARGET: &str = "steadfast::worker";

/// What the worker says of itself.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) places: PerKind<usize>,
    pub(super) filters: WorkFilters,
}

impl Profile {
    /// It takes what it has registered, and nothing that it cannot run.
    pub(super) fn new(name: String, places: PerKind<usize>, registry: &Registry) -> Self {
        let registered = registry.registered();
        let filter = |(name, versions): (SmolStr, Vec<SmolStr>), only: Option<&SmolStr>| {
            let runs_any = versions.iter().any(SmolStr::is_empty);
            let versions = match only {
                Some(only) => vec![only.clone()],
                None if runs_any => Vec::new(),
                // Without a version the greatest one is meant.
                None => versions.into_iter().chain([SmolStr::default()]).collect(),
            };
            NameFilter { name, versions }
        };
        let only = only_version(registry.versions());
        let orchestrations = registered.orchestrations.into_iter().map(|it| filter(it, only)).collect();
        let activities = registered.activities.into_iter().map(|it| filter(it, None)).collect();
        let mut filters = WorkFilters { orchestrations, activities, entities: registered.entities };
        // The protocol has no word for "no places".
        if places.orchestrations == 0 {
            filters.orchestrations.clear();
        }
        if places.activities == 0 {
            filters.activities.clear();
        }
        if places.entities == 0 {
            filters.entities.clear();
        }
        Self { name, places, filters }
    }

    fn request(&self) -> wire::GetWorkItemsRequest {
        let places = |count: usize| i32::try_from(count.max(1)).unwrap_or(i32::MAX);
        let versions = |filter: &NameFilter| filter.versions.iter().map(ToString::to_string).collect();
        let WorkFilters { orchestrations, activities, entities } = &self.filters;
        wire::GetWorkItemsRequest {
            max_concurrent_orchestration_work_items: places(self.places.orchestrations),
            max_concurrent_activity_work_items: places(self.places.activities),
            max_concurrent_entity_work_items: places(self.places.entities),
            work_item_filters: Some(wire::WorkItemFilters {
                orchestrations: orchestrations
                    .iter()
                    .map(|it| wire::OrchestrationFilter { name: it.name.to_string(), versions: versions(it) })
                    .collect(),
                activities: activities
                    .iter()
                    .map(|it| wire::ActivityFilter { name: it.name.to_string(), versions: versions(it) })
                    .collect(),
                entities: entities.iter().map(|it| wire::EntityFilter { name: it.to_string() }).collect(),
            }),
            worker_instance_id: self.name.clone(),
            ..wire::GetWorkItemsRequest::default()
        }
    }
}

/// The only version of instances that a worker takes, if it leaves all others to other workers.
fn only_version(options: &VersionOptions) -> Option<&SmolStr> {
    let strict = options.match_strategy == VersionMatch::Strict;
    (strict && options.failure_strategy == VersionFailure::Reject).then_some(&options.version)
}

/// Works until it is told to stop, through as many connections as are necessary.
pub(super) async fn work(shared: Arc<Shared>, profile: Profile, mut stopping: watch::Receiver<bool>) {
    let (held, mut all_done) = mpsc::channel::<Infallible>(1);
    let worker = Standard { shared, runtime: Handle::current(), _under_way: UnderWay { _held: held } };
    let mut pauses = pauses();
    while !*stopping.borrow() {
        let connected = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            connected = worker.connect(&profile) => connected,
        };
        let ended = match connected {
            Ok(items) => {
                tracing::info!(target: TARGET, worker = profile.name, "the worker is connected");
                pauses = crate::calls::pauses();
                tokio::select! {
                    _ = stopping.wait_for(|stopping| *stopping) => break,
                    ended = worker.take(items) => ended,
                }
            }
            Err(status) => status,
        };
        let pause = pauses.next().unwrap_or_default();
        let problem = problem(&ended);
        tracing::warn!(target: TARGET, worker = profile.name, code = ?ended.code(), problem, ?pause, "the worker has no connection, and tries again");
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    // Ends when the last item has let go of its sender.
    drop(worker);
    let _ = all_done.recv().await;
}

#[derive(Clone)]
struct Standard {
    shared: Arc<Shared>,
    runtime: Handle,
    _under_way: UnderWay,
}

impl Standard {
    async fn connect(&self, profile: &Profile) -> Result<Streaming<wire::WorkItem>, Status> {
        Ok(self.shared.link.stub().get_work_items(profile.request()).await?.into_inner())
    }

    /// Takes items until the stream ends.
    async fn take(&self, mut items: Streaming<wire::WorkItem>) -> Status {
        loop {
            match items.message().await {
                Ok(Some(item)) => self.begin(item),
                Ok(None) => return Status::unavailable("the server ended the stream"),
                Err(status) => return status,
            }
        }
    }

    fn begin(&self, item: wire::WorkItem) {
        let token = item.completion_token;
        match item.request {
            Some(Request::OrchestratorRequest(request)) => self.begin_turn(token, request),
            Some(Request::ActivityRequest(request)) => self.begin_activity(token, request),
            Some(Request::EntityRequestV2(request)) => self.begin_batch(token, request),
            Some(Request::EntityRequest(_)) => {
                self.give_back(Kind::Entity, token, "it is an entity's batch in the old form");
            }
            Some(Request::HealthPing(_)) | None => {}
        }
    }

    fn begin_turn(&self, token: String, request: wire::OrchestratorRequest) {
        let turn = match received_turn(request) {
            Ok(turn) => turn,
            Err(error) => return self.give_back(Kind::Turn, token, &error.to_string()),
        };
        let (worker, instance) = (self.clone(), turn.whose.instance.clone());
        self.shared.turns.run(&instance, move || worker.run_turn(token, turn));
    }

    fn run_turn(&self, token: String, turn: ReceivedTurn) {
        let ReceivedTurn { whose, past, new } = turn;
        let mut session = self.shared.code.session(whose.instance.clone());
        let answer = match Code::turn(&mut session, &past, &new) {
            Ok(answer) => answer,
            Err(error) => {
                let problem = format!("instance '{}': {error}", whose.instance);
                return self.give_back(Kind::Turn, token, &problem);
            }
        };
        // Without patches, actions and a cause that is of no other type, there is nothing that cannot be said.
        let failed = |failure| turn_response(token.clone(), &whose, TurnAnswer::failed(failure));
        let response = turn_response(token.clone(), &whose, answer).or_else(|error| failed(error.into()));
        match response {
            Ok(response) => {
                let worker = self.clone();
                self.runtime.spawn(async move {
                    let call = |mut stub: Stub, response| async move {
                        stub.complete_orchestrator_task(response).await
                    };
                    report("a turn", worker.shared.link.call(Repeat::Always, response, call).await);
                });
            }
            Err(error) => self.give_back(Kind::Turn, token, &error.to_string()),
        }
    }

    fn begin_activity(&self, token: String, request: wire::ActivityRequest) {
        let task = match received_activity(request) {
            Ok(task) => Arc::new(task),
            Err(error) => return self.give_back(Kind::Activity, token, &error.to_string()),
        };
        let worker = self.clone();
        self.runtime.spawn(async move {
            let code = &worker.shared.code;
            let link = Arc::new(NoLink { payload_bytes_max: code.payload_bytes_max() });
            let outcome = code.activity(task.clone(), link).await;
            let response = activity_response(token, &task, &outcome);
            let call = |mut stub: Stub, response| async move { stub.complete_activity_task(response).await };
            report("an activity", worker.shared.link.call(Repeat::Always, response, call).await);
        });
    }

    fn begin_batch(&self, token: String, request: wire::EntityRequest) {
        let work = match received_batch(request) {
            Ok(work) => work,
            Err(error) => return self.give_back(Kind::Entity, token, &error.to_string()),
        };
        let worker = self.clone();
        self.runtime.spawn(async move {
            let (count, before) = (work.operations.len(), work.state.clone());
            let Some(answer) = worker.shared.code.entity(work).await else {
                return worker.give_back(Kind::Entity, token, "no such entity is registered");
            };
            let refused = |failure| entity_response(token.clone(), refused_batch(count, before, &failure));
            let Ok(response) =
                entity_response(token.clone(), answer).or_else(|error| refused(FailureDetails::from(error)))
            else {
                return worker.give_back(Kind::Entity, token, "its answer cannot be said");
            };
            let call = |mut stub: Stub, response| async move { stub.complete_entity_task(response).await };
            report("an entity's batch", worker.shared.link.call(Repeat::Always, response, call).await);
        });
    }

    /// Tells the server that this worker does not do it.
    fn give_back(&self, kind: Kind, token: String, problem: &str) {
        tracing::warn!(target: TARGET, ?kind, problem, "the worker gives an item back");
        let worker = self.clone();
        self.runtime.spawn(async move {
            let call = |mut stub: Stub, completion_token| async move {
                match kind {
                    Kind::Turn => {
                        let request = wire::AbandonOrchestrationTaskRequest { completion_token };
                        stub.abandon_task_orchestrator_work_item(request).await.map(drop)?;
                    }
                    Kind::Activity => {
                        let request = wire::AbandonActivityTaskRequest { completion_token };
                        stub.abandon_task_activity_work_item(request).await.map(drop)?;
                    }
                    Kind::Entity => {
                        let request = wire::AbandonEntityTaskRequest { completion_token };
                        stub.abandon_task_entity_work_item(request).await.map(drop)?;
                    }
                }
                Ok(tonic::Response::new(()))
            };
            let told = worker.shared.link.call(Repeat::Always, token, call).await;
            report("an item that was given back", told);
        });
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Turn,
    Activity,
    Entity,
}

/// A result that the server does not get is no loss: the item is handed out again.
fn report<T>(what: &str, told: Result<T, crate::calls::Failed>) {
    if let Err(failed) = told {
        tracing::warn!(target: TARGET, ?failed, "the server does not know the result of {what}; it will be done again");
    }
}

/// The standard protocol has no heartbeats, and does not tell activities that they are cancelled.
struct NoLink {
    payload_bytes_max: usize,
}

impl ActivityLink for NoLink {
    fn heartbeat(&self, _: ActivityId, detail: Payload) -> Result<(), FailureDetails> {
        let (bytes, max) = (detail.len(), self.payload_bytes_max);
        if bytes <= max {
            return Ok(());
        }
        let problem = format!("the detail has {bytes} bytes and the worker allows {max}");
        Err(FailureDetails::new(kinds::PAYLOAD_TOO_LARGE, problem).non_retriable())
    }

    fn poll_cancelled(&self, _: ActivityId, _: Option<&Waker>) -> Option<CancelReason> {
        None
    }
}
