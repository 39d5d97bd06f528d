"""Columns of the metrics files; docs/output.md is tested against them."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

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

#: One row per shard: these keys of its summary.json.
SHARDS_SCHEMA: Final = pa.schema(
    [
        ("shard", pa.int32()),
        ("device_name", pa.string()),
        ("device_uuid", pa.string()),
        ("host", pa.string()),
        ("attention", pa.string()),
        ("started", pa.float64()),
        ("finished", pa.float64()),
        ("wall_seconds", pa.float64()),
        ("startup_seconds", pa.float64()),
        ("starved_seconds", pa.float64()),
        ("compute_seconds", pa.float64()),
        ("write_seconds", pa.float64()),
        ("batches", pa.int32()),
        ("sequences", pa.int64()),
        ("tokens", pa.int64()),
        ("retries", pa.int32()),
        ("sequences_per_second", pa.float64()),
        ("tokens_per_second", pa.float64()),
        ("teraflops_per_second", pa.float64()),
        ("matrix_teraflops_per_second", pa.float64()),
        ("matrix_share", pa.float64()),
        ("packing_efficiency", pa.float64()),
        ("loader_wait_seconds", pa.float64()),
        ("writer_wait_seconds", pa.float64()),
        ("avg_wait_time_ms", pa.float64()),
        ("p95_wait_time_ms", pa.float64()),
        ("max_wait_time_ms", pa.float64()),
        ("pct_starved", pa.float64()),
        ("utilization_percent", pa.float64()),
        ("mean_power_watts", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
        ("energy_joules", pa.float64()),
        ("startup_energy_joules", pa.float64()),
        ("batch_energy_joules", pa.float64()),
        ("energy_source", pa.string()),
        ("bottleneck", pa.string()),
        ("bottleneck_cause", pa.string()),
        ("verdict", pa.string()),
    ]
)
