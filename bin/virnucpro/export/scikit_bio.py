"""scikit-bio's ``embed`` format: all vectors one behind another, and the sequences that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from virnucpro.export.config import ExportConfig
from virnucpro.export.layout import Layout, require
from virnucpro.export.results import Records, Results, Vectors
from virnucpro.export.sequences import Sequences

#: Numbers of a chunk of vectors.
_CHUNK_VALUES = 1 << 18


class ScikitBio(Layout):
    """``vectors.h5``, ``ProteinVector`` objects in input order, and ``residues.h5``, ``ProteinEmbedding`` objects.

    Their reader knows a protein by its sequence, as the model saw it; our dataset ``record_id`` holds the ids, and
    belongs to no such format. float16 becomes float32, the shortest that the format has.
    """

    def __init__(self, folder: Path, results: Results, config: ExportConfig) -> None:
        super().__init__(folder, results, config)
        self._h5py = require("h5py", config.to)
        self._sequences = Sequences(results, config.sequences)
        self._lengths = _model_lengths(results)
        self._ends = np.cumsum(self._lengths)
        self._column = self.columns[0]
        dim, rows, residues = results.columns[self._column], results.rows, int(self._lengths.sum())
        self._vectors = self._create("vectors.h5", rows, dim)
        self._vectors["embedding_ptr"] = np.arange(1, rows + 1)
        self._residues = self._create("residues.h5", residues, dim) if config.per_residue else None

    def _create(self, name: str, height: int, dim: int) -> Any:
        file = self.new_hdf5(name)
        file.attrs["format"], file.attrs["format-version"] = "embedding", "1.0"
        file.attrs["dtype"], file.attrs["dim"] = self._dtype.name, dim
        chunks = (max(1, min(height, _CHUNK_VALUES // dim)), dim) if height else None
        file.create_dataset("embedding", (height, dim), self._dtype, chunks=chunks)
        file.create_dataset("id", (int(self._lengths.sum()),), np.uint8)
        file["idptr"] = self._ends
        file.create_dataset("record_id", (self.results.rows,), self._h5py.string_dtype())
        return file

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.promote_types(self.results.dtype, np.float32)

    def add(self, records: Records) -> None:
        begin, end = records.first, records.first + len(records.names)
        letters = np.frombuffer("".join(self._sequences.take(records)).encode(), np.uint8)
        last = int(self._ends[end - 1])
        for file in (self._vectors, self._residues):
            if file is not None:
                file["id"][last - len(letters) : last] = letters
                file["record_id"][begin:end] = records.names
        self._vectors["embedding"][begin:end] = records.vectors[self._column]

    def add_residues(self, rows: list[int], names: list[str], residues: Mapping[str, Vectors]) -> None:
        assert self._residues is not None
        (matrix,) = residues.values()
        for row in rows:
            end = int(self._ends[row])
            self._residues["embedding"][end - len(matrix) : end] = matrix


def _model_lengths(results: Results) -> Any:
    """Residues that the model saw of each row's sequence."""
    pieces = [np.empty(0, np.int64)]
    for batch in results.facts_alone():
        lengths = batch["length"].to_numpy().astype(np.int64)
        cut = batch["truncated"].to_numpy(zero_copy_only=False)
        pieces.append(np.where(cut, np.minimum(lengths, results.metadata["max_length"]), lengths))
    return np.concatenate(pieces)
