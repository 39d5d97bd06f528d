"""The first pass over the ledger: checks it, counts it, and finds what each window of output rows needs from elsewhere.

A window is a fixed number of output rows. Rows of new sequences take their vectors from the shards in order; a
duplicate may need a vector of an earlier window, a reused row one of earlier results. These requests are sorted by
where the vector is met, so that every vector is read once, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from virnucpro.config import Windows
from virnucpro.errors import LedgerError
from virnucpro.merge.buckets import SpillBuckets
from virnucpro.output.keys import KeyDigest
from virnucpro.output.ledger import LedgerReader
from virnucpro.output.schema import DUPLICATE, EMBEDDED, REJECTED, REUSED, STATUSES
from virnucpro.windows import computed_tokens, window_counts

Int64Array = npt.NDArray[np.int64]

#: A wanted vector and the window that wants it, in one number: they sort many times faster than pairs.
REQUEST: Final = np.dtype(np.int64)
_WINDOW_BITS: Final = 22
#: Rows of earlier results that are looked through together.
REUSE_BLOCK_ROWS: Final = 1 << 20
LAYOUT_COLUMNS: Final = (
    "ordinal",
    "length",
    "truncated",
    "beyond_trained_length",
    "status",
    "reason",
    "sequence_key",
    "unique_index",
    "shard",
    "reuse_source",
    "reuse_row",
)


def reuse_id(first_rows: Int64Array, source: Int64Array, row: Int64Array) -> Int64Array:
    """One negative number for each vector of earlier results; new vectors have their unique_index, from 0 on."""
    return -1 - (first_rows[source] + row)


def statuses(batch: pa.RecordBatch) -> npt.NDArray[np.int8]:
    """The status column as positions in ``STATUSES``; -1 for anything else."""
    column = batch["status"]
    known = pc.index_in(column.dictionary.cast(pa.string()), value_set=pa.array(STATUSES)).fill_null(-1)
    codes = np.append(known.to_numpy(), -1).astype(np.int8)
    indices: npt.NDArray[np.int32] = column.indices.fill_null(len(known)).to_numpy()
    return codes[indices]


def numbers(batch: pa.RecordBatch, name: str) -> Int64Array:
    """A column of whole numbers; -1 for null."""
    column = batch[name].cast(pa.int64()).fill_null(-1)
    values: Int64Array = column.to_numpy(zero_copy_only=False)
    return values


@dataclass
class Totals:
    """What the ledger holds. ``squared_tokens`` is the sum over embedded sequences of their tokens squared, of
    those in windows over the windows."""

    records: int = 0
    embedded: int = 0
    duplicate: int = 0
    reused: int = 0
    rejected: int = 0
    truncated: int = 0
    beyond_trained_length: int = 0
    residues: int = 0
    tokens: int = 0
    squared_tokens: int = 0

    @property
    def rows(self) -> int:
        """Rows that the output must have."""
        return self.records - self.rejected


@dataclass
class Layout:
    """The ledger's first pass.

    Args:
        window_rows: output rows per window.
        shard_starts: first unique_index of each shard, ascending, and the end of the last.
        reuse_first_rows: for each of the earlier results, its first row when all are counted through.
        reuse_rows: rows of all of them together.
        residue_limit: residues the model saw at most, or None.
        windows: what longer sequences were computed in, or None.
        requests: takes requests for new vectors, by the window in which the vector is met.
        reuse_requests: takes requests for earlier vectors, by block of ``REUSE_BLOCK_ROWS`` rows.
    """

    window_rows: int
    shard_starts: Int64Array
    reuse_first_rows: Int64Array
    reuse_rows: int
    residue_limit: int | None
    windows: Windows | None
    requests: SpillBuckets
    reuse_requests: SpillBuckets
    totals: Totals = field(default_factory=Totals)
    keys: KeyDigest = field(default_factory=KeyDigest)
    embedded_keys: KeyDigest = field(default_factory=KeyDigest)
    reuse_blocks: set[int] = field(default_factory=set)
    #: For each window the first unique_index that it has or that comes after it.
    window_starts: list[int] = field(default_factory=list)

    def scan(self, ledger: LedgerReader) -> None:
        """Read the whole ledger.

        Raises:
            LedgerError: it contradicts itself or the shard plan.
        """
        for batch in ledger.batches(LAYOUT_COLUMNS):
            try:
                self._scan_batch(batch)
            except LedgerError as error:
                raise LedgerError(f"{ledger.path}: {error}") from error
        if self.totals.embedded != self.shard_starts[-1]:
            raise LedgerError(
                f"{ledger.path}: {self.totals.embedded} embedded records, but the shards hold {self.shard_starts[-1]} "
                "sequences; ledger and split summary do not belong together"
            )

    def window_sizes(self) -> list[tuple[int, int, int]]:
        """For each window its rows, its first new unique_index and how many new ones it has."""
        starts = [*self.window_starts, self.totals.embedded]
        rows = [self.window_rows] * len(self.window_starts)
        if rows:
            rows[-1] = self.totals.rows - self.window_rows * (len(rows) - 1)
        return [(n, start, end - start) for n, start, end in zip(rows, starts, starts[1:], strict=False)]

    def _scan_batch(self, batch: pa.RecordBatch) -> None:
        codes = statuses(batch)
        _expect(codes >= 0, batch, "has no valid status")
        ordinals = numbers(batch, "ordinal")
        _expect(ordinals == self.totals.records + np.arange(len(batch)), batch, "is out of input order")
        unique = numbers(batch, "unique_index")
        embedded, duplicate = codes == EMBEDDED, codes == DUPLICATE
        kept = codes != REJECTED
        _expect(kept | batch["reason"].is_valid().to_numpy(zero_copy_only=False), batch, "is rejected without a reason")
        before = self.totals.embedded + np.cumsum(embedded) - embedded
        _expect(~embedded | (unique == before), batch, "is embedded, but its unique_index is not the next one")
        known = (unique >= 0) & (unique < before)
        _expect(~duplicate | known, batch, "is a duplicate of a sequence that has not come before it")
        shards = np.searchsorted(self.shard_starts, unique, side="right") - 1
        from_shard = embedded | duplicate
        _expect(~from_shard | (numbers(batch, "shard") == shards), batch, "names a shard that does not hold it")
        self._add_requests(batch, codes, unique, before)
        mask = pa.array(kept)
        self.keys.add(batch["sequence_key"].filter(mask))
        self.embedded_keys.add(batch["sequence_key"].filter(pa.array(embedded)))
        self._count(batch, codes)

    def _add_requests(
        self, batch: pa.RecordBatch, codes: npt.NDArray[np.int8], unique: Int64Array, before: Int64Array
    ) -> None:
        kept = codes != REJECTED
        rows = self.totals.rows + np.cumsum(kept) - kept
        self.window_starts += before[kept & (rows % self.window_rows == 0)].tolist()
        windows = rows // self.window_rows
        starts = np.array(self.window_starts, np.int64)
        wanting = (codes == DUPLICATE) & (np.searchsorted(starts, unique, side="right") - 1 < windows)
        requests = _requests(unique[wanting], windows[wanting])
        self.requests.append(np.searchsorted(starts, wanted_ids(requests), side="right") - 1, requests)
        reused = codes == REUSED
        if not reused.any():
            return
        origin, row = numbers(batch, "reuse_source"), numbers(batch, "reuse_row")
        _expect(
            ~reused | ((origin >= 0) & (origin < len(self.reuse_first_rows)) & (row >= 0)),
            batch,
            "is reused, but names no result given with --reuse",
        )
        ids = reuse_id(self.reuse_first_rows, origin[reused], row[reused])
        ends = np.append(self.reuse_first_rows[1:], self.reuse_rows)[origin[reused]]
        inside = np.ones(len(batch), np.bool_)
        inside[reused] = -1 - ids < ends
        _expect(inside, batch, "is reused from a row that the earlier results do not have")
        requests = _requests(ids, windows[reused])
        blocks = (-1 - wanted_ids(requests)) // REUSE_BLOCK_ROWS
        self.reuse_blocks.update(np.unique(blocks).tolist())
        self.reuse_requests.append(blocks, requests)

    def _count(self, batch: pa.RecordBatch, codes: npt.NDArray[np.int8]) -> None:
        counts = np.bincount(codes, minlength=len(STATUSES)).tolist()
        totals = self.totals
        totals.records += len(batch)
        totals.embedded += counts[EMBEDDED]
        totals.duplicate += counts[DUPLICATE]
        totals.reused += counts[REUSED]
        totals.rejected += counts[REJECTED]
        kept, lengths = codes != REJECTED, numbers(batch, "length")
        for name in ("truncated", "beyond_trained_length"):
            told = int((numbers(batch, name)[kept] == 1).sum())
            setattr(totals, name, getattr(totals, name) + told)
        totals.residues += int(lengths[kept].sum())
        embedded = lengths[codes == EMBEDDED]
        tokens = self.model_tokens(embedded)
        totals.tokens += int(tokens.sum())
        totals.squared_tokens += int((tokens * (tokens // window_counts(embedded, self.windows))).sum())

    def model_tokens(self, lengths: Int64Array) -> Int64Array:
        """Tokens the model saw of sequences of these lengths."""
        seen = lengths if self.residue_limit is None else np.minimum(lengths, self.residue_limit)
        return computed_tokens(seen, self.windows)


def _requests(ids: Int64Array, windows: npt.NDArray[np.integer[Any]]) -> Int64Array:
    """Each pair once, sorted by id."""
    return np.unique((ids << _WINDOW_BITS) | windows)


def wanted_ids(requests: Int64Array) -> Int64Array:
    """The vectors that requests want."""
    return requests >> _WINDOW_BITS


def wanting_windows(requests: Int64Array) -> Int64Array:
    """The windows that want them."""
    return requests & ((1 << _WINDOW_BITS) - 1)


def _expect(right: npt.NDArray[np.bool_], batch: pa.RecordBatch, what: str) -> None:
    wrong: Sequence[int] = np.flatnonzero(~right).tolist()
    if wrong:
        raise LedgerError(f"the record with ordinal {batch['ordinal'][wrong[0]].as_py()} {what}; split the input again")
