"""HDF5 with a dataset for each protein: as UniProt offers its embeddings, and as bio_embeddings leaves its."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from virnucpro.export.config import ExportConfig
from virnucpro.export.layout import Layout
from virnucpro.export.results import Records, Results, Vectors

#: HDF5 1.8 and later read it; the groups of earlier ones keep all names in one piece of memory.
_GROUPS: Final = ("v108", "v108")


class UniProt(Layout):
    """``per-protein.h5`` with a (dim) dataset under each name, and ``per-residue.h5`` with a (residues, dim) one.

    Proteins of equal sequence share the dataset of their residues.
    """

    proteins_file, residues_file = "per-protein.h5", "per-residue.h5"

    def __init__(self, folder: Path, results: Results, config: ExportConfig) -> None:
        super().__init__(folder, results, config)
        self._column = self.columns[0]
        self._proteins = self._create(self.proteins_file)
        self._residues = self._create(self.residues_file) if config.per_residue else None

    def _create(self, name: str) -> Any:
        file = self.new_hdf5(name, libver=_GROUPS)
        file.attrs["virnucpro"] = json.dumps(self.results.metadata, sort_keys=True)
        return file

    def add(self, records: Records) -> None:
        for name, vector in zip(records.names, records.vectors[self._column], strict=True):
            self._proteins.create_dataset(name, data=vector)

    def add_residues(self, rows: list[int], names: list[str], residues: Mapping[str, Vectors]) -> None:
        assert self._residues is not None
        (matrix,) = residues.values()
        first = self._residues.create_dataset(names[0], data=matrix)
        for name in names[1:]:
            self._residues[name] = first


class BioEmbeddings(UniProt):
    """``reduced_embeddings_file.h5`` and ``embeddings_file.h5``: keys are the rows' numbers, as with bio_embeddings'
    ``simple_remapping``, the ids stand in the attribute ``original_id`` and in ``mapping_file.csv``."""

    proteins_file, residues_file = "reduced_embeddings_file.h5", "embeddings_file.h5"
    name_bytes = None

    def __init__(self, folder: Path, results: Results, config: ExportConfig) -> None:
        super().__init__(folder, results, config)
        stream = self._open.enter_context((folder / "mapping_file.csv").open("w", encoding="utf-8", newline=""))
        self._mapping = csv.writer(stream, lineterminator="\n")
        self._mapping.writerow(["", "original_id", "sequence_length"])

    def add(self, records: Records) -> None:
        lengths = records.facts["length"].to_pylist()
        vectors = records.vectors[self._column]
        for row, (name, length, vector) in enumerate(zip(records.texts, lengths, vectors, strict=True), records.first):
            self._proteins.create_dataset(str(row), data=vector).attrs["original_id"] = name
            self._mapping.writerow([row, name, length])

    def add_residues(self, rows: list[int], names: list[str], residues: Mapping[str, Vectors]) -> None:
        assert self._residues is not None
        (matrix,) = residues.values()
        for row, name in zip(rows, names, strict=True):
            self._residues.create_dataset(str(row), data=matrix).attrs["original_id"] = name
