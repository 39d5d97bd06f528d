"""Per-residue vectors: one row per distinct sequence, its float16 vectors as the bytes of one value.

Each value is a C-ordered (length, dim) matrix of little-endian halves, which numpy takes as it lies there. Parquet's
own lists of lists take many times as long to write and to read (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.errors import DataError
from virnucpro.output.atomic import PartialParquet
from virnucpro.output.files import part_name
from virnucpro.output.schema import RESIDUE_TYPE, residues_schema

#: Bytes of vectors per row group: what a reader takes to get one row, in milliseconds.
ROW_GROUP_BYTES: Final = 16 << 20
#: Bytes of vectors per file, so that one is handled at one sitting; a shard of 20 minutes fills many.
PART_BYTES: Final = 4 << 30
#: What one value of Parquet may hold.
_VALUE_BYTES: Final = (1 << 31) - 1

#: A page for each sequence, so that encoding is one copy. Statistics of what rows are looked for by: their key, and
#: their length, by which they come sorted.
_STORAGE: Final[dict[str, Any]] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": ["sequence_key", "length"],
    "write_batch_size": 1,
}

#: Highest bits of halves that are finite: above are infinity and NaN, positive as int16, negative as uint16.
_LEAST_NOT_FINITE: Final = 0x7C00
_LEAST_NOT_FINITE_NEGATIVE: Final = 0xFC00


class ResidueWriter:
    """Writes ``part-00000.parquet`` and on, in order of arrival, each under a temporary name until it is whole.

    Args:
        folder: made if missing.
        columns: column names to dimensions.
        metadata: of every file.
        first_part: number of the first file.
        part_bytes: about what a file holds.

    Attributes:
        rows: sequences taken so far.
        digests: of each finished file, in order.
    """

    def __init__(
        self,
        folder: Path,
        columns: Mapping[str, int],
        metadata: Mapping[str, object],
        first_part: int = 0,
        part_bytes: int = PART_BYTES,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self.digests: dict[Path, str] = {}
        self._folder = folder
        self._columns = dict(columns)
        self._schema = residues_schema(columns, metadata)
        self._first_part = first_part
        self._part_bytes = part_bytes
        self._part: PartialParquet | None = None
        self._bytes_in_part = 0
        self._pending: list[tuple[str, dict[str, npt.NDArray[Any]]]] = []
        self._pending_bytes = 0
        self._own = 0

    def write(self, keys: Iterable[str], residues: Iterable[Mapping[str, npt.NDArray[Any]]]) -> None:
        """Take sequences: the key of each, and (length, dim) for each column. Their memory is free afterwards.

        Raises:
            DataError: a value does not fit float16, or a sequence does not fit Parquet.
            ValueError: a shape differs from those announced.
        """
        for key, matrices in zip(keys, residues, strict=True):
            self._pending.append((key, self._checked(key, matrices)))
            self._pending_bytes += sum(values.nbytes for values in self._pending[-1][1].values())
            self.rows += 1
            if self._pending_bytes >= ROW_GROUP_BYTES:
                self._flush()
        for row in range(self._own, len(self._pending)):
            key, matrices = self._pending[row]
            self._pending[row] = (key, {name: values.copy() for name, values in matrices.items()})
        self._own = len(self._pending)

    def close(self) -> None:
        """Write what is left and give the last file its name; without any row there is one, empty file."""
        self._flush()
        if not self.rows and self._part is None:
            self._part = self._next_part()
        self._finish_part()

    def abort(self) -> None:
        """Drop the unfinished file; harmless after ``close``."""
        if self._part is not None:
            self._part.abort()

    def _checked(self, key: str, residues: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        length = len(next(iter(residues.values())))
        found = {}
        for name, dim in self._columns.items():
            if residues[name].shape != (length, dim):
                raise ValueError(f"{name} has shape {residues[name].shape}, expected {(length, dim)}")
            with np.errstate(over="ignore"):
                values = np.ascontiguousarray(residues[name], RESIDUE_TYPE)
            if not finite_halves(values):
                raise DataError(
                    f"{self._folder}: residues of sequence {key} do not fit float16; leave out --per_residue"
                )
            if values.nbytes > _VALUE_BYTES:
                raise DataError(
                    f"{self._folder}: residues of sequence {key}, {length:,} of them, do not fit a value of Parquet "
                    "(2 GiB); leave out --per_residue, or cut it (--long_sequences truncate)"
                )
            found[name] = values
        return found

    def _flush(self) -> None:
        if not self._pending:
            return
        if self._part is not None and self._bytes_in_part + self._pending_bytes > self._part_bytes:
            self._finish_part()
        self._part = self._part or self._next_part()
        rows = [matrices for _, matrices in self._pending]
        lengths = [len(next(iter(matrices.values()))) for matrices in rows]
        dims = [next(iter(self._columns.values()))] * len(rows)
        columns = [
            pa.array([key for key, _ in self._pending]),
            pa.array(lengths, pa.int32()),
            pa.array(dims, pa.int32()),
        ]
        columns += [_column([matrices[name] for matrices in rows]) for name in self._columns]
        self._part.write(pa.Table.from_arrays(columns, schema=self._schema))
        self._bytes_in_part += self._pending_bytes
        self._pending, self._pending_bytes, self._own = [], 0, 0

    def _next_part(self) -> PartialParquet:
        self._bytes_in_part = 0
        self._path = self._folder / part_name(self._first_part + len(self.digests))
        return PartialParquet(self._path, self._schema, **_STORAGE)

    def _finish_part(self) -> None:
        if self._part is not None:
            self._part.close()
            self.digests[self._path] = self._part.digest
            self._part = None


def finite_halves(halves: npt.NDArray[Any]) -> bool:
    """Whether all are numbers; ten times as fast as numpy's own test, which makes an array of the answers."""
    if not halves.size:
        return True
    largest, largest_negative = halves.view("<i2").max(), halves.view("<u2").max()
    return bool(largest < _LEAST_NOT_FINITE and largest_negative < _LEAST_NOT_FINITE_NEGATIVE)


def _column(matrices: Sequence[npt.NDArray[Any]]) -> pa.ChunkedArray:
    """One value each, without copying them."""
    return pa.chunked_array(
        [
            pa.Array.from_buffers(
                pa.binary(), 1, [None, pa.py_buffer(np.array([0, values.nbytes], np.int32)), pa.py_buffer(values)]
            )
            for values in matrices
        ],
        pa.binary(),
    )
