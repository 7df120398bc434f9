//! What a run measured, as a table or as a line of JSON.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Scenario;

/// The result of a scenario.
#[derive(Debug)]
pub(super) struct Measured {
    instances: u64,
    activities: u64,
    elapsed: Duration,
    p50: Duration,
    p99: Duration,
    pub(super) log_bytes: u64,
    pub(super) log_syncs: u64,
    /// For a chain: the time of its last thousand steps over that of its first.
    pub(super) last_to_first: Option<f64>,
    /// For waiting instances: memory of each, in bytes.
    pub(super) bytes_per_instance: Option<f64>,
    /// For queries: how many orchestrations ran beside them in a second.
    pub(super) load_per_second: Option<f64>,
    /// For queries: what each kind of page took.
    pub(super) pages: Vec<PageFigures>,
}

/// What pages by one filter took.
#[derive(Debug, Serialize)]
pub(super) struct PageFigures {
    filter: &'static str,
    /// How many instances a page showed, in the mean.
    shown: usize,
    p50_ms: f64,
    p99_ms: f64,
}

impl PageFigures {
    pub(super) fn new(filter: &'static str, shown: usize, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let millis = |share: usize| {
            let time = times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
            (time.copied().unwrap_or_default().as_secs_f64() * 1e6).round() / 1e3
        };
        Self { filter, shown, p50_ms: millis(50), p99_ms: millis(99) }
    }
}

impl Measured {
    pub(super) fn new(
        instances: u64,
        activities: u64,
        elapsed: Duration,
        mut latencies: Vec<Duration>,
    ) -> Self {
        let last_to_first = throughput_drift(&latencies);
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            latencies.get(index.min(latencies.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        let (p50, p99) = (at(0.5), at(0.99));
        Self {
            instances,
            activities,
            elapsed,
            p50,
            p99,
            log_bytes: 0,
            log_syncs: 0,
            last_to_first,
            bytes_per_instance: None,
            load_per_second: None,
            pages: Vec::new(),
        }
    }

    pub(super) fn orchestrations_per_second(&self) -> f64 {
        self.instances as f64 / self.elapsed.as_secs_f64()
    }
}

/// The mean latency of the last tenth over that of the first: with constant concurrency the inverse of how the
/// throughput changed from start to end.
fn throughput_drift(latencies: &[Duration]) -> Option<f64> {
    let part = latencies.len() / 10;
    if part < 100 {
        return None;
    }
    let mean = |part: &[Duration]| part.iter().map(Duration::as_secs_f64).sum::<f64>() / part.len() as f64;
    Some(mean(&latencies[latencies.len() - part..]) / mean(&latencies[..part]))
}

/// Everything that is printed.
pub(super) struct Report {
    pub(super) scenario: Scenario,
    pub(super) measured: Measured,
    pub(super) peak_rss_mb: f64,
    pub(super) fdatasync_p50_us: f64,
    pub(super) kernel_per_second: Option<f64>,
}

#[derive(Serialize)]
struct Line<'a> {
    scenario: String,
    instances: u64,
    seconds: f64,
    orchestrations_per_second: f64,
    activities_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    log_bytes: u64,
    log_syncs: u64,
    peak_rss_mb: f64,
    fdatasync_p50_us: f64,
    kernel_per_second: Option<f64>,
    last_to_first: Option<f64>,
    bytes_per_instance: Option<f64>,
    load_per_second: Option<f64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pages: &'a [PageFigures],
}

impl Report {
    pub(super) fn print(&self, json: bool) {
        let measured = &self.measured;
        let seconds = measured.elapsed.as_secs_f64();
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        let line = Line {
            scenario: format!("{:?}", self.scenario).to_lowercase(),
            instances: measured.instances,
            seconds: rounded(seconds),
            orchestrations_per_second: rounded(measured.orchestrations_per_second()),
            activities_per_second: rounded(measured.activities as f64 / seconds),
            p50_ms: rounded(measured.p50.as_secs_f64() * 1e3),
            p99_ms: rounded(measured.p99.as_secs_f64() * 1e3),
            log_bytes: measured.log_bytes,
            log_syncs: measured.log_syncs,
            peak_rss_mb: rounded(self.peak_rss_mb),
            fdatasync_p50_us: rounded(self.fdatasync_p50_us),
            kernel_per_second: self.kernel_per_second.map(rounded),
            last_to_first: measured.last_to_first.map(rounded),
            bytes_per_instance: measured.bytes_per_instance.map(rounded),
            load_per_second: measured.load_per_second.map(rounded),
            pages: if json { &measured.pages } else { &[] },
        };
        let Ok(value) = serde_json::to_value(&line) else { return };
        let text = match (json, &value) {
            (false, serde_json::Value::Object(fields)) => {
                let rows = fields.iter().filter(|(_, value)| !value.is_null());
                rows.map(|(name, value)| format!("{name:<28}{}\n", value.to_string().trim_matches('"')))
                    .collect()
            }
            _ => format!("{value}\n"),
        };
        let pages = measured.pages.iter().filter(|_| !json).map(|page| {
            let PageFigures { filter, shown, p50_ms, p99_ms } = page;
            format!("{filter:<28}{shown:>4} a page, p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms\n")
        });
        let text = text + &pages.collect::<String>();
        // A reader that went away is no reason to fail.
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
}

/// A progress bar, or nothing.
#[derive(Clone)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(hidden: bool, instances: u64) -> Self {
        if hidden {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(instances);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} eta {eta}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(super) fn advance(&self) {
        self.0.inc(1);
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
