"""Columns of the metrics files; docs/output.md is tested against them."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

import pyarrow as pa

from virnucpro.output.contracts import ShardSummary

_NAMES: Final = pa.dictionary(pa.int32(), pa.string())

GPU_METRICS_SCHEMA: Final = pa.schema(
    [
        ("shard", pa.int32()),
        ("time", pa.float64()),
        ("stage", _NAMES),
        ("device_name", _NAMES),
        ("device_uuid", _NAMES),
        ("utilization_percent", pa.float32()),
        ("memory_used_bytes", pa.int64()),
        ("power_watts", pa.float32()),
        ("sm_clock_megahertz", pa.int32()),
        ("temperature_celsius", pa.int32()),
        ("throttle_reasons", _NAMES),
        ("energy_counter_joules", pa.float64()),
    ]
)

BATCHES_SCHEMA: Final = pa.schema(
    [
        ("shard", pa.int32()),
        ("batch", pa.int32()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("wait_milliseconds", pa.float32()),
        ("queue_state", _NAMES),
        ("sequences", pa.int32()),
        ("tokens", pa.int64()),
        ("longest", pa.int32()),
        ("packing_efficiency", pa.float32()),
        ("retries", pa.int32()),
        ("tokens_per_second", pa.float32()),
        ("device_utilization", pa.float32()),
        ("energy_joules", pa.float64()),
    ]
)

#: One row per shard: these fields of its summary.json, and its attention back end.
_SHARD_COLUMNS: Final = (
    "shard", "device_name", "device_uuid", "host", "attention", "started", "finished", "wall_seconds",
    "startup_seconds", "starved_seconds", "compute_seconds", "write_seconds", "batches", "sequences", "tokens",
    "retries", "sequences_per_second", "tokens_per_second", "teraflops_per_second", "matrix_teraflops_per_second",
    "matrix_share", "packing_efficiency", "loader_wait_seconds", "writer_wait_seconds", "avg_wait_time_ms",
    "p95_wait_time_ms", "max_wait_time_ms", "pct_starved", "utilization_percent", "mean_power_watts",
    "peak_memory_bytes", "energy_joules", "startup_energy_joules", "batch_energy_joules", "energy_source",
    "self_check", "greatest_residue_l2", "least_pooled_cosine", "bottleneck", "bottleneck_cause", "verdict",
)  # fmt: skip
_SMALL: Final = ("shard", "batches", "retries")


def _shards_schema() -> pa.Schema:
    arrow = {"int": pa.int64(), "float": pa.float64(), "str": pa.string()}
    kinds = {each.name: arrow.get(str(each.type).split(" | ")[0]) for each in fields(ShardSummary)}
    kinds |= {"attention": pa.string(), **dict.fromkeys(_SMALL, pa.int32())}
    return pa.schema([(name, kinds[name]) for name in _SHARD_COLUMNS])


SHARDS_SCHEMA: Final = _shards_schema()
