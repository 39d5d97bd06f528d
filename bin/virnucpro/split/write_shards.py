"""Third pass of a split: write one shard, its sequences sorted by length, in bounded memory.

The place of every sequence in the shard follows from the lengths alone, so that the texts are read in their own
order, once for each window of the output.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.config import Windows
from virnucpro.errors import DataError
from virnucpro.fasta_source import RECORD_BYTES
from virnucpro.shards import cost_units
from virnucpro.split.columns import joined, numbers, offsets_of, pieces, strings
from virnucpro.split.spool import Spool, SpooledBlock, write_all
from virnucpro.windows import computed_tokens, window_counts

#: Bytes of shards put together in memory at once, by all processes. A shard larger than its process's part takes
#: another pass over its texts for each.
WINDOW_BYTES: Final = 384 << 20
#: Sequences written at once: few enough that their lines stay in the processor's cache until they are written.
LINES_AT_ONCE: Final = 4096

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
    """Residues of a shard, tokens that are computed of it, and its cost in ``shards.cost_units``."""

    residues: int
    tokens: int
    cost_units: int


@dataclass(frozen=True)
class _Members:
    """The sequences of a shard that stand in one block: their rows, indices, residues, and bytes of their lines."""

    block: SpooledBlock
    rows: Array
    unique: Array
    lengths: Array
    sizes: Array


def write_shard(
    spool: Spool, task: ShardTask, embed_dim: int, window_bytes: int, windows: Windows | None = None
) -> ShardTotals:
    """Write a shard, longest sequence first, equal lengths by index (a task of ``Workers``)."""
    by_length = np.zeros(1, np.int64)
    unique = task.first_unique
    residues = tokens = cost = 0
    for lengths in spool.embedded_lengths(task.first_unique, task.sequences):
        sizes = _line_bytes(lengths, np.arange(unique, unique + len(lengths)))
        counted = np.bincount(lengths, weights=sizes).astype(np.int64)
        if len(counted) > len(by_length):
            by_length = np.pad(by_length, (0, len(counted) - len(by_length)))
        by_length[: len(counted)] += counted
        unique += len(lengths)
        residues += int(lengths.sum(dtype=np.int64))
        computed = computed_tokens(lengths, windows)
        tokens += int(computed.sum())
        cost += int(cost_units(computed, embed_dim, window_counts(lengths, windows)).sum())
    total = int(by_length.sum())
    first_positions = total - np.cumsum(by_length)
    with task.path.open("wb", buffering=0) as shard:
        for window in range(0, total, window_bytes):
            for number, lines in enumerate(
                _window(spool, task, first_positions.copy(), range(window, window + window_bytes))
            ):
                # Each line end stands before its header, and the first has none before it.
                write_all(shard, memoryview(lines)[1 if window == number == 0 else 0 :])
        write_all(shard, memoryview(b"\n"))
    return ShardTotals(residues, tokens, cost)


def _window(spool: Spool, task: ShardTask, positions: Array, window: range) -> Iterator[pa.Buffer]:
    """Yield the lines of every sequence that begins in the window, in order, each header after a line end."""
    text = _buffer(len(window) + RECORD_BYTES)
    filled = 0
    found: list[tuple[Array, Array, Array]] = []
    for members in _members(spool, task):
        places = _places(members, positions)
        chosen = np.flatnonzero((places >= window.start) & (places < window.stop))
        if len(chosen):
            taken = _residues(spool, members, chosen)
            text[filled : filled + len(taken)] = taken
            filled += len(taken)
            found.append((places[chosen], members.unique[chosen], members.lengths[chosen]))
    if not found:
        return
    places, unique, lengths = (np.concatenate(column) for column in zip(*found, strict=True))
    headers = _headers(unique)
    text[filled : filled + len(headers)] = headers
    sizes = np.concatenate((lengths, _digits(unique) + len("\n>\n")))
    parts = strings(pa.py_buffer(text), offsets_of(sizes))
    order = np.argsort(places)
    for start in range(0, len(order), LINES_AT_ONCE):
        rows = order[start : start + LINES_AT_ONCE]
        yield parts.take(numbers(np.column_stack((len(order) + rows, rows)).ravel())).buffers()[2]


def _headers(unique: Array) -> bytes:
    """Headers between line ends, end to end; ``unique`` rises."""
    digits = _digits(unique)
    headers = []
    for count in range(int(digits[0]), int(digits[-1]) + 1):
        left = unique[slice(*np.searchsorted(digits, (count, count + 1)).tolist())]
        lines = np.full((len(left), count + len("\n>\n")), ord("\n"), np.uint8)
        lines[:, 1] = ord(">")
        for column in range(count + 1, 1, -1):
            rest = left // 10
            lines[:, column] = left - 10 * rest + ord("0")
            left = rest
        headers.append(lines.tobytes())
    return b"".join(headers)


def _digits(unique: Array) -> Array:
    return np.searchsorted(_POWERS_OF_TEN, unique, side="right") + 1


@lru_cache(maxsize=1)
def _buffer(size: int) -> mmap.mmap:
    """Room for a window, kept for the next: fresh memory costs more than what is written to it."""
    room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        room.madvise(mmap.MADV_HUGEPAGE)
    return room


def _residues(spool: Spool, members: _Members, chosen: Array) -> bytes:
    """The chosen sequences of a block, end to end."""
    text = spool.load(members.block.text)
    taken = joined(pieces(text, spool.places(members.block), 0, members.rows[chosen])).tobytes()
    residues = taken.replace(b"\n", b"")
    if len(residues) != members.lengths[chosen].sum():
        raise DataError(f"{members.block.text.file}: changed while it was read; run again once it is complete")
    return residues


def _places(members: _Members, positions: Array) -> Array:
    """Position of each sequence in the shard; advances ``positions``, the next free one for each length."""
    short = members.lengths.max() <= np.iinfo(np.uint16).max
    order = np.argsort(members.lengths.astype(np.uint16) if short else members.lengths, kind="stable")
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
        first = max(task.first_unique, block.first_unique)
        stop = min(task.first_unique + task.sequences, block.first_unique + block.embedded)
        if first >= stop:
            continue
        rows = spool.read("embedded_ordinals", first, stop - first) - block.first_ordinal
        unique = np.arange(first, stop)
        lengths = spool.read("embedded_lengths", first, stop - first)
        yield _Members(block, rows, unique, lengths, _line_bytes(lengths, unique))


def _line_bytes(lengths: Array, unique: Array) -> Array:
    """Bytes of the two lines of each sequence."""
    return lengths + _digits(unique) + len(">\n\n")
