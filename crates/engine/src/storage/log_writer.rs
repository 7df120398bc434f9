//! The log writer: one thread that makes the records of all partitions durable, a batch at a time.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use actix::Addr;
use steadfast_core::{PartitionId, Position};
use steadfast_store::{LogRecord, Store, StoreError};

use super::queue::Queue;
use crate::partition::{Appended, PartitionActor};

/// With so many turns in a batch others are on their way, too. Then the next batch waits for as long as this one took, up to a
/// bound, and becomes larger: each costs a dozen changes of threads. Those that come alone never wait.
const BUSY_TURNS: usize = 8;
const PAUSE_MAX: Duration = Duration::from_micros(300);

/// A record to be made durable.
pub(crate) struct AppendRequest {
    pub(crate) record: LogRecord,
    /// How many turns it tells of.
    pub(crate) turns: usize,
    pub(crate) reply: Addr<PartitionActor>,
}

/// The records of one partition in a batch.
struct Reply {
    partition: PartitionId,
    to: Addr<PartitionActor>,
    /// That of the last one.
    position: Position,
}

pub(super) fn run(store: &dyn Store, queue: &Queue<AppendRequest>) {
    let mut batch = Vec::new();
    let mut records = Vec::new();
    let mut replies: Vec<Reply> = Vec::new();
    let mut failed = Failed(HashMap::new());
    while queue.take(&mut batch) {
        let mut turns = 0;
        for AppendRequest { record, turns: more, reply } in batch.drain(..) {
            if let Some(error) = failed.error_for(record.partition, &reply) {
                reply.do_send(Appended { position: record.position, outcome: Err(error) });
                continue;
            }
            turns += more;
            let (partition, position) = (record.partition, record.position);
            match replies.iter_mut().find(|known| known.partition == partition && known.to == reply) {
                Some(known) => known.position = position,
                None => replies.push(Reply { partition, to: reply, position }),
            }
            records.push(record);
        }
        if records.is_empty() {
            continue;
        }
        let (busy, begun) = (turns >= BUSY_TURNS, Instant::now());
        let outcome = super::call("appending to the log", || store.append(&records));
        let took = begun.elapsed();
        records.clear();
        if let Err(error) = &outcome {
            tracing::error!(%error, "the commit log could not be written");
        }
        for Reply { partition, to, position } in replies.drain(..) {
            if let Err(error) = &outcome {
                failed.note(partition, to.clone(), error);
            }
            // Few of these are under way for each partition, so the mailbox bound is never in question.
            to.do_send(Appended { position, outcome: outcome.clone() });
        }
        if busy {
            thread::sleep(took.min(PAUSE_MAX));
        }
    }
}

/// The actors whose records are taken no more. After a record that was not written, one that the same actor made after it must
/// not be either, even when somebody else has recovered the store in between.
struct Failed<Actor>(HashMap<PartitionId, (Actor, StoreError)>);

impl<Actor: PartialEq> Failed<Actor> {
    fn note(&mut self, partition: PartitionId, actor: Actor, error: &StoreError) {
        self.0.insert(partition, (actor, error.clone()));
    }

    fn error_for(&mut self, partition: PartitionId, actor: &Actor) -> Option<StoreError> {
        let (failed, error) = self.0.get(&partition)?;
        if failed == actor {
            return Some(error.clone());
        }
        // It has been built anew.
        self.0.remove(&partition);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_whose_record_was_not_written_is_refused_until_it_is_built_anew() {
        let (error, [first, second]) = (StoreError::Full, [PartitionId(0), PartitionId(1)]);
        let mut failed = Failed(HashMap::new());
        failed.note(first, "old", &error);
        assert!(failed.error_for(first, &"old").is_some() && failed.error_for(first, &"old").is_some());
        assert!(failed.error_for(second, &"other").is_none());
        assert!(failed.error_for(first, &"new").is_none());
        assert!(failed.0.is_empty());
    }
}
