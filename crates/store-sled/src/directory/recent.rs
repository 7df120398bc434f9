//! The entries that are not in blocks yet: sorted runs in memory, of which later ones count more.

use std::sync::Arc;

use steadfast_core::InstanceId;

use super::entry::Item;
use super::wanted::{IdRange, Wanted};

/// A batch of entries, or several in one, sorted by id, each id once.
pub(super) type Run = Vec<Item>;

/// With more runs than this the latest are made one, so that a search has few places to look at.
const RUNS_MAX: usize = 16;

/// Some runs, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent {
    runs: Vec<Arc<Run>>,
    /// The first run is on its way into blocks, and stays as it is.
    settling: bool,
}

impl Recent {
    /// Adds what is newer than everything else.
    pub(super) fn push(&mut self, run: Run) {
        self.runs.push(Arc::new(run));
        if self.runs.len() > RUNS_MAX {
            // At least one, and on as long as what comes before is not much larger: so each entry is moved few times.
            let mut at = self.runs.len() - 2;
            let mut entries = self.runs[at].len() + self.runs[at + 1].len();
            while at > usize::from(self.settling) && self.runs[at - 1].len() <= entries {
                at -= 1;
                entries += self.runs[at].len();
            }
            let merged = merge(&self.runs[at..]);
            self.runs.truncate(at);
            self.runs.push(Arc::new(merged));
        }
    }

    /// How many entries there are, counting some instances several times.
    pub(super) fn len(&self) -> usize {
        self.runs.iter().map(|run| run.len()).sum()
    }

    /// Makes one run of all there is, which stays until [`Self::settled`].
    pub(super) fn begin_to_settle(&mut self) -> Arc<Run> {
        let all = Arc::new(merge(&self.runs));
        self.runs = vec![all.clone()];
        self.settling = true;
        all
    }

    /// The run that was on its way into blocks is there.
    pub(super) fn settled(&mut self) {
        if std::mem::take(&mut self.settling) {
            self.runs.remove(0);
        }
    }

    /// Whether something is said of the instance, so that an older entry of it does not count.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.runs.iter().any(|run| find(run, id).is_ok())
    }

    /// The first `limit` instances in a range that match, by id.
    pub(super) fn search(&self, wanted: &Wanted, range: &IdRange, limit: usize) -> Vec<InstanceId> {
        // What matches in each run, looked for only as far as it is needed.
        let mut matching: Vec<_> =
            self.runs.iter().map(|run| matching(run, wanted, range).peekable()).collect();
        let mut found: Vec<InstanceId> = Vec::new();
        while found.len() < limit {
            let heads = matching.iter_mut().enumerate().filter_map(|(nth, run)| Some((*run.peek()?, nth)));
            let Some((id, nth)) = heads.min() else { break };
            matching[nth].next();
            // Something newer counts, whether it matches or not.
            if self.runs[nth + 1..].iter().all(|run| find(run, id.as_str()).is_err()) {
                found.push(id.clone());
            }
        }
        found
    }
}

/// The instances of a run that lie in a range and match, in order.
fn matching<'a>(
    run: &'a Run,
    wanted: &'a Wanted,
    range: &'a IdRange,
) -> impl Iterator<Item = &'a InstanceId> {
    let from = run.partition_point(|(id, _)| range.begins_after(id.as_str().as_bytes()));
    run[from..]
        .iter()
        .take_while(|(id, _)| !range.ends_before(id.as_str().as_bytes()))
        .filter(|(_, entry)| entry.as_ref().is_some_and(|entry| wanted.matches(entry)))
        .map(|(id, _)| id)
}

fn find(run: &Run, id: &str) -> Result<usize, usize> {
    run.binary_search_by(|(known, _)| known.as_str().cmp(id))
}

/// One run of several; of one instance the latest entry counts.
fn merge(runs: &[Arc<Run>]) -> Run {
    let mut all: Run = Vec::with_capacity(runs.iter().map(|run| run.len()).sum());
    // The latest first, so that it is the one that stays. The sort is stable and quick with what is sorted in parts.
    runs.iter().rev().for_each(|run| all.extend(run.iter().cloned()));
    all.sort_by(|(left, _), (right, _)| left.cmp(right));
    all.dedup_by(|(right, _), (left, _)| left == right);
    all
}

#[cfg(test)]
mod tests {
    use steadfast_core::InstanceFilter;

    use super::super::entry::{Entry, Tagged};
    use super::super::wanted::id_ranges;
    use super::*;

    fn entry(name: u32) -> Option<Entry> {
        let tags = Tagged::Listed(Box::default());
        Some(Entry { status: 1, created: 1, updated: 1, completed: None, name, version: 1, tags })
    }

    #[test]
    fn the_latest_entry_of_an_instance_counts_however_many_runs_there_are() {
        let mut recent = Recent::default();
        let id = |number: u32| InstanceId::from_trusted(format!("{number:04}"));
        for round in 0..100_u32 {
            recent.push((0..50).map(|number| (id(number * 2 + round % 2), entry(round))).collect());
            recent.push(vec![(id(round), None)]);
            assert!(recent.runs.len() <= RUNS_MAX);
        }
        let filter = InstanceFilter::default();
        let range = id_ranges(&filter, None).remove(0);
        let found = recent.search(&Wanted::new(&filter), &range, 1000);
        // Number 99 was removed last, all others came back or were written after they had been removed.
        let merged = merge(&recent.runs);
        let there: Vec<_> =
            merged.iter().filter(|(_, entry)| entry.is_some()).map(|(id, _)| id.clone()).collect();
        assert_eq!(found, there);
        assert!(!found.contains(&id(99)) && recent.knows("0099"));
        assert!(merged.iter().all(|(_, entry)| entry.as_ref().is_none_or(|entry| entry.name >= 98)));
        assert_eq!(recent.search(&Wanted::new(&filter), &range, 3), there[..3]);
    }

    #[test]
    fn what_settles_stays_as_it_is_while_others_come() {
        let mut recent = Recent::default();
        let id = |number: u32| InstanceId::from_trusted(format!("{number:04}"));
        recent.push((0..10).map(|number| (id(number), entry(1))).collect());
        recent.push(vec![(id(3), None)]);
        let settling = recent.begin_to_settle();
        assert_eq!(settling.len(), 10);
        for round in 0..100 {
            recent.push(vec![(id(round % 20), entry(2))]);
        }
        assert!(Arc::ptr_eq(&recent.runs[0], &settling) && recent.runs.len() <= RUNS_MAX);
        recent.settled();
        let left = merge(&recent.runs);
        assert_eq!(left.len(), 20);
        assert!(left.iter().all(|(_, entry)| entry.as_ref().is_some_and(|entry| entry.name == 2)));
    }
}
