//! Records: what one group commit of a partition writes, and how it is read back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::entities::EntityCheckpoint;
use super::poison::Poison;
use crate::codec::{self, DecodeError, FORMAT_VERSION};
use crate::ids::{ExecutionId, InstanceId, PartitionId, Position};
use crate::message::{ActivityId, Origin, TaskMessage};
use crate::payload::Payload;
use crate::query::InstanceCounts;
use crate::time::Timestamp;

/// One sealed record, ready for the log.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its place in the partition's log.
    pub position: Position,
    /// Its encoding.
    pub bytes: Arc<[u8]>,
    /// How many turns it tells of, roughly: those that began since the record before it was sealed.
    pub turns: usize,
}

/// One fact of a record. Variants are only ever added at the end.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LogEntry {
    /// A turn; its encoded events follow the entry.
    Checkpoint(CheckpointHead),
    /// A message was accepted and is not consumed within this record.
    Accepted { sequence: u64, message: TaskMessage },
    /// Messages of an instance up to a number were discarded without a turn.
    Discarded { instance: InstanceId, upto: u64 },
    /// Messages that were discarded before they were ever written.
    Settled(Vec<Origin>),
    /// Another partition has applied our messages up to a number.
    OutboxAcknowledged { receiver: PartitionId, upto: u64 },
    /// An instance was purged.
    Purged { instance: InstanceId },
    /// A running activity has told how far it has come.
    Heartbeat { id: ActivityId, detail: Payload },
    /// Starts under the id of an instance that waits were taken out of its queue, and whoever awaits them was told.
    Refused {
        instance: InstanceId,
        sequences: Vec<u64>,
        settled: Vec<Origin>,
        messages: Vec<(u64, TaskMessage)>,
    },
    /// How many instances there are after this record. Comes only if that has changed, and after what changed it.
    Counts(InstanceCounts),
    /// A turn of an instance crashed.
    TurnCrashed { instance: InstanceId, poison: Poison },
    /// An instance whose turns crashed may take turns again.
    Released { instance: InstanceId },
    /// What a worker gave to keep for the next turns of an execution. It comes behind the checkpoint of its turn.
    Kept { instance: InstanceId, keepsake: Arc<[u8]> },
}

/// What a turn changed, apart from its events.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CheckpointHead {
    pub(super) instance: InstanceId,
    pub(super) execution: ExecutionId,
    /// Queued messages of the instance up to this number are consumed.
    pub(super) consumed_upto: u64,
    /// Origins of consumed messages that were not written as accepted before.
    pub(super) settled: Vec<Origin>,
    /// Outgoing messages; those to this partition with their number in the queue, others with 0.
    pub(super) messages: Vec<(u64, TaskMessage)>,
    /// Timers that the code cancelled or that ended with the execution.
    pub(super) removed_timers: Vec<(Timestamp, i32)>,
    pub(super) custom_status: Option<Payload>,
    /// The instance's version.
    pub(super) version: SmolStr,
    pub(super) event_bytes: u64,
    /// Activities whose outcome nobody waits for any more.
    pub(super) cancelled_activities: Vec<i32>,
    /// The execution has ended, or continues as new.
    pub(super) ended: bool,
    /// Of an entity: what it is from now on.
    pub(super) entity: Option<Box<EntityCheckpoint>>,
}

/// No message has a greater number: one message in a nanosecond would take a century to get there. Counting on from a
/// damaged number must not overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// Refuses numbers that nobody ever gave to a message.
pub(super) fn check_number(number: u64) -> Result<u64, DecodeError> {
    if number <= NUMBER_MAX {
        Ok(number)
    } else {
        Err(DecodeError::new(format!("{number} numbers no message")))
    }
}

fn check_origin(origin: &Origin) -> Result<(), DecodeError> {
    match origin {
        Origin::Remote { sequence, .. } => check_number(*sequence)?,
        Origin::Delayed(key) => check_number(key.sequence)?,
        _ => 0,
    };
    Ok(())
}

impl LogEntry {
    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Checkpoint(head) => {
                check_number(head.consumed_upto)?;
                head.settled.iter().try_for_each(check_origin)?;
                for number in head.entity.iter().flat_map(|entity| &entity.apart) {
                    check_number(*number)?;
                }
                for (sequence, message) in &head.messages {
                    check_number(*sequence)?;
                    check_origin(&message.origin)?;
                }
            }
            Self::Accepted { sequence, message } => {
                check_number(*sequence)?;
                check_origin(&message.origin)?;
            }
            Self::Settled(origins) => origins.iter().try_for_each(check_origin)?,
            Self::Refused { sequences, settled, messages, .. } => {
                for sequence in sequences {
                    check_number(*sequence)?;
                }
                settled.iter().try_for_each(check_origin)?;
                for (sequence, message) in messages {
                    check_number(*sequence)?;
                    check_origin(&message.origin)?;
                }
            }
            Self::Discarded { upto, .. } | Self::OutboxAcknowledged { upto, .. } => {
                check_number(*upto)?;
            }
            Self::Purged { .. }
            | Self::Heartbeat { .. }
            | Self::Counts(_)
            | Self::TurnCrashed { .. }
            | Self::Released { .. }
            | Self::Kept { .. } => {}
        }
        Ok(())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct RecordHead {
    version: u8,
    partition: PartitionId,
    position: Position,
}

/// Begins a record in `buffer`.
pub(super) fn begin(partition: PartitionId, position: Position, buffer: &mut Vec<u8>) {
    codec::encode(&RecordHead { version: FORMAT_VERSION, partition, position }, buffer);
}

/// What [`read`] hands each entry to, with the event bytes that follow it.
pub(super) type Visit<'a> = &'a mut dyn FnMut(LogEntry, &[u8]) -> Result<(), DecodeError>;

/// Reads a record, handing each entry and the event bytes that follow it to `visit`.
pub(super) fn read(
    partition: PartitionId,
    position: Position,
    mut bytes: &[u8],
    visit: Visit<'_>,
) -> Result<(), DecodeError> {
    match bytes.first() {
        Some(&version) if version == FORMAT_VERSION => {}
        Some(0xff) => {
            return Err(DecodeError::new(
                "it went through a codec; open the hub with the codec that wrote it",
            ));
        }
        Some(version) => {
            return Err(DecodeError::new(format!("it has format {version}, expected {FORMAT_VERSION}")));
        }
        None => return Err(DecodeError::new("it is empty")),
    }
    let head: RecordHead = codec::decode(&mut bytes)?;
    if (head.partition, head.position) != (partition, position) {
        let problem = format!("it says it is record {} of {}", head.position, head.partition);
        return Err(DecodeError::new(problem));
    }
    while !bytes.is_empty() {
        let entry: LogEntry = codec::decode(&mut bytes)?;
        entry.check()?;
        let events = match &entry {
            LogEntry::Checkpoint(head) => usize::try_from(head.event_bytes).unwrap_or(usize::MAX),
            _ => 0,
        };
        let Some((events, rest)) = bytes.split_at_checked(events) else {
            return Err(DecodeError::new("the events of a checkpoint are cut off"));
        };
        bytes = rest;
        visit(entry, events)?;
    }
    Ok(())
}
