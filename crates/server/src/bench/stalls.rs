//! Stalls: spans of time in which orchestrations took long, and what happened meanwhile.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::watch::Watch;

/// An orchestration that takes longer is part of a stall.
pub(super) const STALL: Duration = Duration::from_millis(50);

/// Orchestrations that were due one after the other and took long.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Stall {
    /// When the first of them was due, from the beginning of the run.
    at_s: f64,
    /// Until the last of them ended.
    ms: f64,
    /// How many there were.
    instances: u64,
    /// What the slowest took.
    longest_ms: f64,
    /// What took long in that time, as far as is known.
    meanwhile: Vec<String>,
}

impl Stall {
    pub(super) fn line(&self) -> String {
        let Self { at_s, ms, instances, longest_ms, meanwhile } = self;
        let meanwhile = if meanwhile.is_empty() { "nothing known".to_owned() } else { meanwhile.join(", ") };
        format!(
            "stall at {at_s:.2} s of {ms:.0} ms: {instances} late, the slowest {longest_ms:.0} ms; meanwhile: {meanwhile}"
        )
    }
}

/// A span of time with late orchestrations in it, as durations since the beginning.
struct Span {
    from: Duration,
    to: Duration,
    instances: u64,
    longest: Duration,
}

/// The stalls of a run whose orchestration number `n` was due `n * interval` after `began`.
pub(super) fn find(latencies: &[Duration], interval: Duration, began: Instant, watch: &Watch) -> Vec<Stall> {
    let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    spans(latencies, interval)
        .into_iter()
        .map(|span| Stall {
            at_s: span.from.as_millis() as f64 / 1e3,
            ms: millis(span.to - span.from),
            instances: span.instances,
            longest_ms: millis(span.longest),
            meanwhile: watch.between(began + span.from, began + span.to),
        })
        .collect()
}

/// Late ones that were due before an earlier late one ended are of the same stall.
fn spans(latencies: &[Duration], interval: Duration) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (number, took) in latencies.iter().enumerate().filter(|(_, took)| **took > STALL) {
        let from = interval.mul_f64(number as f64);
        let to = from + *took;
        match spans.last_mut().filter(|last| from <= last.to) {
            Some(last) => {
                last.to = last.to.max(to);
                last.instances += 1;
                last.longest = last.longest.max(*took);
            }
            None => spans.push(Span { from, to, instances: 1, longest: *took }),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_ones_that_overlap_are_one_stall() {
        let millis = Duration::from_millis;
        // Due at 0, 10, 20, ... ms.
        let mut latencies = vec![millis(3); 60];
        latencies[5] = millis(90);
        latencies[6] = millis(80);
        latencies[30] = millis(51);
        latencies[50] = STALL;
        let found: Vec<_> = spans(&latencies, millis(10))
            .iter()
            .map(|span| {
                [span.from, span.to, span.longest]
                    .map(|time| time.as_millis() as u64)
                    .map(|it| it + span.instances)
            })
            .collect();
        assert_eq!(found, [[52, 142, 92], [301, 352, 52]]);
    }

    #[test]
    fn a_run_without_late_ones_has_no_stalls() {
        assert!(spans(&[Duration::from_millis(50); 10], Duration::from_millis(1)).is_empty());
    }
}
