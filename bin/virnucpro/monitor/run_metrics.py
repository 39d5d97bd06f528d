"""Metrics of a whole run: the shards' files put together, and the figures that the run summary reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from virnucpro.monitor.metrics import STARTUP, wait_statistics
from virnucpro.monitor.run_verdict import matrix_limit, million_more, run_bottleneck, run_time_spent, run_verdict
from virnucpro.monitor.schema import BATCHES_SCHEMA, GPU_METRICS_SCHEMA, SHARDS_SCHEMA
from virnucpro.monitor.tables import write_table
from virnucpro.output.atomic import PartialParquet
from virnucpro.output.contracts import CostEstimate, RunDevice, ShardFigures
from virnucpro.output.damage import reading
from virnucpro.output.files import BATCHES_FILE, GPU_METRICS_FILE, SHARDS_FILE
from virnucpro.output.schema import worst_figures

#: Rows that are gathered into one row group: a shard alone has few.
_ROW_GROUP_ROWS: Final = 131_072
_JOULES_PER_KWH: Final = 3.6e6

#: A row of shards.parquet.
Row = Mapping[str, Any]


def merge_metrics(folders: Sequence[Path], shards: Sequence[Row], outdir: Path) -> None:
    """Write batches.parquet, gpu_metrics.parquet and shards.parquet of the run into ``outdir``.

    Args:
        folders: the shards' folders in order.
        shards: the rows of shards.parquet.

    Raises:
        DataError: a shard's metrics are missing or unreadable.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    for name, schema in ((BATCHES_FILE, BATCHES_SCHEMA), (GPU_METRICS_FILE, GPU_METRICS_SCHEMA)):
        with PartialParquet(outdir / name, schema, compression="zstd") as file:
            for table in _gathered([folder / name for folder in folders], schema):
                file.write(table)
    write_table(outdir / SHARDS_FILE, pa.Table.from_pylist(list(shards), SHARDS_SCHEMA))


def _gathered(paths: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    pending: list[pa.Table] = []
    rows = 0
    for path in paths:
        with reading(path, "embed the shard again"):
            table = pq.read_table(path).select(schema.names).cast(schema)
        pending.append(table)
        rows += table.num_rows
        if rows >= _ROW_GROUP_ROWS:
            yield pa.concat_tables(pending).unify_dictionaries()
            pending, rows = [], 0
    if rows:
        yield pa.concat_tables(pending).unify_dictionaries()


def run_figures(summaries: Sequence[Row], metrics_dir: Path, flops: float) -> dict[str, Any]:
    """What the run reached, over all its shards.

    Rates are per device: totals divided by the time from each shard's first batch to its last, summed over shards.

    Args:
        summaries: the rows of shards.parquet.
        metrics_dir: where ``merge_metrics`` wrote.
        flops: floating-point operations of all embedded sequences.
    """
    span = sum(s["tokens"] / s["tokens_per_second"] for s in summaries if s["tokens_per_second"])
    sequences, tokens = sum(s["sequences"] for s in summaries), sum(s["tokens"] for s in summaries)
    started, finished = _known(summaries, "started"), _known(summaries, "finished")
    limit, rate = matrix_limit(summaries), flops / span / 1e12 if span else None
    joules, startup_joules = (_total(summaries, key) for key in ("energy_joules", "startup_energy_joules"))
    verdict = run_bottleneck(summaries)
    return {
        "started": min(started, default=None),
        "finished": max(finished, default=None),
        "elapsed_seconds": max(finished) - min(started) if started and finished else None,
        "device_seconds": sum(_known(summaries, "wall_seconds")),
        **{f"{name}_seconds": seconds for name, seconds in run_time_spent(summaries).items()},
        "sequences_per_second": sequences / span if span else None,
        "tokens_per_second": tokens / span if span else None,
        "teraflops_per_second": rate,
        "matrix_teraflops_per_second": limit,
        "matrix_share": rate / limit if rate is not None and limit else None,
        **_waits(metrics_dir / BATCHES_FILE),
        "peak_memory_bytes": max(_known(summaries, "peak_memory_bytes"), default=None),
        "energy_joules": joules,
        "energy_kwh": None if joules is None else joules / _JOULES_PER_KWH,
        "startup_energy_joules": startup_joules,
        "utilization_percent": verdict.utilization_percent,
        "bottleneck": verdict.severity,
        "bottleneck_cause": verdict.cause,
        "verdict": run_verdict(summaries),
        "million_more": CostEstimate(**million_more(summaries)),
        "self_check": dict(sorted(Counter(s["self_check"] for s in summaries).items())),
        **worst_figures(summaries),
        "attention": sorted({s["attention"] for s in summaries if s["attention"] is not None}),
        "devices": _devices(summaries),
        "per_shard": [ShardFigures(**{each.name: s[each.name] for each in fields(ShardFigures)}) for s in summaries],
    }


def _waits(batches: Path) -> dict[str, Any]:
    """Waits over all batches, but for the first of each shard."""
    table = pq.read_table(batches, columns=["wait_milliseconds", "queue_state"])
    later = table.filter(pc.not_equal(table["queue_state"].cast(pa.string()), STARTUP))
    waits = wait_statistics(later["wait_milliseconds"].to_pylist())
    return {key: waits[key] for key in ("avg_wait_time_ms", "p95_wait_time_ms", "pct_starved")}


def _total(summaries: Sequence[Row], key: str) -> float | None:
    """Sum over the shards; None unless every shard knows it."""
    known = _known(summaries, key)
    return sum(known) if summaries and len(known) == len(summaries) else None


def _devices(summaries: Sequence[Row]) -> list[RunDevice]:
    shards = Counter((s["device_name"], s["device_uuid"], s["host"]) for s in summaries)
    keys = sorted(shards, key=lambda key: tuple(str(part) for part in key))
    return [RunDevice(name=name, uuid=uuid, host=host, shards=shards[name, uuid, host]) for name, uuid, host in keys]


def _known(summaries: Sequence[Row], key: str) -> list[float]:
    return [summary[key] for summary in summaries if summary[key] is not None]
