"""Vectors on their way from the shards, and from earlier results, into the merged output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.errors import DataError, LedgerError
from virnucpro.merge.buckets import SpillBuckets
from virnucpro.merge.layout import wanted_ids, wanting_windows
from virnucpro.merge.shard_set import ShardFiles
from virnucpro.output.damage import reading
from virnucpro.output.digests import ContentDigest, check_file
from virnucpro.output.files import EMBEDDINGS_FILE
from virnucpro.output.keys import binary_key_words, key_words
from virnucpro.output.overlap import Prefetched
from virnucpro.output.schema import BATCH_FACTS, METADATA_KEY

Array = npt.NDArray[Any]
_NOT_REUSED: Final = "leave it out of --reuse and split again"
#: Of what is wanted of earlier results, in memory at once.
_RECORD_BYTES: Final = 16 << 20


#: Arrays by name, one entry a row: what travels with a vector, and the vectors themselves, (rows, dim).
Rows = dict[str, Array]


def facts_of_a_row(columns: Mapping[str, int], dtype: str) -> list[Any]:
    """What travels with a vector to its place in the output, as fields of a numpy record."""
    facts = [("shard", np.int32), ("batch", np.int32), *((name, np.float32) for name in BATCH_FACTS)]
    return [*facts, *((name, dtype, (dim,)) for name, dim in columns.items())]


def record_type(columns: Mapping[str, int], dtype: str) -> np.dtype[Any]:
    """One vector that is wanted in another window, with what stands beside it in the output."""
    return np.dtype([("id", np.int64), ("key", np.uint32, (4,)), *facts_of_a_row(columns, dtype)])


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
        self._row = np.dtype(
            [("key", np.uint32, (4,)), *facts_of_a_row(columns, dtype), ("energy_per_token", np.float64)]
        )
        self._ahead = Prefetched(self._pieces(shards))
        self._pieces_ahead = iter(self._ahead)
        self._piece: Rows = {}
        self._left = 0

    def take(self, rows: int) -> Rows:
        """The next ``rows`` rows; ``energy_per_token`` stands beside what travels with a vector."""
        taken = {
            name: np.empty((rows, *kind.shape), kind.base) for name, (kind, *_) in (self._row.fields or {}).items()
        }
        filled = 0
        while filled < rows:
            if not self._left:
                self._piece = next(self._pieces_ahead)
                self._left = len(self._piece["shard"])
                continue
            used, count = len(self._piece["shard"]) - self._left, min(rows - filled, self._left)
            for name, values in self._piece.items():
                taken[name][filled : filled + count] = values[used : used + count]
            filled += count
            self._left -= count
        return taken

    def close(self) -> None:
        """Stop reading."""
        self._ahead.close()

    def _pieces(self, shards: Sequence[ShardFiles]) -> Iterator[Rows]:
        for shard in shards:
            with reading(f"shard {shard.number} ({shard.folder})", "embed it again"):
                yield from self._shard_pieces(shard)

    def _shard_pieces(self, shard: ShardFiles) -> Iterator[Rows]:
        facts = _BatchFacts(shard)
        expected = shard.summary.digests.get(EMBEDDINGS_FILE)
        first = shard.first_unique_index
        with pq.ParquetFile(shard.embeddings, pre_buffer=False) as file:
            digest = ContentDigest(file.schema_arrow.metadata[METADATA_KEY])
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
                keys = binary_key_words(table["sequence_key"])
                stored = [stored_vectors(table[name], dim) for name, dim in self._columns.items()]
                digest.add(found, keys.astype(">u4"), *stored, batch)
                # Before the last rows go out: who takes them asks for no more.
                if group == file.num_row_groups - 1 and digest.hexdigest() != expected:
                    where = f"shard {shard.number} ({shard.folder})"
                    raise DataError(f"{where}: {EMBEDDINGS_FILE} does not hold what was written; embed it again")
                yield {
                    "key": keys,
                    "shard": np.full(rows, shard.number, np.int32),
                    "batch": batch,
                    **facts.of(batch),
                    **{
                        name: values.astype(self._dtype, copy=False)
                        for name, values in zip(self._columns, stored, strict=True)
                    },
                }
                first += rows


class _BatchFacts:
    """``BATCH_FACTS`` and energy per token of a shard's batches.

    What the shard used outside its batches (start-up, waiting) is spread over its tokens, so that the rows' energies
    add up to the shard's.
    """

    def __init__(self, shard: ShardFiles) -> None:
        check_file(shard.batches, shard.summary.digests.get(shard.batches.name), "embed the shard again")
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
        known = {name: _floats(table[column]).astype(np.float32) for name, column in BATCH_FACTS.items()}
        known["energy_per_token"] = np.nan_to_num(energy) / np.maximum(tokens, 1) + overhead
        self._facts = {name: self._by_number(numbers, values) for name, values in known.items()}

    def of(self, batch: Array) -> Rows:
        """Each of them for each row of a column of batch numbers."""
        inside = (batch >= 0) & (batch < self._size)
        if not inside.all() or not self._known[batch].all():
            raise LedgerError(f"{self._where}: a row names a batch that batches.parquet does not have; embed it again")
        return {name: values[batch] for name, values in self._facts.items()}

    def _by_number(self, numbers: Array, values: Array) -> Array:
        placed = np.full(self._size, np.nan, values.dtype)
        placed[numbers] = values
        return placed


class ReuseReader:
    """Fetches what is wanted of earlier results, each of their row groups read at most once and in order.

    Args:
        parts: for each of the earlier results its files of vectors in order, with their digests.
        columns: embedding columns and dimensions.
        dtype: to cast to.
    """

    def __init__(self, parts: Sequence[Mapping[Path, str]], columns: Mapping[str, int], dtype: str) -> None:
        self._columns = dict(columns)
        self._dtype = np.dtype(dtype)
        self._record = record_type(columns, dtype)
        self._records_at_once = max(1, _RECORD_BYTES // self._record.itemsize)
        self._digests = {path: digest for files in parts for path, digest in files.items()}
        self._proved: set[Path] = set()
        self._groups: list[tuple[Path, int]] = []
        starts, first_rows, row = [0], [], 0
        for files in parts:
            first_rows.append(row)
            for path in files:
                with reading(path, _NOT_REUSED):
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
                chosen = np.flatnonzero(groups == group)
                read = self._read(group)
                # A sequence may be wanted in every window.
                for start in range(0, len(chosen), self._records_at_once):
                    some = chosen[start : start + self._records_at_once]
                    records = self._records(read, rows[some] - self._starts[group], ids[some])
                    wanted.append(wanting_windows(asked[some]), records)

    def _read(self, group: int) -> Rows:
        """Keys and vectors of a row group."""
        path, index = self._groups[group]
        if path not in self._proved:
            check_file(path, self._digests[path], _NOT_REUSED)
            self._proved.add(path)
        with reading(path, _NOT_REUSED), pq.ParquetFile(path, pre_buffer=False) as file:
            table = file.read_row_group(index, columns=["sequence_key", *self._columns], use_threads=False)
        vectors = {name: vectors_of(table[name], dim, self._dtype) for name, dim in self._columns.items()}
        return {"key": key_words(table["sequence_key"]), **vectors}

    def _records(self, read: Rows, within: Array, ids: Array) -> Array:
        records = np.empty(len(ids), self._record)
        records["id"] = ids
        records["shard"] = records["batch"] = -1
        for name in BATCH_FACTS:
            records[name] = np.nan
        for name, values in read.items():
            records[name] = values[within]
        return records


def vectors_of(column: pa.ChunkedArray, dim: int, dtype: np.dtype[Any]) -> Array:
    """An embedding column as (n, dim), without a copy where the type is right already."""
    return stored_vectors(column, dim).astype(dtype, copy=False)


def stored_vectors(column: pa.ChunkedArray, dim: int) -> Array:
    """An embedding column as (n, dim) in its own type, without a copy."""
    if column.null_count:
        raise LedgerError("a row has no vector; embed its shard again")
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    values: Array = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return values


def _floats(column: pa.ChunkedArray) -> Array:
    values: Array = column.cast(pa.float64()).fill_null(float("nan")).to_numpy()
    return values
