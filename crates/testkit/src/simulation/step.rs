//! The steps of a simulated hub, and which of them comes next.

use std::sync::Arc;

use steadfast_core::dispatch::Expired;
use steadfast_core::model::CancelReason;
use steadfast_core::partition::{Effect, Work};
use steadfast_core::{PartitionId, Payload, Position};
use steadfast_store::{InstanceChange, LogRecord, Store, bridge};

use super::Simulation;
use super::network::{Link, Packet};
use super::options::Schedule;

/// One small thing that could happen next. Numbers are indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Load { node: usize, load: usize },
    Turn { node: usize, turn: usize },
    Outside { node: usize, turn: usize },
    Work { node: usize },
    Commit { node: usize },
    Append,
    Durable { node: usize },
    Effect { node: usize },
    Arrive(Link),
    Activity { waiting: usize },
    Result { result: usize },
    Materialise { node: usize },
    Truncate { node: usize },
    Call { call: usize },
    Time,
}

/// How many kinds of step there are in a round.
const KINDS: usize = 11;

impl Step {
    fn kind(self) -> usize {
        match self {
            Self::Load { .. } | Self::Turn { .. } | Self::Work { .. } => 0,
            Self::Commit { .. } => 1,
            Self::Append => 2,
            Self::Durable { .. } => 3,
            Self::Effect { .. } => 4,
            Self::Arrive(_) => 5,
            Self::Activity { .. } | Self::Outside { .. } => 6,
            Self::Result { .. } => 7,
            Self::Materialise { .. } => 8,
            Self::Truncate { .. } => 9,
            Self::Call { .. } | Self::Time => 10,
        }
    }
}

impl Simulation {
    /// Performs one step; false when nothing will happen any more.
    pub(super) fn step(&mut self) -> bool {
        let mut possible = std::mem::take(&mut self.possible);
        self.collect(&mut possible);
        let chosen = self.choose(&possible);
        self.possible = possible;
        let stepped = match chosen {
            Some(step) => {
                self.perform(step);
                true
            }
            None => self.go_on(),
        };
        self.steps += u64::from(stepped);
        if self.store.has_crashed() {
            self.crash_and_recover();
        }
        stepped
    }

    fn collect(&self, possible: &mut Vec<Step>) {
        possible.clear();
        for (node, it) in self.nodes.iter().enumerate() {
            possible.extend((0..it.loads.len()).map(|load| Step::Load { node, load }));
            possible.extend((0..it.turns.len()).map(|turn| Step::Turn { node, turn }));
            possible.extend((0..it.outside.len()).map(|turn| Step::Outside { node, turn }));
            let flags = [
                (it.may_work, Step::Work { node }),
                (it.may_commit, Step::Commit { node }),
                (!it.reports.is_empty(), Step::Durable { node }),
                (!it.effects.is_empty(), Step::Effect { node }),
                (!it.captures.is_empty(), Step::Materialise { node }),
                (it.truncate.is_some(), Step::Truncate { node }),
            ];
            possible.extend(flags.iter().filter(|(possible, _)| *possible).map(|(_, step)| *step));
        }
        if !self.log.is_empty() {
            possible.push(Step::Append);
        }
        possible.extend(self.network.busy().map(Step::Arrive));
        possible.extend((0..self.activities.waiting.len()).map(|waiting| Step::Activity { waiting }));
        possible.extend((0..self.activities.results.len()).map(|result| Step::Result { result }));
        possible.extend(self.client.callable().map(|call| Step::Call { call }));
    }

    fn choose(&mut self, possible: &[Step]) -> Option<Step> {
        if possible.is_empty() {
            return None;
        }
        match self.options.schedule {
            Schedule::Random if self.random.chance(self.options.hasty_time) => Some(Step::Time),
            Schedule::Random => Some(possible[self.random.below(possible.len())]),
            Schedule::Rounds => loop {
                if let Some(step) = possible.iter().find(|step| step.kind() == self.round) {
                    return Some(*step);
                }
                self.round = (self.round + 1) % KINDS;
            },
        }
    }

    /// Nothing can happen by itself: messages that were lost are sent again, the client goes on, time passes.
    fn go_on(&mut self) -> bool {
        if self.options.compare_with_recovered {
            self.compare_with_recovered();
        }
        if self.send_again() {
            return true;
        }
        self.resends = 0;
        self.client.advance(true, false) || self.pass_time() || self.client.advance(true, true)
    }

    fn send_again(&mut self) -> bool {
        let mut again = Vec::new();
        for node in &self.nodes {
            for receiver in (0..self.options.partitions).map(PartitionId) {
                let link = (node.partition.id(), receiver);
                again.extend(
                    node.partition.unacknowledged(receiver).into_iter().map(|message| (link, message)),
                );
            }
        }
        self.resends += 1;
        assert!(self.resends < 200 || again.is_empty(), "{} messages are never acknowledged", again.len());
        let any = !again.is_empty();
        let lossy = self.options.lost > 0 || self.options.reordered > 0;
        assert!(lossy || !any, "{} messages were not sent again after a recovery", again.len());
        again
            .into_iter()
            .for_each(|(link, message)| self.network.send(link, Packet::Message(Box::new(message))));
        any
    }

    fn pass_time(&mut self) -> bool {
        let Some(due) = self.nodes.iter().filter_map(|node| node.partition.next_due()).min() else {
            return false;
        };
        self.now = self.now.max(due);
        for node in &mut self.nodes {
            node.partition.set_now(self.now);
            node.partition.tick();
            node.touched();
        }
        true
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Load { node, load } => self.load(node, load),
            Step::Turn { node, turn } => {
                let it = &mut self.nodes[node];
                let request = it.turns.remove(turn);
                let crashes = self.options.lets_crash(&request.instance, &mut self.random);
                it.run_turn(request, &self.registry, self.options.max_payload_bytes, crashes)
                    .expect("histories can be read");
            }
            Step::Outside { node, turn } => {
                let it = &mut self.nodes[node];
                let crashes = self.options.lets_crash(&it.outside[turn].0, &mut self.random);
                it.poll_outside(turn, crashes);
            }
            Step::Work { node } => self.work(node),
            Step::Commit { node } => self.commit(node),
            Step::Append => self.append(),
            Step::Durable { node } => self.report_durable(node),
            Step::Effect { node } => self.effect(node),
            Step::Arrive(link) => self.arrive(link),
            Step::Activity { waiting } => self.activity(waiting),
            Step::Result { result } => {
                let (partition, id, outcome) = self.activities.results.remove(result);
                let node = &mut self.nodes[usize::from(partition.0)];
                node.partition.complete_activity(id, outcome);
                node.touched();
            }
            Step::Materialise { node } => self.materialise(node),
            Step::Truncate { node } => self.truncate(node),
            Step::Call { call } => {
                let node = self.node_of(self.client.instance(call));
                let it = &mut self.nodes[node];
                let token = self.client.make(call, &mut it.partition, self.now);
                it.note_call(token);
                it.touched();
            }
            Step::Time => drop(self.pass_time()),
        }
    }

    fn load(&mut self, node: usize, load: usize) {
        let (instance, ended) = self.nodes[node].loads.remove(load);
        let load = if ended { bridge::load_ended } else { bridge::load_instance };
        match load(&self.store, &instance) {
            Ok(loaded) => {
                self.nodes[node].partition.on_loaded(&instance, loaded);
                self.nodes[node].touched();
            }
            Err(error) => self.rebuild_after(node, &error),
        }
    }

    fn work(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.ended_without_code |= it.partition.poisoned().iter().any(|(_, poison)| poison.parked);
        match it.partition.next_work() {
            Some(Work::Load(instance)) => it.loads.push((instance, false)),
            Some(Work::LoadEnded(instance)) => it.loads.push((instance, true)),
            Some(Work::Turn(request)) => {
                let twice = it.turns.iter().any(|other| other.instance == request.instance)
                    || it.outside.iter().any(|(other, _)| *other == request.instance);
                assert!(!twice, "two turns of {} at a time", request.instance);
                it.turns.push(request);
            }
            Some(Work::Evict(instance)) => it.evict(&instance),
            None => it.may_work = false,
        }
    }

    fn commit(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let commit = it.partition.commit();
        it.may_commit = false;
        it.may_work = true;
        if let Some(record) = commit.record {
            assert_eq!(record.position, it.handed_in.next(), "records have no gaps");
            it.handed_in = record.position;
            let partition = it.partition.id();
            self.log.push_back(LogRecord { partition, position: record.position, bytes: record.bytes });
        }
        for effect in commit.effects {
            it.assert_durable(&effect);
            // Reads that the shell answers itself are not waited for here.
            if !matches!(effect, Effect::Release(_)) {
                it.effects.push_back(effect);
            }
        }
    }

    fn append(&mut self) {
        let count = match self.options.schedule {
            Schedule::Rounds => self.log.len(),
            Schedule::Random => 1 + self.random.below(self.log.len()),
        };
        let records: Vec<_> = self.log.drain(..count).collect();
        match self.store.append(&records) {
            Ok(()) => {
                for record in records {
                    let node = &mut self.nodes[usize::from(record.partition.0)];
                    node.synced = record.position;
                    node.reports.push_back(record.position);
                }
            }
            Err(error) => {
                let mut nodes: Vec<_> =
                    records.iter().map(|record| usize::from(record.partition.0)).collect();
                nodes.sort_unstable();
                nodes.dedup();
                nodes.into_iter().for_each(|node| self.rebuild_after(node, &error));
            }
        }
    }

    fn report_durable(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let Some(position) = it.reports.pop_front() else { return };
        it.partition.on_durable(position);
        it.since_materialised += 1;
        if self.options.materialise_every > 0 && it.since_materialised >= self.options.materialise_every {
            it.partition.want_materialisation();
            it.since_materialised = 0;
        }
        it.touched();
    }

    fn effect(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let id = it.partition.id();
        match it.effects.pop_front() {
            Some(Effect::Reply(token, answer)) => self.client.on_reply(token, answer),
            Some(Effect::State(token, state)) => drop(self.states.insert(token, state)),
            Some(Effect::Dispatch(task)) => self.activities.waiting.push((id, task)),
            Some(Effect::Send(to, message)) => self.network.send((id, to), Packet::Message(message)),
            Some(Effect::Acknowledge(to, upto)) => self.network.send((id, to), Packet::Acknowledgement(upto)),
            Some(Effect::Materialise(capture)) => it.captures.push_back(capture),
            // Activities of a simulation end at once, so none is running that could be told.
            Some(Effect::Release(_) | Effect::Started(_) | Effect::Ended(..) | Effect::Cancel(..)) | None => {
            }
        }
        self.client.advance(false, false);
    }

    fn arrive(&mut self, link: Link) {
        let Some(packet) = self.network.arrive(link, &self.options, &mut self.random) else { return };
        let (from, to) = link;
        let node = &mut self.nodes[usize::from(to.0)];
        match packet {
            Packet::Message(message) => {
                node.note_received(&message);
                node.partition.receive(*message);
            }
            Packet::Acknowledgement(upto) => node.partition.on_acknowledged(from, upto),
        }
        node.touched();
    }

    fn activity(&mut self, waiting: usize) {
        let (partition, task) = self.activities.waiting.remove(waiting);
        let node = &mut self.nodes[usize::from(partition.0)];
        let wanted = node.partition.is_activity_wanted(task.id);
        node.touched();
        if !wanted {
            return;
        }
        if task.options.as_ref().is_some_and(|options| options.heartbeat.is_some()) {
            node.partition.note_heartbeat(task.id, Payload::from_json("1"));
        }
        let timeout = task.options.as_ref().and_then(|options| options.start_to_close);
        if let Some(timeout) = timeout.filter(|_| self.random.chance(self.options.timeouts)) {
            // It takes too long: its result, below, comes too late.
            let failure = Expired { id: task.id, reason: CancelReason::TimedOut, timeout }.failure();
            node.partition.complete_activity(task.id, Err(failure));
        }
        self.activities.run(&self.registry, partition, &task);
        if self.random.chance(self.options.repeated_activities) {
            self.activities.run(&self.registry, partition, &task);
        }
    }

    fn materialise(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let Some(capture) = it.captures.pop_front() else { return };
        assert!(it.captures.is_empty(), "one materialisation at a time");
        let batch = bridge::materialisation(&capture);
        let current = self.store.reopen();
        for write in &batch.instances {
            let is_fresh = matches!(write.change, InstanceChange::Put { fresh: true, .. });
            let known = current.load_instance(&write.instance).is_ok_and(|stored| stored.is_some());
            assert!(!is_fresh || !known, "{} is said to be fresh, and is stored", write.instance);
        }
        let written = self.store.materialise(it.partition.id(), &batch);
        match written {
            Ok(()) => {
                it.partition.on_materialised(capture.upto);
                it.truncate = it.truncate.max(Some(capture.upto));
                it.touched();
            }
            Err(error) => self.rebuild_after(node, &error),
        }
    }

    fn truncate(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let upto: Position = it.truncate.take().unwrap_or_default();
        // What cannot be forgotten now is forgotten with what comes later.
        let _ = self.store.truncate_log(it.partition.id(), upto);
    }

    /// The registry, shared.
    pub(super) fn registry(&self) -> &Arc<steadfast_core::model::Registry> {
        &self.registry
    }
}
