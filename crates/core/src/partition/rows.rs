//! Rows: what a partition keeps beside its instances, one row a thing, with keys that sort by kind.

use crate::codec::{self, DecodeError};
use crate::ids::{ExecutionId, InstanceId, PartitionId};
use crate::message::{ActivityId, DelayedKey, TaskMessage, TimerKey};
use crate::query::InstanceCounts;
use crate::time::Timestamp;

use super::effect::ActivityTask;
use super::poison::Poison;
use super::record::check_number;

const ACTIVITY: u8 = b'a';
const DELAYED: u8 = b'e';
const COUNTS: u8 = b'c';
const RECEIVED: u8 = b'd';
const OUTBOX_NEXT: u8 = b'n';
const OUTBOX: u8 = b'o';
const POISON: u8 = b'p';
const QUEUED: u8 = b'q';
const TIMER: u8 = b't';

/// A row that was read back.
#[derive(Debug)]
pub(super) enum Row {
    Activity(Box<ActivityTask>),
    Counts(InstanceCounts),
    Received { source: PartitionId, upto: u64 },
    OutboxNext { receiver: PartitionId, next: u64 },
    Outbox { receiver: PartitionId, sequence: u64, message: Box<TaskMessage> },
    Queued { sequence: u64, message: Box<TaskMessage> },
    Timer(TimerKey),
    Delayed { key: DelayedKey, message: Box<TaskMessage> },
    Poison(InstanceId, Poison),
}

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

pub(super) fn activity_key(id: ActivityId) -> Vec<u8> {
    key(ACTIVITY, &[&id.0.to_be_bytes()])
}

pub(super) fn counts_key() -> Vec<u8> {
    vec![COUNTS]
}

pub(super) fn received_key(source: PartitionId) -> Vec<u8> {
    key(RECEIVED, &[&source.0.to_be_bytes()])
}

pub(super) fn outbox_next_key(receiver: PartitionId) -> Vec<u8> {
    key(OUTBOX_NEXT, &[&receiver.0.to_be_bytes()])
}

pub(super) fn outbox_key(receiver: PartitionId, sequence: u64) -> Vec<u8> {
    key(OUTBOX, &[&receiver.0.to_be_bytes(), &sequence.to_be_bytes()])
}

pub(super) fn poison_key(instance: &InstanceId) -> Vec<u8> {
    key(POISON, &[instance.as_str().as_bytes()])
}

pub(super) fn queued_key(sequence: u64) -> Vec<u8> {
    key(QUEUED, &[&sequence.to_be_bytes()])
}

pub(super) fn timer_key(timer: &TimerKey) -> Vec<u8> {
    // Times before 1970 do not occur in due times that matter; as unsigned numbers they would sort last, and the
    // order of rows carries no meaning.
    let at = timer.fire_at.as_micros().to_be_bytes();
    let execution = timer.execution.uuid();
    let instance = timer.instance.as_str().as_bytes();
    key(TIMER, &[&at, execution.as_bytes(), &timer.timer_id.to_be_bytes(), instance])
}

pub(super) fn delayed_key(delayed: DelayedKey) -> Vec<u8> {
    key(DELAYED, &[&delayed.due.as_micros().to_be_bytes(), &delayed.sequence.to_be_bytes()])
}

/// Reads a row back.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Row, DecodeError> {
    let (kind, mut rest) = key.split_first().ok_or_else(|| DecodeError::new("a row has an empty key"))?;
    let row = match *kind {
        ACTIVITY => Row::Activity(Box::new(codec::decode_all(value)?)),
        COUNTS => Row::Counts(codec::decode_all(value)?),
        RECEIVED => Row::Received {
            source: PartitionId(take_u16(&mut rest)?),
            upto: check_number(codec::decode_all(value)?)?,
        },
        OUTBOX_NEXT => Row::OutboxNext {
            receiver: PartitionId(take_u16(&mut rest)?),
            next: check_number(codec::decode_all(value)?)?,
        },
        OUTBOX => Row::Outbox {
            receiver: PartitionId(take_u16(&mut rest)?),
            sequence: check_number(take_u64(&mut rest)?)?,
            message: Box::new(codec::decode_all(value)?),
        },
        QUEUED => Row::Queued {
            sequence: check_number(take_u64(&mut rest)?)?,
            message: Box::new(codec::decode_all(value)?),
        },
        DELAYED => {
            let due = Timestamp::from_micros(i64::from_be_bytes(take(&mut rest)?));
            let sequence = check_number(take_u64(&mut rest)?)?;
            Row::Delayed { key: DelayedKey { due, sequence }, message: Box::new(codec::decode_all(value)?) }
        }
        POISON => {
            let instance = std::str::from_utf8(rest)
                .map_err(|_| DecodeError::new("a crashed instance's id is not text"))?;
            Row::Poison(InstanceId::from_trusted(instance), codec::decode_all(value)?)
        }
        TIMER => {
            let (fire_at, execution, timer_id): (Timestamp, ExecutionId, i32) = codec::decode_all(value)?;
            take::<28>(&mut rest)?;
            let instance = std::str::from_utf8(rest)
                .map_err(|_| DecodeError::new("a timer's instance id is not text"))?;
            let instance = InstanceId::from_trusted(instance);
            Row::Timer(TimerKey { fire_at, instance, execution, timer_id })
        }
        other => return Err(DecodeError::new(format!("a row has the unknown kind {other}"))),
    };
    Ok(row)
}

/// The value of a timer's row.
pub(super) fn timer_value(timer: &TimerKey) -> Vec<u8> {
    codec::encode_to_vec(&(timer.fire_at, timer.execution, timer.timer_id))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (head, rest) =
        bytes.split_first_chunk().ok_or_else(|| DecodeError::new("a row's key is too short"))?;
    *bytes = rest;
    Ok(*head)
}

fn take_u16(bytes: &mut &[u8]) -> Result<u16, DecodeError> {
    take(bytes).map(u16::from_be_bytes)
}

fn take_u64(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    take(bytes).map(u64::from_be_bytes)
}
