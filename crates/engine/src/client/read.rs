//! Reading instances: states, waits and histories.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use steadfast_core::partition::Poison;
use steadfast_core::{HistoryEvent, InstanceId, InstanceState, PartitionId, log_event};
use steadfast_store::{StoreError, bridge};

use super::Client;
use crate::error::ClientError;
use crate::partition::{
    ActivitiesRead, ActivityProgress, HistoryRead, PartitionActor, PoisonRead, Wait, WaitFor,
};

/// A history that was caught between two materialisations is read again, at most this often.
const HISTORY_READS_MAX: u32 = 100;

impl Client {
    /// The instance's state.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`] when there is no such instance.
    pub async fn state(&self, instance: &str) -> Result<InstanceState, ClientError> {
        self.wait(&InstanceId::parse(instance)?, WaitFor::Nothing, None).await
    }

    /// Waits until the instance's first turn is done, and returns its state. It is told, it does not poll.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] when that does not happen within `timeout`; [`ClientError::InstanceNotFound`].
    pub async fn wait_for_start(
        &self,
        instance: &str,
        timeout: Option<Duration>,
    ) -> Result<InstanceState, ClientError> {
        self.wait(&InstanceId::parse(instance)?, WaitFor::Start, timeout).await
    }

    /// Waits until the instance has ended, over all generations, and returns its state. It is told, it does not poll.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] when that does not happen within `timeout`; [`ClientError::InstanceNotFound`].
    pub async fn wait_for_completion(
        &self,
        instance: &str,
        timeout: Option<Duration>,
    ) -> Result<InstanceState, ClientError> {
        self.wait(&InstanceId::parse(instance)?, WaitFor::End, timeout).await
    }

    /// The instances whose last turn crashed, in no particular order: how often, why, and whether they are tried again.
    ///
    /// # Errors
    /// When the hub is closed, or a partition is not available.
    pub async fn poisoned(&self) -> Result<Vec<(InstanceId, Poison)>, ClientError> {
        let mut poisoned = Vec::new();
        for partition in (0..self.shared.routes.partitions()).map(PartitionId) {
            let read = |address: Addr<PartitionActor>, answer| address.do_send(PoisonRead { answer });
            poisoned.extend(self.ask(partition, None, read).await?);
        }
        Ok(poisoned)
    }

    /// The activities of an instance that have no result yet, with how far those that run say they have come. Empty when
    /// there are none, or no such instance.
    ///
    /// # Errors
    /// When the hub is closed, or the partition is not available.
    pub async fn activities(&self, instance: &str) -> Result<Vec<ActivityProgress>, ClientError> {
        let instance = InstanceId::parse(instance)?;
        let owner = self.shared.routes.owner(&instance);
        let read = |address: Addr<PartitionActor>, answer| {
            address.do_send(ActivitiesRead { instance: instance.clone(), answer });
        };
        self.ask(owner, Some(&instance), read).await
    }

    pub(super) async fn wait(
        &self,
        instance: &InstanceId,
        wait_for: WaitFor,
        timeout: Option<Duration>,
    ) -> Result<InstanceState, ClientError> {
        self.wait_also(instance, wait_for, timeout, false).await
    }

    /// Waits also for an instance that may come later, if asked to.
    pub(super) async fn wait_also(
        &self,
        instance: &InstanceId,
        wait_for: WaitFor,
        timeout: Option<Duration>,
        may_come: bool,
    ) -> Result<InstanceState, ClientError> {
        match wait_for {
            WaitFor::Nothing => log_event!(FetchingInstanceState, %instance),
            WaitFor::Start | WaitFor::End => log_event!(WaitingForInstance, %instance),
        }
        let owner = self.shared.routes.owner(instance);
        let answer = self.ask(owner, Some(instance), |address, answer| {
            // A question is small, and each client has one at a time.
            address.do_send(Wait { instance: instance.clone(), wait_for, may_come, answer });
        });
        let state = match timeout {
            None => answer.await?,
            Some(timeout) => tokio::time::timeout(timeout, answer)
                .await
                .map_err(|_| ClientError::TimedOut { id: instance.clone(), timeout })??,
        };
        let state = state.ok_or_else(|| ClientError::InstanceNotFound { id: instance.clone() })?;
        Ok(Arc::unwrap_or_clone(state))
    }

    /// The history of the instance's current (or last) execution.
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`] when there is no such instance.
    pub async fn history(&self, instance: &str) -> Result<Vec<HistoryEvent>, ClientError> {
        let instance = InstanceId::parse(instance)?;
        log_event!(FetchingInstanceHistory, %instance);
        let owner = self.shared.routes.owner(&instance);
        self.wait(&instance, WaitFor::Nothing, None).await?;
        let mut reads = 0;
        loop {
            // First what is in memory, then the store: what moves in between is in both, never in neither.
            let pieces = self
                .ask(owner, Some(&instance), |address, answer| {
                    address.do_send(HistoryRead { instance: instance.clone(), answer });
                })
                .await?;
            let (store, id) = (self.store()?, instance.clone());
            let read = tokio::task::spawn_blocking(move || {
                let whole_in_memory = pieces.first().is_some_and(|piece| piece.at == 0);
                let stored = if whole_in_memory { Vec::new() } else { store.load_history(&id)? };
                bridge::history_events(&id, &stored, &pieces)
            });
            reads += 1;
            match read.await.map_err(|_| ClientError::HubClosed)? {
                // A new execution may have replaced the stored history in between.
                Err(StoreError::Corrupt { .. }) if reads < HISTORY_READS_MAX => {}
                read => return Ok(read?),
            }
        }
    }

    /// The history of the instance's current (or last) execution as JSON in the Durable Task event vocabulary, for
    /// people, tools and replay tests: see [`steadfast_core::history_json`].
    ///
    /// # Errors
    /// [`ClientError::InstanceNotFound`] when there is no such instance.
    pub async fn history_json(&self, instance: &str) -> Result<String, ClientError> {
        let events = self.history(instance).await?;
        Ok(steadfast_core::history_json::write(&InstanceId::parse(instance)?, &events))
    }
}
