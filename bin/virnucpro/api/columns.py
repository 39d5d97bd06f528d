"""Results of batches as Arrow columns, a row for each sequence in the order of the call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from virnucpro.errors import DataError
from virnucpro.output.residues import finite_halves
from virnucpro.output.schema import embedding_type, residues_type
from virnucpro.output.writer import vector_array
from virnucpro.pipeline.async_inference import AsyncInferenceRunner, InferenceResult


def in_order(
    results: Iterator[InferenceResult], runner: AsyncInferenceRunner, rows: int, dtype: str
) -> dict[str, pa.Array]:
    """Arrow columns of (S, D) vectors by name, and of residues where there are any; row numbers come as ids.

    Raises:
        DataError: a value is not finite in its type.
    """
    dim = runner.model.config.embed_dim
    vectors = {name: np.empty((rows, dim), dtype) for name in runner.plan.columns()}
    residues: dict[str, list[Any]] = {name: [None] * rows for name in runner.plan.residue_columns()}
    for result in results:
        places = np.array(result.sequence_ids, np.int64)
        for name, column in vectors.items():
            with np.errstate(over="ignore"):
                column[places] = result.columns[name].numpy()
            if not np.isfinite(column[places]).all():
                raise DataError(f"a vector does not fit {dtype}; take embedding_dtype='float32'")
        for place, states in zip(places.tolist(), result.residues, strict=False):
            for name, held in residues.items():
                held[place] = states[name].numpy()
                if not finite_halves(held[place]):
                    raise DataError("residues do not fit float16; leave per_residue out")
    columns = {name: vector_array(column, embedding_type(dtype, dim)) for name, column in vectors.items()}
    return columns | {name: _residues_array(held, dim) for name, held in residues.items()}


def _residues_array(states: Sequence[np.ndarray], dim: int) -> pa.Array:
    """One (length, D) float16 array for each sequence as an Arrow column."""
    kind = residues_type(dim)
    offsets = np.concatenate(([0], np.cumsum([len(each) for each in states])))
    values = vector_array(np.ascontiguousarray(np.concatenate(states)), kind.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=kind)
