//! Work over the standard protocol: a stream of items, and a call for each result.

use std::sync::Arc;
use std::task::Waker;

use steadfast_core::failure::kinds;
use steadfast_core::model::{ActivityLink, CancelReason};
use steadfast_core::turn::TurnAnswer;
use steadfast_core::{ActivityId, FailureDetails, Payload};
use steadfast_grpc::convert::{
    ReceivedTurn, activity_response, entity_response, received_activity, received_batch, received_turn,
    turn_response,
};
use steadfast_grpc::framing::{self, Message, PREFIX_BYTES};
use steadfast_grpc::wire::work_item::Request;
use steadfast_grpc::{MESSAGE_BYTES_MAX, wire};
use tokio::runtime::Handle;
use tonic::{Status, Streaming};

use super::code::{Code, refused_batch};
use super::profile::Profile;
use super::under_way::{Held, UnderWay};
use super::{Shared, TARGET};
use crate::calls::Failed;

const COMPLETE_TURN: &str = "/TaskHubSidecarService/CompleteOrchestratorTask";
const COMPLETE_ACTIVITY: &str = "/TaskHubSidecarService/CompleteActivityTask";
const COMPLETE_ENTITY: &str = "/TaskHubSidecarService/CompleteEntityTask";
const ABANDON_TURN: &str = "/TaskHubSidecarService/AbandonTaskOrchestratorWorkItem";
const ABANDON_ACTIVITY: &str = "/TaskHubSidecarService/AbandonTaskActivityWorkItem";
const ABANDON_ENTITY: &str = "/TaskHubSidecarService/AbandonTaskEntityWorkItem";

/// A worker's side of the standard protocol.
#[derive(Clone)]
pub(super) struct Standard {
    shared: Arc<Shared>,
    runtime: Handle,
    under_way: UnderWay,
}

impl Standard {
    pub(super) fn new(shared: Arc<Shared>, under_way: UnderWay) -> Self {
        Self { shared, runtime: Handle::current(), under_way }
    }

    /// Connects.
    pub(super) async fn connect(&self, profile: &Profile) -> Result<Streaming<wire::WorkItem>, Status> {
        Ok(self.shared.link.stub().get_work_items(profile.standard()).await?.into_inner())
    }

    /// Takes items until the stream ends.
    pub(super) async fn take(&self, items: &mut Streaming<wire::WorkItem>) -> Status {
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
        let (worker, instance, held) = (self.clone(), turn.whose.instance.clone(), self.under_way.begin());
        self.shared.turns.run(&instance, move |_| worker.run_turn(token, turn, held));
    }

    fn run_turn(&self, token: String, turn: ReceivedTurn, held: Held) {
        let ReceivedTurn { whose, past, new } = turn;
        let mut session = self.shared.code.session(whose.instance.clone());
        let answer = match Code::turn(&mut session, &whose.instance, &past, &new) {
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
                    worker.tell("a turn", COMPLETE_TURN, &response).await;
                    drop(held);
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
        let (worker, held) = (self.clone(), self.under_way.begin());
        self.runtime.spawn(async move {
            let code = &worker.shared.code;
            let link = Arc::new(NoLink { payload_bytes_max: code.payload_bytes_max() });
            let outcome = code.activity(task.clone(), link).await;
            let response = activity_response(token, &task, &outcome);
            worker.tell("an activity", COMPLETE_ACTIVITY, &response).await;
            drop(held);
        });
    }

    fn begin_batch(&self, token: String, request: wire::EntityRequest) {
        let work = match received_batch(request) {
            Ok(work) => work,
            Err(error) => return self.give_back(Kind::Entity, token, &error.to_string()),
        };
        let (worker, held) = (self.clone(), self.under_way.begin());
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
            worker.tell("an entity's batch", COMPLETE_ENTITY, &response).await;
            drop(held);
        });
    }

    /// Tells the server how work went. A result that it does not get is no loss: the item is handed out again.
    async fn tell(&self, what: &str, path: &'static str, message: &impl Message) {
        let told = match framing::frame(message) {
            Ok(framed) if framed.len() <= PREFIX_BYTES + MESSAGE_BYTES_MAX => {
                self.shared.link.tell(path, framed).await
            }
            Ok(framed) => {
                let bytes = framed.len() - PREFIX_BYTES;
                let problem = format!("it has {bytes} bytes, and {MESSAGE_BYTES_MAX} are allowed");
                Err(Failed::Refused(Status::out_of_range(problem)))
            }
            Err(status) => Err(Failed::Refused(status)),
        };
        if let Err(failed) = told {
            tracing::warn!(target: TARGET, ?failed, "the server does not know the result of {what}; it will be done again");
        }
    }

    /// Tells the server that this worker does not do it.
    fn give_back(&self, kind: Kind, token: String, problem: &str) {
        tracing::warn!(target: TARGET, ?kind, problem, "the worker gives an item back");
        let (worker, held) = (self.clone(), self.under_way.begin());
        self.runtime.spawn(async move {
            let what = "an item that was given back";
            let completion_token = token;
            match kind {
                Kind::Turn => {
                    let message = wire::AbandonOrchestrationTaskRequest { completion_token };
                    worker.tell(what, ABANDON_TURN, &message).await;
                }
                Kind::Activity => {
                    let message = wire::AbandonActivityTaskRequest { completion_token };
                    worker.tell(what, ABANDON_ACTIVITY, &message).await;
                }
                Kind::Entity => {
                    let message = wire::AbandonEntityTaskRequest { completion_token };
                    worker.tell(what, ABANDON_ENTITY, &message).await;
                }
            }
            drop(held);
        });
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Turn,
    Activity,
    Entity,
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
