"""Per-residue vectors: one row per distinct sequence, a list of float16 vectors in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.errors import DataError
from virnucpro.output.atomic import PartialParquet
from virnucpro.output.digests import ContentDigest
from virnucpro.output.schema import residues_type, shard_residues_schema

#: Bytes of vectors per row group, so that a reader of one row group needs little memory.
_ROW_GROUP_BYTES: Final = 64 << 20


class ResidueWriter:
    """Streams residues.parquet in order of arrival, under a temporary name that ``close`` makes final.

    Args:
        path: the finished file.
        columns: column names to dimensions.
        metadata: the Parquet file metadata.
    """

    def __init__(self, path: Path, columns: Mapping[str, int], metadata: Mapping[str, object]) -> None:
        self.rows = 0
        self.digest = ContentDigest()
        self._path = path
        self._columns = dict(columns)
        self._schema = shard_residues_schema(columns, metadata)
        self._indices: list[int] = []
        self._pending: dict[str, list[npt.NDArray[np.float16]]] = {name: [] for name in columns}
        self._pending_bytes = 0
        self._file = PartialParquet(
            path, self._schema, compression="none", write_statistics=False, use_dictionary=False
        )

    def write(self, unique_index: int, residues: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take one sequence: (length, dim) for each column."""
        length = len(next(iter(residues.values())))
        for name, dim in self._columns.items():
            if residues[name].shape != (length, dim):
                raise ValueError(f"{name} has shape {residues[name].shape}, expected {(length, dim)}")
            with np.errstate(over="ignore"):
                values = residues[name].astype(np.float16)
            if not np.isfinite(values).all():
                raise DataError(
                    f"{self._path}: residues of unique_index {unique_index} do not fit float16; leave out --per_residue"
                )
            self._pending[name].append(values)
            self._pending_bytes += values.nbytes
        self._indices.append(unique_index)
        self.rows += 1
        if self._pending_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left and give the file its final name."""
        if not self._file.closed:
            self._flush()
            self._file.close()

    def abort(self) -> None:
        """Drop the unfinished file; harmless after ``close``."""
        self._file.abort()

    def _flush(self) -> None:
        if not self._indices:
            return
        arrays = next(iter(self._pending.values()))
        lengths = np.array([len(array) for array in arrays], np.int32)
        flat = {name: np.concatenate(arrays).reshape(-1) for name, arrays in self._pending.items()}
        indices = np.array(self._indices, np.int64)
        self.digest.add(indices, lengths, *flat.values())
        columns = [pa.array(indices), pa.array(lengths)]
        for name, dim in self._columns.items():
            columns.append(_residue_array(flat[name], lengths, dim))
            self._pending[name] = []
        self._file.write(pa.Table.from_arrays(columns, schema=self._schema))
        self._indices = []
        self._pending_bytes = 0


def _residue_array(flat: npt.NDArray[np.float16], lengths: npt.NDArray[np.int32], dim: int) -> pa.Array:
    kind = residues_type(dim)
    values = pa.Array.from_buffers(pa.float16(), len(flat), [None, pa.py_buffer(flat)])
    vectors = pa.FixedSizeListArray.from_buffers(kind.value_type, len(flat) // dim, [None], children=[values])
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_buffers(kind, len(lengths), [None, pa.py_buffer(offsets)], children=[vectors])
