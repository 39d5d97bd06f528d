"""The metrics as Parquet tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.monitor.probes import Sample
from virnucpro.monitor.schema import BATCHES_SCHEMA, GPU_METRICS_SCHEMA
from virnucpro.output.atomic import PartialParquet
from virnucpro.output.contracts import ShardRun

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BatchRecord:
    """One batch. ``start`` and ``end`` are unix seconds on the device's side, which may overlap the next batch's.

    Attributes:
        wait_milliseconds: how long the run waited for the loader to give it.
        queue_state: "full", "normal" or "starved" by that wait; "startup" for a loader's first batch, None without a
            loader.
        tokens: tokens in it, cls and eos counted.
        longest: tokens of its longest sequence.
        packing_efficiency: tokens divided by the token budget, 1 for a longer sequence alone; None without a budget.
        retries: how often it was cut because memory ran out.
    """

    batch: int
    start: float
    end: float
    wait_milliseconds: float
    queue_state: str | None
    sequences: int
    tokens: int
    longest: int
    packing_efficiency: float | None = None
    retries: int = 0


def batches_table(
    shard: int, batches: Sequence[BatchRecord], seconds: FloatArray, utilization: FloatArray, energy: FloatArray
) -> pa.Table:
    """One row per batch; NaN in the joined quantities becomes null."""
    rate = [b.tokens / s if s > 0 else None for b, s in zip(batches, seconds.tolist(), strict=True)]
    kept = ("batch", "start", "end", "wait_milliseconds", "queue_state", "sequences", "tokens", "longest")
    columns: dict[str, Any] = {name: [getattr(b, name) for b in batches] for name in kept}
    columns["shard"] = [shard] * len(batches)
    columns["packing_efficiency"] = [b.packing_efficiency for b in batches]
    columns["retries"] = [b.retries for b in batches]
    columns["tokens_per_second"] = rate
    columns["device_utilization"] = _nulls(utilization)
    columns["energy_joules"] = _nulls(energy)
    return _table(columns, BATCHES_SCHEMA)


def samples_table(run: ShardRun, samples: Sequence[Sample]) -> pa.Table:
    """One row per reading."""
    columns: dict[str, Any] = {
        field.name: [getattr(s, field.name) for s in samples]
        for field in GPU_METRICS_SCHEMA
        if field.name not in ("shard", "device_name", "device_uuid", "utilization_percent")
    }
    columns["utilization_percent"] = [s.utilization for s in samples]
    for name in ("shard", "device_name", "device_uuid"):
        columns[name] = [getattr(run, name)] * len(samples)
    return _table(columns, GPU_METRICS_SCHEMA)


def write_table(path: Path, table: pa.Table) -> None:
    """Write one small table, whole or not at all."""
    with PartialParquet(path, table.schema, compression="zstd") as file:
        file.write(table)


def _table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def _nulls(values: FloatArray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]
