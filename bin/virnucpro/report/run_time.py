"""A run from its first task to its last: which step ran when, and what that cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from virnucpro.monitor.run_verdict import covered, shards_by_device, timed_shards
from virnucpro.report.trace import EMBED, Task

#: Devices that have a row of their own.
MOST_DEVICES: Final = 16
#: Shards of a device above which only the stretches in which it had one are drawn.
_MOST_SHARDS: Final = 100
#: A pause, as before -resume, is left out where it is longer than a minute and than this part of all that ran.
_PAUSE_SECONDS, _PAUSE_PART = 60.0, 0.1
STARTUP, WORK, FAILED = "startup", "work", "failed"

Shard = Mapping[str, Any]


@dataclass(frozen=True)
class Span:
    """A stretch of the run, in seconds since it began."""

    begin: float
    end: float
    kind: str


@dataclass(frozen=True)
class Step:
    """A step, or what one device did in EMBED_SHARD: its stretches, and the seconds of them."""

    name: str
    spans: tuple[Span, ...]
    seconds: float
    tasks: int


@dataclass(frozen=True)
class RunTime:
    """A run's steps on one clock.

    Attributes:
        steps: in the order in which they began.
        seconds: from the first task's start to the last one's end, without pauses.
        paused: seconds in which nothing ran, as between a run and its -resume.
        more_devices: devices without a row.
        traced: whether the steps besides EMBED_SHARD are known.
    """

    steps: tuple[Step, ...]
    seconds: float
    paused: float
    more_devices: int
    traced: bool


@dataclass(frozen=True)
class RunCost:
    """What the shards cost: hours that devices were held, and energy where every shard knows it."""

    hours: float
    startup_hours: float
    kwh: float | None
    startup_kwh: float | None
    on_gpu: bool


def run_time(shards: Sequence[Shard], tasks: Sequence[Task]) -> RunTime | None:
    """Put shards and tasks on one clock; None where nothing is known of either."""
    timed = timed_shards(shards)
    rows = [_step_row(process, tasks, failed) for process, failed in _processes(tasks)]
    devices = list(shards_by_device(timed).values())
    rows += [_device_row(number, len(devices), own) for number, own in enumerate(devices[:MOST_DEVICES], 1)]
    if not rows:
        return None
    clock = _Clock([(span.begin, span.end) for _, spans, _ in rows for span in spans])
    steps = [
        Step(name, tuple(clock.at(span) for span in spans), sum(span.end - span.begin for span in spans), count)
        for name, spans, count in rows
    ]
    order = sorted(steps, key=lambda step: step.spans[0].begin)
    return RunTime(tuple(order), clock.seconds, clock.paused, max(0, len(devices) - MOST_DEVICES), bool(tasks))


def run_cost(shards: Sequence[Shard]) -> RunCost | None:
    """Hours and energy of the shards; None where there is none."""
    timed = [shard for shard in shards if shard.get("wall_seconds") is not None]
    if not timed:
        return None

    def kwh(column: str) -> float | None:
        known = [shard[column] for shard in timed if shard.get(column) is not None]
        return sum(known) / 3.6e6 if len(known) == len(timed) else None

    return RunCost(
        hours=sum(shard["wall_seconds"] for shard in timed) / 3600,
        startup_hours=sum(shard.get("startup_seconds") or 0.0 for shard in timed) / 3600,
        kwh=kwh("energy_joules"),
        startup_kwh=kwh("startup_energy_joules"),
        on_gpu=any(shard.get("device_uuid") for shard in timed),
    )


def _processes(tasks: Sequence[Task]) -> list[tuple[str, bool]]:
    """Processes with a row: all but EMBED_SHARD, whose shards tell more, and each with failed tasks once more."""
    found = dict.fromkeys((task.process, task.failed) for task in tasks)
    return [(process, failed) for process, failed in found if failed or process != EMBED]


_Row = tuple[str, list[Span], int]


def _step_row(process: str, tasks: Sequence[Task], failed: bool) -> _Row:
    kind = FAILED if failed else WORK
    own = [task for task in tasks if task.process == process and task.failed == failed]
    spans = [Span(begin, end, kind) for begin, end in covered((task.begin, task.end) for task in own)]
    return f"{process}, failed" if failed else process, spans, len(own)


def _device_row(number: int, of: int, shards: Sequence[Shard]) -> _Row:
    which = f", device {number:,} of {of:,}" if of > 1 else ""
    name = f"{EMBED}{which}: {shards[0].get('device_name') or 'an unknown device'}"
    windows = sorted((shard["started"], shard["finished"], shard.get("startup_seconds") or 0.0) for shard in shards)
    if len(windows) > _MOST_SHARDS:
        length = windows[-1][1] - windows[0][0]
        busy = covered(((begin, end) for begin, end, _ in windows), length / _MOST_SHARDS)
        return name, [Span(begin, end, WORK) for begin, end in busy], len(windows)
    spans = []
    for begin, end, startup in windows:
        ready = min(begin + startup, end)
        spans += [Span(begin, ready, STARTUP), Span(ready, end, WORK)]
    return name, [span for span in spans if span.end > span.begin] or [Span(*windows[0][:2], WORK)], len(windows)


class _Clock:
    """Seconds since the first stretch's begin, pauses left out."""

    def __init__(self, windows: Sequence[tuple[float, float]]) -> None:
        busy = covered(windows)
        total = sum(end - begin for begin, end in busy)
        least = max(_PAUSE_SECONDS, _PAUSE_PART * total)
        self._runs = covered(windows, least)
        self.seconds = sum(end - begin for begin, end in self._runs)
        self.paused = self._runs[-1][1] - self._runs[0][0] - self.seconds

    def at(self, span: Span) -> Span:
        return Span(self._since(span.begin), self._since(span.end), span.kind)

    def _since(self, moment: float) -> float:
        return sum(max(0.0, min(moment, end) - begin) for begin, end in self._runs)
