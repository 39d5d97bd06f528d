"""Finished results as an export reads them: in input order, a bounded number of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from virnucpro.errors import DataError, InputMissingError, UsageError
from virnucpro.output.files import MANIFEST_FILE, embedding_parts, residue_parts
from virnucpro.output.keys import key_words
from virnucpro.output.schema import LEDGER_FACTS, decode_metadata, residue_columns, vector_columns

Vectors = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

#: Bytes of vectors held at once.
BATCH_BYTES: Final = 32 << 20
_MOST_ROWS: Final = 16_384
_REMEDY: Final = "give --results the folder of a finished run"


@dataclass(frozen=True)
class Records:
    """Rows that follow each other, from ``first`` on.

    ``facts`` has the columns of ``LEDGER_FACTS``; ``vectors`` holds (rows, dim) arrays by column; ``texts`` are the
    proteins' ids or headers, and ``names`` what the layout calls them.
    """

    first: int
    facts: pa.RecordBatch
    vectors: Mapping[str, Vectors]
    texts: list[str]
    names: list[str]


class Results:
    """A results folder, opened and checked against its ledger.

    ``rows`` is the number of vectors, ``columns`` maps their columns to dimensions, and ``dtype`` is their type.

    Raises:
        InputMissingError: the folder, the ledger or the embeddings are not there.
        DataError: a file cannot be read, or there are not as many vectors as the ledger says.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputMissingError(f"{folder}: no such folder; {_REMEDY}")
        self.folder = folder
        self.manifest = folder / MANIFEST_FILE
        if not self.manifest.is_file():
            raise InputMissingError(f"{folder}: no {MANIFEST_FILE} in it; {_REMEDY}")
        self._parts = [_open(path) for path in embedding_parts(folder)]
        if not self._parts:
            raise InputMissingError(f"{folder}: no embeddings/part-*.parquet in it; {_REMEDY}")
        schema: pa.Schema = self._parts[0].schema_arrow
        self.metadata = decode_metadata(schema, folder / "embeddings")
        self.columns = vector_columns(schema)
        self.dtype = np.dtype(schema.field(next(iter(self.columns))).type.value_type.to_pandas_dtype())
        self.layers: list[int] = self.metadata["layers"]
        self.pooling: list[str] = self.metadata["pooling"]
        self.facts = [name for name in LEDGER_FACTS if name in schema.names]
        self.rows = sum(part.metadata.num_rows for part in self._parts)
        expected = sum(len(batch) for batch in self._ledger(["ordinal"]))
        if self.rows != expected:
            raise DataError(f"{folder}: {self.rows} vectors, but the ledger has {expected}; {_REMEDY}")

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
            yield from part.iter_batches(_MOST_ROWS, columns=self.facts)

    def vectors(self, columns: list[str]) -> Iterator[tuple[pa.RecordBatch, dict[str, Vectors]]]:
        """The rows with the vectors of some columns, each (rows, dim)."""
        width = sum(self.columns[name] for name in columns) * self.dtype.itemsize
        rows = max(1, min(_MOST_ROWS, BATCH_BYTES // width))
        for part in self._parts:
            for batch in part.iter_batches(rows, columns=[*self.facts, *columns], use_threads=False):
                yield batch.select(self.facts), {name: _matrix(batch[name]) for name in columns}

    def headers(self) -> Iterator[list[str]]:
        """The header lines of the rows, without ``>``, as the ledger has them."""
        for batch in self._ledger(["id", "description"]):
            headers = pc.binary_join_element_wise(batch["id"], batch["description"], " ", null_handling="skip")
            yield pc.utf8_trim_whitespace(headers).to_pylist()

    def files(self) -> Iterator[pa.RecordBatch]:
        """For each record, also the rejected ones: its file, its status, and its sequence key."""
        yield from _open(self.manifest).iter_batches(columns=["file", "status", "sequence_key"])

    @cached_property
    def _residue_parts(self) -> list[pq.ParquetFile]:
        parts = [_open(path) for path in residue_parts(self.folder)]
        if not parts:
            raise InputMissingError(f"{self.folder}: no residues in it; run the pipeline with --per_residue first")
        return parts

    def residue_columns(self) -> dict[int, str]:
        """The columns of single residues' vectors, by layer.

        Raises:
            InputMissingError: there are none.
        """
        self._residue_parts  # noqa: B018  # raises where there are none
        return dict(zip(self.layers, residue_columns(self.layers), strict=True))

    def residues(self, columns: list[str]) -> Iterator[tuple[str, dict[str, Vectors]]]:
        """Sequence keys in the order of computation, and (residues, dim) float16 by column.

        Raises:
            InputMissingError: there are none.
        """
        for part in self._residue_parts:
            for batch in part.iter_batches(64, columns=["sequence_key", *columns], use_threads=False):
                for row, key in enumerate(batch["sequence_key"].to_pylist()):
                    yield key, {name: _matrix(batch[name].slice(row, 1).flatten()) for name in columns}

    def _ledger(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in _open(self.manifest).iter_batches(columns=[*columns, "status"]):
            yield batch.filter(pc.not_equal(batch["status"].cast(pa.string()), "rejected"))


class RowsByKey:
    """Which rows have a sequence: 24 bytes of memory for each row.

    Args:
        results: whose rows.
    """

    def __init__(self, results: Results) -> None:
        words = [key_words(batch["sequence_key"]).astype(">u4").view("S16").ravel() for batch in results.facts_alone()]
        keys = np.concatenate(words) if words else np.empty(0, "S16")
        self._order: Rows = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def rows(self, key: str) -> Rows:
        """The rows with a sequence key, in input order."""
        wanted = np.frombuffer(bytes.fromhex(key), "S16")[0]
        begin, end = np.searchsorted(self._keys, wanted, "left"), np.searchsorted(self._keys, wanted, "right")
        return self._order[begin:end]


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise DataError(f"{path}: unreadable ({error}); {_REMEDY}") from error


def _matrix(column: pa.FixedSizeListArray) -> Vectors:
    matrix: Vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return matrix
