//! One partition of a simulated hub, with what its shell holds for it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use foldhash::fast::FixedState;
use steadfast_core::entity::{EntitySession, EntityState, PendingEntityTurn};
use steadfast_core::model::Registry;
use steadfast_core::partition::{
    Accepted, Capture, Effect, ParkReason, Partition, PartitionOptions, SessionSource, Token, TurnRequest,
};
use steadfast_core::turn::{Session, Turn};
use steadfast_core::{
    EntityId, EventKind, ExecutionId, HistoryEvent, InstanceId, Origin, PartitionId, Position, TaskMessage,
    Timestamp,
};
use steadfast_store::{MemoryStore, StoreError, bridge};
use uuid::Uuid;

use super::options::SimulationOptions;

pub(super) struct Node {
    pub(super) partition: Partition,
    sessions: HashMap<InstanceId, Session, FixedState>,
    /// Entities in memory.
    entities: HashSet<InstanceId, FixedState>,
    /// Turns of entities that wait for something.
    pub(super) outside: Vec<(InstanceId, PendingEntityTurn)>,
    pub(super) turns: Vec<TurnRequest>,
    /// What is to be read, and whether also the history of an instance that has ended.
    pub(super) loads: Vec<(InstanceId, bool)>,
    pub(super) effects: VecDeque<Effect>,
    pub(super) reports: VecDeque<Position>,
    pub(super) captures: VecDeque<Arc<Capture>>,
    pub(super) truncate: Option<Position>,
    /// Something was called since it last had no work.
    pub(super) may_work: bool,
    /// Something was called since the last commit.
    pub(super) may_commit: bool,
    /// The last record handed to the log.
    pub(super) handed_in: Position,
    /// The last record that the log made durable.
    pub(super) synced: Position,
    pub(super) since_materialised: u64,
    /// The end of the log when this node came up.
    began: Position,
    fresh_ids: Arc<AtomicU64>,
    partition_count: u16,
    causes: Causes,
    /// An instance has been left alone, so one may have been ended since.
    pub(super) ended_without_code: bool,
}

/// Which record had to be durable before which effect, as far as an observer can tell: the record that was open when
/// the cause came in, or a later one.
#[derive(Default)]
struct Causes {
    calls: BTreeMap<Token, Position>,
    received: BTreeMap<(PartitionId, u64), Position>,
    /// For each sender: the last number that was taken.
    taken: BTreeMap<PartitionId, u64>,
    ended: BTreeMap<InstanceId, VecDeque<Position>>,
    cancelled: BTreeMap<(ExecutionId, i32), Position>,
    started: BTreeMap<InstanceId, VecDeque<Position>>,
    /// For each receiver: where its new messages were made, in order.
    made: BTreeMap<PartitionId, VecDeque<(Position, InstanceId, HistoryEvent)>>,
    /// For each receiver: the last number that is known to be durable or was taken from `made`.
    sent: BTreeMap<PartitionId, u64>,
}

impl Node {
    pub(super) fn recover(
        store: &MemoryStore,
        id: PartitionId,
        options: &SimulationOptions,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut partition = bridge::recover_partition(store, partition_options(id, options))?;
        partition.set_now(now);
        let mut causes = Causes { taken: taken(store, id, options)?, ..Causes::default() };
        for receiver in (0..options.partitions).map(PartitionId) {
            if let Some(last) = partition.unacknowledged(receiver).last() {
                causes.sent.insert(receiver, sequence(last));
            }
        }
        let last = partition.durable();
        Ok(Self {
            partition,
            sessions: HashMap::default(),
            entities: HashSet::default(),
            outside: Vec::new(),
            turns: Vec::new(),
            loads: Vec::new(),
            effects: VecDeque::new(),
            reports: VecDeque::new(),
            captures: VecDeque::new(),
            truncate: None,
            may_work: true,
            may_commit: true,
            handed_in: last,
            synced: last,
            since_materialised: 0,
            began: last,
            fresh_ids: Arc::default(),
            partition_count: options.partitions,
            causes,
            ended_without_code: false,
        })
    }

    /// To be called with everything that changes the partition.
    pub(super) fn touched(&mut self) {
        self.may_work = true;
        self.may_commit = true;
    }

    pub(super) fn note_call(&mut self, token: Token) {
        self.causes.calls.insert(token, self.handed_in.next());
    }

    pub(super) fn note_received(&mut self, message: &TaskMessage) {
        let Origin::Remote { source, sequence } = message.origin else { return };
        let taken = self.causes.taken.entry(source).or_default();
        if sequence == *taken + 1 {
            *taken = sequence;
            self.causes.received.insert((source, sequence), self.handed_in.next());
        }
    }

    pub(super) fn evict(&mut self, instance: &InstanceId) {
        let known = self.sessions.remove(instance).is_some() || self.entities.remove(instance);
        assert!(known, "{instance} was evicted and had no session");
    }

    pub(super) fn resident(&self) -> usize {
        self.sessions.len() + self.entities.len()
    }

    pub(super) fn run_turn(
        &mut self,
        request: TurnRequest,
        registry: &Arc<Registry>,
        max_payload_bytes: usize,
        crashes: bool,
    ) -> Result<(), StoreError> {
        let TurnRequest { instance, batch, session, now, room } = request;
        assert!(!batch.is_empty(), "{instance} was given an empty batch");
        if let SessionSource::Entity(state) = session {
            let turn = self.begin_entity(&instance, batch, *state, registry, (now, max_payload_bytes));
            self.poll_entity(instance, turn, true, crashes);
            return Ok(());
        }
        let mut resumed = match &session {
            SessionSource::Entity(_) => unreachable!("entities were told apart before"),
            SessionSource::Resident => self.sessions.remove(&instance).expect("a resident session is there"),
            SessionSource::New | SessionSource::Replay { .. } | SessionSource::Rewind { .. } => {
                assert!(!self.sessions.contains_key(&instance), "{instance} has a session already");
                Session::new(registry.clone(), instance.clone(), max_payload_bytes)
            }
        };
        let history = bridge::replayed_events(&instance, &session)?;
        if let SessionSource::Rewind { .. } = session {
            // One that crashed would be refused, and the instance stay as it is.
            let rewound = resumed.rewind(&history, &batch[0], now, &room);
            self.sessions.insert(instance.clone(), resumed);
            match rewound {
                Ok(turn) => {
                    self.note_turn(&instance, &turn);
                    self.partition.on_turn(&instance, turn);
                }
                Err(refusal) => self.partition.on_rewind_refused(&instance, batch, refusal),
            }
            self.touched();
            return Ok(());
        }
        if let Err(unfit) = resumed.replay(&history).and_then(|()| resumed.check(&batch)) {
            let reason = ParkReason::from(unfit);
            self.sessions.insert(instance.clone(), resumed);
            self.partition.on_parked(&instance, batch, reason);
            self.touched();
            return Ok(());
        }
        if crashes {
            // The session has done something that nobody knows, and is not used again.
            let _ = resumed.try_turn(batch.clone(), now, &room);
            self.sessions.insert(instance.clone(), resumed);
            self.partition.on_crashed(&instance, batch, "the test lets it crash");
            self.touched();
            return Ok(());
        }
        let turn = resumed.try_turn(batch, now, &room).expect("the kernel does not panic");
        self.sessions.insert(instance.clone(), resumed);
        self.note_turn(&instance, &turn);
        self.partition.on_turn(&instance, turn);
        self.touched();
        Ok(())
    }

    fn begin_entity(
        &mut self,
        instance: &InstanceId,
        batch: Vec<TaskMessage>,
        state: EntityState,
        registry: &Arc<Registry>,
        (now, max_payload_bytes): (Timestamp, usize),
    ) -> PendingEntityTurn {
        assert!(
            !self.outside.iter().any(|(other, _)| other == instance),
            "two turns of {instance} at a time"
        );
        self.entities.insert(instance.clone());
        let entity = EntityId::of_instance(instance).expect("only entities have turns of entities");
        // Ids of what was made before a crash and did not survive it may come again, and no others.
        let (partition, began, made) = (self.partition.id().0, self.began, self.fresh_ids.clone());
        let fresh_ids = Arc::new(move || {
            let number = made.fetch_add(1, Ordering::Relaxed);
            let place = u64::from(partition) << 48 | began.0;
            ExecutionId::new(Uuid::from_u64_pair(place, 0xf4e5 << 48 | number))
        });
        let session = EntitySession::new(registry.clone(), entity, max_payload_bytes, fresh_ids);
        session.begin(batch, state, now)
    }

    /// Lets a turn that waits for something try again.
    pub(super) fn poll_outside(&mut self, turn: usize, crashes: bool) {
        let (instance, turn) = self.outside.remove(turn);
        self.poll_entity(instance, turn, false, crashes);
    }

    fn poll_entity(
        &mut self,
        instance: InstanceId,
        mut turn: PendingEntityTurn,
        is_first: bool,
        crashes: bool,
    ) {
        let batch = if is_first { turn.messages().to_vec() } else { Vec::new() };
        match Pin::new(&mut turn).poll(&mut Context::from_waker(Waker::noop())) {
            // It has done something that nobody knows.
            _ if crashes => self.partition.on_crashed(&instance, batch, "the test lets it crash"),
            Poll::Pending => {
                if is_first {
                    self.partition.on_turn_outside(&instance, batch);
                }
                self.outside.push((instance, turn));
            }
            Poll::Ready(ended) => {
                let turn = ended.expect("the kernel does not panic");
                self.note_turn(&instance, &turn);
                self.partition.on_turn(&instance, turn);
            }
        }
        self.touched();
    }

    fn note_turn(&mut self, instance: &InstanceId, turn: &Turn) {
        let open = self.handed_in.next();
        for event in &turn.events {
            let causes = match event.kind {
                EventKind::ExecutionCompleted { .. } => &mut self.causes.ended,
                EventKind::ExecutionStarted(_) => &mut self.causes.started,
                _ => continue,
            };
            causes.entry(instance.clone()).or_default().push_back(open);
        }
        if let Some(execution) = turn.execution {
            let cancelled = turn.cancelled_activities.iter().map(|task_id| ((execution, *task_id), open));
            self.causes.cancelled.extend(cancelled);
        }
        let count = self.partition_count;
        for message in &turn.messages {
            let receiver = message.instance.partition(count);
            if receiver != self.partition.id() {
                let made = (open, message.instance.clone(), message.event.clone());
                self.causes.made.entry(receiver).or_default().push_back(made);
            }
        }
    }

    /// Invariant I1: nothing leaves before what caused it is durable.
    pub(super) fn assert_durable(&mut self, effect: &Effect) {
        let needed = match effect {
            // What exists was there before the call, and it may change nothing at all.
            Effect::Reply(token, Ok(Accepted::Existing)) => {
                self.causes.calls.remove(token);
                None
            }
            Effect::Reply(token, Ok(_)) => self.causes.calls.remove(token),
            Effect::Dispatch(task) => Some(Position(task.id.0 >> 24)),
            Effect::Acknowledge(source, upto) => {
                let later = self.causes.received.split_off(&(*source, upto + 1));
                let of_others: Vec<_> =
                    self.causes.received.extract_if(.., |(from, _), _| from == source).collect();
                self.causes.received.extend(later);
                of_others.into_iter().map(|(_, position)| position).max()
            }
            Effect::Send(receiver, message) => {
                let (known, number) = (self.causes.sent.get(receiver).copied(), sequence(message));
                match known {
                    Some(known) if number <= known => None,
                    // An instance that is ended without its code sends messages without a turn.
                    _ if self.ended_without_code => None,
                    _ => {
                        self.causes.sent.insert(*receiver, number);
                        // A few messages are made by the partition itself, in no turn: when it refuses a start, or ends
                        // an instance by force.
                        let made = self.causes.made.entry(*receiver).or_default();
                        let same = |(_, to, event): &(Position, InstanceId, HistoryEvent)| {
                            *to == message.instance && *event == message.event
                        };
                        let at = made.iter().position(same);
                        at.and_then(|at| made.remove(at)).map(|(position, ..)| position)
                    }
                }
            }
            Effect::Cancel(id, _) => self
                .partition
                .activity(*id)
                .and_then(|task| self.causes.cancelled.get(&(task.execution, task.task_id)).copied()),
            Effect::Started(instance) => first(self.causes.started.get_mut(instance)),
            Effect::Ended(instance, Some(_)) => first(self.causes.ended.get_mut(instance)),
            Effect::Materialise(capture) => Some(capture.upto),
            _ => None,
        };
        let needed = needed.unwrap_or_default();
        assert!(
            needed <= self.synced,
            "{effect:?} leaves before record {needed} is durable ({})",
            self.synced
        );
    }
}

fn first(causes: Option<&mut VecDeque<Position>>) -> Option<Position> {
    causes.and_then(VecDeque::pop_front)
}

/// Up to which number the messages of each partition were taken, which only acknowledgements tell.
fn taken(
    store: &MemoryStore,
    id: PartitionId,
    options: &SimulationOptions,
) -> Result<BTreeMap<PartitionId, u64>, StoreError> {
    let mut probe = bridge::recover_partition(store, partition_options(id, options))?;
    for source in (0..options.partitions).map(PartitionId) {
        // Messages are numbered from 1.
        let origin = Origin::Remote { source, sequence: 0 };
        let event = HistoryEvent::message(Timestamp::default(), EventKind::OrchestratorStarted);
        probe.receive(TaskMessage {
            instance: InstanceId::from_trusted("probe"),
            execution: None,
            event,
            origin,
        });
    }
    let acknowledged = probe.commit().effects.into_iter().filter_map(|effect| match effect {
        Effect::Acknowledge(source, upto) => Some((source, upto)),
        _ => None,
    });
    Ok(acknowledged.collect())
}

fn sequence(message: &TaskMessage) -> u64 {
    match message.origin {
        Origin::Remote { sequence, .. } => sequence,
        _ => panic!("a message between partitions has no number: {message:?}"),
    }
}

pub(super) fn partition_options(id: PartitionId, options: &SimulationOptions) -> PartitionOptions {
    PartitionOptions {
        extended_sessions: options.extended_sessions,
        session_idle_timeout: options.session_idle_timeout,
        resident_sessions_max: options.resident_sessions_max,
        turn_crashes_max: options.turn_crashes_max,
        ..PartitionOptions::new(id, options.partitions)
    }
}
