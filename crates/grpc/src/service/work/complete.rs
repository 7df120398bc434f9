//! What workers answer. An unknown token is no error: the item went to another worker, and SDKs do not try again.

use steadfast_core::InstanceId;
use steadfast_engine::{WorkItem, Workers};
use tonic::Status;

use crate::convert::{Whose, activity_outcome, entity_answer, turn_answer};
use crate::service::TaskHubService;
use crate::wire;

impl TaskHubService {
    pub(in crate::service) fn complete_turn(
        &self,
        response: wire::OrchestratorResponse,
    ) -> Result<(), Status> {
        let workers = self.workers()?;
        let Some(token) =
            token(&response.completion_token, || workers.token_of_turn(&instance(&response.instance_id)?))
        else {
            return Ok(());
        };
        let Some(response) = self.partial_answers.add(&token, response, workers)? else { return Ok(()) };
        let Some(WorkItem::Turn { turn, .. }) = workers.item(&token) else { return Ok(()) };
        let whose = Whose { instance: turn.instance.clone(), execution: turn.started.execution };
        drop(turn);
        let answer = turn_answer(response, &whose);
        let answer = answer.inspect_err(|_| give_back(workers, &token))?;
        workers.complete_turn(&token, answer);
        Ok(())
    }

    pub(in crate::service) fn complete_activity(
        &self,
        response: wire::ActivityResponse,
    ) -> Result<(), Status> {
        let workers = self.workers()?;
        let by_call = || workers.token_of_activity(&instance(&response.instance_id)?, response.task_id);
        if let Some(token) = token(&response.completion_token, by_call) {
            workers.complete_activity(&token, activity_outcome(response));
        }
        Ok(())
    }

    /// Without a token there is nothing that says which entity it is about.
    pub(in crate::service) fn complete_entity(&self, result: wire::EntityBatchResult) -> Result<(), Status> {
        let workers = self.workers()?;
        let Some(token) = token(&result.completion_token, || None) else { return Ok(()) };
        let answer = entity_answer(result).inspect_err(|_| give_back(workers, &token))?;
        workers.complete_entity(&token, answer);
        Ok(())
    }

    pub(in crate::service) fn abandon(&self, token: &str) -> Result<(), Status> {
        give_back(self.workers()?, token);
        Ok(())
    }
}

/// What cannot be understood would otherwise be waited for.
fn give_back(workers: &Workers, token: &str) {
    workers.abandon(token);
}

fn token(given: &str, otherwise: impl FnOnce() -> Option<String>) -> Option<String> {
    if given.is_empty() { otherwise() } else { Some(given.to_owned()) }
}

fn instance(id: &str) -> Option<InstanceId> {
    InstanceId::parse(id).ok()
}
