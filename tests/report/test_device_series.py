"""Readings of the device on one wall clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from virnucpro.monitor.schema import GPU_METRICS_SCHEMA
from virnucpro.report.device_series import bins_for, read_device_series


def write_readings(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=GPU_METRICS_SCHEMA), path)
    return path


def test_readings_are_averaged_into_bins_of_the_run(tmp_path: Path) -> None:
    rows = [
        {"shard": shard, "time": 1000.0 + second, "utilization_percent": value, "memory_used_bytes": 3 << 30}
        for shard, second, value in [(0, 0, 10), (0, 30, 30), (0, 70, 50), (1, 130, 80), (1, 180, 90)]
    ]
    path = write_readings(tmp_path / "gpu.parquet", rows)
    series = read_device_series(path, {0: "a", 1: "b"}, 1000.0, 1180.0, 3)
    assert series.lines["utilization_percent"] == {"a": [(0.5, 20.0), (1.5, 50.0)], "b": [(2.5, 85.0)]}
    assert series.lines["memory_used_bytes"]["a"][0] == (0.5, 3.0)
    assert not series.has("power_watts")


def test_shards_of_one_line_are_averaged_together(tmp_path: Path) -> None:
    rows = [{"shard": shard, "time": 1.0, "power_watts": float(100 * shard)} for shard in (1, 2, 3)]
    series = read_device_series(write_readings(tmp_path / "gpu.parquet", rows), {1: "gpu", 2: "gpu"}, 0.0, 2.0, 1)
    assert series.lines["power_watts"] == {"gpu": [(0.017, 150.0)]}


def test_readings_outside_the_run_or_missing_are_left_out(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"shard": 0, "time": -5.0, "power_watts": 1.0},
        {"shard": 0, "time": 50.0, "power_watts": 1.0},
        {"shard": 0, "time": None, "power_watts": 1.0},
        {"shard": None, "time": 1.0, "power_watts": 1.0},
        {"shard": 7, "time": 1.0, "power_watts": 1.0},
        {"shard": 0, "time": 1.0, "power_watts": None},
    ]
    series = read_device_series(write_readings(tmp_path / "gpu.parquet", rows), {0: "a"}, 0.0, 10.0, 5)
    assert not series.has("power_watts")


@pytest.mark.parametrize("shards_at_a_time", [1, 8, 64, 1000])
def test_points_stay_bounded_however_many_shards_run_at_a_time(shards_at_a_time: int) -> None:
    bins = bins_for(3600.0, 3600.0 * shards_at_a_time)
    assert 60 <= bins <= 600
    assert bins * min(shards_at_a_time, 60) <= 12_000


def test_a_run_without_readings_has_no_lines(tmp_path: Path) -> None:
    series = read_device_series(write_readings(tmp_path / "gpu.parquet", []), {0: "a"}, 0.0, 10.0, 5)
    assert not any(series.has(quantity) for quantity in series.lines)
    assert np.array_equal(list(series.lines), ["utilization_percent", "power_watts", "memory_used_bytes"])
