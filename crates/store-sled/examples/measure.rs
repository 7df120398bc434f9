//! Measures the store on this machine: `cargo run --release -p steadfast-store-sled --example measure [folder]`.
#![allow(clippy::print_stdout, reason = "it is a program that prints what it measured")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use steadfast_core::{
    InstanceFacts, InstanceFilter, InstanceId, OrchestrationStatus, PartitionId, Position, Timestamp,
};
use steadfast_store::{
    Detail, HistoryChange, InstanceChange, InstanceWrite, LogRecord, Materialisation, Store, StoreError,
};
use steadfast_store_sled::{SledOptions, SledStore};

const PARTITIONS: u16 = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = std::env::temp_dir().join(format!("steadfast-measure-{}", std::process::id()));
    let folder = std::env::args().nth(1).map_or(temporary, PathBuf::from);
    for (size, records, appends) in [
        (200, 1, 20_000),
        (1 << 10, 1, 20_000),
        (1 << 10, 16, 20_000),
        (16 << 10, 1, 10_000),
        (64 << 10, 1, 10_000),
        (64 << 10, 4, 4000),
        (64 << 10, 16, 2000),
        (1 << 20, 16, 150),
    ] {
        measure_log(&folder.join("log"), size, records, appends)?;
    }
    for rounds in [1, 4] {
        measure_instances(&folder.join("instances"), 250_000 * rounds)?;
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn open(folder: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(folder, SledOptions { partitions: Some(PARTITIONS), ..SledOptions::default() })
}

/// Appends, and truncates in the background as a materialiser would.
fn measure_log(folder: &Path, size: usize, records: usize, appends: usize) -> Result<(), Box<dyn Error>> {
    let _ = fs::remove_dir_all(folder);
    let store = open(folder)?;
    let bytes: Arc<[u8]> = vec![7; size].into();
    let live_max = ((64 << 20) / (size * records)).clamp(4, 4000);
    let mut latencies = Vec::with_capacity(appends);
    let started = Instant::now();
    let written = bytes_written()?;
    thread::scope(|scope| {
        let mut truncating: Option<thread::ScopedJoinHandle<'_, Result<(), StoreError>>> = None;
        for append in 0..appends {
            let per_partition = records.div_ceil(PARTITIONS.into());
            let batch: Vec<LogRecord> = (0..records)
                .map(|record| LogRecord {
                    partition: PartitionId((record / per_partition) as u16),
                    position: Position((append * per_partition + record % per_partition + 1) as u64),
                    bytes: Arc::clone(&bytes),
                })
                .collect();
            let begun = Instant::now();
            store.append(&batch)?;
            latencies.push(begun.elapsed());
            let due = append % (live_max / 2).max(1) == 0 && append > live_max;
            if due && truncating.as_ref().is_none_or(thread::ScopedJoinHandle::is_finished) {
                let (store, upto) = (&store, Position(((append - live_max / 2) * per_partition) as u64));
                truncating = Some(scope.spawn(move || {
                    (0..PARTITIONS).try_for_each(|partition| store.truncate_log(PartitionId(partition), upto))
                }));
            }
        }
        Ok::<_, StoreError>(())
    })?;
    let took = started.elapsed().as_secs_f64();
    let written = bytes_written()? - written;
    latencies.sort_unstable();
    let payload = (size * records * appends) as f64;
    println!(
        "log: {records:>2} x {size:>7} bytes: {:>6.0} appends/s, {:>6.0} records/s, {:>5.0} MB/s, \
         median {:>4} us, 99 % {:>5} us, writes {:.2} x the bytes, disk {} MB, {} files beside it",
        appends as f64 / took,
        (appends * records) as f64 / took,
        payload / took / 1e6,
        latencies[appends / 2].as_micros(),
        latencies[appends * 99 / 100].as_micros(),
        written as f64 / payload,
        size_of(folder)? >> 20,
        blob_files(folder)?,
    );
    Ok(())
}

/// Materialises finished instances with ids in time order, as one thread does it.
fn measure_instances(folder: &Path, count: usize) -> Result<(), Box<dyn Error>> {
    const BATCH: usize = 1000;
    let _ = fs::remove_dir_all(folder);
    let store = open(folder)?;
    let (state, history): (Arc<[u8]>, Arc<[u8]>) = (vec![1; 250].into(), vec![2; 700].into());
    let started = Instant::now();
    for first in (0..count).step_by(BATCH) {
        let instances = (first..first + BATCH).map(|number| InstanceWrite {
            instance: InstanceId::from_trusted(format!(
                "0197f000-{number:08x}-7000-8000-{:012x}",
                number * 7
            )),
            reflects: Position(number as u64),
            change: InstanceChange::Put {
                payloads: Vec::new(),
                state: Arc::clone(&state),
                history: HistoryChange::Append { at: 0, bytes: Arc::clone(&history) },
                history_events: 12,
                fresh: true,
                ended: true,
                facts: InstanceFacts::new(
                    "orchestration",
                    OrchestrationStatus::Running,
                    Timestamp::default(),
                ),
            },
        });
        let batch = Materialisation {
            upto: Position(first as u64),
            instances: instances.collect(),
            rows: Vec::new(),
        };
        store.materialise(PartitionId((first / BATCH) as u16 % PARTITIONS), &batch)?;
        if first % (BATCH * 20) == 0 {
            store.flush()?;
        }
    }
    store.flush()?;
    let took = started.elapsed();
    let rss = rss_bytes()?;
    drop(store);
    let reopened = Instant::now();
    let store = open(folder)?;
    let reopening = reopened.elapsed();
    let rss_reopened = rss_bytes()?;
    let scanned = Instant::now();
    let found = store.find_instances(&InstanceFilter::default(), None, 1000, Detail::State)?.instances.len();
    println!(
        "instances: {count} of 950 bytes: {:.0}/s; RSS {} MB, after reopening {} MB; reopening {:?}; disk {} MB; \
         scan of {found} in {:?}; {} files beside it",
        count as f64 / took.as_secs_f64(),
        rss >> 20,
        rss_reopened >> 20,
        rounded(reopening),
        size_of(folder)? >> 20,
        rounded(scanned.elapsed()),
        blob_files(folder)?,
    );
    Ok(())
}

fn rounded(duration: Duration) -> Duration {
    Duration::from_micros(duration.as_micros() as u64)
}

fn proc_number(file: &str, name: &str) -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("not on Linux")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}

fn rss_bytes() -> Result<u64, Box<dyn Error>> {
    Ok(proc_number("/proc/self/status", "VmRSS:")? << 10)
}

fn bytes_written() -> Result<u64, Box<dyn Error>> {
    proc_number("/proc/self/io", "wchar:")
}

fn size_of(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// The files that sled made for values that it found too large: there must be none, for it doesn't synchronise them.
fn blob_files(folder: &Path) -> std::io::Result<usize> {
    let count = |name| fs::read_dir(folder.join(name).join("blobs")).map(Iterator::count);
    Ok(count("log")? + count("data")?)
}
