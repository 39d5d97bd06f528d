"""Section of docs/performance.md on two GPUs of one host, from what bench_two_gpus.py wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.pages.result_tables import Goal, Row, conditions_line, constant, cut, number, read_rows, show, table

BENCH = "benchmarks/measurements/bench_two_gpus.py"
#: Column of the results, head of the table, format.
COLUMNS = (
    ("gpus", "GPUs", ",.0f"),
    ("shards", "shards", ",.0f"),
    ("tokens", "tokens", ",.0f"),
    ("embedding_seconds", "embedding s", ".1f"),
    ("tokens_per_second", "tokens/s", ",.0f"),
    ("startup_seconds_mean", "start-up s a shard", ".1f"),
    ("wall_seconds", "whole run s", ".0f"),
)


def two_gpus_section(results: Path) -> Iterator[str]:
    """Nothing where two GPUs were not measured: few machines have them."""
    path = results / "two-gpus.csv"
    rows = {row["run"]: row for row in read_rows(path)}
    if not rows:
        return
    every = list(rows.values())
    yield "## Two GPUs of one host"
    yield (
        f"`python -m {BENCH.removesuffix('.py').replace('/', '.')} FASTA --model CHECKPOINT --out "
        f"benchmarks/results` runs the whole pipeline on "
        f"{every[0]['copies']} copies of the proteins, deduplication off, with `--gpus 1` and `--gpus 2`, in shards "
        f"of equal content and batches of {int(every[0]['token_budget']):,} tokens. Embedding seconds are those "
        "between the first batch's start and the last one's end of each shard, summed over the shards of the busiest "
        "GPU; start-up, which comes once a shard, stands apart. A third run takes two of the shards, and one of its "
        "two tasks is killed at work (SIGKILL)."
    )
    heads = ["run", *(head for _, head, _ in COLUMNS)]
    yield table(heads, [[row["run"], *(show(number(row, key), form) for key, _, form in COLUMNS)] for row in every])
    yield goals_table(rows)
    yield " ".join(remarks(rows, results / "two-gpus"))
    yield conditions_line(every, path)


def bound(name: str) -> float:
    """A constant of the script."""
    return float(str(constant(BENCH, name)))


def goals_table(rows: Mapping[str, Row]) -> str:
    """What two GPUs promise, and what was measured of it."""
    two, kill = rows.get("two", {}), rows.get("kill", {})
    least = number(kill, "retried_worst_cosine")
    speed_up = Goal("throughput of two GPUs, times one", bound("LEAST_SPEED_UP"), ".3f")
    gap = Goal("kill: longest seconds without a batch on the other GPU", bound("MOST_GAP_SECONDS"), ".3f", most=True)
    cosine = Goal("kill: least cosine of the retry's vectors with the undisturbed run's", bound("LEAST_COSINE"), ".5f")
    goals = [
        speed_up.row(number(two, "speed_up")),
        gap.row(number(kill, "gap_seconds_after_kill")),
        cosine.row(least, cut(least)),
    ]
    return table(["figure", "goal", "measured", ""], goals)


def remarks(rows: Mapping[str, Row], folder: Path) -> Iterator[str]:
    """What the script's checks found, in sentences."""
    one, two, kill = (rows.get(name, {}) for name in ("one", "two", "kill"))
    failed = [f"{name}: {row['failed']}" for name, row in rows.items() if row["failed"]]
    checks = sum(int(row["checks"]) for row in rows.values())
    yield f"**Failed: {'; '.join(failed)}.**" if failed else f"All {checks} checks of the script hold."
    if two:
        yield (
            f"Vectors of two GPUs equal to those of one in every bit: {show(number(two, 'vectors_equal'))} of "
            f"{show(number(two, 'vectors_compared'))}. From the first batch to the last, with the start-up of later "
            f"shards between, two GPUs took {show(number(two, 'batches_wall_seconds'), '.1f')} s and one took "
            f"{show(number(one, 'batches_wall_seconds'), '.1f')} s."
        )
    if number(kill, "killed_rows"):
        yield (
            f"The task was killed {show(number(kill, 'killed_after_seconds'), '.1f')} s after its start, with "
            f"{show(number(kill, 'killed_rows'))} vectors written; its second try has batches half as large."
        )
    kept = sorted(file.name for file in folder.glob("*.*"))
    if kept:
        yield f"In `benchmarks/results/two-gpus/`: {', '.join(f'`{name}`' for name in kept)}."
