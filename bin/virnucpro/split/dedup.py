"""Second pass of a split: give each distinct sequence its index, in the order of first appearance.

Keys are dealt to partitions by their first bits, and each partition is grouped in memory, so that memory does not
depend on the number of records, but for 8 bytes each of a file mapped into memory (20 with earlier results), and for
those of the sequence that repeats most: equal keys are in one partition.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from virnucpro.output.schema import DUPLICATE, EMBEDDED, REJECTED, REUSED
from virnucpro.split.spool import CHUNK_RECORDS, Spool
from virnucpro.split.workers import Workers

#: Records grouped at once: few enough for the processor's cache, as memory that is not fresh costs nothing.
PARTITION_RECORDS: Final = 1 << 18
#: Tasks that group partitions, for each process. Every task maps the first ordinals anew, and touches all their pages.
GROUPS_PER_PROCESS: Final = 2
#: In the file of first ordinals: the sequence is in earlier results.
_IN_REUSE: Final = -2
_MODULUS: Final = 1 << 128
#: One accepted record, as it is dealt to its partition.
_KEYED: Final = np.dtype([("high", np.uint64), ("low", np.uint64), ("ordinal", np.int64)])

Array = npt.NDArray[Any]


class KnownKeys(Protocol):
    """Keys whose vectors exist already (``reuse.ReuseIndex``); their first ``bits`` bits tell the partition."""

    @property
    def bits(self) -> int: ...

    def partition(self, partition: int) -> tuple[Array, Array, Array, Array]:
        """Distinct (high, low) of one partition in ascending order, with their source and row."""


@dataclass
class DedupTotals:
    """How many records have which status; residues and the sum of keys (modulo 2^128) of the embedded ones."""

    embedded: int = 0
    duplicate: int = 0
    reused: int = 0
    residues: int = 0
    key_sum: int = 0


def deduplicate(spool: Spool, workers: Workers, *, enabled: bool, known: KnownKeys | None) -> DedupTotals:
    """Write the columns ``unique``, ``status``, those of what is embedded and of reuse, and complete the blocks.

    Args:
        enabled: otherwise each record gets an index of its own.
        known: keys that need not be embedded.
    """
    if not spool.records:
        raise ValueError("nothing to deduplicate")
    first = spool.map("unique", spool.records)
    if known is not None:
        for column in ("reuse_source", "reuse_row"):
            spool.map(column, spool.records)
    bits = partition_bits(spool.records) if known is None else known.bits
    columns = replace(spool, blocks=[])
    share = -(-spool.records // workers.processes)
    deals = [
        workers.submit(_deal, columns, bits, range(start, min(start + share, spool.records)), number)
        for number, start in enumerate(range(0, spool.records, share))
    ]
    for dealing in deals:
        dealing.result()
    tasks = min(GROUPS_PER_PROCESS * workers.processes, 1 << bits)
    groups = [
        workers.submit(_group, columns, spool.records, range(task, 1 << bits, tasks), bits, len(deals), enabled, known)
        for task in range(tasks)
    ]
    key_sum = sum(group.result() for group in groups) % _MODULUS
    totals = _number(spool, first)
    totals.key_sum = key_sum
    return totals


def partition_bits(records: int) -> int:
    """How many first bits of a key tell its partition, where there are so many keys."""
    return max(records - 1, 0).bit_length() - PARTITION_RECORDS.bit_length() + 1 if records > PARTITION_RECORDS else 0


def partition_of(high: Array, bits: int) -> Array:
    """Partition of each key: its first ``bits`` bits."""
    return high >> np.uint64(64 - bits) if bits else np.zeros_like(high)


def deal(entries: Array, bits: int, path: Path) -> None:
    """Append entries, which have a field ``high``, to the files of their partitions; each keeps their order."""
    partitions = partition_of(entries["high"], bits).astype(np.uint16)
    entries = entries.take(np.argsort(partitions, kind="stable")) if bits else entries
    stop = 0
    for partition, size in enumerate(np.bincount(partitions, minlength=1 << bits).tolist()):
        start, stop = stop, stop + size
        if size:
            with _partition_file(path, partition).open("ab") as stream:
                stream.write(entries[start:stop].tobytes())


def dealt(path: Path, partition: int, kind: np.dtype[Any]) -> Array:
    """What was dealt to a partition."""
    file = _partition_file(path, partition)
    return np.fromfile(file, kind) if file.exists() else np.empty(0, kind)


def _partition_file(path: Path, partition: int) -> Path:
    return path.with_name(f"{path.name}-{partition}")


def group_starts(high: Array, low: Array) -> Array:
    """Where a new key begins in sorted keys."""
    changes = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return np.concatenate(([0], np.flatnonzero(changes) + 1))


def first_appearances(high: Array, low: Array, bits: int) -> Array:
    """For each key of a partition, the position of the first that is equal.

    The bits of ``high`` after the partition's are sorted together with the positions, as one number: a sort of plain
    integers is several times faster than one that carries the rest of the key. Keys that share those bits and are
    not equal are told apart afterwards; in 2^18 keys there are hardly any.
    """
    count = len(high)
    position_bits = max(count - 1, 1).bit_length()
    position_mask = np.uint64((1 << position_bits) - 1)
    together = high << np.uint64(bits) & ~position_mask | np.arange(count, dtype=np.uint64)
    together.sort()
    positions = (together & position_mask).astype(np.int64)
    together >>= np.uint64(position_bits)
    starts = np.concatenate(([0], np.flatnonzero(together[1:] != together[:-1]) + 1))
    first = np.empty(count, np.int64)
    first[positions] = np.repeat(positions[starts], np.diff(np.append(starts, count)))
    unequal = (high[first] != high) | (low[first] != low)
    if unequal.any():
        mixed = np.flatnonzero(np.isin(first, first[unequal]))
        order = mixed[np.lexsort((low[mixed], high[mixed]))]
        starts = group_starts(high[order], low[order])
        first[order] = np.repeat(order[starts], np.diff(np.append(starts, len(order))))
    return first


def _deal(spool: Spool, bits: int, ordinals: range, number: int) -> None:
    """Deal the accepted records of a range to partitions (a task of ``Workers``)."""
    for start in ordinals[::CHUNK_RECORDS]:
        size = min(CHUNK_RECORDS, ordinals.stop - start)
        accepted = np.flatnonzero(spool.read("lengths", start, size) >= 0)
        keys = spool.read("keys", start, size)[accepted]
        entries = np.empty(len(accepted), _KEYED)
        entries["high"], entries["low"], entries["ordinal"] = keys["high"], keys["low"], accepted + start
        deal(entries, bits, spool.path(f"dealt-{number}"))


def _group(
    spool: Spool, records: int, partitions: range, bits: int, deals: int, enabled: bool, known: KnownKeys | None
) -> int:
    """Write the ordinal of each record's first appearance, for some partitions (a task of ``Workers``).

    Args:
        records: rows of the columns.
        deals: how many times records were dealt.

    Returns:
        The sum of the keys to embed.
    """
    first = spool.map("unique", records)
    key_sum = 0
    for partition in partitions:
        paths = [spool.path(f"dealt-{number}") for number in range(deals)]
        entries = np.concatenate([dealt(path, partition, _KEYED) for path in paths])
        # Here rather than at the end of the split, when there is one process to do it.
        for path in paths:
            _partition_file(path, partition).unlink(missing_ok=True)
        if not len(entries):
            continue
        high, low, ordinals = (np.ascontiguousarray(entries[name]) for name in _KEYED.names or ())
        del entries
        itself = np.arange(len(high))
        positions = first_appearances(high, low, bits) if enabled else itself
        origin = ordinals[positions]
        new = positions == itself
        if known is not None:
            reused, source, row = _look_up(high, low, new, known.partition(partition))
            members = np.flatnonzero(reused[positions])
            origin[members] = _IN_REUSE
            spool.map("reuse_source", records)[ordinals[members]] = source[positions[members]]
            spool.map("reuse_row", records)[ordinals[members]] = row[positions[members]]
            new &= ~reused
        first[ordinals] = origin
        key_sum += (_sum_words(high[new]) << 64) + _sum_words(low[new])
    return key_sum


def _look_up(
    high: Array, low: Array, new: Array, known: tuple[Array, Array, Array, Array]
) -> tuple[Array, Array, Array]:
    """Whether each key that is ``new`` here is known, and its source and row."""
    known_high, known_low, known_source, known_row = known
    reused = np.zeros(len(high), np.bool_)
    source, row = np.empty(len(high), np.int32), np.empty(len(high), np.int64)
    if len(known_high):
        asked = np.flatnonzero(new)
        at, found = _find(high[asked], low[asked], known_high, known_low)
        reused[asked] = found
        source[asked], row[asked] = known_source[at], known_row[at]
    return reused, source, row


def _find(high: Array, low: Array, known_high: Array, known_low: Array) -> tuple[Array, Array]:
    """Where each key stands among the known ones (both distinct, these sorted), and whether it is there."""
    at = np.minimum(np.searchsorted(known_high, high), len(known_high) - 1)
    found = (known_high[at] == high) & (known_low[at] == low)
    for i in np.flatnonzero((known_high[at] == high) & ~found):
        stop = np.searchsorted(known_high, high[i], side="right")
        matches = at[i] + np.flatnonzero(known_low[at[i] : stop] == low[i])
        if len(matches):
            at[i], found[i] = matches[0], True
    return at, found


def _number(spool: Spool, first: Array) -> DedupTotals:
    """Turn first ordinals into indices, in place: a first appearance always stands before its duplicates."""
    totals = DedupTotals()
    block_starts = np.array([block.first_ordinal for block in spool.blocks])
    block_indices = np.zeros(len(block_starts), np.int64)
    with (
        spool.path("status").open("wb") as status_file,
        spool.path("embedded_ordinals").open("wb") as ordinals_file,
        spool.path("embedded_lengths").open("wb") as lengths_file,
    ):
        for start, count in spool.chunks(CHUNK_RECORDS):
            origin = np.array(first[start : start + count])
            lengths = spool.read("lengths", start, count)
            status = _statuses(origin, lengths, start)
            embedded = status == EMBEDDED
            ordinals, duplicates = np.flatnonzero(embedded), np.flatnonzero(status == DUPLICATE)
            blocks = slice(*np.searchsorted(block_starts, (start, start + count)).tolist())
            block_indices[blocks] = totals.embedded + np.searchsorted(ordinals, block_starts[blocks] - start)
            indices = np.full(count, -1, np.int64)
            indices[ordinals] = np.arange(totals.embedded, totals.embedded + len(ordinals))
            first[start : start + count] = indices
            first[start + duplicates] = first[origin[duplicates]]
            kept = np.clip(lengths[ordinals], 0, spool.residue_limit)
            status_file.write(status.data)
            ordinals_file.write((ordinals + start).data)
            lengths_file.write(kept.data)
            totals.embedded += len(ordinals)
            totals.duplicate += len(duplicates)
            totals.reused += int(np.count_nonzero(status == REUSED))
            totals.residues += int(kept.sum(dtype=np.int64))
    sizes = np.diff(block_indices, append=totals.embedded)
    spool.blocks = [
        replace(block, first_unique=index, embedded=size)
        for block, index, size in zip(spool.blocks, block_indices.tolist(), sizes.tolist(), strict=True)
    ]
    return totals


def _statuses(origin: Array, lengths: Array, start: int) -> npt.NDArray[np.uint8]:
    """Status of each record from ``start`` on, from the ordinal of its first appearance."""
    status = np.where(origin == np.arange(start, start + len(origin)), np.uint8(EMBEDDED), np.uint8(DUPLICATE))
    status[origin == _IN_REUSE] = REUSED
    status[lengths < 0] = REJECTED
    return status


def _sum_words(words: Array) -> int:
    """Sum of 64-bit numbers, in Python's integers at the end: 2^32 of them fit."""
    return (int((words >> np.uint64(32)).sum()) << 32) + int((words & np.uint64(0xFFFFFFFF)).sum())
