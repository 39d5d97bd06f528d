"""Tables of proteins: TSV, CSV and Parquet, with a column of ids and one of sequences."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.errors import UsageError
from virnucpro.fasta_source import RECORD_BYTES
from virnucpro.output.damage import reading
from virnucpro.split.converted_source import ConvertedSource, Protein

_DELIMITERS: Final = "\t,;"
_LINE_END: Final = re.compile("\r\n?|\n")
#: Rows of Parquet read at once.
_BATCH_ROWS: Final = 1024
#: Of each column; without a buffer a row group's whole column would be in memory.
_BUFFER_BYTES: Final = 1 << 20
_PARQUET: Final = b"PAR1"
_AGAIN: Final = "copy or download it again"
_QUOTES: Final = "close the quotes that a cell begins with, double those inside it, and leave none after them"


class Columns(NamedTuple):
    """The columns that hold ids and sequences."""

    id: str
    sequence: str


class TextTable(ConvertedSource):
    """TSV or CSV with a header line, cells quoted as spreadsheets do; tabs, commas or semicolons between them.

    Args:
        path, name, expected: as of ``FastaSource``.
        columns: which to read.
        delimiter: between cells.
    """

    def __init__(self, path: Path, columns: Columns, delimiter: str, *, name: str, expected: str | None = None) -> None:
        super().__init__(path, name=name, expected=expected)
        self._columns, self._delimiter = columns, delimiter

    def proteins(self, stream: BinaryIO) -> Iterator[Protein]:
        """Yield the rows in order.

        Raises:
            FastaFormatError: a row has another number of cells than the header, or its quotes are not closed: the rows
                up to the next quote would be one cell of it.
        """
        csv.field_size_limit(RECORD_BYTES)
        lines = io.TextIOWrapper(stream, "utf-8-sig", "replace", newline="")
        rows = csv.reader(lines, delimiter=self._delimiter, strict=True)
        header: list[str] = []
        places: list[int] = []
        begin = 1
        try:
            for row in rows:
                line, begin = begin, rows.line_num + 1
                if begin - line > 1 and self._delimiter == "\t" and any(map(_holds_rows, row)):
                    raise self._error("quotes with a tab and a line break between them", line, _QUOTES)
                if not header:
                    header = row
                    _check_columns(self.name, header, self._columns)
                    places = [header.index(name) for name in self._columns]
                elif len(row) == len(header):
                    yield Protein(row[places[0]], "", row[places[1]], line)
                elif row:
                    what = f"{len(row)} cells, but {len(header)} columns"
                    raise self._error(what, line, "correct or remove the row")
        except csv.Error:
            raise self._error("quotes that do not fit together", begin, _QUOTES) from None


class ParquetTable(ConvertedSource):
    """A Parquet file; ids of other types than text are written as text.

    Args:
        path, name, expected: as of ``FastaSource``.
        columns: which to read.
    """

    def __init__(self, path: Path, columns: Columns, *, name: str, expected: str | None = None) -> None:
        super().__init__(path, name=name, expected=expected)
        self._columns = columns

    def proteins(self, stream: BinaryIO) -> Iterator[Protein]:
        """Yield the rows in order.

        Raises:
            UsageError: a column is not there, or its sequences are no text.
            DataError: the file is damaged.
        """
        options = {"buffer_size": _BUFFER_BYTES, "pre_buffer": False}
        with reading(Path(self.name), _AGAIN), pq.ParquetFile(self._path, **options) as file:
            _check_columns(self.name, file.schema_arrow.names, self._columns)
            kind = file.schema_arrow.field(self._columns.sequence).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                raise UsageError(f"--sequence_column {self._columns.sequence}: {self.name} has {kind} in it, no text")
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(dict.fromkeys(self._columns)), use_threads=False):
                pairs = zip(*(batch[name].to_pylist() for name in self._columns), strict=True)
                yield from (Protein(_text(name), "", _text(sequence)) for name, sequence in pairs)


def open_table(path: Path, head: bytes, columns: Columns, *, name: str, expected: str | None) -> ConvertedSource | None:
    """The source for a table that begins with ``head``; None where it is none.

    Raises:
        UsageError: it is one, and lacks a column.
    """
    if head.startswith(_PARQUET):
        return ParquetTable(path, columns, name=name, expected=expected)
    if head.startswith(b">") or b"\0" in head:
        return None
    line = _LINE_END.split(head.decode("utf-8-sig", "replace"), 1)[0]
    csv.field_size_limit(RECORD_BYTES)
    headers = {delimiter: next(csv.reader([line], delimiter=delimiter), []) for delimiter in _DELIMITERS}
    for delimiter, header in headers.items():
        if set(columns) <= set(header):
            _check_columns(name, header, columns)
            return TextTable(path, columns, delimiter, name=name, expected=expected)
    widest = max(headers.values(), key=len)
    if len(widest) > 1:
        _check_columns(name, widest, columns)
    return None


def _check_columns(name: str, there: Sequence[str], columns: Columns) -> None:
    """Raise UsageError where a file lacks a column, or has two of that name."""
    for option, column in zip(("id_column", "sequence_column"), columns, strict=True):
        if there.count(column) != 1:
            how = "several of that name" if column in there else f"the columns {', '.join(there)}"
            raise UsageError(f"--{option} {column}: {name} has {how}")


def _holds_rows(cell: str) -> bool:
    """Whether a cell has a tab and a line break in it, which nobody types into a spreadsheet: quotes took in rows."""
    return "\t" in cell and _LINE_END.search(cell) is not None


def _text(value: Any) -> str:
    return "" if value is None else str(value)
