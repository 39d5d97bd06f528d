"""The merged vectors in files of about equal size, and the proof that they are what the ledger asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.errors import LedgerError
from virnucpro.output.atomic import PartialParquet
from virnucpro.output.files import part_name
from virnucpro.output.keys import KeyDigest
from virnucpro.output.schema import BATCH_FACTS, row_bytes, vector_columns

#: Columns whose values repeat within a row group.
_DICTIONARY_COLUMNS: Final = ("length", "truncated", "sample", "shard", "batch", "device_name", *BATCH_FACTS)


class PartWriter:
    """Writes tables, one row group each, into ``part-00000.parquet`` and on, a new file at every ``part_rows``.

    Args:
        folder: made if missing.
        schema: of every part.
        part_rows: rows per file; None where the caller begins each file by ``start_part``.
        storage: options of ``pyarrow.parquet.ParquetWriter``.

    Attributes:
        digests: of each finished part, in order.
    """

    def __init__(self, folder: Path, schema: pa.Schema, part_rows: int | None, storage: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.digests: dict[Path, str] = {}
        self.rows = 0
        self._folder = folder
        self._schema = schema
        self._part_rows = part_rows
        self._storage = dict(storage)
        self._part: PartialParquet | None = None
        self._rows_in_part = 0

    def write(self, table: pa.Table) -> None:
        """Append one row group."""
        if self._part is None or (self._part_rows is not None and self._rows_in_part >= self._part_rows):
            self.start_part()
        assert self._part is not None
        self._part.write(table)
        self._rows_in_part += table.num_rows
        self.rows += table.num_rows

    def close(self) -> None:
        """Finish the last file; without any row there is one, empty file."""
        if self._part is None:
            self.start_part()
        self._finish_part()

    def abort(self) -> None:
        """Let go of the open file."""
        if self._part is not None:
            self._part.abort()

    def start_part(self) -> None:
        """Begin the next file."""
        self._finish_part()
        self._path = self._folder / part_name(len(self.digests))
        self._part = PartialParquet(self._path, self._schema, **self._storage)
        self._rows_in_part = 0

    def _finish_part(self) -> None:
        if self._part is not None and not self._part.closed:
            self._part.close()
            self.digests[self._path] = self._part.digest


def embedding_storage(schema: pa.Schema) -> dict[str, Any]:
    """How parts are stored: vectors plain (see ``writer.VECTOR_STORAGE``), everything else compressed."""
    vectors = vector_columns(schema)
    codecs = {name: "zstd" for name in schema.names if name not in vectors}
    codecs |= {f"{name}.list.element": "none" for name in vectors}
    return {
        "compression": codecs,
        "use_dictionary": [name for name in _DICTIONARY_COLUMNS if name in schema.names],
        "write_statistics": ["ordinal", "length", "shard"],
    }


def rows_per_part(columns: Mapping[str, int], dtype: str, part_bytes: int, group_rows: int) -> int:
    """Whole row groups that fill about ``part_bytes``."""
    return max(1, part_bytes // (row_bytes(columns, dtype) * group_rows)) * group_rows


def prove_conservation(paths: list[Path], expected: KeyDigest) -> None:
    """Read the finished parts back and compare with the ledger.

    Raises:
        LedgerError: rows are missing, doubled or out of order, or keys differ, or a vector is incomplete.
    """
    found = KeyDigest()
    last = -1
    for path in paths:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            _check_vectors_complete(path, file)
            for batch in file.iter_batches(columns=["ordinal", "sequence_key"]):
                ordinals = batch["ordinal"].to_numpy()
                if len(ordinals) and (ordinals[0] <= last or (np.diff(ordinals) <= 0).any()):
                    raise LedgerError(f"{path}: rows are out of input order; merge again")
                last = int(ordinals[-1]) if len(ordinals) else last
                found.add(batch["sequence_key"])
    if found != expected:
        raise LedgerError(
            f"{paths[0].parent}: {found.count} rows with key digest {found.hexdigest()}, but the ledger has "
            f"{expected.count} with {expected.hexdigest()}; merge again"
        )


def _check_vectors_complete(path: Path, file: pq.ParquetFile) -> None:
    dims = {f"{name}.list.element": dim for name, dim in vector_columns(file.schema_arrow).items()}
    for group in range(file.num_row_groups):
        row_group = file.metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            dim = dims.get(column.path_in_schema)
            if dim is not None and column.num_values != dim * row_group.num_rows:
                raise LedgerError(f"{path}: row group {group} has incomplete vectors; merge again")
