//! The log writer: one thread that makes the records of all partitions durable, a batch at a time.

use actix::Addr;
use steadfast_store::{LogRecord, Store};

use super::queue::Queue;
use crate::partition::{Appended, PartitionActor};

/// A record to be made durable.
pub(crate) struct AppendRequest {
    pub(crate) record: LogRecord,
    pub(crate) reply: Addr<PartitionActor>,
}

pub(super) fn run(store: &dyn Store, queue: &Queue<AppendRequest>) {
    let mut batch = Vec::new();
    let mut records = Vec::new();
    let mut replies = Vec::new();
    while queue.take(&mut batch) {
        for request in batch.drain(..) {
            replies.push((request.record.position, request.reply));
            records.push(request.record);
        }
        let outcome = super::call("appending to the log", || store.append(&records));
        records.clear();
        if let Err(error) = &outcome {
            tracing::error!(%error, "the commit log could not be written");
        }
        for (position, reply) in replies.drain(..) {
            // One of these is under way for each partition, so the mailbox bound is never in question.
            reply.do_send(Appended { position, outcome: outcome.clone() });
        }
    }
}
