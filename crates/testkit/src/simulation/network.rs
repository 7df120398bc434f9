//! What is under way between the partitions of a simulated hub.

use std::collections::{BTreeMap, VecDeque};

use steadfast_core::{PartitionId, TaskMessage};

use crate::SplitMix64;

use super::options::SimulationOptions;

#[derive(Debug, Clone)]
pub(super) enum Packet {
    Message(Box<TaskMessage>),
    Acknowledgement(u64),
}

pub(super) type Link = (PartitionId, PartitionId);

/// One queue for each direction between two partitions.
#[derive(Debug, Default)]
pub(super) struct Network {
    links: BTreeMap<Link, VecDeque<Packet>>,
}

impl Network {
    pub(super) fn send(&mut self, link: Link, packet: Packet) {
        self.links.entry(link).or_default().push_back(packet);
    }

    /// The links on which something is under way.
    pub(super) fn busy(&self) -> impl Iterator<Item = Link> {
        self.links.iter().filter(|(_, queue)| !queue.is_empty()).map(|(link, _)| *link)
    }

    /// Takes what arrives next on a link; nothing when it got lost.
    pub(super) fn arrive(
        &mut self,
        link: Link,
        options: &SimulationOptions,
        random: &mut SplitMix64,
    ) -> Option<Packet> {
        let queue = self.links.get_mut(&link)?;
        let at = if random.chance(options.reordered) { random.below(queue.len().max(1)) } else { 0 };
        let packet = queue.remove(at)?;
        if random.chance(options.lost) {
            return None;
        }
        if random.chance(options.duplicates) {
            let at = random.below(queue.len() + 1);
            queue.insert(at, packet.clone());
        }
        Some(packet)
    }

    pub(super) fn clear(&mut self) {
        self.links.clear();
    }
}
