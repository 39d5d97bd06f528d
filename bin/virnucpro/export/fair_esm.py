"""One ``.pt`` for each protein, as fair-esm's ``extract.py`` names and fills it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from virnucpro.export.layout import Layout, require
from virnucpro.export.names import FILE_NAME_BYTES
from virnucpro.export.results import Records, Vectors
from virnucpro.output.schema import embedding_columns


class FairEsm(Layout):
    """A dict with ``label``, what names the protein, and ``mean_representations``, ``bos_representations`` and
    ``representations`` where there are such: float32 tensors by number of the layer."""

    name_bytes = FILE_NAME_BYTES
    named_by_header = True

    @property
    def columns(self) -> list[str]:
        return list(self.results.columns)

    @property
    def residue_columns(self) -> list[str]:
        return list(self.results.residue_columns().values())

    def add(self, records: Records) -> None:
        torch = require("torch", self.config.to)
        places = [(pooling, layer) for pooling in self.results.pooling for layer in self.results.layers]
        columns = embedding_columns(self.results.pooling, self.results.layers)
        for i, (label, name) in enumerate(zip(records.texts, records.names, strict=True)):
            content: dict[str, Any] = {"label": label}
            for (pooling, layer), column in zip(places, columns, strict=True):
                content.setdefault(f"{pooling}_representations", {})[layer] = _tensor(torch, records.vectors[column][i])
            torch.save(content, self.folder / f"{name}.pt")

    def add_residues(self, rows: list[int], names: list[str], residues: Mapping[str, Vectors]) -> None:
        torch = require("torch", self.config.to)
        by_column = {column: layer for layer, column in self.results.residue_columns().items()}
        tensors = {by_column[column]: _tensor(torch, matrix) for column, matrix in residues.items()}
        for name in names:
            path = self.folder / f"{name}.pt"
            pooled = torch.load(path, weights_only=True)
            torch.save({"label": pooled.pop("label"), "representations": tensors, **pooled}, path)


def _tensor(torch: Any, array: Vectors) -> Any:
    """A copy, as a view would be saved with all that it is a part of; float32, which every float16 is."""
    return torch.from_numpy(array.astype(np.float32, copy=True))
