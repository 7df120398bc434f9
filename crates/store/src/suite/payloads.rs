//! Behaviours of payloads that are apart from the state of their instance.

use std::collections::BTreeMap;

use super::{Harness, Outcome, Put, assert_no_instance, delete, id, noise, put};
use crate::{Detail, Store, StoreError};

/// What an instance is expected to have in each slot.
type Expected<'a> = &'a [(u8, &'a [u8])];

#[track_caller]
fn assert_payloads(store: &dyn Store, text: &str, state: &[u8], payloads: Expected<'_>) -> Outcome {
    let prefix = super::of_prefix(text);
    let find = |detail| {
        let found = store.find_instances(&prefix, None, 1, detail)?;
        Ok::<_, StoreError>(found.instances.into_iter().next().expect("the instance is found"))
    };
    let loaded = store.load_instance(&id(text))?.expect("the instance is there");
    for found in [&loaded, &find(Detail::State)?] {
        assert!(found.state == state, "{text} has another state");
        let slots: Vec<_> = found.payloads.iter().map(|(slot, bytes)| (*slot, &bytes[..])).collect();
        assert!(slots == payloads, "{text} has other payloads");
        assert_eq!(found.bytes(), state.len() + payloads.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
    }
    let outline = find(Detail::Outline)?;
    assert!(outline.state == state && outline.payloads.is_empty(), "{text} has another outline");
    Ok(())
}

/// Payloads of any size come, stay, change and go with what is written last, whatever becomes of the state and the history.
pub fn payloads_are_those_of_the_last_write(harness: &mut dyn Harness) -> Outcome {
    for (round, size) in (1_u64..).zip([20_000, 0, 1, 32_768, 100_000, 3 << 20]) {
        let (first, second, third) =
            (noise(round, size), noise(round + 10, size / 2), noise(round + 20, size));
        let name = u128::from(round) << 64;
        let store = harness.store();
        put(&*store, Put::append("i", 0, *b"a", 1).fresh().payload(0, name, &first[..]))?;
        assert_payloads(&*store, "i", b"state", &[(0, &first)])?;
        put(&*store, Put::append("i", 1, *b"b", 2).state("2").payload(0, name, &first[..]))?;
        assert_payloads(&*store, "i", b"2", &[(0, &first)])?;
        let large = noise(round, 50_000);
        let both = Put::append("i", 2, noise(1, 50_000), 3).state(&large[..]).payload(0, name, &first[..]);
        put(&*store, both.payload(1, name, &second[..]))?;
        drop(store);
        harness.reopen();
        let store = harness.store();
        assert_payloads(&*store, "i", &large, &[(0, &first), (1, &second)])?;
        let replaced = Put::replace("i", *b"c", 1).payload(0, name + 1, &third[..]);
        put(&*store, replaced.payload(1, name, &second[..]).ended())?;
        assert_payloads(&*store, "i", b"state", &[(0, &third), (1, &second)])?;
        put(&*store, Put::replace("i", *b"d", 1).payload(1, name, &second[..]).ended())?;
        assert_payloads(&*store, "i", b"state", &[(1, &second)])?;
        put(&*store, Put::replace("i", *b"e", 1).ended())?;
        assert_payloads(&*store, "i", b"state", &[])?;
        // What was there before does not come back with its name.
        put(&*store, Put::append("i", 1, *b"f", 2).payload(0, name, &third[..]))?;
        assert_payloads(&*store, "i", b"state", &[(0, &third)])?;
        delete(&*store, "i")?;
        assert_no_instance(&*store, "i")?;
        put(&*store, Put::append("i", 0, *b"", 0))?;
        assert_payloads(&*store, "i", b"state", &[])?;
        delete(&*store, "i")?;
        drop(store);
        harness.reopen();
    }
    Ok(())
}

/// A payload that is handed in again may be encoded in another way, and longer: either can be read afterwards.
pub fn a_payload_with_a_known_name_may_be_written_or_not(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let encodings = [noise(1, 70_000), noise(2, 90_000), noise(3, 20_000)];
    for (events, encoding) in (0..).zip(&encodings) {
        put(&*store, Put::append("i", events, *b"x", events + 1).payload(0, 7, &encoding[..]))?;
        let found = store.load_instance(&id("i"))?.expect("the instance is there");
        let known = encodings[..=events as usize].iter().any(|known| found.payloads == [(0, known.clone())]);
        assert!(known, "what is read was never written");
    }
    drop(store);
    harness.reopen();
    let found = harness.store().load_instance(&id("i"))?.expect("the instance is there");
    assert!(encodings.iter().any(|known| found.payloads == [(0, known.clone())]));
    Ok(())
}

/// Instances keep their own payloads, whatever is written and deleted beside them.
pub fn payloads_of_instances_stay_apart(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let mut all: BTreeMap<&str, BTreeMap<u8, Vec<u8>>> = BTreeMap::new();
    let texts = ["p", "pp", "p\u{0}", "q"];
    for step in 0..200_u64 {
        let random = noise(step + 1, 8);
        let text = texts[usize::from(random[0]) % texts.len()];
        if random[1].is_multiple_of(8) {
            delete(&*store, text)?;
            all.remove(text);
        } else {
            let mut payloads = BTreeMap::new();
            let mut write = Put::replace(text, *b"h", 1);
            for slot in (0..3).filter(|slot| random[2] >> slot & 1 == 1) {
                // Of few kinds, so that some stay.
                let kind = u64::from(random[3 + usize::from(slot)] % 3);
                let bytes = noise(kind + 1, 10_000 + 20_000 * kind as usize);
                write = write.payload(slot, u128::from(kind), &bytes[..]);
                payloads.insert(slot, bytes);
            }
            put(&*store, write)?;
            all.insert(text, payloads);
        }
        for (text, payloads) in &all {
            let found = store.load_instance(&id(text))?.expect("the instance is there");
            let expected: Vec<_> = payloads.iter().map(|(slot, bytes)| (*slot, bytes.clone())).collect();
            assert!(found.payloads == expected, "{text:?} after step {step}");
        }
    }
    Ok(())
}
