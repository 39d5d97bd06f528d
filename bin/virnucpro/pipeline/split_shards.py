"""Third pass of a split: write one shard, its sequences sorted by length, in bounded memory.

The place of every sequence in the shard follows from the lengths alone, so that the spool is read in its own order,
once for each window of the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from virnucpro.pipeline.split_columns import numbers, strings, texts
from virnucpro.pipeline.split_spool import EMBEDDED, Block, Spool
from virnucpro.shards import SPECIAL_TOKENS, cost_units

#: Bytes of a shard put together in memory; a larger shard takes another pass over its part of the spool for each.
WINDOW_BYTES: Final = 1 << 27

_POWERS_OF_TEN: Final = 10 ** np.arange(1, 19, dtype=np.int64)

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
    """The sequences of a shard that stand in one block: their rows, and the offsets of all rows of the block."""

    block: Block
    offsets: Array
    rows: Array
    unique: Array
    lengths: Array
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
    with task.path.open("wb") as shard:
        for window_start in range(0, total, WINDOW_BYTES):
            for lines in _window(spool, task, first_positions.copy(), window_start):
                shard.write(lines)
    return ShardTotals(residues, cost)


def _window(spool: Spool, task: ShardTask, positions: Array, window_start: int) -> Iterator[pa.Buffer]:
    """Yield the lines of every sequence that begins in the window, in order; at most one buffer."""
    sequences: list[pa.StringArray] = []
    found: list[tuple[Array, Array]] = []
    for members in _members(spool, task):
        places = _places(members, positions)
        chosen = np.flatnonzero((places >= window_start) & (places < window_start + WINDOW_BYTES))
        if len(chosen):
            block = strings(spool.load(members.block.sequences), members.offsets)
            sequences.append(block.take(numbers(members.rows[chosen])))
            found.append((places[chosen], members.unique[chosen]))
    if not sequences:
        return
    places, unique = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(places)
    begin, nothing, end = texts([">", "", "\n"])
    names = pc.binary_join_element_wise(begin, numbers(unique[order]).cast(pa.string()), nothing)
    sorted_sequences = pa.concat_arrays(sequences).take(numbers(order))
    del sequences
    lines = pc.binary_join_element_wise(names, sorted_sequences, nothing, end)
    yield lines.buffers()[2]


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
        rows = embedded[first:stop]
        unique = block.first_unique + np.arange(first, stop)
        lengths = kept[rows]
        offsets = np.zeros(len(kept) + 1, np.int32)
        np.cumsum(kept, out=offsets[1:])
        digits = np.searchsorted(_POWERS_OF_TEN, unique, side="right") + 1
        yield _Members(block, offsets, rows, unique, lengths, lengths + digits + len(">\n\n"))
