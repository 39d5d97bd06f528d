"""The vectors of finished results, read in blocks: one for each distinct sequence, whose records share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from virnucpro.errors import DataError, InputMissingError
from virnucpro.output.damage import REMEDY_OF_RESULTS, reading
from virnucpro.output.digest_list import reused_parts
from virnucpro.output.digests import check_file
from virnucpro.output.files import DIGESTS_FILE, embedding_parts
from virnucpro.output.keys import packed_keys
from virnucpro.output.schema import decode_metadata, required_vector_columns

#: Rows of vectors read at a time.
_BATCH_ROWS: Final = 4096
#: What is read of each record beside its vector.
_FACTS: Final = ("ordinal", "id", "sequence_key")
#: Metadata without which two vectors cannot be compared.
_COMPARED: Final = ("weights_sha256", "layers", "pooling")


@dataclass(frozen=True)
class Results:
    """N records of results in input order, and G distinct sequences among them in the order of their first records.

    Attributes:
        name: what messages call them.
        column: whose vectors are compared, of ``dim`` numbers: the first of several.
        batches: gives them, a column alone, in order and as often as asked.
        ordinals, ids: of each record.
        groups: (N,) which distinct sequence each record has.
    """

    name: str
    column: str
    dim: int
    batches: Callable[[], Iterator[pa.RecordBatch]]
    ordinals: npt.NDArray[np.int64]
    ids: pa.LargeStringArray
    groups: npt.NDArray[np.int64]
    metadata: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Results:
        """The results in a folder; of finished ones, which have a list of digests, the parts that it names.

        Raises:
            InputMissingError: there are none.
            DataError: the files were not written by this pipeline, or are damaged.
        """
        parts = embedding_parts(folder)
        if not parts:
            raise InputMissingError(f"{folder}: no embeddings/part-*.parquet in it; give the folder of a finished run")
        if (folder / DIGESTS_FILE).exists():
            listed = reused_parts(folder)
            for part, digest in listed.items():
                check_file(part, digest, REMEDY_OF_RESULTS)
            parts = list(listed)
        tables = []
        for part in parts:
            with reading(part, REMEDY_OF_RESULTS):
                tables.append(pq.read_table(part, columns=list(_FACTS)))
        with reading(parts[0], REMEDY_OF_RESULTS):
            schema = pq.read_schema(parts[0])
        facts = pa.concat_tables(tables)

        def batches(column: str) -> Iterator[pa.RecordBatch]:
            for part in parts:
                with reading(part, REMEDY_OF_RESULTS), pq.ParquetFile(part) as file:
                    yield from file.iter_batches(_BATCH_ROWS, columns=[column])

        return cls._of(str(folder), schema, facts, batches)

    @classmethod
    def of(cls, table: pa.Table) -> Results:
        """A table as ``Embedder.embed`` returns it; DataError where it is none."""

        if not isinstance(table, pa.Table):
            raise DataError(f"the table is of type {type(table).__name__}; give the Arrow table that embed returns")

        def batches(column: str) -> Iterator[pa.RecordBatch]:
            yield from table.select([column]).to_batches(_BATCH_ROWS)

        return cls._of("the table", table.schema, table, batches)

    @classmethod
    def _of(
        cls, name: str, schema: pa.Schema, facts: pa.Table, batches: Callable[[str], Iterator[pa.RecordBatch]]
    ) -> Results:
        metadata = decode_metadata(schema, name)
        if missing := {*_FACTS} - {*facts.column_names}:
            raise DataError(f"{name}: no column {', '.join(sorted(missing))}; take the whole table of embed")
        column, dim = next(iter(required_vector_columns(schema, name).items()))
        # More than 2 GiB of text are no one array otherwise; and of several, each taking would make one.
        ids = facts["id"].cast(pa.large_string()).combine_chunks()
        groups = _groups(packed_keys(facts["sequence_key"]))
        return cls(name, column, dim, partial(batches, column), facts["ordinal"].to_numpy(), ids, groups, metadata)

    @property
    def distinct(self) -> int:
        """G."""
        return int(self.groups.max(initial=-1)) + 1

    def check_comparable(self, other: Results) -> None:
        """Raise DataError where the vectors of ``other`` are of another model, layer or pooling."""
        for key in _COMPARED:
            ours, theirs = self.metadata.get(key), other.metadata.get(key)
            if ours != theirs:
                remedy = "embed both with the same model and options"
                raise DataError(f"{other.name}: {key} is {theirs}, but {ours} in this run; {remedy}")

    def blocks(self, rows: int, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (number of the first, fp32 vectors (rows, D) on the device) of the distinct sequences, in order."""
        rows = min(rows, self.distinct)
        start = filled = 0
        block = torch.empty(rows, self.dim, device=device)
        for vectors in self._vectors():
            while len(vectors):
                taken = min(rows - filled, len(vectors))
                block[filled : filled + taken] = torch.from_numpy(vectors[:taken])
                vectors, filled = vectors[taken:], filled + taken
                if filled == rows or start + filled == self.distinct:
                    yield start, block[:filled]
                    start, filled = start + filled, 0

    def _vectors(self) -> Iterator[npt.NDArray[np.float32]]:
        first = np.zeros(len(self.groups), np.bool_)
        first[np.unique(self.groups, return_index=True)[1]] = True
        read = 0
        for batch in self.batches():
            values = batch.column(0).flatten().to_numpy().reshape(-1, self.dim)
            chosen = first[read : read + len(values)]
            read += len(values)
            yield values[chosen].astype(np.float32, copy=False)


def _groups(keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.int64]:
    """Number of each key among the distinct ones, in the order in which they first occur."""
    _, first, of_key = np.unique(keys, return_index=True, return_inverse=True)
    numbers = np.empty(len(first), np.int64)
    numbers[np.argsort(first)] = np.arange(len(first))
    return numbers[of_key]
