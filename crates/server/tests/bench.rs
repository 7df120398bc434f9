//! `steadfast bench`, with tiny sizes: that the scenarios run, and count what they say.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may unwrap as tests do")]

use std::process::Command;

use serde_json::Value;

fn bench(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_steadfast"))
        .args(["bench", "--json", "--partitions", "2"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(line: &Value, field: &str) -> f64 {
    line[field].as_f64().unwrap_or_else(|| panic!("{field} is no number in {line}"))
}

#[test]
fn a_fixed_rate_counts_from_when_each_was_due_beside_pages_and_a_purge() {
    let beside = ["--pages-per-second", "20", "--retain-seconds", "0"];
    let line = bench(&[&["--rate", "200", "--seconds", "2.5"], &beside[..]].concat());
    assert_eq!(number(&line, "instances"), 500.0);
    assert!(number(&line, "seconds") >= 2.49, "{line}");
    assert!(number(&line, "p999_ms") >= number(&line, "p99_ms"), "{line}");
    assert!(number(&line, "longest_ms") >= number(&line, "p999_ms"), "{line}");
    let stalled = line["stalled"].as_array().unwrap();
    assert_eq!(number(&line, "stalls"), stalled.len() as f64);
    assert_eq!(stalled.is_empty(), number(&line, "longest_ms") <= 50.0, "{line}");
    assert_eq!(line["pages"].as_array().unwrap().len(), 1);
    assert!(number(&line, "purged") > 0.0 && number(&line, "purged") <= 500.0, "{line}");
    assert!(number(&line, "stored_instances") <= 500.0 - number(&line, "purged"), "{line}");
}

#[test]
fn what_is_written_grows_with_the_payload() {
    let carry = |bytes: &str| bench(&["--scenario", "carry", "--instances", "10", "--payload-bytes", bytes]);
    let (small, large) = (carry("0"), carry("20000"));
    // To the instance, to the activity, back, and as the result: each time in the log.
    assert!(number(&large, "log_bytes_each") - number(&small, "log_bytes_each") >= 4.0 * 20_000.0, "{large}");
    assert!(number(&large, "materialised_bytes_each") > 20_000.0, "{large}");
    assert!(number(&large, "disk_bytes") > 0.0, "{large}");
}

#[test]
fn events_meet_instances_that_have_to_be_read_when_few_may_be_in_memory() {
    let events =
        ["--scenario", "events", "--instances", "20", "--steps", "4", "--events", "2", "--concurrency", "1"];
    let read = |resident: &str| {
        let line = bench(&[&events[..], &["--resident", resident]].concat());
        assert_eq!(number(&line, "instances"), 40.0);
        line["histories_read"].as_f64().unwrap_or_default()
    };
    assert_eq!(read("1000"), 0.0);
    assert!(read("2") >= 20.0);
}

#[test]
fn a_store_is_filled_once_and_purged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let seconds = ["--seconds", "0.2", "--concurrency", "5", "--prefill", "50", "--data-dir", folder];
    let filled = bench(&[&["--scenario", "ping"], &seconds[..]].concat());
    let stored = 50.0 + number(&filled, "instances");
    assert_eq!(number(&filled, "stored_instances"), stored);
    let purge = bench(&["--scenario", "purge", "--instances", "50", "--data-dir", folder]);
    assert_eq!(number(&purge, "instances"), stored);
    assert_eq!(number(&purge, "stored_instances"), 0.0);
}

#[test]
fn a_hub_with_a_log_is_started_again() {
    let line = bench(&["--scenario", "startup", "--instances", "30"]);
    assert_eq!(number(&line, "instances"), 5.0);
    assert!(number(&line, "p50_ms") > 0.0 && number(&line, "log_bytes") > 30.0 * 300.0, "{line}");
}

#[test]
fn a_rate_is_a_number_greater_than_nothing() {
    for rate in ["0", "-1", "fast", "inf"] {
        let output = Command::new(env!("CARGO_BIN_EXE_steadfast"))
            .args(["bench", &format!("--rate={rate}")])
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("a number greater than 0"));
    }
}

#[test]
fn clients_that_wait_on_connections_of_their_own_are_all_answered() {
    let line = bench(&["--scenario", "remote-waiting", "--instances", "50", "--concurrency", "3"]);
    assert_eq!(number(&line, "instances"), 50.0);
    // A connection alone takes more than nothing, and a debug build more than one that is used.
    let each = number(&line, "bytes_per_instance");
    assert!((1000.0..1_000_000.0).contains(&each), "{line}");
}
