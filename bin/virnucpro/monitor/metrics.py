"""Owns the metrics: what is kept of each batch, the loader's waits, and a shard's summary."""

from __future__ import annotations

import math
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from virnucpro.monitor.energy import Energy, FloatArray, Series, exclusive_windows
from virnucpro.monitor.probes import Sample
from virnucpro.monitor.tables import BatchRecord, batches_table, samples_table, write_table
from virnucpro.monitor.verdict import Bottleneck, bottleneck
from virnucpro.output.contracts import ShardRun, ShardSummary
from virnucpro.output.digests import file_digests
from virnucpro.output.files import BATCHES_FILE, GPU_METRICS_FILE, SHARD_SUMMARY_FILE

__all__ = ["BatchRecord", "Bottleneck", "LoaderMetrics", "bottleneck", "queue_state", "write_shard_metrics"]

#: Milliseconds of waiting below which the prefetch queue was full, and above which the device starved.
FULL_BELOW_MILLISECONDS: Final = 1.0
STARVED_ABOVE_MILLISECONDS: Final = 50.0

QUEUE_STATES: Final = ("full", "normal", "starved")
#: State of the wait for the first batch: the loader's processes were still starting, beside the weights.
STARTUP: Final = "startup"


def queue_state(milliseconds: float) -> str:
    """The prefetch queue's state, told by how long a batch was waited for."""
    if milliseconds < FULL_BELOW_MILLISECONDS:
        return "full"
    return "starved" if milliseconds > STARVED_ABOVE_MILLISECONDS else "normal"


class LoaderMetrics:
    """Collects the waits for batches. That for a loader's first is start-up and stands apart from all statistics."""

    def __init__(self) -> None:
        self._waits: list[float] = []
        self._startup: float | None = None

    def record_startup(self, seconds: float) -> str:
        """Take the wait for a loader's first batch, added to those of loaders before it; returns its queue state."""
        self._startup = (self._startup or 0.0) + 1e3 * seconds
        return STARTUP

    def record_wait(self, seconds: float) -> str:
        """Take one wait; returns the queue state it tells of."""
        milliseconds = 1e3 * seconds
        self._waits.append(milliseconds)
        return queue_state(milliseconds)

    def statistics(self, records: Sequence[BatchRecord] = ()) -> dict[str, Any]:
        """Waits in milliseconds and their states in counts; with the batches, their sizes and packing."""
        waits = self._waits or batch_waits(records)
        return {"startup_wait_time_ms": self._startup, **wait_statistics(waits), **batch_statistics(records)}


def batch_waits(records: Sequence[BatchRecord]) -> list[float]:
    """Milliseconds waited for each batch, but for a loader's first and those that no loader gave."""
    return [record.wait_milliseconds for record in records if record.queue_state in QUEUE_STATES]


def wait_statistics(milliseconds: Sequence[float]) -> dict[str, Any]:
    """Mean, extremes and 95th percentile (nearest rank) of waits; the share that starved the device in percent."""
    states = Counter(queue_state(wait) for wait in milliseconds)
    ordered = sorted(milliseconds)
    count = len(ordered)
    return {
        "avg_wait_time_ms": sum(ordered) / count if count else None,
        "min_wait_time_ms": ordered[0] if count else None,
        "max_wait_time_ms": ordered[-1] if count else None,
        "p95_wait_time_ms": ordered[math.ceil(0.95 * count) - 1] if count else None,
        "pct_starved": 100 * states["starved"] / count if count else None,
        "queue_state_distribution": {state: states[state] for state in QUEUE_STATES},
    }


def batch_statistics(records: Sequence[BatchRecord]) -> dict[str, Any]:
    """Totals over batches, mean lengths in tokens, and mean packing efficiency where it is known."""
    sequences = sum(record.sequences for record in records)
    tokens = sum(record.tokens for record in records)
    packing = [record.packing_efficiency for record in records if record.packing_efficiency is not None]
    return {
        "total_batches": len(records),
        "total_sequences": sequences,
        "total_tokens": tokens,
        "avg_sequence_length": tokens / sequences if sequences else None,
        "avg_max_length": sum(record.longest for record in records) / len(records) if records else None,
        "packing_efficiency": sum(packing) / len(packing) if packing else None,
        "min_packing_efficiency": min(packing, default=None),
    }


def utilization_by_stage(samples: Sequence[Sample]) -> dict[str, float]:
    """Mean utilisation in percent of each stage that has readings."""
    stages: dict[str, list[float]] = {}
    for sample in samples:
        if sample.utilization is not None:
            stages.setdefault(sample.stage, []).append(sample.utilization)
    return {stage: sum(values) / len(values) for stage, values in stages.items()}


def write_shard_metrics(
    outdir: Path,
    batches: Sequence[BatchRecord],
    samples: Sequence[Sample],
    run: ShardRun,
    digests: Mapping[str, str] | None = None,
) -> ShardSummary:
    """Write batches.parquet, gpu_metrics.parquet and summary.json of a shard.

    Args:
        outdir: the shard's folder.
        batches: every batch of the shard.
        samples: the device's readings.
        run: what the task knows of itself; sequences and tokens are counted anew over the batches.
        digests: of what the other files of the shard hold, by name.

    Returns:
        What summary.json holds.

    Raises:
        OSError: the disk is full or gone.
    """
    samples = staged(samples, batches)
    starts, ends = exclusive_windows([b.start for b in batches], [b.end for b in batches])
    energy = Energy(samples)
    joules = energy.between(starts, ends)
    utilization = Series.of(samples, "utilization").mean(
        np.array([b.start for b in batches]), np.array([b.end for b in batches])
    )
    computed = {
        **_time_spent(batches, samples, run, float((ends - starts).sum())),
        **_energy_spent(batches, samples, energy, joules),
        **_reached(batches, samples, run),
    }
    computed |= _judged(batches, samples, computed, on_gpu=run.device_uuid is not None)
    write_table(outdir / BATCHES_FILE, batches_table(run.shard, batches, ends - starts, utilization, joules))
    write_table(outdir / GPU_METRICS_FILE, samples_table(run, samples))
    written = file_digests([outdir / BATCHES_FILE, outdir / GPU_METRICS_FILE])
    summary = ShardSummary(**{**vars(run), **computed, "digests": {**(digests or {}), **written}})
    summary.write(outdir / SHARD_SUMMARY_FILE)
    return summary


def _time_spent(
    batches: Sequence[BatchRecord], samples: Sequence[Sample], run: ShardRun, compute: float
) -> dict[str, Any]:
    """The wall time and its four parts, which add up to it.

    A device that stands still between two batches waits for the loader or for the writer: those gaps are divided in
    the proportion in which the run waited for either.
    """
    times = [sample.time for sample in samples] + [b.start for b in batches] + [b.end for b in batches]
    started = run.process_start or min(times, default=None)
    finished = max(times, default=started)
    wall = finished - started if started is not None and finished is not None else None
    spent: dict[str, Any] = {"host": socket.gethostname(), "started": started, "finished": finished}
    spent |= {"wall_seconds": wall, "loader_wait_seconds": sum(batch_waits(batches)) / 1e3}
    parts = ("startup_seconds", "starved_seconds", "compute_seconds", "write_seconds")
    if started is None or wall is None:
        return spent | dict.fromkeys(parts)
    if not batches:
        return spent | dict(zip(parts, (wall, 0.0, 0.0, 0.0), strict=True))
    first, last = min(b.start for b in batches), max(b.end for b in batches)
    startup, gaps = max(0.0, first - started), max(0.0, last - first - compute)
    loader, writer = spent["loader_wait_seconds"], run.writer_wait_seconds
    starved = gaps * loader / (loader + writer) if writer else gaps
    seconds = (startup, starved, compute, max(0.0, wall - startup - starved - compute))
    return spent | dict(zip(parts, seconds, strict=True))


def _energy_spent(
    batches: Sequence[BatchRecord], samples: Sequence[Sample], energy: Energy, joules: FloatArray
) -> dict[str, Any]:
    total, startup = energy.total(), None
    if total is not None and batches:
        first = min(b.start for b in batches)
        startup = float(energy.between(np.array([min(samples[0].time, first)]), np.array([first]))[0])
    seconds = samples[-1].time - samples[0].time if samples else 0.0
    return {
        "energy_joules": total,
        "energy_source": energy.source,
        "startup_energy_joules": None if startup is None or math.isnan(startup) else startup,
        "batch_energy_joules": None if np.isnan(joules).all() else float(np.nansum(joules)),
        "mean_power_watts": total / seconds if total is not None and seconds else None,
    }


def _reached(batches: Sequence[BatchRecord], samples: Sequence[Sample], run: ShardRun) -> dict[str, Any]:
    totals = batch_statistics(batches)
    span = max(b.end for b in batches) - min(b.start for b in batches) if batches else 0.0
    memory = max((s.memory_used_bytes for s in samples if s.memory_used_bytes is not None), default=None)
    limit = run.matrix_teraflops_per_second
    rate = run.flops / span / 1e12 if span and run.flops is not None else None
    peak = run.peak_memory_bytes
    if run.device_uuid is None:
        # The process tells its own memory alone, the samples that of the loader's processes too.
        peak = max((each for each in (peak, memory) if each is not None), default=None)
    return {
        "batches": totals["total_batches"],
        "sequences": totals["total_sequences"],
        "tokens": totals["total_tokens"],
        "retries": sum(b.retries for b in batches),
        "sequences_per_second": totals["total_sequences"] / span if span else None,
        "tokens_per_second": totals["total_tokens"] / span if span else None,
        "teraflops_per_second": rate,
        "matrix_share": rate / limit if rate is not None and limit else None,
        "packing_efficiency": totals["packing_efficiency"],
        "peak_memory_bytes": memory if peak is None else peak,
    }


def _judged(
    batches: Sequence[BatchRecord], samples: Sequence[Sample], computed: Mapping[str, Any], *, on_gpu: bool
) -> dict[str, Any]:
    waits = wait_statistics(batch_waits(batches))
    startup, wall = computed["startup_seconds"], computed["wall_seconds"]
    share = startup / wall if startup is not None and wall else None
    verdict = bottleneck(_within(samples, batches), waits["pct_starved"], share, on_gpu=on_gpu)
    waited = {key: waits[key] for key in ("avg_wait_time_ms", "p95_wait_time_ms", "max_wait_time_ms", "pct_starved")}
    return {
        **waited,
        "queue_state_distribution": waits["queue_state_distribution"],
        "utilization_percent": verdict.utilization_percent,
        "utilization_by_stage": utilization_by_stage(samples),
        "bottleneck": verdict.severity,
        "bottleneck_cause": verdict.cause,
        "verdict": verdict.verdict,
    }


def staged(samples: Sequence[Sample], batches: Sequence[BatchRecord]) -> list[Sample]:
    """The samples, those without a stage told by the batches: "startup", "inference" or "finish"."""
    first = min((b.start for b in batches), default=math.inf)
    last = max((b.end for b in batches), default=math.inf)

    def stage(time: float) -> str:
        return "startup" if time < first else "inference" if time <= last else "finish"

    return [sample if sample.stage else replace(sample, stage=stage(sample.time)) for sample in samples]


def _within(samples: Sequence[Sample], batches: Sequence[BatchRecord]) -> list[float]:
    """Utilisation between the first batch's start and the last one's end."""
    if not batches:
        return []
    start, end = min(b.start for b in batches), max(b.end for b in batches)
    return [s.utilization for s in samples if s.utilization is not None and start <= s.time <= end]
