//! What is known of a block without reading it: enough to pass over most blocks that hold nothing that is wanted.
//!
//! statuses u16; then for created, updated and completed: number u16, the least and the greatest time i64 (unless the
//! number is 0), and so many different seconds u32, sorted; then a byte that says whether some instance has too many
//! tags, the number of different hashes u16, and the hashes u32, sorted. All numbers are big-endian.
//!
//! Blocks of instances whose ids are in time order hold few different seconds. With other ids they hold as many as
//! instances, and it is these seconds that lead to the few instances of a short span of time.

use steadfast_store::StoreError;

use super::entry::{Entry, Tagged};
use super::wanted::{Span, Wanted, bit};
use crate::error::corrupt;

/// A summary can say of so many hashes that they are there; with more it says that any may be.
const HASHES_MAX: usize = 4096;

/// The summary of a block.
pub(super) fn encode<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> Vec<u8> {
    let statuses = entries.clone().fold(0, |mask, entry| mask | bit(entry.status));
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&statuses.to_be_bytes());
    put_times(&mut bytes, entries.clone().map(|entry| entry.created));
    put_times(&mut bytes, entries.clone().map(|entry| entry.updated));
    put_times(&mut bytes, entries.clone().filter_map(|entry| entry.completed));
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
    put_list(&mut bytes, &hashes);
    bytes
}

fn put_times(bytes: &mut Vec<u8>, times: impl Iterator<Item = i64> + Clone) {
    let mut seconds: Vec<u32> = times.clone().map(second).collect();
    seconds.sort_unstable();
    seconds.dedup();
    bytes.extend_from_slice(&(seconds.len() as u16).to_be_bytes());
    if let (Some(least), Some(greatest)) = (times.clone().min(), times.max()) {
        bytes.extend_from_slice(&least.to_be_bytes());
        bytes.extend_from_slice(&greatest.to_be_bytes());
    }
    seconds.iter().for_each(|second| bytes.extend_from_slice(&second.to_be_bytes()));
}

fn put_list(bytes: &mut Vec<u8>, list: &[u32]) {
    bytes.extend_from_slice(&(list.len() as u16).to_be_bytes());
    list.iter().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
}

/// The second of a time, as far as it can be told.
fn second(micros: i64) -> u32 {
    let seconds = micros.div_euclid(1_000_000).clamp(0, i64::from(u32::MAX));
    seconds as u32
}

/// Whether the block may hold something that is wanted.
pub(super) fn may_match(summary: &[u8], wanted: &Wanted) -> Result<bool, StoreError> {
    compare(summary, wanted)
        .ok_or_else(|| corrupt("the directory of instances", "a summary is not what was written"))
}

fn compare(mut rest: &[u8], wanted: &Wanted) -> Option<bool> {
    let statuses = u16::from_be_bytes(take(&mut rest)?);
    let mut may = statuses & wanted.statuses != 0;
    for span in [wanted.created, wanted.updated, wanted.completed] {
        may &= compare_times(&mut rest, span)?;
    }
    let [any_tag] = take(&mut rest)?;
    let hashes = take_list(&mut rest)?;
    // A list that was too long is empty, whereas there are always names.
    let holds = |hash: &u32| hashes.is_empty() || contains_between(hashes, *hash, *hash);
    may &= wanted.name.iter().chain(&wanted.version).all(holds);
    may &= any_tag != 0 || wanted.tags.iter().all(holds);
    rest.is_empty().then_some(may)
}

fn compare_times(rest: &mut &[u8], span: Span) -> Option<bool> {
    let count = usize::from(u16::from_be_bytes(take(rest)?));
    if count == 0 {
        return Some(span.is_all());
    }
    let least = i64::from_be_bytes(take(rest)?);
    let greatest = i64::from_be_bytes(take(rest)?);
    let (seconds, after) = rest.split_at_checked(4 * count)?;
    *rest = after;
    if span.from <= least && greatest <= span.upto {
        return Some(true);
    }
    let overlap = span.from <= greatest && least <= span.upto;
    Some(overlap && contains_between(seconds, second(span.from), second(span.upto)))
}

fn take_list<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = usize::from(u16::from_be_bytes(take(rest)?));
    let (list, after) = rest.split_at_checked(4 * count)?;
    *rest = after;
    Some(list)
}

/// Whether a sorted list holds a number from `from` up to and including `upto`.
fn contains_between(list: &[u8], from: u32, upto: u32) -> bool {
    let (numbers, _) = list.as_chunks::<4>();
    let at = numbers.partition_point(|number| u32::from_be_bytes(*number) < from);
    numbers.get(at).is_some_and(|number| u32::from_be_bytes(*number) <= upto)
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
        assert!(!may(InstanceFilter { created: seconds(21, 30), ..all() }), "between two seconds");
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
