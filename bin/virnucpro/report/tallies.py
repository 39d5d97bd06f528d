"""What the page counts over the ledger and the batches, in memory that does not grow with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from virnucpro.monitor.metrics import STARTUP
from virnucpro.output.damage import REMEDY_OF_RESULTS, reading
from virnucpro.output.schema import LATER_FACTS

#: Longer sequences count as this long; the longest protein known has 45,000 residues.
LONGEST: Final = 100_000
_BATCH_ROWS: Final = 131_072
#: Bins of the packing histogram, over 0 to 100 %.
_PACKING_BINS: Final = 100


@dataclass
class RecordTally:
    """The ledger in numbers; ``*_lengths`` hold the number of records at each length in residues.

    ``beyond_trained_length`` is None of a ledger of an earlier version, which does not tell.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    beyond_trained_length: int | None = None
    record_lengths: np.ndarray = field(default_factory=lambda: np.zeros(LONGEST + 1, np.int64))
    embedded_lengths: np.ndarray = field(default_factory=lambda: np.zeros(LONGEST + 1, np.int64))


@dataclass
class BatchTally:
    """Batches by shard: their queue states, the milliseconds waited, and packing in percent (counts of 100 bins).

    ``waited`` leaves out the wait for a shard's first batch, which is start-up.
    """

    queue_states: dict[int, Counter[str]] = field(default_factory=dict)
    waited: dict[int, float] = field(default_factory=dict)
    packing: np.ndarray = field(default_factory=lambda: np.zeros(_PACKING_BINS, np.int64))


def tally_records(manifest: Path) -> RecordTally:
    """Count the ledger."""
    tally = RecordTally()
    with reading(manifest, REMEDY_OF_RESULTS), pq.ParquetFile(manifest) as ledger:
        columns = ["length", "truncated", "status", "reason"]
        later = [name for name in LATER_FACTS if name in ledger.schema_arrow.names]
        for batch in ledger.iter_batches(_BATCH_ROWS, columns=[*columns, *later]):
            status = batch["status"].cast(pa.string())
            tally.statuses.update(_counts(status))
            tally.reasons.update(_counts(batch["reason"].drop_null().cast(pa.string())))
            for name in ("truncated", *later):
                setattr(tally, name, (getattr(tally, name) or 0) + (pc.sum(batch[name]).as_py() or 0))
            lengths = np.clip(pc.fill_null(batch["length"], 0).to_numpy(zero_copy_only=False), 0, LONGEST)
            accepted = pc.not_equal(status, "rejected").to_numpy(zero_copy_only=False)
            embedded = pc.equal(status, "embedded").to_numpy(zero_copy_only=False)
            tally.record_lengths += np.bincount(lengths[accepted], minlength=LONGEST + 1)
            tally.embedded_lengths += np.bincount(lengths[embedded], minlength=LONGEST + 1)
    return tally


def tally_batches(batches: Path) -> BatchTally:
    """Count the batches."""
    tally = BatchTally()
    columns = ["shard", "queue_state", "wait_milliseconds", "packing_efficiency"]
    with reading(batches, REMEDY_OF_RESULTS), pq.ParquetFile(batches) as opened:
        for batch in opened.iter_batches(_BATCH_ROWS, columns=columns):
            grouped = (
                pa.table(
                    {
                        "shard": batch["shard"],
                        "state": batch["queue_state"].cast(pa.string()),
                        "wait": batch["wait_milliseconds"],
                    }
                )
                .group_by(["shard", "state"])
                .aggregate([("wait", "sum"), ([], "count_all")])
            )
            for row in grouped.to_pylist():
                shard = row["shard"]
                tally.queue_states.setdefault(shard, Counter())[row["state"] or "unknown"] += row["count_all"]
                waited = 0.0 if row["state"] == STARTUP else row["wait_sum"] or 0.0
                tally.waited[shard] = tally.waited.get(shard, 0.0) + waited
            efficiency = batch["packing_efficiency"].drop_null().to_numpy(zero_copy_only=False)
            bins = np.clip((efficiency * _PACKING_BINS).astype(np.int64), 0, _PACKING_BINS - 1)
            tally.packing += np.bincount(bins, minlength=_PACKING_BINS)
    return tally


def length_histogram(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Sum per-length counts into the bins ``[edges[i], edges[i + 1])``; the last takes all that is longer."""
    summed = np.add.reduceat(counts, edges[:-1])
    return np.asarray(summed)


def length_edges(counts: np.ndarray, bins: int = 80) -> np.ndarray:
    """Edges of bins of equal width, a multiple of ten, up to the length that all but one record in 1,000 keep to."""
    running = np.cumsum(counts)
    total = int(running[-1]) if running.size else 0
    if total == 0:
        return np.array([0, 10])
    top = int(np.searchsorted(running, 0.999 * total))
    width = max(10, -(-top // (bins * 10)) * 10)
    return np.arange(0, top + width + 1, width)


def _counts(values: pa.Array) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}
