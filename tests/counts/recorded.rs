//! The recorded values. All of them are in this file.

/// What a thousand instances (or steps, or signals) of a scenario write, with two partitions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) log_bytes: u64,
    pub(crate) log_records: u64,
    pub(crate) log_syncs: u64,
    pub(crate) materialised_bytes: u64,
    pub(crate) materialised_instances: u64,
}

const fn written(log: [u64; 3], materialised: [u64; 2]) -> Written {
    let [log_bytes, log_records, log_syncs] = log;
    let [materialised_bytes, materialised_instances] = materialised;
    Written { log_bytes, log_records, log_syncs, materialised_bytes, materialised_instances }
}

/// By scenario: bytes, records and syncs of the log; bytes of and writes to the instance store.
pub(crate) const SIMULATED: &[(&str, Written)] = &[
    ("hello", written([496_640, 80, 40], [402_100, 1000])),
    ("ping", written([247_520, 40, 20], [246_100, 1000])),
    ("chain", written([124_225, 1005, 1005], [93_885, 105])),
    ("fanout", written([63_555, 10, 10], [57_555, 5])),
    ("timers", written([281_520, 40, 20], [240_100, 1000])),
    ("children", written([648_070, 60, 30], [546_180, 2000])),
    ("events", written([211_290, 30, 15], [222_450, 1000])),
    ("signals", written([5560, 20, 10], [4200, 50])),
];

/// Allocations of the kernel alone, for one of each.
pub(crate) const KERNEL: &[(&str, u64)] = &[
    ("ping", 28),
    ("hello", 48),
    ("chain of 100", 926),
    ("fanout of 100", 858),
    ("replay of 100 steps", 205),
    ("decoding of 100 steps", 9),
];

/// What a hundred instances cost a whole hub on a store in memory, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InHub {
    /// How many activities each runs, one after the other: 1 is `ping`, 3 is `hello`.
    pub(crate) steps: u64,
    /// Messages that actors have had.
    pub(crate) messages: u64,
    /// Allocations of all threads, clients and activities included. They differ a little from run to run, with how
    /// threads meet.
    pub(crate) allocations: u64,
}

pub(crate) const HUB: &[InHub] = &[
    InHub { steps: 1, messages: 1400, allocations: 9_864 },
    InHub { steps: 3, messages: 2800, allocations: 18_532 },
];
