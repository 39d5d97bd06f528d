"""A Parquet file that has its name only once it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.output.directories import sync


class PartialParquet:
    """Writes ``path`` under a temporary name beside it.

    Args:
        path: the finished file.
        schema: its columns.
        storage: options of ``pyarrow.parquet.ParquetWriter``.
    """

    def __init__(self, path: Path, schema: pa.Schema, **storage: Any) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.partial")
        self._writer: pq.ParquetWriter | None = pq.ParquetWriter(self._temporary, schema, **storage)

    @property
    def closed(self) -> bool:
        """Whether the file is finished or dropped."""
        return self._writer is None

    def write(self, table: pa.Table, row_group_size: int) -> None:
        """Append rows.

        Raises:
            ValueError: the file is closed.
        """
        if self._writer is None:
            raise ValueError(f"{self._path}: closed")
        self._writer.write_table(table, row_group_size=row_group_size)

    def close(self) -> None:
        """Flush to disk and give the file its name; harmless when closed."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        sync(self._temporary)
        self._temporary.replace(self._path)

    def abort(self) -> None:
        """Drop the unfinished file; harmless when closed."""
        if self._writer is None:
            return
        try:
            self._writer.close()
        finally:
            self._writer = None
            self._temporary.unlink(missing_ok=True)
