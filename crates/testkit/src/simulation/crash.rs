//! Crashes of the whole hub and rebuilds of single partitions.

use steadfast_core::PartitionId;
use steadfast_store::{Store, StoreError, Survival};

use super::Simulation;
use super::network::Packet;
use super::node::Node;

/// A store that fails more often than this has no scripted faults left; something else is wrong.
const ATTEMPTS_MAX: u32 = 200;

impl Simulation {
    /// The process dies now: what was written and not made durable survives as [`super::SimulationOptions::survival`]
    /// says, everything in memory is gone, the client makes its unanswered calls again.
    ///
    /// # Panics
    /// When what is left cannot be recovered.
    pub fn crash_and_recover(&mut self) {
        self.crash_and_recover_with(self.options.survival);
    }

    /// The process dies now, and this much survives of what was written and not made durable.
    ///
    /// # Panics
    /// When what is left cannot be recovered.
    pub fn crash_and_recover_with(&mut self, survival: Survival) {
        self.crashes += 1;
        self.store = self.store.crash_image(survival);
        self.log.clear();
        self.network.clear();
        self.activities.lose();
        self.client.lose_answers(|_| true);
        self.recover_all();
    }

    pub(super) fn recover_all(&mut self) {
        self.nodes = (0..self.options.partitions)
            .map(|id| {
                Node::recover(&self.store, PartitionId(id), &self.options, self.now)
                    .unwrap_or_else(|error| panic!("partition {id} cannot be recovered: {error}"))
            })
            .collect();
    }

    /// A partition is given up and built anew from the store, while the others go on.
    ///
    /// # Panics
    /// When the store keeps failing.
    pub fn rebuild(&mut self, partition: u16) {
        let id = PartitionId(partition);
        // What was handed in and not begun is given up together with the machine that made it.
        self.log.retain(|record| record.partition != id);
        let mut attempts = 0;
        let recovered = loop {
            let recovered =
                self.store.recover().and_then(|()| Node::recover(&self.store, id, &self.options, self.now));
            match recovered {
                Ok(node) => break node,
                // The rest is done when the crash is noticed.
                Err(_) if self.store.has_crashed() => return,
                Err(error) => {
                    attempts += 1;
                    assert!(
                        error.is_retryable() && attempts < ATTEMPTS_MAX,
                        "{id} cannot be rebuilt: {error}"
                    );
                }
            }
        };
        self.nodes[usize::from(partition)] = recovered;
        let count = self.options.partitions;
        self.client.lose_answers(|instance| instance.partition(count) == id);
        for node in &self.nodes {
            let link = (node.partition.id(), id);
            if link.0 != id {
                let messages = node.partition.unacknowledged(id);
                messages
                    .into_iter()
                    .for_each(|message| self.network.send(link, Packet::Message(Box::new(message))));
            }
        }
    }

    pub(super) fn rebuild_after(&mut self, node: usize, error: &StoreError) {
        assert!(error.is_retryable(), "the store refuses what the partition does: {error}");
        if !self.store.has_crashed() {
            self.crashes += 1;
            self.rebuild(node as u16);
        }
    }
}
