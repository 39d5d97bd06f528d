"""``.npy`` with a list of the ids."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from virnucpro.export.config import ExportConfig
from virnucpro.export.layout import Layout
from virnucpro.export.results import Records, Results


class IdList:
    """``ids.txt``: the id of each row on a line of its own."""

    def __init__(self, folder: Path) -> None:
        self._stream = (folder / "ids.txt").open("w", encoding="utf-8", newline="\n")

    def add(self, ids: list[str]) -> None:
        """Write the ids of the rows that come next."""
        self._stream.writelines(f"{each}\n" for each in ids)

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()


class NumpyFiles(Layout):
    """``embedding.npy``, (proteins, dim), or one file for each column of vectors; ``ids.txt`` lists the ids."""

    name_bytes = None

    def __init__(self, folder: Path, results: Results, config: ExportConfig) -> None:
        super().__init__(folder, results, config)
        self._ids = IdList(folder)
        self._open.callback(self._ids.close)
        self._files: dict[str, BinaryIO] = {}
        for column in self.columns:
            file = self._open.enter_context((folder / f"{column}.npy").open("wb"))
            shape = (results.rows, results.columns[column])
            header = {"descr": results.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            self._files[column] = file

    @property
    def columns(self) -> list[str]:
        return [self.results.column(self.config.column)] if self.config.column else list(self.results.columns)

    def add(self, records: Records) -> None:
        self._ids.add(records.texts)
        for column, vectors in records.vectors.items():
            self._files[column].write(vectors.tobytes())
