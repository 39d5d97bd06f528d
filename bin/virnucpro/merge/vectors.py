"""Vectors on their way from the shards, and from earlier results, into the merged output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.errors import DataError, LedgerError
from virnucpro.merge.buckets import SpillBuckets
from virnucpro.merge.layout import wanted_ids, wanting_windows
from virnucpro.merge.overlap import Prefetched
from virnucpro.merge.shard_set import ShardFiles
from virnucpro.output.keys import key_words

Array = npt.NDArray[Any]


def record_type(columns: Mapping[str, int], dtype: str) -> np.dtype[Any]:
    """One vector that is wanted in another window, with what stands beside it in the output."""
    facts: list[Any] = [
        ("id", np.int64),
        ("key", np.uint32, (4,)),
        ("shard", np.int32),
        ("batch", np.int32),
        ("utilization", np.float32),
        ("rate", np.float32),
    ]
    return np.dtype([*facts, *((name, dtype, (dim,)) for name, dim in columns.items())])


@dataclass(frozen=True)
class NewVectors:
    """Consecutive rows of the shards: one array per quantity, (n,), and per column (n, dim)."""

    shard: Array
    batch: Array
    utilization: Array
    rate: Array
    energy_per_token: Array
    columns: Mapping[str, Array]


class ShardReader:
    """The vectors of all shards from the first unique_index to the last, read ahead by a thread.

    Args:
        shards: in order of their numbers.
        columns: embedding columns and dimensions.
        dtype: to cast to.
    """

    def __init__(self, shards: Sequence[ShardFiles], columns: Mapping[str, int], dtype: str) -> None:
        self._columns = dict(columns)
        self._dtype = np.dtype(dtype)
        self._ahead = Prefetched(self._pieces(shards))
        self._pieces_ahead = iter(self._ahead)
        self._piece: NewVectors | None = None
        self._used = 0

    def take(self, rows: int) -> NewVectors:
        """The next ``rows`` rows."""
        taken = _empty(rows, self._columns, self._dtype)
        filled = 0
        while filled < rows:
            if self._piece is None or self._used == len(self._piece.shard):
                self._piece, self._used = next(self._pieces_ahead), 0
            count = min(rows - filled, len(self._piece.shard) - self._used)
            _copy(self._piece, self._used, taken, filled, count)
            filled += count
            self._used += count
        return taken

    def close(self) -> None:
        """Stop reading."""
        self._ahead.close()

    def _pieces(self, shards: Sequence[ShardFiles]) -> Iterator[NewVectors]:
        for shard in shards:
            try:
                yield from self._shard_pieces(shard)
            except (pa.ArrowInvalid, pa.ArrowKeyError, FileNotFoundError) as error:
                where = f"shard {shard.number} ({shard.folder})"
                raise DataError(f"{where}: unreadable ({error}); embed it again") from error

    def _shard_pieces(self, shard: ShardFiles) -> Iterator[NewVectors]:
        facts = _BatchFacts(shard)
        first = shard.first_unique_index
        with pq.ParquetFile(shard.embeddings, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, use_threads=False)
                rows = table.num_rows
                found = table["unique_index"].to_numpy()
                wrong = np.flatnonzero(found != np.arange(first, first + rows))
                if len(wrong):
                    raise LedgerError(
                        f"shard {shard.number} ({shard.folder}): unique_index {found[wrong[0]]} where "
                        f"{first + wrong[0]} belongs; embed it again"
                    )
                batch = table["batch"].to_numpy()
                yield NewVectors(
                    np.full(rows, shard.number, np.int32),
                    batch,
                    *facts.of(batch),
                    {name: vectors_of(table[name], dim, self._dtype) for name, dim in self._columns.items()},
                )
                first += rows


class _BatchFacts:
    """Utilisation, tokens per second and energy per token of a shard's batches.

    What the shard used outside its batches (start-up, waiting) is spread over its tokens, so that the rows' energies
    add up to the shard's.
    """

    def __init__(self, shard: ShardFiles) -> None:
        table = pq.read_table(shard.batches)
        self._where = f"shard {shard.number} ({shard.folder})"
        numbers = table["batch"].to_numpy()
        self._size = int(numbers.max()) + 1 if len(numbers) else 0
        self._known = np.zeros(self._size, np.bool_)
        self._known[numbers] = True
        tokens = table["tokens"].to_numpy().astype(np.float64)
        energy = _floats(table["energy_joules"])
        total = shard.summary.energy_joules
        overhead = np.nan if total is None or not tokens.sum() else (total - np.nansum(energy)) / tokens.sum()
        self._utilization = self._by_number(numbers, _floats(table["device_utilization"]), np.float32)
        self._rate = self._by_number(numbers, _floats(table["tokens_per_second"]), np.float32)
        per_token = np.nan_to_num(energy) / np.maximum(tokens, 1) + overhead
        self._energy = self._by_number(numbers, per_token, np.float64)

    def of(self, batch: Array) -> tuple[Array, Array, Array]:
        """The three for each row of a column of batch numbers."""
        inside = (batch >= 0) & (batch < self._size)
        if not inside.all() or not self._known[batch].all():
            raise LedgerError(f"{self._where}: a row names a batch that batches.parquet does not have; embed it again")
        return self._utilization[batch], self._rate[batch], self._energy[batch]

    def _by_number(self, numbers: Array, values: Array, dtype: Any) -> Array:
        placed = np.full(self._size, np.nan, dtype)
        placed[numbers] = values
        return placed


class ReuseReader:
    """Fetches what is wanted of earlier results, each of their row groups read at most once and in order.

    Args:
        parts: for each of the earlier results its files of vectors in order.
        columns: embedding columns and dimensions.
        dtype: to cast to.
    """

    def __init__(self, parts: Sequence[Sequence[Path]], columns: Mapping[str, int], dtype: str) -> None:
        self._columns = dict(columns)
        self._dtype = np.dtype(dtype)
        self._record = record_type(columns, dtype)
        self._groups: list[tuple[Path, int]] = []
        starts, first_rows, row = [0], [], 0
        for files in parts:
            first_rows.append(row)
            for path in files:
                metadata = pq.read_metadata(path)
                for group in range(metadata.num_row_groups):
                    self._groups.append((path, group))
                    row += metadata.row_group(group).num_rows
                    starts.append(row)
        self._starts = np.array(starts, np.int64)
        self.first_rows = np.array(first_rows, np.int64)
        self.rows = row

    def distribute(self, blocks: Sequence[int], requests: SpillBuckets, wanted: SpillBuckets) -> None:
        """Append the vectors asked for to the windows that want them."""
        for block in blocks:
            asked = np.unique(requests.take(block))
            asked = asked[::-1]
            ids = wanted_ids(asked)
            rows = -1 - ids
            groups = np.searchsorted(self._starts, rows, side="right") - 1
            for group in np.unique(groups).tolist():
                chosen = groups == group
                records = self._records(group, rows[chosen], ids[chosen])
                wanted.append(wanting_windows(asked[chosen]), records)

    def _records(self, group: int, rows: Array, ids: Array) -> Array:
        path, index = self._groups[group]
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                table = file.read_row_group(index, columns=["sequence_key", *self._columns], use_threads=False)
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise DataError(f"{path}: unreadable ({error}); leave it out of --reuse and split again") from error
        within = rows - self._starts[group]
        records = np.empty(len(rows), self._record)
        records["id"] = ids
        records["key"] = key_words(table["sequence_key"])[within]
        records["shard"] = records["batch"] = -1
        records["utilization"] = records["rate"] = np.nan
        for name, dim in self._columns.items():
            records[name] = vectors_of(table[name], dim, self._dtype)[within]
        return records


def vectors_of(column: pa.ChunkedArray, dim: int, dtype: np.dtype[Any]) -> Array:
    """An embedding column as (n, dim), without a copy where the type is right already."""
    if column.null_count:
        raise LedgerError("a row has no vector; embed its shard again")
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    values: Array = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return values.astype(dtype, copy=False)


def _floats(column: pa.ChunkedArray) -> Array:
    values: Array = column.cast(pa.float64()).fill_null(float("nan")).to_numpy()
    return values


def _empty(rows: int, columns: Mapping[str, int], dtype: np.dtype[Any]) -> NewVectors:
    return NewVectors(
        np.empty(rows, np.int32),
        np.empty(rows, np.int32),
        np.empty(rows, np.float32),
        np.empty(rows, np.float32),
        np.empty(rows, np.float64),
        {name: np.empty((rows, dim), dtype) for name, dim in columns.items()},
    )


def _copy(source: NewVectors, start: int, target: NewVectors, at: int, rows: int) -> None:
    for name in ("shard", "batch", "utilization", "rate", "energy_per_token"):
        getattr(target, name)[at : at + rows] = getattr(source, name)[start : start + rows]
    for name, values in source.columns.items():
        target.columns[name][at : at + rows] = values[start : start + rows]
