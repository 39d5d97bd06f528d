"""A shard's vectors on their way to disk: they come length-sorted, and leave in unique_index order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.errors import DataError, LedgerError
from virnucpro.output.atomic import PartialParquet, prepare_new_directory, publish_directory, remove_tree, reserve, sync
from virnucpro.output.digests import ContentDigest
from virnucpro.output.files import EMBEDDINGS_FILE, RESIDUES_DIR
from virnucpro.output.keys import KEY_BYTES
from virnucpro.output.residues import ResidueWriter
from virnucpro.output.schema import METADATA_KEY, ROW_GROUP_ROWS, shard_schema
from virnucpro.output.schema import row_group_rows as fitting_rows

#: How vectors are stored. Measured on Gaussian float32 and float16 vectors: zstd saves 8 % of the bytes and
#: costs a third of the write rate; statistics and dictionaries of floats serve no reader.
VECTOR_STORAGE: Final[dict[str, Any]] = {"compression": "none", "write_statistics": False, "use_dictionary": False}

_NAMED_AT_MOST: Final = 5


class ShardWriter:
    """Takes vectors in any order, proves that each row came exactly once, writes them sorted.

    The rows wait in a scratch file mapped into memory, whose space is reserved at the start: a full disk is an
    ``OSError`` here and not a killed process later. Everything stands in a folder with a temporary name until
    ``finish`` renames it. For use by one thread at a time.

    Args:
        outdir: the shard's folder; must not hold anything yet.
        columns: embedding column names to dimensions.
        dtype: "float32" or "float16".
        first_unique_index: unique_index of the shard's first row.
        sequences: rows of the shard.
        metadata: what stands in the Parquet file metadata (output/schema.py).
        residue_columns: column names to dimensions of what ``write_residues`` must bring for every row as well.
        row_group_rows: rows per Parquet row group, fewer where the vectors are wide.

    Raises:
        UsageError: ``outdir`` holds something.
        OSError: no space for the scratch file.
    """

    def __init__(
        self,
        outdir: Path,
        columns: Mapping[str, int],
        dtype: str,
        first_unique_index: int,
        sequences: int,
        metadata: Mapping[str, object],
        residue_columns: Mapping[str, int] | None = None,
        row_group_rows: int = ROW_GROUP_ROWS,
    ) -> None:
        self._outdir = outdir
        self._folder = prepare_new_directory(outdir)
        self._columns = dict(columns)
        self._dtype = np.dtype(dtype)
        self._first = first_unique_index
        self._sequences = sequences
        self._metadata = dict(metadata)
        self._schema = shard_schema(columns, dtype, metadata)
        self._row_group_rows = fitting_rows(columns, dtype, row_group_rows)
        self._seen = np.zeros(sequences, np.bool_)
        self._batch = np.full(sequences, -1, np.int32)
        self._keys = np.zeros((sequences, KEY_BYTES), np.uint8)
        self._vectors_digest = ContentDigest(self._schema.metadata[METADATA_KEY])
        self._residues = (
            ResidueWriter(self._folder / RESIDUES_DIR, residue_columns, metadata) if residue_columns else None
        )
        self._scratch: dict[str, npt.NDArray[Any]] = {}
        self._scratch_files: list[Path] = []
        try:
            for name, dim in self._columns.items():
                self._scratch[name] = self._map_scratch(name, dim)
        except BaseException:
            self.abort()
            raise

    def write(
        self,
        unique_indices: npt.NDArray[np.int64],
        vectors: Mapping[str, npt.NDArray[np.float32]],
        batch: int,
        keys: npt.NDArray[np.uint8],
    ) -> None:
        """Take the vectors of one batch, or of a part of one.

        Args:
            unique_indices: (n,), any order.
            vectors: for each column (n, dim); cast to the output dtype here.
            batch: number of the batch within the shard.
            keys: (n, 16), of the sequences that were really computed.

        Raises:
            LedgerError: an index is outside the shard or came before.
            DataError: a value is not finite in the output dtype.
            ValueError: columns or shapes differ from those announced.
        """
        rows = np.asarray(unique_indices, np.int64) - self._first
        self._check_rows(rows)
        if set(vectors) != set(self._columns):
            raise ValueError(f"columns {sorted(vectors)} given, {sorted(self._columns)} announced")
        for name, dim in self._columns.items():
            if vectors[name].shape != (len(rows), dim):
                raise ValueError(f"{name} has shape {vectors[name].shape}, expected {(len(rows), dim)}")
            with np.errstate(over="ignore"):
                values = vectors[name].astype(self._dtype, copy=False)
            finite = np.isfinite(values).all(axis=1)
            if not finite.all():
                bad = _some(rows[~finite] + self._first)
                raise DataError(
                    f"{self._outdir}: vectors of unique_index {bad} are not finite as {self._dtype}; "
                    "embed with --embedding_dtype float32 or --precision fp32"
                )
            self._scratch[name][rows] = values
        self._batch[rows] = batch
        self._keys[rows] = keys
        self._seen[rows] = True

    def write_residues(
        self, unique_indices: npt.NDArray[np.int64], residues: Sequence[Mapping[str, npt.NDArray[np.float16]]]
    ) -> None:
        """Take the per-residue vectors of rows that ``write`` took: for each a column's (length, dim), no cls and eos.

        They go to the disk as they come, without a scratch file: the rows there are in order of arrival, with the keys
        that ``write`` was given.

        Raises:
            LedgerError: a row has not come.
            DataError: a value does not fit float16.
        """
        if self._residues is None:
            raise ValueError("residues given, none announced")
        rows = unique_indices - self._first
        if not self._seen[rows].all():
            raise LedgerError(f"{self._outdir}: residues of unique_index {_some(unique_indices)} without their vectors")
        self._residues.write((key.tobytes().hex() for key in self._keys[rows]), residues)

    def finish(self, write_beside: Callable[[Path], object] | None = None) -> Path:
        """Write embeddings.parquet (and the last of the residues), then give the folder its final name.

        Args:
            write_beside: called with the folder, before it is renamed, to write what else belongs into it.

        Returns:
            The shard's folder.

        Raises:
            LedgerError: a row did not come.
            OSError: the disk is full or gone.
        """
        try:
            self._check_complete()
            write_parquet(self._folder / EMBEDDINGS_FILE, self._schema, self._row_groups())
            if self._residues is not None:
                self._residues.close()
            self._drop_scratch()
            if write_beside is not None:
                write_beside(self._folder)
            publish_directory(self._folder, self._outdir)
        except BaseException:
            self.abort()
            raise
        return self._outdir

    @property
    def digests(self) -> dict[str, str]:
        """Digest of what each file of vectors holds, once it is written."""
        found = {EMBEDDINGS_FILE: self._vectors_digest.hexdigest()}
        residues = {} if self._residues is None else self._residues.digests
        return found | {f"{RESIDUES_DIR}/{path.name}": digest for path, digest in residues.items()}

    def abort(self) -> None:
        """Drop everything taken so far; harmless after ``finish``."""
        if self._residues is not None:
            self._residues.abort()
        self._drop_scratch()
        remove_tree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def _check_complete(self) -> None:
        missing = np.flatnonzero(~self._seen)
        if len(missing):
            raise LedgerError(
                f"{self._outdir}: {len(missing)} of {self._sequences} sequences have no vector "
                f"(unique_index {_some(missing + self._first)}); embed the shard again"
            )
        rows = self._sequences if self._residues is None else self._residues.rows
        if rows != self._sequences:
            raise LedgerError(f"{self._outdir}: {rows} of {self._sequences} sequences have residues; embed it again")

    def _check_rows(self, rows: npt.NDArray[np.int64]) -> None:
        outside = (rows < 0) | (rows >= self._sequences)
        if outside.any():
            end = self._first + self._sequences
            raise LedgerError(
                f"{self._outdir}: unique_index {_some(rows[outside] + self._first)} is outside this shard's "
                f"{self._first} to {end - 1}; the shard file and the split do not belong together"
            )
        distinct, counts = np.unique(rows, return_counts=True)
        twice = distinct[(counts > 1) | self._seen[distinct]]
        if len(twice):
            raise LedgerError(f"{self._outdir}: unique_index {_some(twice + self._first)} came twice")

    def _map_scratch(self, name: str, dim: int) -> npt.NDArray[Any]:
        shape = (self._sequences, dim)
        size = self._sequences * dim * self._dtype.itemsize
        if size == 0:
            return np.empty(shape, self._dtype)
        path = self._folder / f".{name}.scratch"
        self._scratch_files.append(path)
        with path.open("w+b") as file:
            reserve(file, size)
        return np.memmap(path, self._dtype, "r+", shape=shape)

    def _drop_scratch(self) -> None:
        self._scratch.clear()
        for path in self._scratch_files:
            path.unlink(missing_ok=True)
        self._scratch_files.clear()

    def _row_groups(self) -> Iterator[pa.Table]:
        for start in range(0, self._sequences, self._row_group_rows):
            end = min(start + self._row_group_rows, self._sequences)
            indices = np.arange(self._first + start, self._first + end)
            vectors = [self._scratch[name][start:end] for name in self._columns]
            self._vectors_digest.add(indices, self._keys[start:end], *vectors, self._batch[start:end])
            columns = [pa.array(indices), key_array(self._keys[start:end])]
            for name in self._columns:
                columns.append(vector_array(self._scratch[name][start:end], self._schema.field(name).type))
            columns.append(pa.array(self._batch[start:end]))
            yield pa.Table.from_arrays(columns, schema=self._schema)


def key_array(keys: npt.NDArray[np.uint8]) -> pa.Array:
    """Keys (n, 16), contiguous, as an Arrow column without copying them."""
    return pa.Array.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, pa.py_buffer(keys)])


def vector_array(vectors: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Vectors (n, dim), contiguous, as an Arrow column without copying them."""
    rows, dim = vectors.shape
    values = pa.Array.from_buffers(kind.value_type, rows * dim, [None, pa.py_buffer(vectors)])
    return pa.FixedSizeListArray.from_buffers(kind, rows, [None], children=[values])


def write_parquet(path: Path, schema: pa.Schema, row_groups: Iterator[pa.Table]) -> None:
    """Write each table as one row group under a temporary name, flush to disk, rename."""
    file = PartialParquet(path, schema, **VECTOR_STORAGE)
    try:
        for table in row_groups:
            file.write(table)
        file.close()
    finally:
        file.abort()
    sync(path.parent)


def _some(values: npt.NDArray[np.int64]) -> str:
    named = ", ".join(str(value) for value in values[:_NAMED_AT_MOST])
    return named if len(values) <= _NAMED_AT_MOST else f"{named}, ..."
