"""Finished results as an export reads them: in input order, a bounded number of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from virnucpro.errors import DataError, InputMissingError, UsageError
from virnucpro.output.damage import REMEDY_OF_RESULTS as _REMEDY
from virnucpro.output.damage import reading
from virnucpro.output.digest_list import listed_parts, read_digests
from virnucpro.output.digests import check_file
from virnucpro.output.files import EMBEDDINGS_DIR, MANIFEST_FILE, RESIDUES_DIR
from virnucpro.output.keys import packed_keys
from virnucpro.output.ledger import LedgerReader
from virnucpro.output.residue_reader import read_residues
from virnucpro.output.schema import (
    LEDGER_FACTS,
    OPTIONAL_FIELDS,
    decode_metadata,
    required_vector_columns,
    residue_columns,
)

Vectors = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

#: Bytes of vectors held at once.
BATCH_BYTES: Final = 32 << 20
_MOST_ROWS: Final = 16_384


@dataclass(frozen=True)
class Records:
    """Rows that follow each other, from ``first`` on.

    ``facts`` has the columns of ``Results.facts``; ``vectors`` holds (rows, dim) arrays by column; ``texts`` are the
    proteins' ids or headers, and ``names`` what the layout calls them.
    """

    first: int
    facts: pa.RecordBatch
    vectors: Mapping[str, Vectors]
    texts: list[str]
    names: list[str]


class Results:
    """A results folder. Its ledger is proved by its digest here, each other file when its vectors are read.

    ``rows`` is the number of vectors, ``columns`` maps their columns to dimensions, ``dtype`` is their type, and
    ``facts`` are the columns of ``LEDGER_FACTS`` and ``OPTIONAL_FIELDS`` that they have.

    Raises:
        InputMissingError: there are no finished results.
        DataError: a file is not as it was written, or there are not as many vectors as the ledger says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._digests = read_digests(folder)
        self._parts = listed_parts(folder, self._digests, EMBEDDINGS_DIR)
        self._residue_parts = listed_parts(folder, self._digests, RESIDUES_DIR)
        if not self._parts or MANIFEST_FILE not in self._digests:
            raise DataError(f"{folder}: no ledger or no vectors among the digests; {_REMEDY}")
        self._check(folder / MANIFEST_FILE)
        self.rows = sum(map(_rows, self._parts))
        schema = _schema(self._parts[0])
        self.metadata = decode_metadata(schema, self._parts[0])
        told = (*LEDGER_FACTS, *(field.name for field in OPTIONAL_FIELDS))
        self.facts = [name for name in told if name in schema.names]
        self.columns = required_vector_columns(schema, self._parts[0])
        self.dtype = np.dtype(schema.field(next(iter(self.columns))).type.value_type.to_pandas_dtype())
        self.layers: list[int] = self.metadata["layers"]
        self.pooling: list[str] = self.metadata["pooling"]
        expected = sum(len(batch) for batch in self._ledger(["ordinal"]))
        if self.rows != expected:
            raise DataError(f"{folder}: {self.rows} vectors, but {expected} in the ledger; {_REMEDY}")

    def column(self, asked: str | None) -> str:
        """The one column of vectors to write.

        Raises:
            UsageError: there is none of that name, or there are several and none is named.
        """
        names = ", ".join(self.columns)
        if asked is None and len(self.columns) > 1:
            raise UsageError(f"{self.folder} has several vectors for each protein: {names}; choose one with --column")
        if asked is not None and asked not in self.columns:
            raise UsageError(f"--column {asked}: {self.folder} has {names}")
        return asked or next(iter(self.columns))

    def facts_alone(self) -> Iterator[pa.RecordBatch]:
        """The rows without their vectors."""
        for part in self._parts:
            yield from _batches(part, self.facts, _MOST_ROWS)

    def vectors(self, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, dict[str, Vectors]]]:
        """The rows with the vectors of some columns, each (rows, dim).

        Raises:
            DataError: a file is not as it was written.
        """
        width = sum(self.columns[name] for name in columns) * self.dtype.itemsize
        rows = max(1, min(_MOST_ROWS, BATCH_BYTES // width))
        for part in self._parts:
            self._check(part)
            for batch in _batches(part, (*self.facts, *columns), rows):
                yield batch.select(self.facts), {name: _matrix(batch[name]) for name in columns}

    def headers(self) -> Iterator[list[str]]:
        """The header lines of the rows, without ``>``, as the ledger has them."""
        for batch in self._ledger(["id", "description"]):
            headers = pc.binary_join_element_wise(batch["id"], batch["description"], " ", null_handling="skip")
            yield pc.utf8_trim_whitespace(headers).to_pylist()

    def files(self) -> Iterator[pa.RecordBatch]:
        """For each record, also the rejected ones, its file and its status."""
        with LedgerReader(self.folder / MANIFEST_FILE, earlier=True) as ledger:
            yield from ledger.batches(["file", "status"])

    def residue_columns(self) -> dict[int, str]:
        """The columns of single residues' vectors, by layer.

        Raises:
            InputMissingError: there are none.
        """
        if not self._residue_parts:
            raise InputMissingError(f"{self.folder}: no residues in it; run the pipeline with --per_residue first")
        return dict(zip(self.layers, residue_columns(self.layers), strict=True))

    def residues(self, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Vectors]]]:
        """Sequence keys in the order of computation, and (residues, dim) float16 by column.

        Raises:
            DataError: a file is not as it was written.
        """
        for part in self._residue_parts:
            self._check(part)
            yield from read_residues(part, columns)

    def _check(self, path: Path) -> None:
        check_file(path, self._digests[path.relative_to(self.folder).as_posix()], _REMEDY)

    def _ledger(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with LedgerReader(self.folder / MANIFEST_FILE, earlier=True) as ledger:
            for batch in ledger.batches([*columns, "status"]):
                yield batch.filter(pc.not_equal(batch["status"].cast(pa.string()), "rejected"))


class RowsByKey:
    """Which rows have a sequence: 24 bytes of memory for each row.

    Args:
        results: whose rows.
    """

    def __init__(self, results: Results) -> None:
        packed = [packed_keys(batch["sequence_key"]) for batch in results.facts_alone()]
        keys = np.concatenate([*packed, np.empty(0, "S16")])
        self._order: Rows = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def rows(self, key: str) -> Rows:
        """The rows with a sequence key, in input order."""
        wanted = np.frombuffer(bytes.fromhex(key), "S16")[0]
        begin, end = np.searchsorted(self._keys, wanted, "left"), np.searchsorted(self._keys, wanted, "right")
        return self._order[begin:end]


def _schema(path: Path) -> pa.Schema:
    with reading(path, _REMEDY):
        return pq.read_schema(path)


def _rows(path: Path) -> int:
    with reading(path, _REMEDY):
        return int(pq.read_metadata(path).num_rows)


def _batches(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    with reading(path, _REMEDY), pq.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(rows, columns=list(columns), use_threads=False)


def _matrix(column: pa.FixedSizeListArray) -> Vectors:
    matrix: Vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return matrix
