//! What must hold of a simulated hub.

use std::collections::BTreeMap;

use steadfast_core::codec;
use steadfast_core::entity::EntityState;
use steadfast_core::partition::{Overlay, OverlayCursor, Partition, PartitionCounts, Token, Work};
use steadfast_core::{
    EventKind, FailureDetails, HistoryEvent, InstanceCounts, InstanceFilter, InstanceId, InstanceKind,
    InstanceState, OrchestrationStatus, PartitionId, Payload, Timestamp,
};
use steadfast_store::{Store, Survival, bridge};

use super::{Simulation, read_history};
use crate::history::check_history;
use crate::replay::replay_in;

/// What is left of an instance: the part that must not depend on crashes, nor on the order of what happens at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndState {
    /// Its status.
    pub status: OrchestrationStatus,
    /// Its result.
    pub output: Option<Payload>,
    /// Why it failed.
    pub failure: Option<Box<FailureDetails>>,
    /// Its custom status.
    pub custom_status: Option<Payload>,
    /// Of an entity: its user state and its lock.
    pub entity: Option<Box<EntityState>>,
}

impl From<InstanceState> for EndState {
    fn from(state: InstanceState) -> Self {
        let InstanceState { status, output, failure, custom_status, entity, .. } = state;
        Self { status, output, failure, custom_status, entity }
    }
}

type View = BTreeMap<InstanceId, (InstanceState, Vec<HistoryEvent>)>;

impl Simulation {
    /// All instances with what is left of them. Call [`Simulation::finish`] first.
    ///
    /// # Panics
    /// When the store cannot be read.
    pub fn end_states(&self) -> BTreeMap<String, EndState> {
        let stored = bridge::stored_instances(&self.reader()).expect("the store reads");
        stored
            .iter()
            .map(|stored| {
                let state = bridge::instance_state(stored).expect("the state can be read");
                (stored.instance.to_string(), EndState::from(state))
            })
            .collect()
    }

    /// All histories. Call [`Simulation::finish`] first.
    pub fn histories(&mut self) -> BTreeMap<String, Vec<HistoryEvent>> {
        let instances: Vec<_> = self.end_states().into_keys().collect();
        instances.into_iter().map(|instance| (instance.clone(), self.history(&instance))).collect()
    }

    /// Whether the client's calls are all answered.
    pub fn is_answered(&self) -> bool {
        self.client.is_done()
    }

    pub(super) fn check_at_rest(&mut self) {
        assert!(self.client.is_done(), "never answered: {:?}", self.client.unanswered());
        let store = self.reader();
        for node in &self.nodes {
            let (id, counts) = (node.partition.id(), node.partition.counts());
            assert!(node.partition.is_quiet(), "{id} is not quiet: {counts:?}");
            assert_eq!(node.resident(), 0, "{id} keeps sessions");
            assert_eq!(counts, PartitionCounts::default(), "{id} keeps something");
            let rows = store.load_partition(id).expect("the store reads").rows;
            // Counters of the links stay; everything else is of something that is not done.
            let left: Vec<_> = rows.iter().filter(|(key, _)| !matches!(key[0], b'c' | b'd' | b'n')).collect();
            assert!(left.is_empty(), "{id} keeps rows: {left:?}");
        }
        let instances: Vec<_> = self.end_states().into_keys().collect();
        let states: Vec<_> =
            instances.iter().map(|instance| self.state(instance).expect("it is stored")).collect();
        for node in &mut self.nodes {
            let id = node.partition.id();
            let owned = |state: &&InstanceState| state.instance.partition(self.options.partitions) == id;
            let counts = count(states.iter().filter(owned));
            assert_eq!(node.partition.read_counts(Token(0)), Some(counts), "{id} counted otherwise");
        }
        for instance in instances {
            let (state, history) = (self.state(&instance).expect("it is stored"), self.history(&instance));
            self.check_instance(&state, &history);
        }
    }

    /// The history is well formed, gives the state, and replays.
    fn check_instance(&self, state: &InstanceState, history: &[HistoryEvent]) {
        let instance = &state.instance;
        if let Some(entity) = &state.entity {
            assert!(history.is_empty(), "the entity {instance} has a history");
            assert!(!entity.is_empty(), "the entity {instance} is empty and has not vanished");
            return;
        }
        if history.is_empty() {
            assert_eq!(state.status, OrchestrationStatus::Pending, "{instance} has no history");
            return;
        }
        check_history(history).unwrap_or_else(|problem| panic!("{instance}: {problem}\n{history:#?}"));
        let derived = derive_state(instance, history);
        let known = InstanceState {
            history_bytes: 0,
            custom_status: None,
            open_timers: BTreeMap::new(),
            ..state.clone()
        };
        assert_eq!(InstanceState { open_timers: BTreeMap::new(), ..derived }, known, "{instance}");
        let bytes: usize = history.iter().map(|event| codec::encode_to_vec(event).len()).sum();
        assert_eq!(state.history_bytes, bytes as u64, "{instance}");
        if let Err(error) = replay_in(self.registry(), instance, history) {
            panic!("{instance} does not replay: {error}\n{history:#?}");
        }
    }

    /// Invariant I3: a partition that is recovered from what is durable equals the one that lives, whenever nothing of
    /// it is under way. Returns how many partitions were compared.
    ///
    /// # Panics
    /// When they differ.
    pub fn compare_with_recovered(&mut self) -> usize {
        let mut compared = 0;
        let (survivor, current) = (self.store.crash_image(Survival::Synced), self.reader());
        for (id, node) in self.nodes.iter_mut().enumerate() {
            if !node.partition.is_settled() || node.handed_in != node.partition.durable() {
                continue;
            }
            let id = PartitionId(id as u16);
            let options = super::node::partition_options(id, &self.options);
            let mut recovered = bridge::recover_partition(&survivor, options).expect("it can be recovered");
            // Of some instances a recovered partition only knows that it has to look them up.
            recovered.begin_no_more_turns();
            while let Some(work) = recovered.next_work() {
                let Work::Load(instance) = work else { panic!("{id} does more than look up: {work:?}") };
                let loaded = bridge::load_instance(&survivor, &instance).expect("the store reads");
                recovered.on_loaded(&instance, loaded);
            }
            let (live, again) = (node.partition.counts(), recovered.counts());
            let kept = |counts: PartitionCounts| {
                (counts.unfinished_activities, counts.timers, counts.delayed_signals)
            };
            assert_eq!(kept(live), kept(again), "{id}: live and recovered");
            // An acknowledgement is written with the next record that there is a reason to write.
            assert!(live.outbox <= again.outbox, "{id}: a message would be lost");
            let owned = |instance: &InstanceId| instance.partition(self.options.partitions) == id;
            let live = view(&mut node.partition, &current, owned);
            let again = view(&mut recovered, &survivor, owned);
            assert_eq!(live, again, "{id}: live and recovered");
            for instance in live.keys() {
                let left = |partition: &Partition| -> Vec<_> {
                    partition.activities_of(instance).iter().map(|task| (task.id, task.cancelled)).collect()
                };
                assert_eq!(left(&node.partition), left(&recovered), "{id}: activities of {instance}");
            }
            let counts = count(live.values().map(|(state, _)| state));
            assert_eq!(node.partition.read_counts(Token(0)), Some(counts), "{id}: counted while it lived");
            assert_eq!(recovered.read_counts(Token(0)), Some(counts), "{id}: counted after recovery");
            // What the reads leave behind goes out with whatever comes next, so that comparing makes no steps.
            compared += 1;
        }
        compared
    }
}

/// The state that follows from a history alone.
fn derive_state(instance: &InstanceId, history: &[HistoryEvent]) -> InstanceState {
    let start = history.iter().find_map(|event| match &event.kind {
        EventKind::ExecutionStarted(started) => Some((started, event.timestamp)),
        _ => None,
    });
    let (started, at): (_, Timestamp) = start.expect("a history has a start");
    let mut state = InstanceState::pending(instance.clone(), started, at);
    history.iter().for_each(|event| state.apply(event));
    state
}

/// How many instances there are, by looking at each of them.
fn count<'a>(states: impl Iterator<Item = &'a InstanceState>) -> InstanceCounts {
    let mut counts = InstanceCounts::default();
    states.for_each(|state| counts.change(&state.instance, None, Some(state.status)));
    counts
}

fn whole_overlay(partition: &mut Partition, token: Token, everything: &InstanceFilter) -> Overlay {
    let (mut overlay, mut cursor) = (Overlay::default(), Some(OverlayCursor::default()));
    while let Some(from) = cursor {
        cursor = partition.read_overlay(token, everything, None, from, &mut overlay);
    }
    overlay.complete();
    overlay
}

/// Everything that a partition and its store say of the partition's instances.
fn view(partition: &mut Partition, store: &dyn Store, owned: impl Fn(&InstanceId) -> bool) -> View {
    let token = Token(0);
    let stored = bridge::stored_instances(store).expect("the store reads");
    let everything = InstanceFilter { kind: InstanceKind::All, ..InstanceFilter::default() };
    let overlay = whole_overlay(partition, token, &everything);
    let mut states: Vec<InstanceState> = stored
        .iter()
        .filter(|stored| owned(&stored.instance) && !overlay.hides(&stored.instance))
        .map(|stored| bridge::instance_state(stored).expect("the state can be read"))
        .collect();
    states.extend(overlay.first(&everything, None, usize::MAX).iter().map(|state| (**state).clone()));
    let view = states.into_iter().map(|state| {
        let history = read_history(partition, store, token, &state.instance);
        (state.instance.clone(), (state, history))
    });
    view.collect()
}
