"""The ledger (manifest.parquet): one row per input record, written and read in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.errors import DataError, InputMissingError
from virnucpro.output.atomic import PartialParquet
from virnucpro.output.damage import reading
from virnucpro.output.schema import LATER_FACTS, LEDGER_FACTS, LEDGER_SCHEMA, OPTIONAL_FIELDS, encode_metadata

__all__ = ["LEDGER_SCHEMA", "LedgerReader", "LedgerWriter"]

#: Rows per row group of the ledger; about 150 bytes each before compression.
LEDGER_ROW_GROUP_ROWS: Final = 131_072
#: Bytes of rows after which a row group ends all the same: descriptions may be long.
LEDGER_ROW_GROUP_BYTES: Final = 128 << 20

#: Columns whose values repeat, so that a dictionary page pays; ids and keys are nearly all distinct.
_DICTIONARY_COLUMNS: Final = [
    *("file", "sample", "status", "reason", "length", "shard", "reuse_source", "unknown_residues", "gaps_removed"),
    *("contig", "strand", "frame"),
]

#: Counters as differences; keys without a length before each, which takes a third off the time to compress them.
_ENCODINGS: Final = {
    "ordinal": "DELTA_BINARY_PACKED",
    "unique_index": "DELTA_BINARY_PACKED",
    "reuse_row": "DELTA_BINARY_PACKED",
    "sequence_key": "DELTA_LENGTH_BYTE_ARRAY",
}


class LedgerWriter:
    """Streams the ledger to ``path`` in row groups, under a temporary name that is renamed by ``close``.

    As a context manager it closes on success, and on an exception leaves nothing behind.

    Args:
        path: where the finished ledger stands.
        metadata: JSON-able facts for the file metadata.
        row_group_rows: rows held in memory before they are written.
        optional: those of ``OPTIONAL_FIELDS`` that the rows have.
    """

    def __init__(
        self,
        path: Path,
        metadata: Mapping[str, object] | None = None,
        row_group_rows: int = LEDGER_ROW_GROUP_ROWS,
        optional: Sequence[pa.Field] = (),
    ) -> None:
        self.path = path
        self.rows = 0
        self._row_group_rows = row_group_rows
        self._pending: list[pa.Table] = []
        self._pending_rows = self._pending_bytes = 0
        schema = pa.schema([*LEDGER_SCHEMA, *optional])
        self._schema = schema.with_metadata(encode_metadata(metadata or {}))
        self._file = PartialParquet(
            path,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[name for name in _DICTIONARY_COLUMNS if name in schema.names],
            column_encoding=_ENCODINGS,
            write_statistics=["ordinal", "unique_index", "shard", "reuse_row"],
        )

    def write(self, rows: pa.Table | pa.RecordBatch | Mapping[str, Any]) -> None:
        """Append rows: a table, a record batch, or a mapping from column names to arrays or sequences.

        Columns may come in any order; the nullable ones may be left out.

        Raises:
            pyarrow.ArrowInvalid: a value does not fit its column.
        """
        table = _as_table(rows, self._schema)
        self.rows += table.num_rows
        self._pending.append(table)
        self._pending_rows += table.num_rows
        self._pending_bytes += table.nbytes
        full = self._pending_bytes >= LEDGER_ROW_GROUP_BYTES
        if full or self._pending_rows >= self._row_group_rows:
            self._flush(whole_groups_only=not full)

    def close(self) -> None:
        """Write what is left, flush to disk and rename to the final name."""
        if not self._file.closed:
            self._flush(whole_groups_only=False)
            self._file.close()

    def abort(self) -> None:
        """Drop everything written so far."""
        self._file.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _flush(self, *, whole_groups_only: bool) -> None:
        table = pa.concat_tables(self._pending) if self._pending else self._schema.empty_table()
        size = self._row_group_rows
        end = table.num_rows - table.num_rows % size if whole_groups_only else table.num_rows
        for start in range(0, end, size):
            # What was given in pieces has a dictionary each; where they differ Parquet would have none from there on.
            self._file.write(table.slice(start, min(size, end - start)).unify_dictionaries())
        self._pending = [table.slice(end)] if end < table.num_rows else []
        self._pending_rows = table.num_rows - end
        self._pending_bytes = sum(each.nbytes for each in self._pending)


def _as_table(rows: pa.Table | pa.RecordBatch | Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    names = rows.column_names if isinstance(rows, pa.Table) else list(rows)
    unknown = sorted(set(names) - set(schema.names))
    if unknown:
        raise ValueError(f"the ledger has no column {', '.join(unknown)}; it has {', '.join(schema.names)}")
    count = rows.num_rows if isinstance(rows, pa.Table) else len(next(iter(rows.values()), ()))
    columns = [
        _as_column(rows[field.name], field.type) if field.name in names else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _as_column(values: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    if column.type.equals(kind):
        return column
    if pa.types.is_dictionary(kind) and not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    return column.cast(kind)


_REMEDY: Final = "split the input again"


class LedgerReader:
    """Reads a ledger one slice of a row group at a time.

    Args:
        path: the ledger.
        earlier: take that of an earlier version too, which lacks ``LATER_FACTS``.

    Raises:
        InputMissingError: there is no such file.
        DataError: the file is no ledger.
    """

    def __init__(self, path: Path, *, earlier: bool = False) -> None:
        if not path.is_file():
            raise InputMissingError(f"{path}: no ledger there; give the manifest.parquet that the split wrote")
        with reading(path, _REMEDY):
            self._file = pq.ParquetFile(path, pre_buffer=False)
        there = self._file.schema_arrow.names
        missing = sorted(set(LEDGER_SCHEMA.names) - set(there) - set(LATER_FACTS if earlier else ()))
        if missing:
            raise DataError(f"{path}: not a ledger, it lacks the column {', '.join(missing)}; split the input again")
        for field in LEDGER_SCHEMA:
            if field.name in there and self._file.schema_arrow.field(field.name).type != field.type:
                what = f"not a ledger, its column {field.name} is not {field.type}"
                raise DataError(f"{path}: {what}; split the input again")
        self.path = path
        self.rows: int = self._file.metadata.num_rows
        self.schema: pa.Schema = self._file.schema_arrow
        #: Those of ``LEDGER_FACTS`` that the rows have.
        self.facts: tuple[str, ...] = tuple(name for name in LEDGER_FACTS if name in there)
        #: Those of ``OPTIONAL_FIELDS`` that the rows have.
        self.optional: tuple[pa.Field, ...] = tuple(each for each in OPTIONAL_FIELDS if each.name in self.schema.names)

    def batches(self, columns: Sequence[str] | None = None, batch_rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """The rows in input order, at most ``batch_rows`` at once, the columns in the order asked for."""
        names = list(columns) if columns is not None else None
        with reading(self.path, _REMEDY):
            for batch in self._file.iter_batches(batch_size=batch_rows, columns=names):
                yield batch.select(names) if names is not None else batch

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
