"""Reads the vectors of single residues that results hold, those of earlier versions too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.errors import DataError
from virnucpro.output.damage import REMEDY_OF_RESULTS as _REMEDY
from virnucpro.output.damage import reading
from virnucpro.output.schema import RESIDUE_TYPE, RESIDUES_KEY, decode_metadata, residues_type

Matrix = npt.NDArray[np.float16]


def residue_dims(schema: pa.Schema, where: Path | str) -> dict[str, int]:
    """Columns of per-residue vectors, name to the one dimension of all, in file order; of files that hold lists too.

    Raises:
        DataError: the file was not written by this pipeline, has no residues, or does not tell their dimension.
    """
    fields = [field for field in schema if field.name.startswith("residues")]
    lists = {field.name: field.type.value_type.list_size for field in fields if holds_lists(field.type)}
    values = [field.name for field in fields if pa.types.is_binary(field.type)]
    if len(lists) + len(values) != len(fields):
        raise DataError(f"{where}: residues are neither bytes nor lists of float16 vectors")
    if not fields or (lists and values) or len({*lists.values()}) > 1:
        raise DataError(f"{where}: no column of residues, or columns of different kinds; {_REMEDY}")
    if not values:
        return lists
    told = decode_metadata(schema, where).get(RESIDUES_KEY)
    dim = told.get("dim") if isinstance(told, dict) else None
    if not isinstance(dim, int):
        raise DataError(f"{where}: its metadata do not tell the dimension of its residues")
    return dict.fromkeys(values, dim)


def holds_lists(kind: pa.DataType) -> bool:
    """Whether residues are stored as earlier results hold them: a list of float16 vectors."""
    vectors = kind.value_type if pa.types.is_list(kind) else None
    return vectors is not None and pa.types.is_fixed_size_list(vectors) and kind == residues_type(vectors.list_size)


def read_residues(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Matrix]]]:
    """Yield sequence keys in the order of the file, and (length, dim) float16 by column; a row group at a time.

    The matrices are the bytes as they were read, not copies of them.

    Raises:
        DataError: the file is damaged, or has no such columns.
    """
    with reading(path, _REMEDY), pq.ParquetFile(path, pre_buffer=False) as file:
        dims = residue_dims(file.schema_arrow, path)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["sequence_key", "length", *columns], use_threads=False)
            for batch in table.to_batches():
                lengths = batch["length"].to_pylist()
                for row, key in enumerate(batch["sequence_key"].to_pylist()):
                    yield key, {name: _matrix(batch[name], row, (lengths[row], dims[name])) for name in columns}


def _matrix(column: pa.Array, row: int, shape: tuple[int, int]) -> Matrix:
    if pa.types.is_binary(column.type):
        flat = np.frombuffer(column[row].as_buffer(), RESIDUE_TYPE)
    else:
        vectors: Any = column.slice(row, 1).flatten()
        flat = vectors.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(shape)
