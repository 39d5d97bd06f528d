"""What bench_gpus.py reads off a finished run: tasks by device, rates, gaps, and whether vectors are equal."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROWS_AT_ONCE = 8192
#: What every row must know of the device that computed it.
JOINED = ("shard", "batch", "device_name", "device_utilization", "batch_tokens_per_second", "energy_joules")
MOST_ENERGY_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Check:
    """Something that must hold, and what was seen of it."""

    name: str
    holds: bool
    seen: str

    def __str__(self) -> str:
        return f"{'HOLDS' if self.holds else 'FAILS'}  {self.name}: {self.seen}"


@dataclass(frozen=True)
class Task:
    """One try of one shard, in unix seconds; a killed try has no batches and ends when it was killed."""

    shard: int
    device: str
    started: float
    finished: float
    first_batch: float | None = None
    last_batch: float | None = None
    tokens: int = 0

    @property
    def embedding_seconds(self) -> float:
        """From the first batch's start to the last one's end."""
        return 0.0 if self.first_batch is None or self.last_batch is None else self.last_batch - self.first_batch

    @property
    def startup_seconds(self) -> float | None:
        """From the process's start to its first batch."""
        return None if self.first_batch is None else self.first_batch - self.started


def read_tasks(metrics: Path) -> list[Task]:
    """The tasks of a run, from its shards.parquet and batches.parquet."""
    batches = pq.read_table(metrics / "batches.parquet", columns=["shard", "start", "end"])
    spans = batches.group_by("shard").aggregate([("start", "min"), ("end", "max")]).to_pylist()
    span_of = {span["shard"]: (span["start_min"], span["end_max"]) for span in spans}
    return [
        Task(
            row["shard"],
            f"{row['host']} {row['device_uuid'] or 'CPU'}",
            row["started"],
            row["finished"],
            *span_of[row["shard"]],
            tokens=row["tokens"],
        )
        for row in pq.read_table(metrics / "shards.parquet").sort_by("shard").to_pylist()
    ]


def by_device(tasks: Iterable[Task]) -> dict[str, list[Task]]:
    """Tasks of each device in order of their starts."""
    found: dict[str, list[Task]] = defaultdict(list)
    for task in sorted(tasks, key=lambda task: task.started):
        found[task.device].append(task)
    return dict(found)


def overlaps(tasks: Iterable[Task]) -> list[tuple[Task, Task]]:
    """Pairs of tasks that were on one device at the same moment."""
    return [
        (earlier, later)
        for members in by_device(tasks).values()
        for index, later in enumerate(members)
        for earlier in members[:index]
        if earlier.finished > later.started
    ]


def rates(tasks: Sequence[Task]) -> dict[str, float]:
    """Tokens per second over the busiest device's embedding time, and over the wall time of all batches."""
    tokens = sum(task.tokens for task in tasks)
    busiest = max(sum(task.embedding_seconds for task in members) for members in by_device(tasks).values())
    first = min(task.first_batch for task in tasks if task.first_batch is not None)
    span = max(task.last_batch for task in tasks if task.last_batch is not None) - first
    startups = [task.startup_seconds for task in tasks if task.startup_seconds is not None]
    return {
        "embedding_seconds": busiest,
        "tokens_per_second": tokens / busiest,
        "batches_wall_seconds": span,
        "batches_wall_tokens_per_second": tokens / span,
        "startup_seconds_mean": sum(startups) / len(startups),
        "startup_seconds_max": max(startups),
    }


def largest_gap(metrics: Path, shard: int, since: float = 0.0) -> float:
    """Most seconds in which no batch of a shard ran, between its batches that end after ``since``."""
    table = pq.read_table(metrics / "batches.parquet", columns=["shard", "start", "end"]).to_pylist()
    spans = sorted((row["start"], row["end"]) for row in table if row["shard"] == shard and row["end"] >= since)
    return max((later[0] - earlier[1] for earlier, later in pairwise(spans)), default=0.0)


def read_trace(path: Path) -> list[dict[str, str]]:
    """Rows of Nextflow's trace in the order of submission."""
    with path.open(newline="") as handle:
        return sorted(csv.DictReader(handle, delimiter="\t"), key=lambda row: int(row["task_id"]))


def tries(trace: Iterable[dict[str, str]], shard: int) -> list[tuple[str, str]]:
    """Status and exit code of every try of a shard."""
    return [(row["status"], row["exit"]) for row in trace if f"(shard-{shard:05d}," in row["name"]]


def ledger_check(results: Path, records: int) -> Check:
    """Whether every record has one row, as the run's summary, the ledger and the files of vectors count them."""
    summary = json.loads((results / "metrics" / "run_summary.json").read_text())
    ledger = pq.read_table(results / "manifest.parquet", columns=["status", "unique_index"])
    rows = sum(pq.read_metadata(part).num_rows for part in (results / "embeddings").glob("part-*.parquet"))
    counts = [summary["records"], summary["embedded"], summary["rows"], ledger.num_rows, rows]
    counts.append(len(ledger["unique_index"].drop_null().unique()))
    lost = summary["rejected"] + summary["duplicate"] + summary["reused"]
    whole = set(counts) == {records} and lost == 0 and set(ledger["status"].to_pylist()) == {"embedded"}
    return Check("every record has one row", whole, f"{rows:,} rows for {records:,} records, {lost} not embedded")


def metrics_check(results: Path) -> Check:
    """Whether every row has its batch's and device's metrics, and the rows' energy is the run's."""
    parts = sorted((results / "embeddings").glob("part-*.parquet"))
    rows = pa.concat_tables(pq.read_table(part, columns=list(JOINED)) for part in parts)
    nulls = {name: rows[name].null_count for name in JOINED if rows[name].null_count}
    total = json.loads((results / "metrics" / "run_summary.json").read_text())["energy_joules"]
    summed = pc.sum(rows["energy_joules"]).as_py() or 0.0
    holds = not nulls and bool(total) and abs(summed / total - 1) <= MOST_ENERGY_DIFFERENCE
    seen = f"nulls {nulls or 'none'}, {summed:,.0f} J in rows, {total or 0:,.0f} J in all"
    return Check("every row has its metrics, and their energy is the run's", holds, seen)


@dataclass
class Likeness:
    """Rows compared, those equal in every bit, and the least cosine of the others."""

    rows: int = 0
    equal: int = 0
    worst_cosine: float = 1.0

    def add(self, one: np.ndarray, other: np.ndarray) -> None:
        """Count rows of vectors (n, dim) of the same type."""
        same = (one.view(np.uint8).reshape(len(one), -1) == other.view(np.uint8).reshape(len(one), -1)).all(axis=1)
        self.rows += len(one)
        self.equal += int(same.sum())
        if not same.all():
            a, b = one[~same].astype(np.float64), other[~same].astype(np.float64)
            cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
            self.worst_cosine = min(self.worst_cosine, float(cosines.min()))

    @classmethod
    def sum(cls, parts: Iterable[Likeness]) -> Likeness:
        """Over several shards."""
        found = list(parts)
        worst = min((part.worst_cosine for part in found), default=1.0)
        return cls(sum(part.rows for part in found), sum(part.equal for part in found), worst)

    @property
    def all_equal(self) -> bool:
        return self.rows > 0 and self.equal == self.rows

    def __str__(self) -> str:
        return f"{self.equal:,} of {self.rows:,} vectors equal, least cosine {self.worst_cosine:.9f}"


def compare_vectors(results: Path, reference: Path) -> dict[int, Likeness]:
    """Compare a run's vectors with those of the same records in another, which may hold more after them.

    Returns:
        What was found, by the shard of ``results``.

    Raises:
        ValueError: the records are not the same.
    """
    found: dict[int, Likeness] = defaultdict(Likeness)
    for one, other in _side_by_side(results / "embeddings", reference / "embeddings"):
        if not one["id"].equals(other["id"]):
            raise ValueError(f"{results} and {reference}: other records, or in another order")
        vectors, expected, shards = _matrix(one), _matrix(other), one["shard"].to_numpy()
        for shard in np.unique(shards).tolist():
            found[shard].add(vectors[shards == shard], expected[shards == shard])
    return dict(found)


def _matrix(batch: pa.RecordBatch) -> np.ndarray:
    return np.asarray(batch["embedding"].flatten().to_numpy(zero_copy_only=False)).reshape(batch.num_rows, -1)


def _batches(folder: Path) -> Iterator[pa.RecordBatch]:
    for part in sorted(folder.glob("part-*.parquet")):
        with pq.ParquetFile(part) as opened:
            yield from opened.iter_batches(ROWS_AT_ONCE, columns=["id", "embedding", "shard"])


def _side_by_side(one: Path, other: Path) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Rows of two folders in step, however each cuts its parts and row groups."""
    others, right = _batches(other), None
    for left in _batches(one):
        while left.num_rows:
            if right is None or not right.num_rows:
                right = next(others, None)
                if right is None:
                    raise ValueError(f"{other}: fewer rows than {one}")
            rows = min(left.num_rows, right.num_rows)
            yield left.slice(0, rows), right.slice(0, rows)
            left, right = left.slice(rows), right.slice(rows)


def task_rows(run: str, tasks: Iterable[Task], begun: float, fate: str = "completed") -> list[dict[str, Any]]:
    """Rows for a file of tasks: seconds since ``begun``."""
    return [
        {
            "run": run,
            "shard": task.shard,
            "device": task.device.split()[-1],
            "fate": fate,
            "tokens": task.tokens or "",
            **{
                name: "" if moment is None else f"{moment - begun:.3f}"
                for name, moment in (
                    ("started", task.started),
                    ("first_batch", task.first_batch),
                    ("last_batch", task.last_batch),
                    ("finished", task.finished),
                )
            },
        }
        for task in tasks
    ]
