//! Behaviours of the instance store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use steadfast_core::Position;

use super::{
    Harness, Outcome, P0, Put, assert_corrupt, assert_instance, assert_no_instance, delete, id, ids, noise,
    of_prefix, positions, put, record, write_instances,
};
use crate::{Detail, Materialisation, RowWrite, StoreError};

/// The counters count instances, also such that are removed, and the bytes of what is stored of them and of rows.
pub fn metrics_count_what_is_materialised(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let before = store.metrics();
    let put = Put::append("i", 0, noise(1, 100), 4).state(noise(2, 50)).payload(0, 1, noise(3, 7)).fresh();
    let row = |value| RowWrite { key: b"row".to_vec(), value };
    let writes = vec![put.into_write()];
    let rows = vec![row(Some(noise(4, 20)))];
    store.materialise(P0, &Materialisation { upto: Position(1), instances: writes, rows })?;
    let put = store.metrics();
    assert_eq!(put.materialised_instances - before.materialised_instances, 1);
    assert_eq!(put.materialised_bytes - before.materialised_bytes, 100 + 50 + 7 + 3 + 20);
    delete(&*store, "i")?;
    let deleted = store.metrics();
    assert_eq!(deleted.materialised_instances - put.materialised_instances, 1);
    assert_eq!(deleted.materialised_bytes, put.materialised_bytes);
    Ok(())
}

/// Instances, rows, position and log are there after reopening.
pub fn everything_survives_reopening(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    store.append(&[record(P0, 1, *b"one"), record(P0, 2, *b"two")])?;
    let writes = vec![
        Put::append("running", 0, *b"some history", 4).fresh().reflects(1).into_write(),
        Put::append("short", 0, *b"all history", 4).fresh().ended().reflects(1).into_write(),
    ];
    let rows = vec![RowWrite { key: b"timer".to_vec(), value: Some(b"tomorrow".to_vec()) }];
    store.materialise(P0, &Materialisation { upto: Position(1), instances: writes, rows })?;
    store.truncate_log(P0, Position(1))?;
    drop(store);
    harness.reopen();
    let store = harness.store();
    assert_eq!(positions(&*store, P0, 1)?, [2]);
    assert_instance(&*store, "running", b"state", b"some history")?;
    assert_instance(&*store, "short", b"state", b"all history")?;
    let found = store.load_instance(&id("short"))?;
    assert_eq!(found.map(|found| found.reflects), Some(Position(1)));
    let snapshot = store.load_partition(P0)?;
    assert_eq!(snapshot.upto, Position(1));
    assert_eq!(snapshot.rows, [(b"timer".to_vec(), b"tomorrow".to_vec())]);
    Ok(())
}

/// What is appended to a history follows what was there; an append may be empty.
pub fn a_history_grows_piece_by_piece(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    put(&*store, Put::append("i", 0, *b"abc", 3).fresh().state("first"))?;
    assert_instance(&*store, "i", b"first", b"abc")?;
    put(&*store, Put::append("i", 3, *b"de", 5).state("second"))?;
    put(&*store, Put::append("i", 5, *b"", 5).state("third"))?;
    assert_instance(&*store, "i", b"third", b"abcde")?;
    drop(store);
    harness.reopen();
    let store = harness.store();
    for event in 5..300 {
        put(&*store, Put::append("i", event, [event as u8], event + 1))?;
    }
    let expected: Vec<u8> = b"abcde".iter().copied().chain((5..300_u32).map(|event| event as u8)).collect();
    assert_instance(&*store, "i", b"state", &expected)
}

/// A new execution with a shorter history leaves nothing of the old one, and grows from there.
pub fn a_replaced_history_leaves_nothing_of_the_old(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    put(&*store, Put::append("i", 0, noise(1, 100_000), 50).fresh())?;
    put(&*store, Put::append("i", 50, noise(2, 100_000), 100))?;
    put(&*store, Put::append("i", 100, noise(3, 10), 110))?;
    put(&*store, Put::replace("i", *b"new", 2).state("new"))?;
    assert_instance(&*store, "i", b"new", b"new")?;
    put(&*store, Put::append("i", 2, *b"er", 50))?;
    assert_instance(&*store, "i", b"state", b"newer")?;
    drop(store);
    harness.reopen();
    let store = harness.store();
    assert_instance(&*store, "i", b"state", b"newer")?;
    put(&*store, Put::replace("i", *b"", 0))?;
    assert_instance(&*store, "i", b"state", b"")?;
    put(&*store, Put::append("i", 0, *b"again", 1))?;
    assert_instance(&*store, "i", b"state", b"again")
}

/// Histories of many MiB, handed in at once or in large parts, are read back.
pub fn histories_of_several_mebibytes_are_read_back(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let (first, second) = (noise(1, 3_000_000), noise(2, 2_000_001));
    put(&*store, Put::append("i", 0, &first[..], 1000).fresh())?;
    put(&*store, Put::append("i", 1000, &second[..], 2000))?;
    put(&*store, Put::append("ended", 0, &second[..], 2000).fresh().ended())?;
    drop(store);
    harness.reopen();
    let store = harness.store();
    assert_instance(&*store, "i", b"state", &[first, second.clone()].concat())?;
    assert_instance(&*store, "ended", b"state", &second)
}

/// States may be larger than any piece, shrink, and grow again.
pub fn states_grow_large_and_shrink_again(harness: &mut dyn Harness) -> Outcome {
    let sizes = [0, 70_000, 300_000, 10, 32_700, 32_768, 65_536, 3_000_000, 65_537, 1];
    for (size, events) in sizes.into_iter().zip(0..) {
        let store = harness.store();
        put(&*store, Put::append("i", events, [events as u8], events + 1).state(noise(events, size)))?;
        drop(store);
        harness.reopen();
        let history: Vec<u8> = (0..=events as u8).collect();
        assert_instance(&*harness.store(), "i", &noise(events, size), &history)?;
        let found = harness.store().find_instances(&of_prefix("i"), None, 1, Detail::State)?.instances;
        assert!(found.iter().all(|found| found.state == noise(events, size)));
    }
    Ok(())
}

/// That an instance has ended is no promise: its history may still grow.
pub fn an_ended_instance_can_still_grow(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    put(&*store, Put::append("i", 0, *b"abc", 3).fresh().ended())?;
    put(&*store, Put::append("i", 3, *b"de", 5))?;
    assert_instance(&*store, "i", b"state", b"abcde")?;
    put(&*store, Put::append("i", 5, *b"f", 6).ended())?;
    assert_instance(&*store, "i", b"state", b"abcdef")
}

/// An instance that has ended is replaced by a new execution, which ends as well.
pub fn an_ended_instance_can_be_replaced(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    put(&*store, Put::append("i", 0, noise(1, 5000), 30).fresh().ended())?;
    put(&*store, Put::replace("i", *b"short", 5).ended())?;
    assert_instance(&*store, "i", b"state", b"short")?;
    put(&*store, Put::replace("i", noise(2, 100_000), 9).ended())?;
    assert_instance(&*store, "i", b"state", &noise(2, 100_000))?;
    put(&*store, Put::replace("i", *b"x", 1).ended())?;
    assert_instance(&*store, "i", b"state", b"x")
}

/// Nothing is left of a deleted instance, large or small, and its id can be used again.
pub fn a_deleted_instance_leaves_nothing(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    put(&*store, Put::append("large", 0, noise(1, 200_000), 7).fresh().state(noise(2, 200_000)))?;
    put(&*store, Put::append("small", 0, *b"abc", 7).fresh().ended())?;
    for text in ["large", "small", "never there"] {
        delete(&*store, text)?;
        assert_no_instance(&*store, text)?;
    }
    drop(store);
    harness.reopen();
    let store = harness.store();
    for text in ["large", "small"] {
        assert_no_instance(&*store, text)?;
        put(&*store, Put::append(text, 0, *b"new", 1))?;
        assert_instance(&*store, text, b"state", b"new")?;
    }
    Ok(())
}

/// A materialisation that is repeated after a crash changes nothing.
pub fn materialising_twice_is_as_good_as_once(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    put(&*store, Put::append("grows", 0, noise(1, 40_000), 2).fresh())?;
    put(&*store, Put::append("replaced", 0, noise(2, 40_000), 2).fresh())?;
    put(&*store, Put::append("deleted", 0, noise(3, 40_000), 2).fresh())?;
    for _ in 0..3 {
        delete(&*store, "deleted")?;
        let writes = vec![
            Put::append("grows", 2, *b"more", 3).into_write(),
            Put::replace("replaced", *b"new", 1).state(noise(4, 100_000)).into_write(),
            Put::append("ended", 0, *b"all", 4).fresh().ended().into_write(),
            Put::append("running", 0, *b"some", 4).fresh().into_write(),
        ];
        write_instances(&*store, writes)?;
        assert_instance(&*store, "grows", b"state", &[noise(1, 40_000), b"more".to_vec()].concat())?;
        assert_instance(&*store, "replaced", &noise(4, 100_000), b"new")?;
        assert_instance(&*store, "ended", b"state", b"all")?;
        assert_instance(&*store, "running", b"state", b"some")?;
        assert_no_instance(&*store, "deleted")?;
    }
    Ok(())
}

/// A repeated append may hold more events than the first time: it takes the place of what it repeats.
pub fn a_repetition_that_knows_more_is_taken(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    put(&*store, Put::append("i", 0, *b"ab", 2).fresh())?;
    put(&*store, Put::append("i", 2, *b"cd", 4))?;
    put(&*store, Put::append("i", 2, *b"cdef", 6))?;
    assert_instance(&*store, "i", b"state", b"abcdef")?;
    put(&*store, Put::append("i", 6, *b"g", 7))?;
    assert_instance(&*store, "i", b"state", b"abcdefg")
}

/// A part of a history that doesn't follow what is stored is refused.
pub fn a_history_with_a_gap_is_corrupt(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    put(&*store, Put::append("i", 0, *b"ab", 2).fresh())?;
    assert_corrupt(put(&*store, Put::append("i", 3, *b"d", 4)));
    store.recover()?;
    assert_instance(&*store, "i", b"state", b"ab")
}

/// Of ids that begin alike, each keeps its own.
pub fn ids_that_begin_alike_stay_apart(harness: &mut dyn Harness) -> Outcome {
    let texts = ["a", "a ", "aa", "a-", "ab", "a\u{e9}", "aaa", "b"];
    let store = harness.store();
    for text in texts {
        put(&*store, Put::append(text, 0, noise(text.len() as u64, 50_000), 3).fresh().state(text))?;
        put(&*store, Put::append(text, 3, text.as_bytes(), 4).state(text))?;
    }
    delete(&*store, "a")?;
    put(&*store, Put::replace("aa", *b"new", 1))?;
    assert_no_instance(&*store, "a")?;
    assert_instance(&*store, "aa", b"state", b"new")?;
    for text in texts.into_iter().filter(|text| !matches!(*text, "a" | "aa")) {
        let history = [noise(text.len() as u64, 50_000), text.as_bytes().to_vec()].concat();
        assert_instance(&*store, text, text.as_bytes(), &history)?;
    }
    Ok(())
}

/// Ids may be long, and in any script.
pub fn ids_may_be_any_text(harness: &mut dyn Harness) -> Outcome {
    let long = "x".repeat(512);
    let wide = "\u{1f980}".repeat(128);
    let texts = [
        "@counter@Key/1",
        " ",
        "a/b?c=d&e",
        "Stra\u{df}e",
        "\u{65e5}\u{672c}\u{8a9e}",
        "e\u{301}",
        "\u{10ffff}",
        "\u{feff}bom",
        &long,
        &wide,
    ];
    let store = harness.store();
    for (text, seed) in texts.into_iter().zip(1..) {
        put(&*store, Put::append(text, 0, noise(seed, 70_000), 3).fresh().state(noise(seed, 40_000)))?;
    }
    drop(store);
    harness.reopen();
    let store = harness.store();
    for (text, seed) in texts.into_iter().zip(1..) {
        assert_instance(&*store, text, &noise(seed, 40_000), &noise(seed, 70_000))?;
        assert_eq!(ids(&store.find_instances(&of_prefix(text), None, 1, Detail::State)?.instances), [text]);
    }
    assert_eq!(store.find_instances(&of_prefix(""), None, 100, Detail::State)?.instances.len(), texts.len());
    Ok(())
}

/// Whoever reads while an instance is written sees it as it was or as it will be, and no error.
pub fn readers_see_an_instance_before_or_after_a_write(harness: &mut dyn Harness) -> Outcome {
    let store = harness.store();
    let of = |round: u64| vec![round as u8; 40_000 + round as usize * 1000];
    let write = |put: Put<'static>, round| put.state(of(round)).payload(0, u128::from(round), of(round));
    put(&*store, write(Put::append("i", 0, of(0), 1).fresh(), 0))?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let uniform =
                    |bytes: Vec<u8>| bytes.first().is_some_and(|first| bytes == of(u64::from(*first)));
                assert!(uniform(store.load_history(&id("i"))?), "a mixture of two histories was read");
                let found = store.load_instance(&id("i"))?.expect("it is never deleted");
                assert!(found.payloads == [(0, found.state.clone())], "a payload of another state was read");
                assert!(uniform(found.state), "a mixture of two states was read");
            }
            Ok::<_, StoreError>(())
        });
        let written = (1..200).try_for_each(|round| {
            let round = round % 20;
            put(&*store, write(Put::replace("i", of(round), 1 + round), round))
        });
        done.store(true, Ordering::Release);
        match reading.join() {
            Ok(result) => written.and(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
