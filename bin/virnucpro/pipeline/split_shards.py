"""Third pass of a split: write one shard, its sequences sorted by length, in bounded memory.

The place of every sequence in the shard follows from the lengths alone, so that the spool is read in its own order
and each sequence is put where it belongs in a window of the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from virnucpro.pipeline.split_spool import EMBEDDED, Block, Spool
from virnucpro.shards import SPECIAL_TOKENS, cost_units

#: Bytes of a shard put together in memory; a larger shard takes another pass over its part of the spool for each.
WINDOW_BYTES: Final = 1 << 28

_POWERS_OF_TEN: Final = 10 ** np.arange(1, 19, dtype=np.int64)
_LINE: Final = b">%d\n%b\n"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ShardTask:
    """A shard to write: ``sequences`` distinct sequences from ``first_unique`` on."""

    path: Path
    first_unique: int
    sequences: int


@dataclass(frozen=True)
class ShardTotals:
    """Residues of a shard, and its cost in units of ``shards.cost_per_unit``."""

    residues: int
    cost_units: int


@dataclass(frozen=True)
class _Members:
    """The sequences of a shard that stand in one block; offsets are within the block's sequences."""

    block: Block
    unique: Array
    lengths: Array
    offsets: Array
    sizes: Array


def write_shard(spool: Spool, task: ShardTask, embed_dim: int) -> ShardTotals:
    """Write a shard, longest sequence first, equal lengths by index (a task of ``Workers``)."""
    by_length = np.zeros(1, np.int64)
    residues = cost = 0
    for members in _members(spool, task):
        counted = np.bincount(members.lengths, weights=members.sizes).astype(np.int64)
        if len(counted) > len(by_length):
            by_length = np.pad(by_length, (0, len(counted) - len(by_length)))
        by_length[: len(counted)] += counted
        residues += int(members.lengths.sum())
        cost += int(cost_units(members.lengths + SPECIAL_TOKENS, embed_dim).sum())
    total = int(by_length.sum())
    first_positions = total - np.cumsum(by_length)
    longest = len(by_length) + len(_LINE) + len(_POWERS_OF_TEN)
    window = bytearray(min(total, WINDOW_BYTES + longest))
    written = 0
    with task.path.open("wb") as shard:
        for window_start in range(0, total, WINDOW_BYTES):
            end = _fill(spool, task, first_positions.copy(), window, window_start)
            if end > written:
                shard.write(memoryview(window)[written - window_start : end - window_start])
                written = end
    return ShardTotals(residues, cost)


def _fill(spool: Spool, task: ShardTask, positions: Array, window: bytearray, window_start: int) -> int:
    """Put every sequence that begins in the window in its place; return where the last one ends in the shard."""
    view = memoryview(window)
    end = window_start
    for members in _members(spool, task):
        places = _places(members, positions) - window_start
        chosen = np.flatnonzero((places >= 0) & (places < WINDOW_BYTES))
        if not len(chosen):
            continue
        sequences = spool.load(members.block.sequences)
        places = places[chosen]
        starts = members.offsets[chosen]
        ends = places + members.sizes[chosen]
        end = max(end, window_start + int(ends.max()))
        for place, place_end, unique, start, stop in zip(
            places.tolist(),
            ends.tolist(),
            members.unique[chosen].tolist(),
            starts.tolist(),
            (starts + members.lengths[chosen]).tolist(),
            strict=True,
        ):
            view[place:place_end] = _LINE % (unique, sequences[start:stop])
    return end


def _places(members: _Members, positions: Array) -> Array:
    """Position of each sequence in the shard; advances ``positions``, the next free one for each length."""
    order = np.argsort(members.lengths, kind="stable")
    lengths, sizes = members.lengths[order], members.sizes[order]
    before = np.cumsum(sizes) - sizes
    starts = np.concatenate(([0], np.flatnonzero(np.diff(lengths)) + 1))
    group_sizes = np.add.reduceat(sizes, starts)
    shift = positions[lengths[starts]] - before[starts]
    positions[lengths[starts]] += group_sizes
    places = np.empty(len(order), np.int64)
    places[order] = before + np.repeat(shift, np.diff(np.append(starts, len(order))))
    return places


def _members(spool: Spool, task: ShardTask) -> Iterator[_Members]:
    for block in spool.blocks:
        kept = spool.kept_lengths(block)
        embedded = np.flatnonzero(spool.read("status", block.first_ordinal, block.records) == EMBEDDED)
        first = max(task.first_unique - block.first_unique, 0)
        stop = min(task.first_unique + task.sequences - block.first_unique, len(embedded))
        if first >= stop:
            continue
        chosen = embedded[first:stop]
        unique = block.first_unique + np.arange(first, stop)
        lengths = kept[chosen]
        digits = np.searchsorted(_POWERS_OF_TEN, unique, side="right") + 1
        yield _Members(block, unique, lengths, (np.cumsum(kept) - kept)[chosen], lengths + digits + len(">\n\n"))
