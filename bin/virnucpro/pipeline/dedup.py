"""Second pass of a split: give each distinct sequence its index, in the order of first appearance.

Keys are grouped one range of hash values at a time, so that memory does not depend on the number of records, but
for 8 bytes each of a file mapped into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from virnucpro.pipeline.split_spool import DUPLICATE, EMBEDDED, REJECTED, REUSED, Spool

#: Records grouped in memory at once, at about 70 bytes each.
PARTITION_RECORDS: Final = 1 << 22
#: Records read at once from the spool.
CHUNK_RECORDS: Final = 1 << 18
#: In the file of first ordinals: the sequence is in earlier results.
_IN_REUSE: Final = -2
_MODULUS: Final = 1 << 128

Array = npt.NDArray[Any]


class KnownKeys(Protocol):
    """Keys whose vectors exist already (``reuse.ReuseIndex``)."""

    def partition(self, partition: int, partitions: int) -> tuple[Array, Array, Array, Array]:
        """Distinct (high, low) of one hash range in ascending order, with their source and row."""


@dataclass
class DedupTotals:
    """How many records have which status; residues and the sum of keys (modulo 2^128) of the embedded ones."""

    embedded: int = 0
    duplicate: int = 0
    reused: int = 0
    residues: int = 0
    key_sum: int = 0


def deduplicate(spool: Spool, *, enabled: bool, known: KnownKeys | None) -> DedupTotals:
    """Write the columns ``unique`` and ``status`` (and those of reuse), and set ``first_unique`` of each block.

    Args:
        enabled: otherwise each record gets an index of its own.
        known: keys that need not be embedded.
    """
    records = spool.records
    if not records:
        raise ValueError("nothing to deduplicate")
    first = np.memmap(spool.path("unique"), np.int64, "w+", shape=(records,))
    reuse = _ReuseColumns(spool) if known is not None else None
    partitions = -(-records // PARTITION_RECORDS)
    for partition in range(partitions if enabled or known is not None else 0):
        _group(spool, partition, partitions, first, enabled, known, reuse)
    totals = _number(spool, first, grouped=enabled or known is not None)
    first.flush()
    return totals


class _ReuseColumns:
    """Source and row of reused records, -1 elsewhere; mapped into memory."""

    def __init__(self, spool: Spool) -> None:
        self.source = np.memmap(spool.path("reuse_source"), np.int32, "w+", shape=(spool.records,))
        self.row = np.memmap(spool.path("reuse_row"), np.int64, "w+", shape=(spool.records,))


def partition_of(high: Array, partitions: int) -> Array:
    """Hash range of each key: ``partitions`` equal ranges of its first 32 bits."""
    return (high >> np.uint64(32)) * np.uint64(partitions) >> np.uint64(32)


def sort_keys(high: Array, low: Array) -> Array:
    """Return the order that sorts keys; equal high words with unequal low words are rare, and looked for."""
    order = np.argsort(high)
    same = high[order[1:]] == high[order[:-1]]
    if (same & (low[order[1:]] != low[order[:-1]])).any():
        order = np.lexsort((low, high))
    return order


def group_starts(high: Array, low: Array) -> Array:
    """Where a new key begins in sorted keys."""
    changes = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return np.concatenate(([0], np.flatnonzero(changes) + 1))


def _group(
    spool: Spool,
    partition: int,
    partitions: int,
    first: Array,
    enabled: bool,
    known: KnownKeys | None,
    reuse: _ReuseColumns | None,
) -> None:
    """Write to ``first`` the ordinal of each record's first appearance, for one hash range."""
    high, low, ordinals = _select(spool, partition, partitions)
    if not len(high):
        return
    order = sort_keys(high, low)
    high, low, ordinals = high[order], low[order], ordinals[order]
    starts = group_starts(high, low)
    sizes = np.diff(np.append(starts, len(high)))
    first[ordinals] = np.repeat(np.minimum.reduceat(ordinals, starts), sizes) if enabled else ordinals
    if known is None or reuse is None:
        return
    known_high, known_low, source, row = known.partition(partition, partitions)
    if not len(known_high):
        return
    at, found = _find(high[starts], low[starts], known_high, known_low)
    members = np.repeat(found, sizes)
    first[ordinals[members]] = _IN_REUSE
    reuse.source[ordinals[members]] = np.repeat(source[at], sizes)[members]
    reuse.row[ordinals[members]] = np.repeat(row[at], sizes)[members]


def _select(spool: Spool, partition: int, partitions: int) -> tuple[Array, Array, Array]:
    """Keys and ordinals of the records of one hash range, rejected ones left out."""
    parts: list[tuple[Array, Array, Array]] = []
    for start in range(0, spool.records, CHUNK_RECORDS):
        keys = spool.read("keys", start, CHUNK_RECORDS)
        high = keys["high"].astype(np.uint64)
        chosen = spool.read("lengths", start, CHUNK_RECORDS) >= 0
        if partitions > 1:
            chosen &= partition_of(high, partitions) == partition
        parts.append((high[chosen], keys["low"][chosen].astype(np.uint64), np.flatnonzero(chosen) + start))
    high, low, ordinals = (np.concatenate(column) for column in zip(*parts, strict=True))
    return high, low, ordinals


def _find(high: Array, low: Array, known_high: Array, known_low: Array) -> tuple[Array, Array]:
    """Where each key stands among the known ones (both sorted and distinct), and whether it is there."""
    at = np.minimum(np.searchsorted(known_high, high), len(known_high) - 1)
    found = (known_high[at] == high) & (known_low[at] == low)
    for i in np.flatnonzero((known_high[at] == high) & ~found):
        stop = np.searchsorted(known_high, high[i], side="right")
        matches = at[i] + np.flatnonzero(known_low[at[i] : stop] == low[i])
        if len(matches):
            at[i], found[i] = matches[0], True
    return at, found


def _number(spool: Spool, first: Array, *, grouped: bool) -> DedupTotals:
    """Turn first ordinals into indices, in place: a first appearance always stands before its duplicates."""
    totals = DedupTotals()
    with spool.path("status").open("wb") as status_file:
        for number, (start, lengths, kept, keys) in enumerate(_columns(spool)):
            spool.blocks[number] = replace(spool.blocks[number], first_unique=totals.embedded)
            stop = start + len(lengths)
            ordinals = np.arange(start, stop)
            origin = np.array(first[start:stop]) if grouped else ordinals
            rejected = lengths < 0
            reused = (origin == _IN_REUSE) & ~rejected
            embedded = (origin == ordinals) & ~rejected
            duplicate = ~(rejected | reused | embedded)
            unique = np.full(len(lengths), -1, np.int64)
            count = int(embedded.sum())
            unique[embedded] = totals.embedded + np.arange(count)
            first[start:stop] = unique
            first[start + np.flatnonzero(duplicate)] = first[origin[duplicate]]
            status = np.full(len(lengths), DUPLICATE, np.uint8)
            status[embedded], status[reused], status[rejected] = EMBEDDED, REUSED, REJECTED
            status_file.write(status.tobytes())
            totals.embedded += count
            totals.duplicate += int(duplicate.sum())
            totals.reused += int(reused.sum())
            totals.residues += int(kept[embedded].sum())
            totals.key_sum = (totals.key_sum + _sum_keys(keys[embedded])) % _MODULUS
    return totals


def _columns(spool: Spool) -> Iterator[tuple[int, Array, Array, Array]]:
    for block in spool.blocks:
        start, count = block.first_ordinal, block.records
        yield (
            start,
            spool.read("lengths", start, count),
            spool.kept_lengths(block),
            spool.read("keys", start, count),
        )


def _sum_keys(keys: Array) -> int:
    words = keys.view(">u4").reshape(-1, 4).sum(axis=0, dtype=np.uint64)
    return sum(int(word) << 32 * (3 - i) for i, word in enumerate(words))
