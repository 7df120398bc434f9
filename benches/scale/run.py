"""How the runtime scales: runs `steadfast bench` over a range of one size at a time, and writes a CSV for each shape.

    cargo build --release
    python benches/scale/run.py                      # all shapes, twenty minutes at most
    python benches/scale/run.py --shapes tail --tail-seconds 600
    python benches/scale/run.py --shapes stored      # one of them
    python benches/scale/run.py --quick              # tiny sizes, a few minutes: whether it works
    python benches/scale/plot.py                     # SVGs of what is in benches/results

It needs nothing but Python. `benches/README.md` says what the shapes mean.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What every CSV has, beside `shape`, `series` and `x`; the names are those of `steadfast bench --json`.
FIELDS = [
    "instances", "seconds", "orchestrations_per_second", "p50_ms", "p99_ms", "p999_ms", "longest_ms", "stalls",
    "log_bytes", "log_syncs", "log_bytes_each", "materialised_bytes_each", "written_bytes_each", "stored_instances",
    "disk_bytes", "space_amplification", "purged", "histories_read", "bytes_per_instance", "peak_rss_mb", "fdatasync_p50_us",
]


class Run:
    """Runs points of shapes until the time is up."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.ends = time.monotonic() + arguments.minutes * 60
        self.each = 1.0 if arguments.quick else arguments.seconds
        self.rows = []
        self.left_out = []

    def size(self, full, quick):
        """A size, or a tiny one."""
        return quick if self.arguments.quick else full

    def point(self, shape, series, x, *flags, folder=None, needs=None):
        """Runs the bench, and keeps what it measured; nothing if there is no time for it (`needs`, in seconds)."""
        needs = self.each if needs is None else needs
        if time.monotonic() + needs > self.ends:
            print(f"{shape} {series} {x}: left out, the time is up", file=sys.stderr)
            self.left_out.append(f"{shape} {series} {x}".replace("  ", " "))
            return None
        with tempfile.TemporaryDirectory(dir=self.arguments.work) as temporary:
            command = [str(self.arguments.binary), "bench", "--json", "--data-dir", str(folder or temporary)]
            command += [str(flag) for flag in flags]
            print(f"{shape} {series} {x}: bench {' '.join(command[5:])}", file=sys.stderr)
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        line = json.loads(done.stdout)
        self.rows.append({"shape": shape, "series": series, "x": x} | {name: line.get(name) for name in FIELDS})
        print(f"    {line['orchestrations_per_second']:.0f}/s, p50 {line['p50_ms']} ms, p99 {line['p99_ms']} ms", file=sys.stderr)
        return line

    def scratch(self):
        """A folder for several points."""
        return tempfile.TemporaryDirectory(dir=self.arguments.work)


def concurrency(run):
    """`hello` with so many under way."""
    for x in (1, 10, 100, 1000, 10_000):
        run.point("concurrency", "hello", x, "--seconds", run.each, "--concurrency", x)


def partitions(run):
    """`hello` on so many partitions."""
    for x in (1, 2, 4, 8, 16):
        run.point("partitions", "hello", x, "--seconds", run.each, "--concurrency", 1000, "--partitions", x)


def payload(run):
    """A payload of so many bytes that goes to an activity and back."""
    for x in (0, 1 << 10, 16 << 10, 128 << 10, 1 << 20):
        flags = ("--scenario", "carry", "--seconds", run.each, "--concurrency", 32)
        run.point("payload", "carry", x, *flags, "--payload-bytes", x)


def history(run):
    """Events for instances with histories of so many steps, in memory and not."""
    for x in (10, 100, 1000, *run.size((10_000, 100_000), ())):
        instances = max(2, min(50, 200_000 // x))
        flags = ("--scenario", "events", "--instances", instances, "--steps", x, "--events", 5)
        # One after the other in one partition: each partition may have a session at least, so two of them would keep two.
        for series, resident in (("in memory", 1000), ("read and replayed", 1)):
            run.point(
                "history", series, x, *flags, "--resident", resident, "--concurrency", 1, "--partitions", 1,
                needs=5 + instances * x / 10_000,
            )


def resident(run):
    """Events for instances of which so many may be in memory."""
    instances = run.size(20_000, 500)
    for share in (0.01, 0.1, 0.25, 0.5, 1.0):
        x = int(instances * share)
        flags = ("--scenario", "events", "--instances", instances, "--steps", 3, "--events", 3, "--concurrency", 200)
        run.point("resident", f"{instances} instances", x, *flags, "--resident", x, needs=8)


def stored(run):
    """`hello` with so many finished instances in the store."""
    with run.scratch() as folder:
        before = 0
        for x in (0, run.size(100_000, 500), run.size(1_000_000, 1000), run.arguments.stored or run.size(5_000_000, 2000)):
            flags = ("--seconds", run.each, "--concurrency", 1000, "--pages-per-second", 10, "--prefill", x)
            run.point("stored", "hello, with pages beside", x, *flags, folder=folder, needs=run.each + (x - before) / 25_000)
            before = x


def startup(run):
    """A start after a crash, with a log of so many `hello`s that were not materialised."""
    for x in (run.size(1000, 50), run.size(10_000, 100), run.size(100_000, 500), run.size(300_000, 1000)):
        flags = ("--scenario", "startup", "--instances", x)
        run.point("startup", "hello", x, *flags, needs=3 + x / 10_000)


def purge(run):
    """A purge of so many."""
    x = run.arguments.purge or run.size(1_000_000, 1000)
    run.point("purge", "nothing", x, "--scenario", "purge", "--instances", x, needs=x / 10_000)


def tail(run):
    """`hello` at half of the greatest rate, for long, with a query load: p99, p99.9 and every stall."""
    seconds = run.arguments.tail_seconds or run.size(240, 3)
    greatest = run.point("tail", "greatest rate", 0, "--seconds", 2 * run.each, "--concurrency", 1000)
    if greatest is None:
        return
    rate = int(greatest["orchestrations_per_second"] / 2)
    flags = ("--rate", rate, "--seconds", seconds, "--pages-per-second", 10)
    line = run.point("tail", "half of it", rate, *flags, needs=seconds)
    if line is not None:
        write_json(run.arguments.results / "tail.json", line)
        for stall in line["stalled"]:
            print(f"    stall: {stall}", file=sys.stderr)


def disk(run):
    """What is written for each `hello`, and the space taken, with a purge of what ended twenty seconds ago."""
    seconds = run.arguments.disk_seconds or run.size(60, 4)
    retain = run.size(20, 1)
    for x in run.size((500, 5000), (100,)):
        flags = ("--rate", x, "--seconds", seconds, "--retain-seconds", retain)
        run.point("disk", f"kept for {retain} s", x, *flags, needs=seconds)


# The long one last, so that the others are not left out for it.
SHAPES = [concurrency, partitions, payload, history, resident, stored, startup, purge, disk, tail]


def machine(arguments):
    """What the figures depend on."""
    def output(*command):
        try:
            return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    cpu = None
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), None)
    return {
        "commit": output("git", "rev-parse", "--short", "HEAD"),
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "cores": os.cpu_count(),
        "cpu": cpu,
        "kernel": platform.release(),
        "file_system": output("stat", "--file-system", "--format=%T", str(arguments.work)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "load_average": os.getloadavg()[0],
    }


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def write(arguments, rows):
    """One file for each shape that was run; the others stay as they are."""
    for shape in dict.fromkeys(row["shape"] for row in rows):
        with open(arguments.results / f"{shape}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, ["shape", "series", "x", *FIELDS], lineterminator="\n")
            writer.writeheader()
            writer.writerows(row for row in rows if row["shape"] == shape)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [shape.__name__ for shape in SHAPES]
    parser.add_argument("--shapes", nargs="+", choices=names, default=names)
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--minutes", type=float, default=20, help="what would take longer is left out, and said so (%(default)s)")
    parser.add_argument("--seconds", type=float, default=6, help="for each point of a load (%(default)s)")
    parser.add_argument("--stored", type=int, help="the greatest number of finished instances (5,000,000)")
    parser.add_argument("--purge", type=int, help="how many are purged (1,000,000)")
    parser.add_argument("--tail-seconds", type=float, help="for how long tails are looked at (240)")
    parser.add_argument("--disk-seconds", type=float, help="for how long disks are filled, each time (60)")
    parser.add_argument("--results", type=Path, default=ROOT / "benches" / "results")
    parser.add_argument("--work", type=Path, help="where the data goes; it should be on a real disk")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "steadfast")
    arguments = parser.parse_args()
    arguments.work = arguments.work or Path(tempfile.gettempdir())
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.results.mkdir(parents=True, exist_ok=True)
    if shutil.which(str(arguments.binary)) is None:
        parser.error("there is no such binary; build it with `cargo build --release`, or name it with --binary")
    run = Run(arguments)
    found = machine(arguments)
    began = time.monotonic()
    for shape in SHAPES:
        if shape.__name__ in arguments.shapes:
            shape(run)
            # What was measured stays, whatever comes.
            write(arguments, run.rows)
    found |= {"shapes": arguments.shapes, "left_out": run.left_out, "minutes": round((time.monotonic() - began) / 60, 1)}
    write_json(arguments.results / "machine.json", found)
    if run.left_out:
        print(f"left out for want of time: {', '.join(run.left_out)}", file=sys.stderr)


if __name__ == "__main__":
    main()
