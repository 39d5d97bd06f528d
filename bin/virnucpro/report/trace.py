"""What Nextflow's trace file tells of a run's tasks; it is written for people, in the local time of who started it."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

EMBED: Final = "EMBED_SHARD"
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
#: Zones of time lie whole quarters of an hour apart.
_QUARTER: Final = 900.0
#: Seconds by which a task may seem to have begun before it was submitted, as the trace rounds.
_ROUNDING: Final = 60.0


@dataclass(frozen=True)
class Task:
    """A task that ran: its process, its unix seconds, and whether it failed."""

    process: str
    begin: float
    end: float
    failed: bool


def read_tasks(trace: Path, shards: Sequence[tuple[float, float]]) -> list[Task]:
    """The tasks of the run whose shards began and finished so, in unix seconds.

    Empty where there is no trace, where it lacks what is needed, or where it is not this run's: its shards are others.
    """
    if not trace.is_file():
        return []
    with trace.open(newline="", encoding="utf-8", errors="replace") as lines:
        found = [_task(row) for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]
    tasks = [task for task in found if task is not None]
    if not shards:
        return tasks if not any(task.process == EMBED for task in tasks) else []
    embedded = [task for task in tasks if task.process == EMBED and not task.failed]
    if len(embedded) != len(shards):
        return []
    late = max(finished for _, finished in shards) - max(task.end for task in embedded)
    zone = round(late / _QUARTER) * _QUARTER
    if min(task.begin for task in embedded) + zone > min(began for began, _ in shards) + _ROUNDING:
        return []
    return [Task(task.process, task.begin + zone, task.end + zone, task.failed) for task in tasks]


def _task(row: dict[str, str | None]) -> Task | None:
    """A task on the trace's own clock; None of one that did not run, and of a row that is not whole."""
    name, status, submit, duration = (row.get(column) or "" for column in ("name", "status", "submit", "duration"))
    seconds = [float(number) * _UNITS[unit] for number, unit in _DURATION.findall(duration)]
    if status not in ("COMPLETED", "CACHED", "FAILED") or not name.split() or not seconds:
        return None
    try:
        begin = datetime.fromisoformat(submit).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    return Task(name.split()[0], begin, begin + sum(seconds), status == "FAILED")
