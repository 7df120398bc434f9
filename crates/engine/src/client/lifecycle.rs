//! Beginning instances again, removing whole families, and looking at one execution.

use steadfast_core::failure::bounded_reason;
use steadfast_core::partition::Accepted;
use steadfast_core::{
    EventKind, ExecutionId, HistoryEvent, IdReuse, InstanceId, InstanceState, OnExisting, ParentInstance,
    log_event,
};

use super::{Client, StartOptions, Started};
use crate::error::ClientError;
use crate::partition::Call;

/// How an instance is begun again.
#[derive(Debug, Clone, Default)]
pub struct RestartOptions {
    /// The id of the new instance; that of the old one when absent, which must have ended then.
    pub instance_id: Option<String>,
}

/// What a recursive purge did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PurgedTree {
    /// How many instances were removed.
    pub purged: u64,
    /// Sub-orchestrations that have not ended, and so were kept; also what was started anew meanwhile.
    pub kept: Vec<InstanceId>,
}

impl Client {
    /// Begins an instance again, with the name, version, input and tags that it has. Under its own id it is replaced,
    /// and must have ended. Under another one it may still be going on. Nobody awaits the new instance, also if
    /// the old one was a sub-orchestration. Of an instance that has continued as new the last input counts.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`]; [`ClientError::NotEnded`]; [`ClientError::AlreadyExists`] when an instance
    /// with another id given exists.
    pub async fn restart(&self, instance: &str, options: RestartOptions) -> Result<Started, ClientError> {
        let old = self.state(instance).await?;
        let own = options.instance_id.as_deref().is_none_or(|id| id == instance);
        if own && !old.status.is_terminal() {
            return Err(ClientError::NotEnded { id: old.instance, status: old.status });
        }
        let reuse = IdReuse::default();
        let text = |text: &str| text.to_owned();
        let options = StartOptions {
            instance_id: Some(options.instance_id.unwrap_or_else(|| instance.to_owned())),
            tags: old.tags.iter().map(|(key, value)| (text(key), text(value))).collect(),
            reuse: if own { reuse } else { reuse.on_ended(OnExisting::Error) },
            ..StartOptions::default()
        };
        let restarted = self.submit_start(old.name, old.version, old.input, None, options, None).await;
        match restarted {
            // Somebody else was faster.
            Err(ClientError::AlreadyExists { id, status }) if own => {
                Err(ClientError::NotEnded { id, status })
            }
            restarted => restarted,
        }
    }

    /// Ends an instance that has not ended, at once and without running its code, wherever that is and whether or not anybody
    /// runs it. Only a turn that is under way ends first. Its sub-orchestrations go on, and locks of entities that it has are
    /// freed. Prefer [`Client::terminate`].
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`]; [`ClientError::NotRunning`] when it has ended.
    pub async fn end_by_force(&self, instance: &str, reason: &str) -> Result<(), ClientError> {
        let state = self.state(instance).await?;
        let (instance, reason) = (state.instance, bounded_reason(reason));
        if state.status.is_terminal() {
            return Err(ClientError::NotRunning { id: instance, status: state.status });
        }
        log_event!(TerminatingInstance, %instance, %reason);
        self.call(&instance, Call::End { instance: instance.clone(), reason }).await.map(|_: Accepted| ())
    }

    /// Lets an instance that has failed go on from before its failure, as a new execution: once what made it fail is mended.
    /// What it did stays done: its activities and sub-orchestrations that completed are not run again. Those that failed
    /// without being handled are, and those that had not ended; the sub-orchestrations among them are rewound in
    /// the same way, and one that was purged is started anew. A failure that the code had handled, by trying again or
    /// otherwise, stays in the history. When this returns the instance is in the new execution, and that is
    /// durable.
    ///
    /// Activities that are run again have another idempotency key than before, and a call of an entity that had not been
    /// answered, or had failed, is made again. A parent that awaited the instance has seen its failure already: rewind the
    /// parent instead, and the instance is rewound with it.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`]; [`ClientError::NotFailed`] when it is in any other state;
    /// [`ClientError::NotRewound`] when it cannot go on, for example because its code is not registered here, no longer
    /// fits its history, or held locks of entities.
    pub async fn rewind(&self, instance: &str, reason: &str) -> Result<(), ClientError> {
        self.send(instance, EventKind::ExecutionRewound { reason: bounded_reason(reason), child: None }).await
    }

    /// Removes an instance that has ended, with its history, and with it the sub-orchestrations of its last execution that
    /// have ended, and theirs. Those that nobody awaited are not among them, nor is an instance that has meanwhile
    /// been started under a child's id by somebody else. Children go first: if the call is interrupted, calling it again
    /// goes on where it was.
    ///
    /// # Errors
    /// Those of [`Client::purge`].
    pub async fn purge_recursive(&self, instance: &str) -> Result<PurgedTree, ClientError> {
        let mut result = PurgedTree::default();
        let root = InstanceId::parse(instance)?;
        let state = self.state(instance).await?;
        if !state.status.is_terminal() {
            return Err(ClientError::NotEnded { id: root, status: state.status });
        }
        // An instance is looked at twice: to find its children, and, when they are gone, to be purged itself.
        let mut stack = vec![(root.clone(), false)];
        while let Some((id, children_are_gone)) = stack.pop() {
            if children_are_gone {
                match self.purge(id.as_str()).await {
                    Ok(()) => result.purged += 1,
                    // Somebody else was faster, or began it anew.
                    Err(ClientError::NotEnded { .. }) => result.kept.push(id),
                    Err(ClientError::InstanceNotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
                continue;
            }
            let children = match self.history(id.as_str()).await {
                Ok(history) => children_of(&history),
                Err(ClientError::InstanceNotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            stack.push((id.clone(), true));
            for child in children {
                match self.state(child.as_str()).await {
                    Ok(state) if !is_child(&state.parent, &id) => {}
                    Ok(state) if state.status.is_terminal() => stack.push((child, false)),
                    Ok(_) => result.kept.push(child),
                    Err(ClientError::InstanceNotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(result)
    }

    /// The state of one execution of an instance.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`]; [`ClientError::OtherExecution`] when the instance is in another execution: only
    /// the current one, or the last, is kept.
    pub async fn state_of(
        &self,
        instance: &str,
        execution: ExecutionId,
    ) -> Result<InstanceState, ClientError> {
        let state = self.state(instance).await?;
        if state.execution == execution {
            return Ok(state);
        }
        Err(ClientError::OtherExecution { id: state.instance, wanted: execution, current: state.execution })
    }

    /// The history of one execution of an instance.
    ///
    /// # Errors
    /// Those of [`Client::state_of`].
    pub async fn history_of(
        &self,
        instance: &str,
        execution: ExecutionId,
    ) -> Result<Vec<HistoryEvent>, ClientError> {
        let state = self.state_of(instance, execution).await?;
        let history = self.history(instance).await?;
        let found = history.iter().find_map(|event| match &event.kind {
            EventKind::ExecutionStarted(started) => Some(started.execution),
            _ => None,
        });
        match found {
            Some(current) if current != execution => {
                Err(ClientError::OtherExecution { id: state.instance, wanted: execution, current })
            }
            _ => Ok(history),
        }
    }
}

/// The sub-orchestrations that a history awaits or awaited.
fn children_of(history: &[HistoryEvent]) -> Vec<InstanceId> {
    let child = |event: &HistoryEvent| match &event.kind {
        EventKind::SubOrchestrationInstanceCreated(created) if !created.detached => {
            Some(created.instance.clone())
        }
        _ => None,
    };
    let mut children: Vec<_> = history.iter().filter_map(child).collect();
    // A retried child keeps its id.
    children.sort_unstable();
    children.dedup();
    children
}

fn is_child(parent: &Option<ParentInstance>, of: &InstanceId) -> bool {
    parent.as_ref().is_some_and(|parent| parent.instance == *of)
}
