//! The loader: reads instances for partitions, so that a turn or an answer can follow.

use actix::Addr;
use steadfast_core::InstanceId;
use steadfast_core::partition::Token;
use steadfast_store::{Store, bridge};

use super::queue::Queue;
use crate::partition::{Loaded, PartitionActor, StateRead};

/// Something to be read.
pub(crate) enum LoadRequest {
    /// An instance, with its history if its code is under way, or if that is wanted also of one that has ended.
    Instance { instance: InstanceId, ended: bool, reply: Addr<PartitionActor> },
    /// Only an instance's state, for a client.
    State { token: Token, instance: InstanceId, reply: Addr<PartitionActor> },
}

pub(super) fn run(store: &dyn Store, queue: &Queue<LoadRequest>) {
    let mut batch = Vec::new();
    while queue.take(&mut batch) {
        for request in batch.drain(..) {
            match request {
                LoadRequest::Instance { instance, ended, reply } => {
                    let load = if ended { bridge::load_ended } else { bridge::load_instance };
                    let outcome = super::call("reading an instance", || load(store, &instance));
                    reply.do_send(Loaded { instance, outcome });
                }
                LoadRequest::State { token, instance, reply } => {
                    let outcome = super::call("reading an instance", || {
                        let stored = store.load_instance(&instance)?;
                        stored.as_ref().map(bridge::instance_state).transpose()
                    });
                    reply.do_send(StateRead { token, instance, outcome });
                }
            }
        }
    }
}
