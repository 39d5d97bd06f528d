"""Device readings of a whole run on one wall clock, averaged into bins so that a long run fits a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from virnucpro.output.damage import REMEDY_OF_RESULTS, reading

#: Quantities drawn, by their column in gpu_metrics.parquet, with the factor that brings them to the unit shown.
QUANTITIES: Final = {"utilization_percent": 1.0, "power_watts": 1.0, "memory_used_bytes": 2.0**-30}

#: Points of one quantity over all lines; more make the page large and show nothing more.
_MOST_POINTS: Final = 12_000
_MOST_BINS: Final = 600
_FEWEST_BINS: Final = 60
#: Readings held in memory at a time.
_BATCH_ROWS: Final = 131_072


@dataclass
class DeviceSeries:
    """Lines over time: quantity, then line name, then points of minutes since the run began and the bin's mean."""

    lines: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)

    def has(self, quantity: str) -> bool:
        """Whether anything was read of the quantity."""
        return bool(self.lines.get(quantity))


def bins_for(run_seconds: float, shard_seconds: float) -> int:
    """Bins over the run such that all lines together stay below a bound.

    Args:
        run_seconds: wall time of the whole run.
        shard_seconds: wall times of the shards, summed: over ``run_seconds`` the mean number of lines at a time.
    """
    at_a_time = max(1.0, shard_seconds / max(run_seconds, 1e-9))
    return int(np.clip(_MOST_POINTS / at_a_time, _FEWEST_BINS, _MOST_BINS))


def read_device_series(
    path: Path, line_of_shard: Mapping[int, str], began: float, ended: float, bins: int
) -> DeviceSeries:
    """Average the readings of ``gpu_metrics.parquet`` into ``bins`` bins from ``began`` to ``ended`` (unix seconds).

    Memory does not grow with the number of readings. Readings of shards that have no line, or from outside the run,
    are left out.
    """
    names = sorted(set(line_of_shard.values()))
    row_of = {name: row for row, name in enumerate(names)}
    largest = max(line_of_shard, default=-1)
    line = np.full(largest + 2, -1)
    for shard, name in line_of_shard.items():
        line[shard] = row_of[name]
    sums = {quantity: np.zeros((len(names), bins)) for quantity in QUANTITIES}
    counts = {quantity: np.zeros((len(names), bins)) for quantity in QUANTITIES}
    width = max(ended - began, 1e-9) / bins
    columns = ["shard", "time", *QUANTITIES]
    with reading(path, REMEDY_OF_RESULTS), pq.ParquetFile(path) as readings:
        for batch in readings.iter_batches(_BATCH_ROWS, columns=columns):
            shard = np.clip(_numbers(batch["shard"], -1), -1, largest + 1).astype(np.int64)
            time_bin = np.floor((_numbers(batch["time"], np.nan) - began) / width)
            time_bin = np.where(time_bin == bins, bins - 1, time_bin)
            inside = (line[shard] >= 0) & (time_bin >= 0) & (time_bin < bins)
            for quantity in QUANTITIES:
                values = _numbers(batch[quantity], np.nan)
                known = inside & np.isfinite(values)
                cell = line[shard[known]] * bins + time_bin[known].astype(np.int64)
                size = len(names) * bins
                sums[quantity] += np.bincount(cell, values[known], size).reshape(-1, bins)
                counts[quantity] += np.bincount(cell, minlength=size).reshape(-1, bins)
    series = DeviceSeries()
    middles = (np.arange(bins) + 0.5) * width / 60
    for quantity, factor in QUANTITIES.items():
        series.lines[quantity] = _lines(names, sums[quantity] * factor, counts[quantity], middles)
    return series


def _numbers(column: pa.Array, missing: float) -> np.ndarray:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), missing))


def _lines(
    names: list[str], sums: np.ndarray, counts: np.ndarray, middles: np.ndarray
) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row, name in enumerate(names):
        filled = np.flatnonzero(counts[row])
        if filled.size:
            means = sums[row, filled] / counts[row, filled]
            lines[name] = [
                (round(float(minute), 3), round(float(mean), 2))
                for minute, mean in zip(middles[filled], means, strict=True)
            ]
    return lines
