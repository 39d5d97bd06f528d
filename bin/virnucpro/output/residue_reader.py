"""Reads the vectors of single residues that results hold, sequence by sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.output.damage import reading

_REMEDY: Final = "run again, or fetch the results anew from where they are whole"


def read_residues(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, npt.NDArray[np.float16]]]]:
    """Yield sequence keys in the order of the file, and (residues, dim) float16 by column; a row group at a time.

    Raises:
        DataError: the file is damaged.
    """
    with reading(path, _REMEDY), pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["sequence_key", *columns], use_threads=False)
            for batch in table.to_batches():
                for row, key in enumerate(batch["sequence_key"].to_pylist()):
                    yield key, {name: _matrix(batch[name], row) for name in columns}


def _matrix(column: pa.ListArray, row: int) -> npt.NDArray[np.float16]:
    vectors: Any = column.slice(row, 1).flatten()
    matrix: npt.NDArray[np.float16] = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), -1)
    return matrix
