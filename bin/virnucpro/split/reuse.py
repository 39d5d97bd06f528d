"""Earlier results as a source of vectors: which of them fit this run, and which keys they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.errors import DataError, InputMissingError
from virnucpro.output.contracts import VectorFacts
from virnucpro.output.damage import reading
from virnucpro.output.digest_list import reused_parts, reused_residues
from virnucpro.output.files import DIGESTS_FILE, EMBEDDINGS_DIR, RESIDUES_DIR, embedding_parts
from virnucpro.output.keys import key_words
from virnucpro.output.residue_reader import residue_dims
from virnucpro.output.schema import (
    decode_metadata,
    embedding_columns,
    embedding_type,
    first_difference,
    residue_columns,
    vector_columns,
)
from virnucpro.split.dedup import deal, dealt, group_starts, partition_bits
from virnucpro.split.spool import CHUNK_RECORDS

#: One known vector: its key, the position of its results in ``--reuse``, its row over all their parts.
ENTRY_TYPE: Final = np.dtype(
    [("high", np.uint64), ("low", np.uint64), ("row", np.int64), ("source", np.int32)], align=False
)
Array = npt.NDArray[Any]
_LEAVE_OUT: Final = "leave it out of --reuse"


@dataclass(frozen=True)
class EarlierResults:
    """A finished run's output ``folder``, and what the user calls it where that is elsewhere."""

    folder: Path
    name: str

    def called(self, file: Path) -> str:
        """A file of the folder as the user finds it."""
        return f"{self.name.rstrip('/')}/{file.relative_to(self.folder)}"


def mismatch(
    results: EarlierResults, expected: Mapping[str, object], vectors: VectorFacts, embed_dim: int
) -> str | None:
    """Say why earlier results cannot stand in for this run's, or return None where they can.

    Args:
        expected: what this run's metadata holds under ``IDENTITY_KEYS``.
        vectors: that this run makes, of ``embed_dim`` numbers each.

    Raises:
        InputMissingError: there are no results.
        DataError: a part is damaged.
    """
    if not embedding_parts(results.folder):
        missing = f"{results.name}: no {EMBEDDINGS_DIR}/part-*.parquet in it"
        raise InputMissingError(f"{missing}; give --reuse the output folder of an earlier run")
    if not (results.folder / DIGESTS_FILE).exists():
        return f"{DIGESTS_FILE} is not there, which tells what the run left"
    for part in reused_parts(results.folder, results.name):
        called = results.called(part)
        with reading(called, _LEAVE_OUT):
            schema = pq.read_schema(part)
        try:
            with reading(called, _LEAVE_OUT):
                found = decode_metadata(schema, called)
        except DataError as error:
            return str(error)
        key = first_difference(expected, found)
        if key is not None:
            return f"{key} is {_show(found.get(key))} there and {_show(expected[key])} here"
        for column in embedding_columns(vectors.pooling, vectors.layers):
            if column not in vector_columns(schema):
                return f"column {column} is not there"
            kind = schema.field(column).type
            wanted = embedding_type(vectors.embedding_dtype, embed_dim)
            if (kind.value_type, kind.list_size) != (wanted.value_type, wanted.list_size):
                return f"embedding_dtype is {_dtype(kind)} there and {_dtype(wanted)} here"
    return _residues_mismatch(results, vectors.layers, embed_dim) if vectors.per_residue else None


def _dtype(kind: pa.FixedSizeListType) -> str:
    return f"{kind.list_size} x {np.dtype(kind.value_type.to_pandas_dtype()).name}"


def _residues_mismatch(results: EarlierResults, layers: list[int], embed_dim: int) -> str | None:
    parts = reused_residues(results.folder, results.name)
    if not parts:
        return "vectors of single residues (--per_residue) are not there"
    for part in parts:
        with reading(results.called(part), _LEAVE_OUT):
            dims = residue_dims(pq.read_schema(part), results.called(part))
        for column in residue_columns(layers):
            if dims.get(column) != embed_dim:
                return f"{RESIDUES_DIR} have no column {column} of {embed_dim} numbers"
    return None


class ReuseIndex:
    """Keys of earlier results, dealt to partitions on disk so that memory does not depend on how many there are.

    Args:
        path: where to write; the partition's number is added to the name.
        sources: results to use, by their position in ``--reuse``.
        records: of the run. Where earlier results have more, partitions are as many as those take.

    Attributes:
        bits: how many first bits of a key tell its partition.
    """

    def __init__(self, path: Path, sources: Mapping[int, EarlierResults], records: int) -> None:
        self._path = path
        self.bits = partition_bits(max(records, sum(map(_rows, sources.values()))))
        for source, results in sources.items():
            for entries in _entries(source, results):
                deal(entries, self.bits, path)

    def partition(self, partition: int) -> tuple[Array, Array, Array, Array]:
        """Distinct (high, low) of one partition in ascending order, with source and row of their first vector."""
        entries = dealt(self._path, partition, ENTRY_TYPE)
        if len(entries):
            entries = entries[np.lexsort((entries["low"], entries["high"]))]
            entries = entries[group_starts(entries["high"], entries["low"])]
        return entries["high"], entries["low"], entries["source"], entries["row"]


def _rows(results: EarlierResults) -> int:
    rows = 0
    for part in reused_parts(results.folder, results.name):
        with reading(results.called(part), _LEAVE_OUT):
            rows += int(pq.read_metadata(part).num_rows)
    return rows


def _entries(source: int, results: EarlierResults) -> Iterator[Array]:
    first_row = 0
    for part in reused_parts(results.folder, results.name):
        with reading(results.called(part), _LEAVE_OUT), pq.ParquetFile(part, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=CHUNK_RECORDS, columns=["sequence_key"]):
                words = key_words(batch.column(0)).astype(np.uint64)
                entries = np.empty(len(words), ENTRY_TYPE)
                entries["high"] = words[:, 0] << np.uint64(32) | words[:, 1]
                entries["low"] = words[:, 2] << np.uint64(32) | words[:, 3]
                entries["row"] = np.arange(first_row, first_row + len(words))
                entries["source"] = source
                first_row += len(words)
                yield entries


def _show(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 16 else text[:12] + "..."
