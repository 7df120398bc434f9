//! The materialiser: moves what partitions captured into the instance store and shortens their logs.

use std::sync::Arc;

use actix::Addr;
use steadfast_core::partition::Capture;
use steadfast_store::{Store, StoreError, bridge};

use super::queue::Queue;
use crate::partition::{Materialised, PartitionActor};

/// A capture to be written.
pub(crate) struct MaterialiseRequest {
    pub(crate) capture: Arc<Capture>,
    pub(crate) reply: Addr<PartitionActor>,
}

pub(super) fn run(store: &dyn Store, queue: &Queue<MaterialiseRequest>) {
    let mut batch = Vec::new();
    while queue.take(&mut batch) {
        for MaterialiseRequest { capture, reply } in batch.drain(..) {
            let outcome = super::call("writing the instance store", || write(store, &capture));
            if let Err(error) = &outcome {
                tracing::error!(%error, partition = %capture.partition, "the instance store could not be written");
            }
            reply.do_send(Materialised { upto: capture.upto, outcome });
        }
    }
}

fn write(store: &dyn Store, capture: &Capture) -> Result<(), StoreError> {
    store.materialise(capture.partition, &bridge::materialisation(capture))?;
    store.truncate_log(capture.partition, capture.upto)
}
