//! Where each partition's actor is at the moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::Addr;
use parking_lot::RwLock;
use steadfast_core::{InstanceId, PartitionId};
use tokio::sync::{Semaphore, watch};

use crate::partition::{Mail, PartitionActor, PartitionMessage};

/// The partitions' addresses. A partition that is being rebuilt has none.
pub(crate) struct Routes {
    slots: Vec<Slot>,
    closed: AtomicBool,
    /// Changes whenever an address does, for those who wait for one.
    changes: watch::Sender<u64>,
}

struct Slot {
    address: RwLock<Option<Addr<PartitionActor>>>,
    /// Bounds the client calls under way.
    calls: Arc<Semaphore>,
    /// Counts on when the partition is rebuilt.
    mail: Mail,
}

impl Routes {
    pub(crate) fn new(partitions: u16, pending_calls_max: usize) -> Self {
        let slot = || Slot {
            address: RwLock::new(None),
            calls: Arc::new(Semaphore::new(pending_calls_max.clamp(1, Semaphore::MAX_PERMITS))),
            mail: Mail::default(),
        };
        Self {
            slots: (0..partitions).map(|_| slot()).collect(),
            closed: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        }
    }

    pub(crate) fn partitions(&self) -> u16 {
        u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    pub(crate) fn owner(&self, instance: &InstanceId) -> PartitionId {
        instance.partition(self.partitions())
    }

    pub(crate) fn set(&self, partition: PartitionId, address: Addr<PartitionActor>) {
        *self.slots[usize::from(partition.0)].address.write() = Some(address);
        self.changes.send_modify(|version| *version += 1);
    }

    pub(crate) fn clear(&self, partition: PartitionId) {
        *self.slots[usize::from(partition.0)].address.write() = None;
        self.changes.send_modify(|version| *version += 1);
    }

    pub(crate) fn get(&self, partition: PartitionId) -> Option<Addr<PartitionActor>> {
        self.slots[usize::from(partition.0)].address.read().clone()
    }

    pub(crate) fn calls(&self, partition: PartitionId) -> Arc<Semaphore> {
        self.slots[usize::from(partition.0)].calls.clone()
    }

    pub(crate) fn mail(&self, partition: PartitionId) -> &Mail {
        &self.slots[usize::from(partition.0)].mail
    }

    /// How many messages the actors of all partitions have had.
    pub(crate) fn messages(&self) -> u64 {
        self.slots.iter().map(|slot| slot.mail.count()).sum()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Sends to a partition; while it is being rebuilt the message is dropped, and it asks for a resend afterwards.
    pub(crate) fn send(&self, partition: PartitionId, message: PartitionMessage) {
        if let Some(address) = &*self.slots[usize::from(partition.0)].address.read() {
            // What is under way between partitions is in the sender's outbox anyway, so a bound here would bound
            // nothing, and refusing would only delay it.
            address.do_send(message);
        }
    }

    pub(crate) fn all(&self) -> Vec<Addr<PartitionActor>> {
        self.slots.iter().filter_map(|slot| slot.address.read().clone()).collect()
    }

    pub(crate) fn others(&self, me: PartitionId) -> Vec<Addr<PartitionActor>> {
        let others = self.slots.iter().enumerate().filter(|(at, _)| *at != usize::from(me.0));
        others.filter_map(|(_, slot)| slot.address.read().clone()).collect()
    }

    /// From now on no call is taken.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for slot in &self.slots {
            slot.calls.close();
        }
        self.changes.send_modify(|version| *version += 1);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
