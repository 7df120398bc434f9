//! The figures of all, side by side.

use std::time::Duration;

use crate::measure::Round;
use crate::{Kind, Scenario};

/// Prints a table in Markdown: the middle of all rounds, and the least and the most.
pub(crate) fn print(rows: &[(Scenario, u64, Kind, Vec<Round>)], systems: &[Kind]) {
    println!("| scenario | at once | system | instances a second | a burst, p50 | failed | rounds |");
    println!("|---|---|---|---|---|---|---|");
    for (scenario, burst, kind, rounds) in rows {
        let rates = spread(rounds.iter().map(|round| round.per_second), |rate| {
            if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
        });
        let times = spread(rounds.iter().map(|round| round.burst_p50.as_secs_f64()), |seconds| {
            format!("{:.2} ms", Duration::from_secs_f64(seconds).as_secs_f64() * 1e3)
        });
        let failed: u64 = rounds.iter().map(|round| round.failed).sum();
        let (scenario, kind, rounds) = (scenario.name(), kind.name(), rounds.len());
        println!("| {scenario} | {burst} | {kind} | {rates} | {times} | {failed} | {rounds} |");
    }
    println!();
    for kind in systems {
        println!("- Durability of {}: {}.", kind.name(), kind.durability());
    }
}

fn spread(values: impl Iterator<Item = f64>, show: impl Fn(f64) -> String) -> String {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let [least, .., most] = values[..] else {
        return values.first().map(|value| show(*value)).unwrap_or_default();
    };
    format!("{} ({} to {})", show(values[values.len() / 2]), show(least), show(most))
}
