"""Section of docs/performance.md on several GPUs of one host and their curve, from what bench_gpus.py wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.pages.result_tables import Goal, Row, conditions_line, constant, cut, number, read_rows, show, table

BENCH = "benchmarks/measurements/bench_gpus.py"
KILL = "kill"
#: Column of the results, head of the table, format.
COLUMNS = (
    ("shards", "shards", ",.0f"),
    ("tokens", "tokens", ",.0f"),
    ("embedding_seconds", "embedding s", ".1f"),
    ("tokens_per_second", "tokens/s", ",.0f"),
    ("efficiency", "of linear", ".4f"),
    ("startup_seconds_mean", "start-up s a shard", ".1f"),
    ("wall_seconds", "whole run s", ".0f"),
    ("whole_efficiency", "of linear", ".3f"),
    ("energy_ratio", "energy a token, of one GPU's", ".4f"),
    ("pct_starved", "starved batches %", ".2f"),
)
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 90, 600, 50, 310


def gpus_section(results: Path, pictures: str) -> Iterator[str]:
    """Nothing where several GPUs were not measured: few machines have them. ``pictures`` is the SVG's folder."""
    path = results / "gpus.csv"
    rows = {row["run"]: row for row in read_rows(path)}
    if not rows:
        return
    every = list(rows.values())
    yield "## Several GPUs of one host"
    yield (
        f"`python -m {BENCH.removesuffix('.py').replace('/', '.')} FASTA --model CHECKPOINT --out "
        f"benchmarks/results` runs the whole pipeline with more and more GPUs on as many copies of the proteins for "
        f"each, deduplication off, in shards of {every[0]['shard_copies']} copies and batches of "
        f"{int(every[0]['token_budget']):,} tokens. Embedding seconds are those between the first batch's start and "
        "the last one's end of each shard, summed over the shards of the busiest GPU; start-up, which comes once a "
        "shard, stands apart. *Of linear* is the figure beside it over as many times one GPU's: tokens a second, and "
        "records a second of the whole command, which a run with less for each GPU has against it. A last run takes "
        "one shard for each GPU, and one of its tasks is killed at work (SIGKILL)."
    )
    heads = ["GPUs", *(head for _, head, _ in COLUMNS)]
    yield table(heads, [[name_of(row), *(show(number(row, key), form) for key, _, form in COLUMNS)] for row in every])
    yield f"![Tokens a second by GPUs]({pictures}/gpus.svg)"
    yield goals_table(rows)
    yield " ".join(remarks(rows, results / "gpus"))
    yield conditions_line(every, path)


def name_of(row: Row) -> str:
    return f"{row['gpus']}, one task killed" if row["run"] == KILL else row["gpus"]


def bound(name: str) -> float:
    """A constant of the script."""
    return float(str(constant(BENCH, name)))


def goals_table(rows: Mapping[str, Row]) -> str:
    """What several GPUs promise, and what the most of them measured."""
    most = max((row for row in rows.values() if row["run"] != KILL), key=lambda row: int(row["gpus"]))
    kill = rows.get(KILL, {})
    ratio, least = number(most, "energy_ratio"), number(kill, "retried_worst_cosine")
    apart = None if ratio is None else abs(ratio - 1)
    several = f"{most['gpus']} GPUs: "
    gap = Goal("kill: longest seconds without a batch on another GPU", bound("MOST_GAP_SECONDS"), ".3f", most=True)
    cosine = Goal("kill: least cosine of the retry's vectors with the undisturbed run's", bound("LEAST_COSINE"), ".5f")
    linear = Goal(f"{several}throughput, of linear", bound("LEAST_EFFICIENCY"), ".3f")
    whole = Goal(f"{several}whole run, of linear", bound("LEAST_WHOLE_EFFICIENCY"), ".3f")
    energy = Goal(f"{several}energy a token, from one GPU's", bound("MOST_ENERGY_DIFFERENCE"), ".4f", most=True)
    starved = Goal(f"{several}starved batches, %", bound("MOST_STARVED_PERCENT"), ".2f", most=True)
    goals = [
        linear.row(number(most, "efficiency")),
        whole.row(number(most, "whole_efficiency")),
        energy.row(apart),
        starved.row(number(most, "pct_starved")),
        gap.row(number(kill, "gap_seconds_after_kill")),
        cosine.row(least, cut(least)),
    ]
    return table(["figure", "goal", "measured", ""], goals)


def remarks(rows: Mapping[str, Row], folder: Path) -> Iterator[str]:
    """What the script's checks found, in sentences."""
    failed = [f"{name}: {row['failed']}" for name, row in rows.items() if row["failed"]]
    checks = sum(int(row["checks"]) for row in rows.values())
    yield f"**Failed: {'; '.join(failed)}.**" if failed else f"All {checks} checks of the script hold."
    for row in rows.values():
        if row["run"] != KILL and number(row, "vectors_compared"):
            yield (
                f"Vectors of {row['gpus']} GPUs equal to those of one in every bit: "
                f"{show(number(row, 'vectors_equal'))} of {show(number(row, 'vectors_compared'))} that both have."
            )
    kill = rows.get(KILL, {})
    if number(kill, "killed_rows"):
        yield (
            f"The task was killed {show(number(kill, 'killed_after_seconds'), '.1f')} s after its start, with "
            f"{show(number(kill, 'killed_rows'))} vectors written; its second try has batches half as large."
        )
    kept = sorted(file.name for file in folder.glob("*.*"))
    if kept:
        yield f"In `benchmarks/results/gpus/`: {', '.join(f'`{name}`' for name in kept)}."


def gpus_svg(results: Path) -> str:
    """Tokens a second by the number of GPUs, beside as many times that of one."""
    rows = [row for row in read_rows(results / "gpus.csv") if row["run"] != KILL]
    points = [(int(row["gpus"]), number(row, "tokens_per_second") or 0.0) for row in rows]
    most = max((gpus for gpus, _ in points), default=1)
    one = next((rate for gpus, rate in points if gpus == 1), 0.0)
    top = max([one * most, *(rate for _, rate in points)], default=1.0) or 1.0

    def place(gpus: float, rate: float) -> tuple[float, float]:
        return LEFT + (RIGHT - LEFT) * gpus / most, BOTTOM - (BOTTOM - TOP) * rate / top

    right, high = place(most, one * most)
    marks = []
    for gpus, rate in points:
        x, y = place(gpus, rate)
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#1f6f8b"/>'
            f'<text x="{x - 8:.1f}" y="{y - 10:.1f}" text-anchor="end">{rate:,.0f}</text>'
            f'<text x="{x:.1f}" y="{BOTTOM + 18}" text-anchor="middle">{gpus}</text>'
        )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" font-family="sans-serif" font-size="13" fill="#222">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            '<text x="16" y="24" font-size="15">Tokens per second by GPUs of one host; the line is as many times one '
            "GPU's rate</text>",
            f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="#7d8b95"/>',
            f'<path d="M{LEFT} {BOTTOM}L{right:.1f} {high:.1f}" stroke="#a9b4bd" stroke-dasharray="5 4"/>',
            *marks,
            f'<text x="{(LEFT + RIGHT) // 2}" y="{HEIGHT - 8}" text-anchor="middle">GPUs</text>',
            "</svg>\n",
        ]
    )
