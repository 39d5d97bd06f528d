"""The shard plan: which distinct sequences go together, so that every shard costs the GPU the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]

#: <cls> and <eos> stand around every sequence.
SPECIAL_TOKENS: Final = 2
#: What the names of all shards match.
SHARD_NAMES: Final = "shard-*"


def floating_point_operations(units: int, layers: Sequence[int], embed_dim: int) -> int:
    """What a model computes of sequences of so many cost units for the (absolute) layers asked for.

    A sequence of n tokens, ``<cls>`` and ``<eos>`` counted, takes 24·L·d²·n for the projections and the feed-forward
    network and 4·L·d·n² for attention. L is the highest layer asked for: those above it are not computed.
    """
    return 4 * max(layers) * embed_dim * units


def cost_units(
    tokens: npt.NDArray[np.integer], embed_dim: int, pieces: npt.NDArray[np.integer] | int = 1
) -> Int64Array:
    """Cost of each sequence divided by 4·L·d: whole numbers, so that sums are exact in any order.

    ``pieces`` are those of equal size that the tokens of a sequence are computed in.
    """
    n = tokens.astype(np.int64)
    units: Int64Array = n * (6 * embed_dim + n // pieces)
    return units


def total_cost_units(tokens: int, squared_tokens: int, embed_dim: int) -> int:
    """The sum of ``cost_units`` over sequences, from the sums of their tokens and of the squares of these.

    Of a sequence in pieces, the squares are those of its pieces.
    """
    return 6 * embed_dim * tokens + squared_tokens


def shard_count(sequences: int, wanted: int, at_least: int) -> int:
    """Number of shards: as many as ``wanted``, at least ``at_least``, never more than there are sequences."""
    return min(sequences, max(at_least, wanted))


def shard_starts(costs: Iterable[Int64Array], sequences: int, total_cost: int, shards: int) -> Int64Array:
    """First sequence of each shard, from the costs of all sequences in order, in chunks of any size.

    A sequence belongs to the shard in which the middle of its cost falls; then every shard gets at least one.

    Args:
        costs: chunks of cost units.
        sequences: how many costs there are in all.
        total_cost: their sum.
        shards: number of shards, at most ``sequences``.
    """
    edges = [2 * k * total_cost // shards for k in range(1, shards)]
    starts = np.zeros(shards, np.int64)
    before, first, found = 0, 0, 1
    for chunk in costs:
        doubled_middles = 2 * (np.cumsum(chunk) + before) - chunk
        last = int(doubled_middles[-1]) if len(chunk) else -1
        stop = found
        while stop < shards and edges[stop - 1] <= last:
            stop += 1
        starts[found:stop] = first + np.searchsorted(doubled_middles, np.array(edges[found - 1 : stop - 1], np.int64))
        found = stop
        before += int(chunk.sum())
        first += len(chunk)
    starts[found:] = sequences
    ranks = np.arange(shards)
    starts = np.maximum.accumulate(starts - ranks) + ranks
    return np.minimum(starts, sequences - shards + ranks)


def shard_name(shard: int) -> str:
    """Name of a shard, without suffix."""
    return f"shard-{shard:05d}"


def shard_number(name: str) -> int | None:
    """The number of a shard by its name, or None of another name."""
    match = re.fullmatch(r"shard-(\d{5,})", name)
    return int(match[1]) if match else None
