//! A filter, made ready to be compared with entries and summaries.

use steadfast_core::{InstanceFilter, InstanceId, InstanceKind, TimeRange};

use super::entry::{self, Entry, Tags};

/// What is searched for. All of it may let through more than the filter does, never less.
pub(super) struct Wanted {
    /// One bit for each status.
    pub(super) statuses: u16,
    pub(super) created: Span,
    pub(super) updated: Span,
    pub(super) completed: Span,
    pub(super) name: Option<u32>,
    pub(super) version: Option<u32>,
    pub(super) tags: Vec<u32>,
}

/// A span of time in microseconds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: i64,
    pub(super) upto: i64,
}

impl Span {
    const ALL: Self = Self { from: i64::MIN, upto: i64::MAX };

    fn new(range: &TimeRange) -> Self {
        Self {
            from: range.from.map_or(i64::MIN, |from| from.as_micros()),
            upto: range.before.map_or(i64::MAX, |before| before.as_micros().saturating_sub(1)),
        }
    }

    pub(super) fn is_all(self) -> bool {
        self == Self::ALL
    }

    fn contains(self, time: i64) -> bool {
        self.from <= time && time <= self.upto
    }
}

/// Ids that lie between two bounds, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdRange {
    pub(super) from: Vec<u8>,
    /// The id `from` itself is not among them.
    pub(super) excluded: bool,
    /// The first one that is not among them any more.
    pub(super) end: Option<Vec<u8>>,
}

impl IdRange {
    pub(super) fn begins_after(&self, id: &[u8]) -> bool {
        id < &*self.from || self.excluded && id == self.from
    }

    pub(super) fn ends_before(&self, id: &[u8]) -> bool {
        self.end.as_deref().is_some_and(|end| end <= id)
    }

    fn is_empty(&self) -> bool {
        self.end.as_deref().is_some_and(|end| end <= &*self.from)
    }
}

impl Wanted {
    pub(super) fn new(filter: &InstanceFilter) -> Self {
        let statuses = match &filter.statuses[..] {
            [] => u16::MAX,
            some => some.iter().fold(0, |mask, status| mask | bit(*status as u8)),
        };
        Self {
            statuses,
            created: Span::new(&filter.created),
            updated: Span::new(&filter.updated),
            completed: Span::new(&filter.completed),
            name: filter.name.as_deref().map(entry::name_hash),
            version: filter.version.as_deref().map(entry::version_hash),
            tags: filter.tags.iter().map(|(key, value)| entry::tag_hash(key, value)).collect(),
        }
    }

    pub(super) fn matches<T: Tags>(&self, entry: &Entry<T>) -> bool {
        self.statuses & bit(entry.status) != 0
            && self.name.is_none_or(|name| name == entry.name)
            && self.version.is_none_or(|version| version == entry.version)
            && self.created.contains(entry.created)
            && self.updated.contains(entry.updated)
            && (self.completed.is_all() || entry.completed.is_some_and(|at| self.completed.contains(at)))
            && self.tags.iter().all(|tag| entry.tags.may_hold(*tag))
    }
}

/// The bit of a status.
pub(super) fn bit(status: u8) -> u16 {
    1 << (status & 0x0f)
}

/// Where the ids that a filter includes lie, behind `after`, in order.
pub(super) fn id_ranges(filter: &InstanceFilter, after: Option<&InstanceId>) -> Vec<IdRange> {
    // Ids of entities begin with '@'; 'A' comes next.
    let kinds: &[(&[u8], Option<&[u8]>)] = match filter.kind {
        InstanceKind::Orchestrations => &[(b"", Some(b"@")), (b"A", None)],
        InstanceKind::Entities => &[(b"@", Some(b"A"))],
        InstanceKind::All => &[(b"", None)],
    };
    let prefix = filter.id_prefix.as_bytes();
    let prefix_end = successor(prefix);
    let after = after.map(|after| after.as_str().as_bytes());
    let ranges = kinds.iter().map(|(from, end)| {
        let from = prefix.max(from);
        let end = [prefix_end.as_deref(), *end].into_iter().flatten().min().map(<[u8]>::to_vec);
        let excluded = after.is_some_and(|after| after >= from);
        IdRange { from: after.filter(|_| excluded).unwrap_or(from).to_vec(), excluded, end }
    });
    ranges.filter(|range| !range.is_empty()).collect()
}

/// The first text that sorts behind everything that begins with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_the_ids_that_the_filter_includes_and_no_others() {
        let ids = ["!", "@", "@e@1", "@f", "A", "order", "order-1", "orders", "p", "\u{e4}"];
        for kind in [InstanceKind::Orchestrations, InstanceKind::Entities, InstanceKind::All] {
            for prefix in ["", "@", "@e", "order", "\u{e4}", "\u{10ffff}"] {
                for after in [None, Some("!"), Some("@e@1"), Some("order"), Some("z"), Some("\u{10ffff}")] {
                    let filter = InstanceFilter { kind, id_prefix: prefix.into(), ..Default::default() };
                    let after = after.map(InstanceId::from_trusted);
                    let ranges = id_ranges(&filter, after.as_ref());
                    for id in ids {
                        let bytes = id.as_bytes();
                        let within = ranges
                            .iter()
                            .any(|range| !range.begins_after(bytes) && !range.ends_before(bytes));
                        let expected =
                            filter.matches_id(id) && after.as_ref().is_none_or(|after| id > after.as_str());
                        assert_eq!(within, expected, "{id} in {filter:?} after {after:?}");
                    }
                }
            }
        }
    }
}
