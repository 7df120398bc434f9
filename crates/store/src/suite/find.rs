//! Behaviours of the search for instances.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use steadfast_core::{
    InstanceFacts, InstanceFilter, InstanceId, InstanceKind, OrchestrationStatus, Tags, TimeRange, Timestamp,
};

use super::{
    Harness, Outcome, Put, assert_instance, delete, facts, id, ids, noise, of_prefix, put, write_instances,
};
use crate::{Detail, Store, StoreError};

const STATUSES: [OrchestrationStatus; 4] = [
    OrchestrationStatus::Running,
    OrchestrationStatus::Completed,
    OrchestrationStatus::Failed,
    OrchestrationStatus::Terminated,
];

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn tags(key: &str, value: &str) -> Tags {
    Tags::from([(key.into(), value.into())])
}

fn write(text: &str, facts: InstanceFacts) -> Put<'_> {
    Put::replace(text, *b"h", 1).state(text).facts(facts)
}

/// The ids that a search finds and that match, over all of its pages.
fn find_all(
    store: &dyn Store,
    filter: &InstanceFilter,
    limit: usize,
    facts: &BTreeMap<String, InstanceFacts>,
) -> Result<Vec<String>, StoreError> {
    let mut all: Vec<InstanceId> = Vec::new();
    let mut after = None;
    loop {
        let found = store.find_instances(filter, after.as_ref(), limit, Detail::Outline)?;
        assert!(found.instances.len() <= limit);
        assert!(found.instances.is_sorted_by(|left, right| left.instance < right.instance));
        assert!(found.instances.iter().all(|found| Some(&found.instance) > after.as_ref()));
        all.extend(found.instances.into_iter().map(|found| found.instance));
        match found.upto {
            Some(upto) => {
                assert!(Some(&upto) > after.as_ref(), "the search does not get on");
                assert!(all.last().is_none_or(|last| *last <= upto));
                after = Some(upto);
            }
            None => break,
        }
    }
    let matching =
        |id: &InstanceId| facts.get(id.as_str()).is_some_and(|facts| filter.matches_facts(id, facts));
    Ok(all.into_iter().filter(matching).map(|id| id.as_str().to_owned()).collect())
}

#[track_caller]
fn assert_found(
    store: &dyn Store,
    filter: &InstanceFilter,
    limit: usize,
    facts: &BTreeMap<String, InstanceFacts>,
) -> Outcome {
    let matching = facts.iter().filter(|(text, facts)| filter.matches_facts(&id(text), facts));
    let expected: Vec<_> = matching.map(|(text, _)| text.clone()).collect();
    assert_eq!(find_all(store, filter, limit, facts)?, expected, "{filter:?}");
    Ok(())
}

/// A search hands out the instances with a prefix, in id order, no more than asked for.
pub fn instances_are_found_in_order(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let texts = ["b", "a", "ab", "ab-1", "ab-2", "abc", "ac", "\u{e4}", "@e@k", "A", "@", "@e"];
    let writes = texts.map(|text| Put::append(text, 0, *b"h", 1).fresh().ended().state(text).into_write());
    write_instances(&*store, writes.into())?;
    let search = |filter: InstanceFilter, after: Option<&str>, limit| {
        let after = after.map(id);
        let found = store.find_instances(&filter, after.as_ref(), limit, Detail::State)?;
        assert!(found.instances.iter().all(|found| found.state == found.instance.as_str().as_bytes()));
        Ok::<_, StoreError>((ids(&found.instances).join(" "), found.upto.is_none()))
    };
    let scan = |prefix, after, limit| Ok::<_, StoreError>(search(of_prefix(prefix), after, limit)?.0);
    assert_eq!(scan("", None, 100)?, "@ @e @e@k A a ab ab-1 ab-2 abc ac b \u{e4}");
    assert_eq!(scan("ab", None, 100)?, "ab ab-1 ab-2 abc");
    assert_eq!(scan("ab", None, 2)?, "ab ab-1");
    assert_eq!(scan("ab", Some("ab-1"), 100)?, "ab-2 abc");
    assert_eq!(scan("ab", Some("ab"), 1)?, "ab-1");
    assert_eq!(scan("ab", Some("a"), 100)?, "ab ab-1 ab-2 abc");
    assert_eq!(scan("ab", Some("abz"), 100)?, "");
    assert_eq!(scan("ab", Some("b"), 100)?, "");
    assert_eq!(scan("", Some("ac"), 100)?, "b \u{e4}");
    assert_eq!(scan("zz", None, 100)?, "");
    assert_eq!(search(InstanceFilter::default(), None, 100)?.0, "A a ab ab-1 ab-2 abc ac b \u{e4}");
    assert_eq!(search(InstanceFilter::default(), Some("@e"), 1)?.0, "A");
    let entities = InstanceFilter { kind: InstanceKind::Entities, ..InstanceFilter::default() };
    assert_eq!(search(entities, None, 100)?, ("@ @e @e@k".to_owned(), true));
    assert!(search(of_prefix("ab"), None, 4)?.1 || search(of_prefix("ab"), Some("abc"), 4)?.1);
    Ok(())
}

/// Going on where the previous page ended shows each instance once.
pub fn instances_are_found_page_by_page(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let all: BTreeMap<_, _> =
        (0..250).map(|number| (format!("order-{number:03}"), facts(OrchestrationStatus::Running))).collect();
    let writes = all.keys().map(|text| Put::append(text, 0, *b"h", 1).fresh().ended().into_write());
    write_instances(&*store, writes.collect())?;
    for limit in [1, 40, 250, 1000] {
        assert_found(&*store, &of_prefix("order-"), limit, &all)?;
        assert_found(&*store, &of_prefix("order-1"), limit, &all)?;
    }
    Ok(())
}

/// Facts that differ in every respect from instance to instance.
fn varied(number: u64) -> InstanceFacts {
    let seconds = |seconds: u64| at(seconds as i64 * 1_000_000);
    let status = STATUSES[number as usize % 4];
    let created = number.wrapping_mul(7919) % 100_000;
    InstanceFacts {
        status,
        name: ["hello", "order", "transfer"][number as usize % 3].into(),
        version: ["", "1.0", "2.0"][number as usize / 3 % 3].into(),
        tags: match number % 5 {
            0 => tags("rare", &format!("{}", number / 100)),
            1 => tags("common", "yes"),
            _ => Tags::new(),
        },
        created_at: seconds(created),
        updated_at: seconds(created + number % 1000),
        completed_at: status.is_terminal().then(|| seconds(created + number % 1000)),
    }
}

/// Filters of every kind, some that match much and some that match little or nothing.
fn filters() -> Vec<InstanceFilter> {
    let all = || InstanceFilter { kind: InstanceKind::All, ..InstanceFilter::default() };
    let seconds = |from: i64, before: i64| TimeRange::between(at(from * 1_000_000), at(before * 1_000_000));
    let mut filters = vec![
        all(),
        InstanceFilter { name: Some("order".into()), ..all() },
        InstanceFilter { name: Some("nobody".into()), ..all() },
        InstanceFilter { version: Some("".into()), ..all() },
        InstanceFilter { version: Some("2.0".into()), name: Some("hello".into()), ..all() },
        InstanceFilter { tags: tags("common", "yes"), ..all() },
        InstanceFilter { tags: tags("rare", "3"), ..all() },
        InstanceFilter { tags: tags("rare", "never"), ..all() },
        InstanceFilter { created: seconds(0, 50_000), ..all() },
        InstanceFilter { created: seconds(777, 800), ..all() },
        InstanceFilter { updated: seconds(30_000, 30_500), ..all() },
        InstanceFilter { completed: seconds(30_000, 30_500), ..all() },
        InstanceFilter { completed: TimeRange::since(at(0)), ..all() },
        InstanceFilter { created: TimeRange::before(at(0)), ..all() },
        InstanceFilter { kind: InstanceKind::Orchestrations, ..all() },
    ];
    for status in STATUSES {
        filters.push(InstanceFilter { statuses: vec![status], ..all() });
        filters.push(InstanceFilter { statuses: vec![status, STATUSES[0]], ..all() });
    }
    filters
}

/// Each condition finds what fulfils it, and nothing that was written is left out.
pub fn instances_are_found_by_each_of_their_facts(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let all: BTreeMap<_, _> = (0..600).map(|number: u64| (format!("{number:03}"), varied(number))).collect();
    let writes = all.iter().map(|(text, facts)| write(text, facts.clone()).into_write());
    write_instances(&*store, writes.collect())?;
    for filter in filters() {
        assert_found(&*store, &filter, 7, &all)?;
        assert_found(&*store, &filter, 1000, &all)?;
    }
    Ok(())
}

/// What an instance was before it changed, or that it was there before it was deleted, plays no part.
pub fn instances_are_found_by_what_they_are_now(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let mut all = BTreeMap::new();
    for round in 0..12_u64 {
        for number in 0..40 {
            let (text, facts) = (format!("{number:02}"), varied(round * 31 + number * 17));
            if round > 3 && (round + number).is_multiple_of(7) {
                delete(&*store, &text)?;
                all.remove(&text);
            } else {
                put(&*store, write(&text, facts.clone()))?;
                all.insert(text, facts);
            }
        }
    }
    for filter in filters() {
        assert_found(&*store, &filter, 9, &all)?;
    }
    Ok(())
}

/// In id order, in no order, and between others: wherever an instance belongs, it is found.
pub fn thousands_of_instances_are_found_with_any_ids(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let mut all = BTreeMap::new();
    let scattered = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for batch in 0..30_u64 {
        let mut writes = BTreeMap::new();
        for number in batch * 400..(batch + 1) * 400 {
            let text = match number % 4 {
                0 => format!("{number:012}"),
                1 => format!("@entity@{:016x}", scattered(number)),
                _ => format!("{:016x}", scattered(number)),
            };
            writes.insert(text, varied(number));
            if number % 9 == 0 {
                // Some of those that came long before change once more.
                writes.insert(format!("{:016x}", scattered(number / 8 * 4 + 2)), varied(number + 1));
            }
        }
        let puts = writes.iter().map(|(text, facts)| write(text, facts.clone()).into_write());
        write_instances(&*store, puts.collect())?;
        all.extend(writes);
    }
    drop(store);
    harness.reopen();
    let store = harness.store();
    for filter in filters() {
        assert_found(&*store, &filter, 100, &all)?;
    }
    let doomed: Vec<_> = all.keys().filter(|text| text.as_str() < "9").cloned().collect();
    for text in doomed.iter().step_by(3) {
        delete(&*store, text)?;
        all.remove(text);
    }
    for filter in filters() {
        assert_found(&*store, &filter, 1000, &all)?;
    }
    Ok(())
}

/// Neither the number of tags nor their length, nor that of ids, hides an instance.
pub fn many_and_long_tags_are_found(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let many: Tags =
        (0..5000).map(|number| (format!("tag-{number}").into(), format!("{number}").into())).collect();
    let mut all = BTreeMap::new();
    for number in 0..300 {
        let own = match number % 3 {
            0 => many.clone(),
            1 => (0..90).map(|tag| (format!("{number}-{tag}").into(), "x".repeat(50).into())).collect(),
            _ => tags("long", &"y".repeat(100_000)),
        };
        let facts = InstanceFacts { tags: own, ..facts(OrchestrationStatus::Running) };
        let text = format!("{}{number:03}", "long".repeat(120));
        put(&*store, write(&text, facts.clone()))?;
        all.insert(text, facts);
    }
    for filter in
        [tags("tag-4999", "4999"), tags("100-7", &"x".repeat(50)), tags("long", &"y".repeat(100_000))]
    {
        let filter = InstanceFilter { tags: filter, ..InstanceFilter::default() };
        assert_found(&*store, &filter, 50, &all)?;
    }
    Ok(())
}

/// A state of any size is found whole, with its payloads only if they are asked for.
pub fn what_is_found_is_as_detailed_as_asked_for(harness: &mut dyn Harness) -> Outcome {
    for (round, bytes) in [10, 100_000, 3 << 20, 40_000, 100].into_iter().enumerate() {
        let store = harness.store();
        let state = noise(7, bytes);
        for (text, payload) in
            [("none", None), ("short", Some(vec![round as u8; 50])), ("long", Some(noise(9, 70_000)))]
        {
            let write = Put::replace(text, noise(8, 500), 1).ended().state(state.clone());
            let write = match &payload {
                Some(payload) => write.payload(3, round as u128, payload.clone()),
                None => write,
            };
            put(&*store, write)?;
            let find = |detail| {
                let mut found = store.find_instances(&of_prefix(text), None, 5, detail)?;
                assert!(found.upto.is_none() && found.instances.len() == 1);
                assert_eq!(found.instances[0].instance.as_str(), text);
                Ok::<_, StoreError>(found.instances.remove(0))
            };
            let (whole, outline) = (find(Detail::State)?, find(Detail::Outline)?);
            assert!(whole.state == state && outline.state == state, "the state of {text}, {bytes} bytes");
            assert!(whole.payloads.into_iter().map(|(_, payload)| payload).eq(payload), "that of {text}");
            assert!(outline.payloads.is_empty());
            assert_instance(&*store, text, &state, &noise(8, 500))?;
        }
        drop(store);
        harness.reopen();
    }
    Ok(())
}

/// A store that was closed and opened finds the same.
pub fn found_or_not_survives_reopening(harness: &mut dyn Harness) -> Outcome {
    let mut all = BTreeMap::new();
    for round in 0..6_u64 {
        let store = harness.store();
        for number in 0..50 {
            let (text, facts) = (format!("{:02}", (round * 13 + number) % 80), varied(round * 50 + number));
            put(&*store, write(&text, facts.clone()))?;
            all.insert(text, facts);
        }
        let gone = format!("{:02}", round * 11);
        delete(&*store, &gone)?;
        all.remove(&gone);
        drop(store);
        harness.reopen();
        for filter in filters() {
            assert_found(&*harness.store(), &filter, 20, &all)?;
        }
    }
    Ok(())
}

/// Instances that stay as they are appear in each search, whatever is written, changed and deleted meanwhile.
pub fn what_stays_is_found_while_others_change(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let mut lasting = BTreeMap::new();
    let scattered = |number: u64| format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for number in 0..1000 {
        let facts = InstanceFacts { name: "lasting".into(), ..varied(number) };
        lasting.insert(scattered(number), facts);
    }
    let puts = lasting.iter().map(|(text, facts)| write(text, facts.clone()).into_write());
    write_instances(&*store, puts.collect())?;
    let filter = InstanceFilter { name: Some("lasting".into()), ..InstanceFilter::default() };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut searches = 0;
            while !done.load(Ordering::Acquire) || searches == 0 {
                searches += 1;
                assert_found(&*store, &filter, 100, &lasting)?;
            }
            Ok::<_, StoreError>(())
        });
        let written = (0..40_u64).try_for_each(|round| {
            let texts: Vec<_> = (0..500).map(|number| scattered(5000 + round * 250 + number)).collect();
            write_instances(
                &*store,
                texts.iter().map(|text| write(text, varied(round)).into_write()).collect(),
            )?;
            texts.iter().step_by(50).try_for_each(|text| delete(&*store, text))
        });
        done.store(true, Ordering::Release);
        match reading.join() {
            Ok(result) => written.and(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
