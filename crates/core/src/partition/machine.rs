//! The partition's data, the open record, and the commit cycle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::activities::Activities;
use super::delayed::Delayed;
use super::effect::{Effect, Token};
use super::entry::{Asked, Entry};
use super::forced::Ending;
use super::links::Links;
use super::materialise::{Capture, Changes};
use super::poison::Poisoned;
use super::record::{self, LogEntry, Record};
use super::residents::Residents;
use super::tally::Tally;
use super::turns::Work;
use crate::codec;
use crate::ids::{InstanceId, InstanceMap, PartitionId, Position};
use crate::message::{DelayedKey, Origin, TaskMessage, TimerKey};
use crate::state::InstanceState;
use crate::time::Timestamp;
use crate::turn::HistoryRoom;

/// How long the result of an activity may wait for a record that has to be written anyway: usually that of the turn that takes it.
const PATIENCE: Duration = Duration::from_millis(10);

/// How a partition behaves.
#[derive(Debug, Clone)]
pub struct PartitionOptions {
    /// Which partition it is.
    pub id: PartitionId,
    /// How many the hub has.
    pub count: u16,
    /// Whether sessions stay in memory between turns.
    pub extended_sessions: bool,
    /// How long an unused session stays in memory.
    pub session_idle_timeout: Duration,
    /// How many sessions may be in memory; the least recently used go first.
    pub resident_sessions_max: usize,
    /// How many messages an entity takes in one turn; the others wait for the next one.
    pub entity_batch_max: usize,
    /// The overlay's size in bytes beyond which the partition asks to be materialised without waiting.
    pub materialise_after_bytes: usize,
    /// The overlay's size in bytes beyond which the shell should hold back new work.
    pub overlay_bytes_max: usize,
    /// The number of records not yet materialised beyond which the shell should hold back new work.
    pub overlay_records_max: u64,
    /// After how many crashed turns in a row an instance is left alone.
    pub turn_crashes_max: u32,
    /// How long the first pause after a crashed turn is; it doubles with each.
    pub turn_retry_delay: Duration,
    /// How many messages may wait for one instance before clients' messages to it are turned away.
    pub instance_messages_max: usize,
    /// The greatest number of events in one execution's history.
    pub history_events_max: u64,
    /// The size in bytes at which one execution's history is too long.
    pub history_bytes_max: u64,
    /// At which part of these bounds there is a warning, in percent.
    pub history_warning_percent: u8,
}

impl PartitionOptions {
    /// The defaults for partition `id` of `count`.
    pub fn new(id: PartitionId, count: u16) -> Self {
        Self {
            id,
            count,
            extended_sessions: true,
            session_idle_timeout: Duration::from_secs(30),
            resident_sessions_max: 10_000,
            entity_batch_max: 1000,
            materialise_after_bytes: 32 << 20,
            overlay_bytes_max: 96 << 20,
            overlay_records_max: 100_000,
            turn_crashes_max: 5,
            turn_retry_delay: Duration::from_secs(1),
            instance_messages_max: 100_000,
            history_events_max: 1_000_000,
            history_bytes_max: 1 << 30,
            history_warning_percent: 80,
        }
    }

    /// The room in an instance's history.
    pub(super) fn room(&self, state: Option<&InstanceState>) -> HistoryRoom {
        // A history that has ended is followed by a new one.
        let state = state.filter(|state| !state.status.is_terminal());
        HistoryRoom {
            events: state.map_or(0, |state| state.history_events),
            events_max: self.history_events_max,
            bytes: state.map_or(0, |state| state.history_bytes),
            bytes_max: self.history_bytes_max,
        }
    }

    /// Says so when a history has come close to its bounds with the last turn.
    pub(super) fn warn_of_length(&self, before: (u64, u64), state: &InstanceState) {
        let near = |of: u64, max: u64| {
            u128::from(of) * 100 >= u128::from(max) * u128::from(self.history_warning_percent)
        };
        let is_near =
            |(events, bytes)| near(events, self.history_events_max) || near(bytes, self.history_bytes_max);
        let (events, bytes) = (state.history_events, state.history_bytes);
        if is_near((events, bytes)) && !is_near(before) {
            tracing::warn!(
                target: "steadfast::limits",
                instance = %state.instance,
                events,
                events_max = self.history_events_max,
                bytes,
                bytes_max = self.history_bytes_max,
                "the history becomes too long; continue as new before it is"
            );
        }
    }
}

/// How many records may be sealed and not durable. With one, partitions that share a log would take turns: while the record of
/// one is written, the next batch begins without what it has ready. Those that are on their way together are written together.
const RECORDS_UNDER_WAY_MAX: usize = 16;

/// A record takes the turns of all instances that have something to do, unless it becomes larger than this: what it causes waits
/// for all of it.
const RECORD_TURNS: usize = 512;
const RECORD_BYTES: usize = 256 << 10;

/// Room is made for so many effects of a record ahead at most.
const EFFECTS_EXPECTED_MAX: usize = 2048;

/// A control-queue partition: see the module's documentation.
#[derive(Debug)]
pub struct Partition {
    pub(super) options: PartitionOptions,
    pub(super) now: Timestamp,
    /// In boxes: a table that grows moves what is in it.
    pub(super) entries: InstanceMap<Box<Entry>>,
    /// Instances that may have a turn to run.
    pub(super) ready: VecDeque<InstanceId>,
    /// Loads and evictions that the shell has not fetched yet.
    pub(super) work: VecDeque<Work>,
    pub(super) residents: Residents,
    /// Armed timers, and whether each has a row.
    pub(super) timers: BTreeMap<TimerKey, bool>,
    /// Signals that wait for their time.
    pub(super) delayed: BTreeMap<DelayedKey, Delayed>,
    /// Instances whose start is scheduled for later.
    pub(super) held: BTreeSet<(Timestamp, InstanceId)>,
    pub(super) activities: Activities,
    pub(super) links: Links,
    /// Purges that wait for a load.
    pub(super) purges: Vec<(InstanceId, Token)>,
    /// Starts that are to replace an instance and wait for its turn to end.
    pub(super) replacements: Vec<(InstanceId, TaskMessage, Asked)>,
    /// Instances that are to be ended and wait for a load, or for their turn to end.
    pub(super) endings: Vec<Ending>,
    /// Instances of which a suspension or a resumption may wait to be consumed.
    pub(super) suspending: BTreeSet<InstanceId>,
    pub(super) changes: Changes,
    pub(super) tally: Tally,
    pub(super) open: OpenRecord,
    sealed: VecDeque<SealedRecord>,
    /// Effects that need not wait for anything.
    pub(super) immediate: Vec<Effect>,
    pub(super) durable: Position,
    pub(super) materialised: Position,
    pub(super) capture: Option<Arc<Capture>>,
    pub(super) overlay_bytes: usize,
    pub(super) next_sequence: u64,
    /// Turns handed out and not answered.
    pub(super) running: usize,
    /// Turns that go on elsewhere: see [`Partition::on_turn_outside`].
    pub(super) outside: usize,
    /// The open record is to be sealed as soon as no turn is under way; no new turn begins until then.
    pub(super) draining: bool,
    /// No further turn begins in this process.
    pub(super) closing: bool,
    materialise_wanted: bool,
    /// An instance was terminated since this partition was built: only then can activities have become void.
    pub(super) any_terminated: bool,
    pub(super) poisoned: Poisoned,
}

/// The record that is being collected.
#[derive(Debug, Default)]
pub(super) struct OpenRecord {
    pub(super) position: Position,
    /// The encoded record so far.
    pub(super) buffer: Vec<u8>,
    head_len: usize,
    pub(super) effects: Vec<Effect>,
    /// Messages accepted since the record was opened; written when it is sealed, unless they are consumed by then.
    pub(super) fresh: Vec<(InstanceId, u64)>,
    /// The same of messages that nobody waits for and that would come again: results of activities. By themselves they cause no
    /// record until [`Self::patience_ends`].
    pub(super) patient: Vec<(InstanceId, u64)>,
    pub(super) patience_ends: Option<Timestamp>,
    /// Origins of messages that were discarded.
    pub(super) settled: Vec<Origin>,
    /// Facts that can wait for the next record that has to be written anyway.
    pub(super) lazy: Vec<LogEntry>,
    /// Partitions from which messages were accepted.
    pub(super) received_from: BTreeSet<PartitionId>,
    /// Activities scheduled so far in this record.
    pub(super) activities: u64,
    /// Turns that began since the record was opened.
    pub(super) turns: usize,
}

#[derive(Debug)]
struct SealedRecord {
    position: Position,
    effects: Vec<Effect>,
}

/// What a commit step gives the shell to do.
#[derive(Debug, Default)]
pub struct Commit {
    /// A record to append to the log.
    pub record: Option<Record>,
    /// Effects to perform now.
    pub effects: Vec<Effect>,
}

impl Partition {
    /// An empty partition whose log ends at `last`.
    pub(super) fn empty(options: PartitionOptions, last: Position) -> Self {
        let mut partition = Self {
            options,
            now: Timestamp::default(),
            entries: InstanceMap::default(),
            ready: VecDeque::new(),
            work: VecDeque::new(),
            residents: Residents::default(),
            timers: BTreeMap::new(),
            delayed: BTreeMap::new(),
            held: BTreeSet::new(),
            activities: Activities::default(),
            links: Links::default(),
            purges: Vec::new(),
            replacements: Vec::new(),
            endings: Vec::new(),
            suspending: BTreeSet::new(),
            changes: Changes::default(),
            tally: Tally::default(),
            open: OpenRecord::default(),
            sealed: VecDeque::new(),
            immediate: Vec::new(),
            durable: last,
            materialised: last,
            capture: None,
            overlay_bytes: 0,
            next_sequence: 1,
            running: 0,
            outside: 0,
            draining: false,
            closing: false,
            materialise_wanted: false,
            any_terminated: false,
            poisoned: Poisoned::default(),
        };
        partition.open_record(last.next());
        partition
    }

    pub(super) fn open_record(&mut self, position: Position) {
        // Their room is used again; and as many effects as of the record before are likely.
        let effects = self.sealed.back().map_or(0, |sealed| sealed.effects.len()).min(EFFECTS_EXPECTED_MAX);
        let OpenRecord { mut buffer, mut fresh, mut patient, .. } = std::mem::take(&mut self.open);
        buffer.clear();
        fresh.clear();
        patient.clear();
        record::begin(self.options.id, position, &mut buffer);
        let head_len = buffer.len();
        let effects = Vec::with_capacity(effects);
        self.open =
            OpenRecord { position, buffer, head_len, effects, fresh, patient, ..OpenRecord::default() };
    }

    /// Which partition this is.
    pub fn id(&self) -> PartitionId {
        self.options.id
    }

    /// Sets the time. All decisions until the next call use it.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Seals the open record if there is something in it, not too many are on their way to the log and no turn is under way,
    /// and collects the effects that need not wait. To be called after everything else.
    pub fn commit(&mut self) -> Commit {
        let mut commit = Commit::default();
        // A capture must find everything in a record.
        if self.closing || self.is_capture_due() {
            self.open.end_patience();
        }
        if self.sealed.len() < RECORDS_UNDER_WAY_MAX && self.open.must_be_written() {
            self.draining = self.running > 0 && (self.ready.is_empty() || self.open.is_full());
            if self.running == 0 {
                commit.record = Some(self.seal());
            }
        }
        if !self.open.must_be_written() {
            self.capture_if_wanted();
            // Duplicates are acknowledged as well: the sender may have lost the first acknowledgement.
            self.acknowledge_received();
            let effects = std::mem::take(&mut self.open.effects);
            match self.sealed.back_mut() {
                Some(sealed) => add(&mut sealed.effects, effects),
                None => add(&mut self.immediate, effects),
            }
        }
        commit.effects = std::mem::take(&mut self.immediate);
        commit
    }

    fn seal(&mut self) -> Record {
        self.write_accepted();
        if let Some(counts) = self.tally.changed_since_record() {
            codec::encode(&LogEntry::Counts(counts), &mut self.open.buffer);
        }
        for entry in self.take_heartbeats().into_iter().chain(std::mem::take(&mut self.open.lazy)) {
            codec::encode(&entry, &mut self.open.buffer);
        }
        if !self.open.settled.is_empty() {
            codec::encode(&LogEntry::Settled(std::mem::take(&mut self.open.settled)), &mut self.open.buffer);
        }
        self.acknowledge_received();
        let effects = std::mem::take(&mut self.open.effects);
        let bytes = Arc::from(&self.open.buffer[..]);
        let record = Record { position: self.open.position, bytes, turns: self.open.turns };
        self.sealed.push_back(SealedRecord { position: record.position, effects });
        self.open_record(record.position.next());
        record
    }

    fn acknowledge_received(&mut self) {
        for source in std::mem::take(&mut self.open.received_from) {
            self.open.effects.push(Effect::Acknowledge(source, self.links.received_from(source)));
        }
    }

    /// The record at `position`, and all before it, are durable.
    pub fn on_durable(&mut self, position: Position) {
        self.durable = self.durable.max(position);
        while let Some(sealed) = self.sealed.pop_front_if(|sealed| sealed.position <= position) {
            add(&mut self.immediate, sealed.effects);
        }
    }

    /// The position up to which the partition knows its records to be durable.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// Asks that what changed be captured for the instance store at the next opportunity.
    pub fn want_materialisation(&mut self) {
        self.materialise_wanted = true;
    }

    /// When what could wait has to be written, unless something that is under way leads to a record before.
    pub(super) fn end_of_patience(&self) -> Option<Timestamp> {
        self.open.patience_ends.filter(|_| self.running == 0 && self.sealed.is_empty())
    }

    fn is_capture_due(&self) -> bool {
        self.materialise_wanted || self.overlay_bytes >= self.options.materialise_after_bytes
    }

    fn capture_if_wanted(&mut self) {
        let due = self.is_capture_due();
        let last = Position(self.open.position.0 - 1);
        // A turn under way holds messages that are in neither a queue nor a history.
        let complete = self.running == 0 && self.capture.is_none();
        // A message that was acknowledged after the last record leaves a void row and no record.
        let changed = last > self.materialised || !self.changes.deleted_rows.is_empty();
        if due && complete && changed {
            self.materialise_wanted = false;
            let capture = self.take_capture(last);
            self.open.effects.push(Effect::Materialise(capture));
        }
    }

    /// Whether the materialiser has fallen so far behind that the shell should hold back new work.
    pub fn is_overloaded(&self) -> bool {
        self.overlay_bytes > self.options.overlay_bytes_max
            || self.open.position.0 - self.materialised.0 > self.options.overlay_records_max
    }

    /// Whether nothing is under way: no turn, no record, no message that could be consumed now, and nothing that the
    /// instance store does not have.
    pub fn is_quiet(&self) -> bool {
        self.is_settled() && self.capture.is_none() && Position(self.open.position.0 - 1) == self.materialised
    }

    /// From now on no turn begins: what is queued waits for the next start of the hub. So a stop ends also when
    /// instances keep each other, or themselves, busy for ever.
    pub fn begin_no_more_turns(&mut self) {
        self.closing = true;
    }

    /// Whether no turn, load or record is under way or could begin.
    pub fn is_settled(&self) -> bool {
        self.running == 0
            && self.sealed.is_empty()
            && !self.open.must_be_written()
            && self.open.patient.is_empty()
            && (self.ready.is_empty() || self.closing)
            && self.work.is_empty()
            && self.purges.is_empty()
            && self.replacements.is_empty()
            && self.endings.is_empty()
            && self.entries.values().all(|entry| !entry.loading)
    }

    /// Reads an instance's state as far as it is known in memory; `None` when only the instance store can tell.
    /// The answer leaves as [`Effect::State`] once what it shows is durable.
    pub fn read_state(&mut self, token: Token, instance: &InstanceId) -> bool {
        let Some(entry) = self.entries.get(instance) else { return false };
        let state = match &entry.presence {
            super::entry::Presence::Unknown => return false,
            super::entry::Presence::Absent => None,
            super::entry::Presence::Present(_) => {
                entry.shown_state().map(|state| Self::with_backlog(&state, entry.queue.len()))
            }
        };
        let changed_at = entry.changed_at;
        if self.suspending.contains(instance) {
            self.when_present_is_durable(Effect::State(token, state));
        } else {
            self.when_durable(changed_at, Effect::State(token, state));
        }
        true
    }

    /// Hands the effect out once the record at `position` is durable.
    pub(super) fn when_durable(&mut self, position: Position, effect: Effect) {
        if position <= self.durable {
            self.immediate.push(effect);
        } else if let Some(sealed) = self.sealed.iter_mut().find(|sealed| sealed.position >= position) {
            sealed.effects.push(effect);
        } else {
            self.open.effects.push(effect);
        }
    }

    /// The encoded events of an instance's history that the instance store may not have; `None` when the instance
    /// store has all. [`Effect::Release`] follows once they are durable.
    pub fn read_history(&mut self, token: Token, instance: &InstanceId) -> Option<Vec<super::HistoryPiece>> {
        let entry = self.entries.get(instance)?;
        let pieces = entry.history_pieces();
        if pieces.is_empty() {
            return None;
        }
        let changed_at = entry.changed_at;
        self.when_durable(changed_at, Effect::Release(token));
        Some(pieces)
    }

    /// Counts for reports and tests.
    pub fn counts(&self) -> PartitionCounts {
        PartitionCounts {
            entries: self.entries.len(),
            resident_sessions: self.residents.count(),
            session_places: self.residents.places(),
            unfinished_activities: self.activities.len(),
            timers: self.timers.len(),
            delayed_signals: self.delayed.len(),
            outbox: self.links.outbox_len(),
            overlay_bytes: self.overlay_bytes,
        }
    }
}

/// How much a partition holds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionCounts {
    /// Instances with anything in memory.
    pub entries: usize,
    /// Sessions in memory.
    pub resident_sessions: usize,
    /// Activities without a result.
    pub unfinished_activities: usize,
    /// Places in the order in which sessions were used, overtaken ones among them.
    pub session_places: usize,
    /// Armed timers.
    pub timers: usize,
    /// Signals that wait for their time.
    pub delayed_signals: usize,
    /// Messages that other partitions have not acknowledged.
    pub outbox: usize,
    /// Size of what the instance store does not have, in bytes.
    pub overlay_bytes: usize,
}

/// Adds effects behind others; mostly there are none yet, and then nothing is copied.
fn add(to: &mut Vec<Effect>, effects: Vec<Effect>) {
    if to.is_empty() {
        *to = effects;
    } else {
        to.extend(effects);
    }
}

impl OpenRecord {
    /// Whether there is something that must become durable.
    pub(super) fn must_be_written(&self) -> bool {
        self.buffer.len() > self.head_len || !self.fresh.is_empty() || !self.settled.is_empty()
    }

    /// Whether no further turn should begin before it is written.
    pub(super) fn is_full(&self) -> bool {
        self.turns >= RECORD_TURNS || self.buffer.len() >= RECORD_BYTES
    }

    /// A message was accepted, which must become durable now, or soon.
    pub(super) fn accepted(&mut self, message: &TaskMessage, sequence: u64, now: Timestamp) {
        let entry = (message.instance.clone(), sequence);
        if matches!(message.origin, Origin::Activity(_)) {
            self.patient.push(entry);
            self.patience_ends.get_or_insert(now.after(PATIENCE));
        } else {
            self.fresh.push(entry);
        }
    }

    /// What could wait waits no longer.
    pub(super) fn end_patience(&mut self) {
        self.fresh.append(&mut self.patient);
        self.patience_ends = None;
    }
}
