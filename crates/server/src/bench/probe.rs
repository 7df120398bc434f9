//! What the machine does at the moment: the price of an fdatasync, the memory of this process, what it has written.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use steadfast_core::{Error, Result};

/// How often the probe syncs.
const PROBES: usize = 200;

/// Times, in microseconds, of appending 4 KiB to a file in `folder` and syncing it.
pub(super) fn fdatasync_micros(folder: &Path) -> Result<Vec<f64>> {
    let path = folder.join("fdatasync.probe");
    let mut file = File::create(&path)?;
    let block = [7u8; 4096];
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let began = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(path)?;
    Ok(times)
}

/// The middle value; sorts `values`.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The greatest amount of memory that the process has had, in MiB.
pub(super) fn peak_rss_mb() -> Result<f64> {
    Ok(status_kib("VmHWM:")? / 1024.0)
}

/// The memory that the process has now, in bytes.
pub(super) fn current_rss_bytes() -> Result<u64> {
    Ok((status_kib("VmRSS:")? * 1024.0) as u64)
}

/// The memory that a process has now, in bytes.
pub(super) fn resident_bytes_of(process: u32) -> Result<u64> {
    Ok((number_of(&format!("/proc/{process}/status"), "VmRSS:")? * 1024.0) as u64)
}

/// The bytes that this process has had written to disks.
pub(super) fn written_bytes() -> Result<u64> {
    Ok(number_of("/proc/self/io", "write_bytes:")? as u64)
}

/// The space that all files below `folder` take on the disk, in bytes.
pub(super) fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

fn status_kib(field: &str) -> Result<f64> {
    number_of("/proc/self/status", field)
}

fn number_of(file: &str, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(file)?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok());
    number.ok_or_else(|| Error::msg(format!("{file} has no {field}")))
}
