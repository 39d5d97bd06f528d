"""From distinct sequences and their neighbours to records and theirs.

G distinct sequences of the run, C nearest distinct ones of each, K neighbours asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.neighbours.results import Results

Array = npt.NDArray[Any]

#: Distinct sequences, and pairs, worked on at a time.
_GROUPS: Final = 65_536
_PAIRS: Final = 1 << 20


def pair_tables(
    run: Results, reference: Results, cosines: Array, groups: Array, count: int, schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yield tables of pairs, at least one: each record with its ``count`` nearest, nearest first.

    A record is no neighbour of itself; others of the same sequence are. Of equal cosines the lower ordinal is nearer.

    Args:
        run, reference: whose records, among whose; the same object for a run against itself.
        cosines, groups: (G, C) of ``search``, with C at least ``count`` + 1 where there are so many.
        schema: of the tables.
    """
    count = min(count, len(reference.groups))
    members, nearest = _nearest_records(reference, cosines, groups, count + 1)
    step = max(1, _PAIRS // (count + 1))
    for start in range(0, max(len(run.groups), 1), step):
        own = np.arange(start, min(start + step, len(run.groups)))
        found, cosine = members[run.groups[own]], nearest[run.groups[own]]
        absent = found < 0
        if run is reference:
            absent |= found == own[:, None]
        kept = np.argsort(absent, axis=1, kind="stable")[:, :count]
        there = ~np.take_along_axis(absent, kept, axis=1)
        found = np.take_along_axis(found, kept, axis=1)[there]
        rows, ranks = np.nonzero(there)
        columns = {
            "ordinal": run.ordinals[own[rows]],
            "id": run.ids.take(pa.array(own[rows])).cast(pa.string()),
            "rank": (ranks + 1).astype(np.int32),
            "neighbour_ordinal": reference.ordinals[found],
            "neighbour_id": reference.ids.take(pa.array(found)).cast(pa.string()),
            "cosine": np.take_along_axis(cosine, kept, axis=1)[there].astype(np.float32),
        }
        yield pa.table(columns, schema=schema)


def _nearest_records(reference: Results, cosines: Array, groups: Array, count: int) -> tuple[Array, Array]:
    """The (G, count) nearest records of each distinct sequence, -1 where there are fewer, and their cosines."""
    by_group = np.argsort(reference.groups, kind="stable")
    sizes = np.bincount(reference.groups, minlength=reference.distinct)
    starts = np.cumsum(sizes) - sizes
    records = np.full((len(groups), count), -1, np.int64)
    nearest = np.zeros((len(groups), count))
    for begin, end, taken in _steps(cosines, groups, sizes, count):
        part = groups[begin:end]
        repeats, total = taken.ravel(), int(taken.sum())
        within = np.arange(total) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        record = by_group[np.repeat(starts[part].ravel(), repeats) + within]
        cosine = np.repeat(cosines[begin:end].ravel(), repeats)
        query = np.repeat(np.arange(len(part)), taken.sum(axis=1))
        order = np.lexsort((record, -cosine, query))
        rank = np.arange(total) - np.searchsorted(query, query)
        chosen = rank < count
        records[begin + query[chosen], rank[chosen]] = record[order][chosen]
        nearest[begin + query[chosen], rank[chosen]] = cosine[order][chosen]
    return records, nearest


def _steps(cosines: Array, groups: Array, sizes: Array, count: int) -> Iterator[tuple[int, int, Array]]:
    """Rows of ``groups`` from one to before another, and how many records of each sequence there may be nearest.

    As many rows at once as have ``_PAIRS`` of these; one row may have more.
    """
    for first in range(0, len(groups), _GROUPS):
        cosine = cosines[first : first + _GROUPS]
        taken = np.minimum(sizes[groups[first : first + _GROUPS]], count)
        # Where nearer sequences have ``count`` records, others have none of the nearest, unless they are as near.
        nearer = np.cumsum(taken, axis=1) - taken
        furthest = np.where(nearer < count, cosine, np.inf).min(axis=1, keepdims=True, initial=np.inf)
        taken[cosine < furthest] = 0
        ends = np.cumsum(taken.sum(axis=1))
        begin = 0
        while begin < len(taken):
            limit = _PAIRS + (ends[begin - 1] if begin else 0)
            end = max(begin + 1, int(np.searchsorted(ends, limit, side="right")))
            yield first + begin, first + end, taken[begin:end]
            begin = end
