"""Section of docs/performance.md on whole runs, from what bench_run.py wrote, and their waterfall as an SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.pages.result_tables import Goal, Row, conditions_line, distinct, files, read_rows, table

WHOLE = "whole"
PIPELINE = "virnucpro-embed"
#: The pipeline, and the command that does the same without Nextflow.
OURS = (PIPELINE, "virnucpro embed")
#: Most of the plain script's time that a whole run may take: by file, number of proteins and kernels.
GOALS: Mapping[tuple[str, str, str], float] = {
    ("run-650M", "4450", "warm"): 0.55,
    ("run-650M", "4450", "cold"): 0.85,
    ("run-650M", "44500", "warm"): 0.42,
    ("run-cpu", "351", "warm"): 0.48,
}
WIDTH, LEFT, SPAN = 860, 210, 540
BAR, STEP = 14, 20
COLOURS = {"EMBED_SHARD: compute": "#1f6f8b", "compute": "#7d8b95"}
OTHER = {True: "#8fc1d1", False: "#c6ced4"}


class Contender(NamedTuple):
    """Who ran: on how many proteins, which program, with what kernels."""

    proteins: str
    program: str
    kernels: str

    @property
    def label(self) -> str:
        kernels = "" if self.kernels == "-" else f", {self.kernels}"
        return f"{int(self.proteins):,} proteins, {self.program}{kernels}"


def by_contender(rows: list[Row]) -> dict[Contender, list[Row]]:
    """Rows of each, in the order of the file."""
    found: dict[Contender, list[Row]] = {}
    for row in rows:
        found.setdefault(Contender(row["proteins"], row["program"], row["kernels"]), []).append(row)
    return found


def whole_seconds(rows: list[Row]) -> float:
    """Median over the repeats."""
    return median(float(row["end"]) for row in rows if row["step"] == WHOLE)


def peer_of(contender: Contender, runs: Mapping[Contender, list[Row]]) -> float:
    """Median seconds of the other program on the same proteins."""
    return next(
        whole_seconds(rows)
        for each, rows in runs.items()
        if each.proteins == contender.proteins and each.program not in OURS
    )


def run_section(results: Path, pictures: str) -> Iterator[str]:
    """Nothing where no whole run was measured; ``pictures`` is the folder of the SVGs as the page names it."""
    measured = files(results, "run-*.csv")
    if not measured:
        return
    yield "## Whole runs"
    yield (
        "`python -m benchmarks.peers.bench_run FASTA --size SIZE` times the command that users type, from its start to "
        "its end, and a plain script beside it in turns: on a GPU Hugging Face's `EsmModel` in bf16 over sorted padded "
        "batches, on a CPU fair-esm's extract, both as processes of their own and with the same weights. `virnucpro "
        "embed` gives the pipeline's results without Nextflow, on one machine. *Cold* is a "
        "first run, with no kernel compiled. Since commit b4e28ff Python's bytecode is kept from earlier processes; "
        "rows of commits before it, of both programs, were measured where none was written. Seconds are medians; the "
        "picture shows the median run's steps."
    )
    for path in measured:
        yield from one_file(path, pictures)


def one_file(path: Path, pictures: str) -> Iterator[str]:
    """Table, goals and picture of one result file."""
    rows = read_rows(path)
    runs = by_contender(rows)
    lines, goals = [], []
    for contender, steps in runs.items():
        seconds = whole_seconds(steps)
        ratio = seconds / peer_of(contender, runs) if contender.program in OURS else None
        repeats = len(distinct(steps, "repeat"))
        told = "" if ratio is None else f"{ratio:.2f}"
        device = " and ".join(distinct(steps, "device"))
        lines.append([contender.label, f"{seconds:.1f}", told, str(repeats), device])
        bound = GOALS.get((path.stem, contender.proteins, contender.kernels)) if contender.program == PIPELINE else None
        if bound is not None:
            goals.append(Goal(contender.label, bound, most=True).row(ratio))
    yield f"### {', '.join(distinct(rows, 'model'))}"
    yield table(["run", "seconds", "of the other's time", "repeats", "device"], lines)
    if goals:
        yield table(["share of the other's time", "goal", "measured", ""], goals)
    yield f"![Steps of each run]({pictures}/{path.stem}.svg)"
    yield conditions_line(rows, path)


def median_run(rows: list[Row]) -> list[Row]:
    """The steps of the repeat whose whole time is the median, or next above it."""
    whole = sorted((float(row["end"]), row["repeat"]) for row in rows if row["step"] == WHOLE)
    repeat = whole[len(whole) // 2][1]
    return [row for row in rows if row["repeat"] == repeat]


def waterfall(path: Path) -> str:
    """The picture of one result file: each run's steps, one below the other, each run on its own scale from zero."""
    parts, top = [], 40
    for contender, rows in by_contender(read_rows(path)).items():
        steps = [row for row in median_run(rows) if row["step"] != WHOLE]
        longest = whole_seconds(median_run(rows))
        title = f"{contender.label}: {longest:.1f} s"
        parts.append(f'<text x="16" y="{top + 12}" font-weight="bold">{escape(title)}</text>')
        top += STEP + 2
        for row in steps:
            parts.append(step_bar(row, contender.program in OURS, longest, top))
            top += STEP
        top += 10
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 8}" width="{WIDTH}" '
            f'height="{top + 8}" font-family="sans-serif" font-size="12" fill="#222">',
            f'<rect width="{WIDTH}" height="{top + 8}" fill="#fff"/>',
            '<text x="16" y="24" font-size="15">Where the time of a whole run goes, in seconds</text>',
            *parts,
            "</svg>\n",
        ]
    )


def step_bar(row: Row, ours: bool, longest: float, top: int) -> str:
    begin, end = float(row["begin"]), float(row["end"])
    left, width = LEFT + SPAN * begin / longest, SPAN * (end - begin) / longest
    colour = COLOURS.get(row["step"], OTHER[ours])
    return (
        f'<text x="{LEFT - 8}" y="{top + 11}" text-anchor="end">{escape(row["step"])}</text>'
        f'<rect x="{left:.1f}" y="{top}" width="{max(width, 1):.1f}" height="{BAR}" fill="{colour}"/>'
        f'<text x="{left + max(width, 1) + 5:.1f}" y="{top + 11}">{end - begin:.1f}</text>'
    )
