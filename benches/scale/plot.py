"""Draws an SVG of each CSV in benches/results: the rate and the 99th percentile over the size.

    python -m venv .venv && .venv/bin/pip install -r benches/scale/requirements.txt
    .venv/bin/python benches/scale/plot.py
"""

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("svg")
# The same figures give the same file.
matplotlib.rcParams["svg.hashsalt"] = "steadfast"
matplotlib.rcParams["svg.fonttype"] = "none"
import matplotlib.pyplot as plt  # noqa: E402

# By shape: what x is, what a rate counts, and whether x grows by multiples.
SHAPES = {
    "concurrency": ("orchestrations under way", "hello a second", True),
    "partitions": ("partitions", "hello a second", True),
    "payload": ("bytes of the payload", "orchestrations a second", True),
    "history": ("activities in the history before", "events a second", True),
    "resident": ("sessions that may be in memory", "events a second", True),
    "stored": ("finished instances in the store", "hello a second", True),
    "startup": ("orchestrations in the log", None, True),
    "purge": ("finished instances", "purged a second", False),
    "disk": ("hello a second", None, False),
    "tail": ("hello a second", "hello a second", False),
}


def draw(shape, rows, results):
    what, rate, logarithmic = SHAPES[shape]
    series = {}
    for row in rows:
        series.setdefault(row["series"], []).append(row)
    if shape == "disk":
        lower = [("bytes written to disks", "written_bytes_each"), ("of them logged, before sled", "log_bytes_each"),
                 ("of them materialised, before sled", "materialised_bytes_each")]
        panels = [("bytes for each", lower), ("space taken / live bytes", [("", "space_amplification")])]
    elif rate is None:
        panels = [("a start, ms", [("p50", "p50_ms"), ("longest", "longest_ms")])]
    else:
        panels = [(rate, [("", "orchestrations_per_second")]), ("ms", [("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms")])]
    figure, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 3.8), squeeze=False)
    for axis, (label, lines) in zip(axes[0], panels):
        for name, found in series.items():
            for part, field in lines:
                points = [(float(row["x"]), float(row[field])) for row in found if row[field]]
                if points:
                    axis.plot(*zip(*points), marker="o", label=", ".join(filter(None, [name, part])))
        if logarithmic:
            # A logarithm has no place for nothing.
            axis.set_xscale("symlog" if any(row["x"] == "0" for row in rows) else "log")
        if label == "ms" or label.startswith("a start"):
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.set_xlabel(what)
        axis.set_ylabel(label)
        axis.grid(True, which="major", alpha=0.3)
        if axis.lines:
            axis.legend(fontsize="small")
    figure.suptitle(shape)
    figure.tight_layout()
    figure.savefig(results / f"{shape}.svg", metadata={"Date": None})
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).resolve().parents[1] / "results")
    arguments = parser.parse_args()
    for shape in SHAPES:
        path = arguments.results / f"{shape}.csv"
        if path.exists():
            with open(path, newline="") as file:
                draw(shape, list(csv.DictReader(file)), arguments.results)
            print(f"{shape}.svg")


if __name__ == "__main__":
    main()
