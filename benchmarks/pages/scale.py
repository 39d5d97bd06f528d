"""Writes the figures of docs/scale.md from the latest rows of benchmarks/results/.

    python -m benchmarks.pages.scale

A test holds the page against what this would write.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import ROOT

RESULTS: Final = ROOT / "benchmarks" / "results"
PAGE: Final = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- figures: python -m benchmarks.pages.scale -->\n", "<!-- end of figures -->\n"

#: Sequences in the input, and the share of them that repeat others: those of the split's and the merge's benchmark.
SIZES: Final = (10**6, 10**8, 10**9)
DUPLICATES: Final = 0.5
#: Residues of a sequence, of the split's benchmark; and of a shard, the most that it holds on any card.
MEAN_RESIDUES: Final = 333
SHARD_RESIDUES: Final = 400_000_000
SPECIAL_TOKENS: Final = 2

Row = dict[str, str]


@dataclass(frozen=True)
class Step:
    """What a step costs: a part that is always there, and one for each sequence of the input."""

    name: str
    measured: str
    seconds: float
    bytes_written: float
    mib: float
    mib_grows: float = 0.0

    def cells(self, sequences: int) -> tuple[str, str, str]:
        return (
            duration(self.seconds * sequences),
            size(self.bytes_written * sequences),
            size((self.mib + self.mib_grows * sequences) * 2**20),
        )


def latest(name: str) -> list[Row]:
    """The rows of a result file, oldest first."""
    with (RESULTS / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def steps() -> Iterator[Step]:
    """Every step, from its latest result."""
    yield split_step()
    for path in sorted(RESULTS.glob("engines-*.csv")):
        if any(row["engine"] == "ours-fp16" for row in latest(path.name)):
            yield embed_step(path)
    yield merge_step()
    report = latest("report.csv")[-1]
    records = float(report["records"])
    measured = f"report.csv, {records:.0e} records, {report['commit']}"
    yield Step("report", measured, float(report["seconds"]) / records, 0.0, float(report["peak_mib"]))


def split_step() -> Step:
    """Two sizes of one run tell how memory grows."""
    small, large = [row for row in latest("split.csv") if row["program"] == "split_fasta.py"][-2:]
    records = float(large["records"])
    grows = (float(large["all_processes_mib"]) - float(small["all_processes_mib"])) / (
        records - float(small["records"])
    )
    return Step(
        "split",
        f"split.csv, {records:.0e} records, {large['commit']}",
        float(large["wall_seconds"]) / records,
        float(large["written_bytes"]) / records,
        float(large["all_processes_mib"]) - max(grows, 0.0) * records,
        max(grows, 0.0),
    )


def embed_step(path: Path) -> Step:
    """GPU seconds of the distinct sequences; memory is the GPU's."""
    rows = latest(path.name)
    row = [row for row in rows if row["engine"] == "ours-fp16"][-1]
    model = row["model"]
    tokens = (1 - DUPLICATES) * (MEAN_RESIDUES + SPECIAL_TOKENS)
    dim = {"8M": 320, "35M": 480, "150M": 640, "650M": 1280, "3B": 2560}[model]
    return Step(
        f"embed, {model}, one GPU",
        f"{path.name}, {row['device']}, {row['commit']}",
        tokens / float(row["tokens_per_second"]),
        (1 - DUPLICATES) * dim * 4,
        float(row["peak_gib"]) * 1024,
    )


def merge_step() -> Step:
    """Seconds are those of 320 float16 numbers a row; more numbers take as much longer."""
    row = [row for row in latest("merge.csv") if row["dim"] == "320"][-1]
    rows = float(row["rows"])
    return Step(
        "merge, 320 x float16",
        f"merge.csv, {rows:.0e} rows, {row['date']}",
        float(row["merge_seconds"]) / rows,
        640.0,
        float(row["merge_rss_gib"]) * 1024,
    )


def figures() -> str:
    """The tables of the page."""
    lines = [
        "| step | measured in | " + " | ".join(f"10^{len(str(n)) - 1}" for n in SIZES) + " |",
        "|---|---|" + "---|" * len(SIZES),
    ]
    for step in steps():
        cells = [" / ".join(step.cells(n)) for n in SIZES]
        lines.append(f"| {step.name} | {step.measured} | " + " | ".join(cells) + " |")
    shards = [-(-int(n * (1 - DUPLICATES) * MEAN_RESIDUES) // SHARD_RESIDUES) for n in SIZES]
    lines += ["", "Shards of 400 million residues: " + ", ".join(f"{count:,}" for count in shards) + "."]
    lines += [
        "",
        "| shards | wall seconds | ms a shard | head process, CPU seconds | head process, peak MiB | measured |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for row in latest("head-node.csv"):
        wall, count = float(row["wall_seconds"]), int(row["shards"])
        cells = [f"{count:,}", f"{wall:.0f}", f"{1000 * wall / count:.0f}", row["head_cpu_seconds"]]
        cells += [row["head_peak_mib"], f"{row['cpu']}, {row['commit']}, load {row['load_average']}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    """Seconds for a reader."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def size(count: float) -> str:
    """Bytes for a reader."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return "-" if not count else f"{count / 1e3:.1f} kB"


def page(text: str) -> str:
    """The page with its figures replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + figures() + END + after


def main() -> int:
    """Rewrite the page."""
    PAGE.write_text(page(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
