"""AnnData (``.h5ad``): a protein is an observation, a dimension of its vector a variable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.export.config import ExportConfig
from virnucpro.export.layout import Layout, require
from virnucpro.export.results import Records, Results

#: Values of a column written together.
_CHUNK_VALUES = 1 << 18


class AnnDataFile(Layout):
    """``embeddings.h5ad``: ``X`` holds the vectors of one column and ``obsm`` those of the others, ``obs`` what the
    results say of each protein, ``uns["virnucpro"]`` how the vectors were made.

    AnnData writes the first rows; the others are appended to what it wrote.
    """

    def __init__(self, folder: Path, results: Results, config: ExportConfig) -> None:
        super().__init__(folder, results, config)
        self._anndata = require("anndata", config.to)
        self._first = results.column(config.column or next(iter(results.columns)))
        self._file = self.new_hdf5("embeddings.h5ad")

    @property
    def columns(self) -> list[str]:
        return list(self.results.columns)

    def add(self, records: Records) -> None:
        arrays = {"X": _single(records.vectors[self._first]), "obs/_index": np.array(records.names, object)}
        for name in self.results.facts:
            arrays[f"obs/{name}"] = _observed(records.facts[name])
        for column, vectors in records.vectors.items():
            if column != self._first:
                arrays[f"obsm/{column}"] = _single(vectors)
        if records.first == 0:
            self._begin(records, arrays)
            return
        for path, array in arrays.items():
            dataset = self._file[path]
            dataset.resize(records.first + len(array), axis=0)
            dataset[records.first :] = array

    def _begin(self, records: Records, arrays: dict[str, Any]) -> None:
        pd = require("pandas", self.config.to)
        dim = self.results.columns[self._first]
        obs = {name.removeprefix("obs/"): array for name, array in arrays.items() if name.startswith("obs/")}
        index = obs.pop("_index")
        skeleton = self._anndata.AnnData(
            obs=pd.DataFrame(obs, index=index),
            var=pd.DataFrame(index=[str(number) for number in range(dim)]),
            uns={"virnucpro": json.dumps(self.results.metadata, sort_keys=True)},
        )
        self._anndata.io.write_elem(self._file, "/", skeleton)
        for path, array in arrays.items():
            if path in self._file:
                del self._file[path]
            width = int(np.prod(array.shape[1:]))
            shape = {"maxshape": (None, *array.shape[1:]), "chunks": (max(1, _CHUNK_VALUES // width), *array.shape[1:])}
            parent, _, name = path.rpartition("/")
            self._anndata.io.write_elem(self._file[parent or "/"], name, array, dataset_kwargs=shape)


def _observed(column: pa.Array) -> npt.NDArray[Any]:
    """Whole texts and numbers, that later rows can be appended to: nothing is an empty text or 0, which none has."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        column = column.fill_null("" if pa.types.is_string(column.type) else 0)
    found: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return found


def _single(vectors: Any) -> Any:
    """float32: AnnData's readers expect no other of short floats, and every float16 is one."""
    return vectors.astype(np.float32)
