//! What a run measured, as a table or as a line of JSON.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Scenario;
use super::beside::BesideFigures;
use super::stalls::Stall;

/// The result of a scenario.
#[derive(Debug)]
pub(super) struct Measured {
    instances: u64,
    activities: u64,
    elapsed: Duration,
    p50: Duration,
    p99: Duration,
    p999: Duration,
    longest: Duration,
    pub(super) log_bytes: u64,
    pub(super) log_syncs: u64,
    /// For a chain: the time of its last thousand steps over that of its first.
    pub(super) last_to_first: Option<f64>,
    /// For waiting instances: memory of each, in bytes.
    pub(super) bytes_per_instance: Option<f64>,
    /// For queries: how many orchestrations ran beside them in a second.
    pub(super) load_per_second: Option<f64>,
    /// What each kind of page took, if any were asked for.
    pub(super) pages: Vec<PageFigures>,
    /// How many histories were read from the store.
    pub(super) histories_read: u64,
    /// At a fixed rate: when orchestrations took long.
    pub(super) stalls: Option<Vec<Stall>>,
    /// How many instances were purged beside.
    purged: Option<u64>,
    /// What was written, where a hub ran in this process.
    pub(super) disk: Option<Disk>,
}

/// What a run wrote, and what is there afterwards.
#[derive(Debug)]
pub(super) struct Disk {
    /// Bytes of states, histories and rows, handed to the instance store.
    pub(super) materialised_bytes: u64,
    /// Bytes that the process had written to disks.
    pub(super) written_bytes: u64,
    /// The space that the hub's files take.
    pub(super) disk_bytes: u64,
    /// Instances that are in the store at the end.
    pub(super) stored_instances: u64,
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
        let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
        let longest = latencies.last().copied().unwrap_or_default();
        Self {
            instances,
            activities,
            elapsed,
            p50,
            p99,
            p999,
            longest,
            log_bytes: 0,
            log_syncs: 0,
            last_to_first,
            bytes_per_instance: None,
            load_per_second: None,
            pages: Vec::new(),
            histories_read: 0,
            stalls: None,
            purged: None,
            disk: None,
        }
    }

    /// Adds what went on beside.
    pub(super) fn beside(&mut self, figures: BesideFigures) {
        self.pages.extend(figures.pages);
        self.purged = figures.purged;
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
    p999_ms: f64,
    longest_ms: f64,
    log_bytes: u64,
    log_syncs: u64,
    peak_rss_mb: f64,
    fdatasync_p50_us: f64,
    kernel_per_second: Option<f64>,
    last_to_first: Option<f64>,
    bytes_per_instance: Option<f64>,
    load_per_second: Option<f64>,
    histories_read: Option<u64>,
    purged: Option<u64>,
    log_bytes_each: Option<f64>,
    materialised_bytes_each: Option<f64>,
    written_bytes_each: Option<f64>,
    stored_instances: Option<u64>,
    disk_bytes: Option<u64>,
    space_amplification: Option<f64>,
    stalls: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stalled: Option<&'a [Stall]>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pages: &'a [PageFigures],
}

impl Report {
    pub(super) fn print(&self, json: bool) {
        let measured = &self.measured;
        let seconds = measured.elapsed.as_secs_f64();
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        let each = |bytes: u64| rounded(bytes as f64 / measured.instances.max(1) as f64);
        let disk = measured.disk.as_ref();
        let line = Line {
            scenario: format!("{:?}", self.scenario).to_lowercase(),
            instances: measured.instances,
            seconds: rounded(seconds),
            orchestrations_per_second: rounded(measured.orchestrations_per_second()),
            activities_per_second: rounded(measured.activities as f64 / seconds),
            p50_ms: rounded(measured.p50.as_secs_f64() * 1e3),
            p99_ms: rounded(measured.p99.as_secs_f64() * 1e3),
            p999_ms: rounded(measured.p999.as_secs_f64() * 1e3),
            longest_ms: rounded(measured.longest.as_secs_f64() * 1e3),
            log_bytes: measured.log_bytes,
            log_syncs: measured.log_syncs,
            peak_rss_mb: rounded(self.peak_rss_mb),
            fdatasync_p50_us: rounded(self.fdatasync_p50_us),
            kernel_per_second: self.kernel_per_second.map(rounded),
            last_to_first: measured.last_to_first.map(rounded),
            bytes_per_instance: measured.bytes_per_instance.map(rounded),
            load_per_second: measured.load_per_second.map(rounded),
            histories_read: Some(measured.histories_read).filter(|read| *read > 0),
            purged: measured.purged,
            log_bytes_each: disk.map(|_| each(measured.log_bytes)),
            materialised_bytes_each: disk.map(|disk| each(disk.materialised_bytes)),
            written_bytes_each: disk.map(|disk| each(disk.written_bytes)),
            stored_instances: disk.map(|disk| disk.stored_instances),
            disk_bytes: disk.map(|disk| disk.disk_bytes),
            space_amplification: disk.and_then(|disk| {
                let live = each(disk.materialised_bytes) * disk.stored_instances as f64;
                (live > 0.0).then(|| rounded(disk.disk_bytes as f64 / live))
            }),
            stalls: measured.stalls.as_ref().map(Vec::len),
            stalled: measured.stalls.as_deref().filter(|_| json),
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
        let stalls = measured.stalls.iter().flatten().filter(|_| !json).map(|stall| stall.line() + "\n");
        let text = text + &pages.collect::<String>() + &stalls.collect::<String>();
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
