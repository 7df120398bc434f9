//! What is known of a block without reading it: enough to pass over most blocks that hold nothing that is wanted.
//!
//! statuses u16; then for created, updated and completed: how it is said u8, and unless that is 0 (nothing has such a
//! time) or 1 (they are those before): the least and the greatest time i64, and if it is 3: shift u8, number of cells
//! u16, the cells u16, sorted; then a byte that says whether some instance has too many tags, the number of different
//! hashes u16, and the hashes u32, sorted. All numbers are big-endian.
//!
//! A cell is a time, counted from the least one, without its lowest bits: as few of them that the greatest fits.
//! Blocks of instances whose ids are in time order are told apart by their least and greatest times. With other ids a
//! block holds instances of all times, and it is the cells that lead to the few instances of a short span.

use steadfast_store::StoreError;

use super::entry::{Entry, Tagged};
use super::wanted::{Span, Wanted, bit};
use crate::error::corrupt;

/// A summary can say of so many hashes that they are there; with more it says that any may be.
const HASHES_MAX: usize = 4096;

/// Cells are written for blocks whose times are spread over more than this, in microseconds.
const SPREAD_MIN: i64 = 1_000_000;

const NONE: u8 = 0;
const SAME: u8 = 1;
const BOUNDS: u8 = 2;
const CELLS: u8 = 3;

/// The summary of a block.
pub(super) fn encode<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> Vec<u8> {
    let statuses = entries.clone().fold(0, |mask, entry| mask | bit(entry.status));
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&statuses.to_be_bytes());
    let updated: Vec<_> = sorted(entries.clone().map(|entry| entry.updated));
    let completed: Vec<_> = sorted(entries.clone().filter_map(|entry| entry.completed));
    put_times(&mut bytes, &sorted(entries.clone().map(|entry| entry.created)));
    put_times(&mut bytes, &updated);
    if updated == completed {
        // All have ended, and nothing has happened to them since.
        bytes.push(SAME);
    } else {
        put_times(&mut bytes, &completed);
    }
    let mut hashes = Vec::new();
    let mut any_tag = false;
    for entry in entries {
        for hash in [entry.name, entry.version] {
            // Most blocks hold few names and versions.
            if !hashes.iter().rev().take(4).any(|known| *known == hash) {
                hashes.push(hash);
            }
        }
        match &entry.tags {
            Tagged::Listed(tags) => hashes.extend_from_slice(tags),
            Tagged::TooMany => any_tag = true,
        }
    }
    hashes.sort_unstable();
    hashes.dedup();
    if hashes.len() > HASHES_MAX {
        hashes.clear();
        any_tag = true;
    }
    bytes.push(u8::from(any_tag));
    bytes.extend_from_slice(&(hashes.len() as u16).to_be_bytes());
    hashes.iter().for_each(|hash| bytes.extend_from_slice(&hash.to_be_bytes()));
    bytes
}

fn sorted(times: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

fn put_times(bytes: &mut Vec<u8>, times: &[i64]) {
    let (Some(&least), Some(&greatest)) = (times.first(), times.last()) else {
        bytes.push(NONE);
        return;
    };
    let spread = greatest.abs_diff(least);
    let listed = spread > SPREAD_MIN as u64;
    bytes.push(if listed { CELLS } else { BOUNDS });
    bytes.extend_from_slice(&least.to_be_bytes());
    bytes.extend_from_slice(&greatest.to_be_bytes());
    if listed {
        let shift = (u64::BITS - spread.leading_zeros()).saturating_sub(u16::BITS);
        let mut cells: Vec<u16> = times.iter().map(|time| cell(*time, least, shift)).collect();
        cells.dedup();
        bytes.push(shift as u8);
        bytes.extend_from_slice(&(cells.len() as u16).to_be_bytes());
        cells.iter().for_each(|cell| bytes.extend_from_slice(&cell.to_be_bytes()));
    }
}

/// The cell of a time that is not before `least`.
fn cell(time: i64, least: i64, shift: u32) -> u16 {
    time.abs_diff(least).checked_shr(shift).and_then(|cell| u16::try_from(cell).ok()).unwrap_or(u16::MAX)
}

/// Whether the block may hold something that is wanted.
pub(super) fn may_match(summary: &[u8], wanted: &Wanted) -> Result<bool, StoreError> {
    compare(summary, wanted)
        .ok_or_else(|| corrupt("the directory of instances", "a summary is not what was written"))
}

fn compare(mut rest: &[u8], wanted: &Wanted) -> Option<bool> {
    let statuses = u16::from_be_bytes(take(&mut rest)?);
    let mut may = statuses & wanted.statuses != 0;
    let mut last = Times::None;
    for span in [wanted.created, wanted.updated, wanted.completed] {
        last = take_times(&mut rest, last)?;
        // Whatever the answer is, the rest is read, so that damage does not pass.
        may = may && last.may_lie_in(span);
    }
    let [any_tag] = take(&mut rest)?;
    let count = usize::from(u16::from_be_bytes(take(&mut rest)?));
    let (hashes, rest) = rest.split_at_checked(4 * count)?;
    let hashes = hashes.as_chunks::<4>().0;
    // A list that was too long is empty, whereas there are always names.
    let holds = |hash: &u32| {
        hashes.is_empty() || hashes.binary_search_by(|known| u32::from_be_bytes(*known).cmp(hash)).is_ok()
    };
    may = may && wanted.name.iter().chain(&wanted.version).all(holds);
    may = may && (any_tag != 0 || wanted.tags.iter().all(holds));
    rest.is_empty().then_some(may)
}

/// What is said of a kind of time.
#[derive(Clone, Copy)]
enum Times<'a> {
    None,
    Between { least: i64, greatest: i64, cells: Option<(u32, &'a [[u8; 2]])> },
}

impl Times<'_> {
    fn may_lie_in(self, span: Span) -> bool {
        let Self::Between { least, greatest, cells } = self else { return span.is_all() };
        if span.from <= least && greatest <= span.upto {
            return true;
        }
        if span.upto < least || greatest < span.from {
            return false;
        }
        let Some((shift, cells)) = cells else { return true };
        let from = cell(span.from.max(least), least, shift);
        let upto = cell(span.upto.min(greatest), least, shift);
        let at = cells.partition_point(|cell| u16::from_be_bytes(*cell) < from);
        cells.get(at).is_some_and(|cell| u16::from_be_bytes(*cell) <= upto)
    }
}

fn take_times<'a>(rest: &mut &'a [u8], last: Times<'a>) -> Option<Times<'a>> {
    let [kind] = take(rest)?;
    match kind {
        NONE => return Some(Times::None),
        SAME => return Some(last),
        BOUNDS | CELLS => {}
        _ => return None,
    }
    let least = i64::from_be_bytes(take(rest)?);
    let greatest = i64::from_be_bytes(take(rest)?);
    let mut cells = None;
    if kind == CELLS {
        let [shift] = take(rest)?;
        let count = usize::from(u16::from_be_bytes(take(rest)?));
        let (list, after) = rest.split_at_checked(2 * count)?;
        *rest = after;
        cells = Some((u32::from(shift), list.as_chunks().0));
    }
    Some(Times::Between { least, greatest, cells })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use steadfast_core::{InstanceFilter, OrchestrationStatus, TimeRange, Timestamp};

    use super::*;
    use crate::directory::entry::{name_hash, version_hash};

    fn entry(second: i64, tags: Tagged) -> Entry {
        let created = second * 1_000_000 + 17;
        Entry {
            status: OrchestrationStatus::Completed as u8,
            created,
            updated: created + 5,
            completed: Some(created + 5),
            name: name_hash("order"),
            version: version_hash(""),
            tags,
        }
    }

    #[test]
    fn a_block_is_passed_over_only_when_nothing_in_it_is_wanted() {
        let entries: Vec<_> = [10, 20, 30].map(|second| entry(second, Tagged::Listed(Box::default()))).into();
        let summary = encode(entries.iter());
        let may = |filter: InstanceFilter| may_match(&summary, &Wanted::new(&filter)).unwrap();
        let all = InstanceFilter::default;
        let seconds = |from: i64, before: i64| {
            TimeRange::between(
                Timestamp::from_micros(from * 1_000_000),
                Timestamp::from_micros(before * 1_000_000),
            )
        };
        assert!(may(all()));
        assert!(may(InstanceFilter { created: seconds(20, 21), ..all() }));
        assert!(!may(InstanceFilter { created: seconds(21, 29), ..all() }), "between two of them");
        assert!(!may(InstanceFilter { completed: seconds(31, 90), ..all() }));
        assert!(may(InstanceFilter { updated: seconds(0, 90), ..all() }));
        assert!(may(InstanceFilter { name: Some("order".into()), ..all() }));
        assert!(!may(InstanceFilter { name: Some("hello".into()), ..all() }));
        assert!(!may(InstanceFilter { statuses: vec![OrchestrationStatus::Failed], ..all() }));
        assert!(!may(InstanceFilter { tags: [("a".into(), "b".into())].into(), ..all() }));
        for cut in 0..summary.len() {
            assert!(may_match(&summary[..cut], &Wanted::new(&all())).is_err());
        }
    }

    #[test]
    fn a_time_that_is_there_is_never_passed_over_and_others_nearly_always() {
        let lasts: [&[i64]; 6] = [
            &[0, 1],
            &[-5, 3_000_000],
            &[0, 65_535 << 6, (65_536 << 6) - 1, 65_536 << 6],
            &[1_000_000_000, 1_700_000_000_000_000, 1_700_000_000_000_001],
            &[i64::MIN, -1, 0, 1, i64::MAX],
            &[17, 5_000_017, 900_000_017],
        ];
        for times in lasts {
            let of = |time: i64| Entry { created: time, ..entry(1, Tagged::Listed(Box::default())) };
            let entries: Vec<_> = times.iter().copied().map(of).collect();
            let summary = encode(entries.iter());
            let may = |from: i64, before: i64| {
                let created =
                    TimeRange::between(Timestamp::from_micros(from), Timestamp::from_micros(before));
                let filter = InstanceFilter { created, ..InstanceFilter::default() };
                may_match(&summary, &Wanted::new(&filter)).unwrap()
            };
            for time in times.iter().filter(|time| **time < i64::MAX) {
                assert!(
                    may(*time, time + 1) && may(time.saturating_sub(10), time + 1),
                    "{time} of {times:?}"
                );
                assert!(may(i64::MIN, time + 1) && may(*time, i64::MAX), "{time} of {times:?}");
            }
        }
        let sparse: Vec<_> =
            (0..200).map(|number| entry(number * 60, Tagged::Listed(Box::default()))).collect();
        let summary = encode(sparse.iter());
        let passed_over = (0..12_000).filter(|second| {
            let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
            let created = TimeRange::between(at(*second), at(second + 1));
            let filter = InstanceFilter { created, ..InstanceFilter::default() };
            !may_match(&summary, &Wanted::new(&filter)).unwrap()
        });
        assert!(passed_over.count() > 11_600, "200 of 12,000 seconds hold something");
    }

    #[test]
    fn a_block_with_too_many_tags_may_hold_any() {
        let some = InstanceFilter { tags: [("a".into(), "b".into())].into(), ..InstanceFilter::default() };
        let wanted = Wanted::new(&some);
        let summary = encode([entry(1, Tagged::TooMany)].iter());
        assert!(may_match(&summary, &wanted).unwrap());
        let many: Vec<_> = (0..10)
            .map(|block| entry(1, Tagged::Listed((block * 900..(block + 1) * 900).collect())))
            .collect();
        assert!(may_match(&encode(many.iter()), &wanted).unwrap());
    }
}
