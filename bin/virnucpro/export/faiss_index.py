"""A FAISS index of all vectors, exact, written as a stream: FAISS itself would hold all of it in memory."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from virnucpro.errors import UsageError
from virnucpro.export.config import ExportConfig
from virnucpro.export.layout import Layout, require
from virnucpro.export.numpy_files import IdList
from virnucpro.export.results import Records, Results

#: Of a flat index's header: where the number of its vectors stands. Its last eight bytes count the numbers in them.
_COUNT_AT = 8
_COUNT = struct.Struct("<q")


class FaissIndex(Layout):
    """``embedding.faiss``, an ``IndexFlatIP`` (cosine) or ``IndexFlatL2``; ``ids.txt`` has the id of each position."""

    name_bytes = None

    def __init__(self, folder: Path, results: Results, config: ExportConfig) -> None:
        super().__init__(folder, results, config)
        faiss = require("faiss", config.to, "faiss-cpu")
        self._column = self.columns[0]
        self._cosine = config.metric == "cosine"
        self._ids = IdList(folder)
        self._open.callback(self._ids.close)
        dim = results.columns[self._column]
        header = flat_header(faiss, faiss.IndexFlatIP(dim) if self._cosine else faiss.IndexFlatL2(dim), results.rows)
        self._stream = self._open.enter_context((folder / f"{self._column}.faiss").open("wb"))
        self._stream.write(header)

    def add(self, records: Records) -> None:
        vectors = records.vectors[self._column].astype(np.float32)
        if self._cosine:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        self._ids.add(records.texts)
        self._stream.write(vectors.astype("<f4", copy=False).tobytes())


def flat_header(faiss: Any, empty: Any, rows: int) -> bytes:
    """What stands before the vectors in the file of a flat index, made from FAISS's own of an empty one.

    Raises:
        UsageError: this version of FAISS writes another.
    """

    def header(count: int) -> bytes:
        blank = bytearray(faiss.serialize_index(empty).tobytes())
        _COUNT.pack_into(blank, _COUNT_AT, count)
        _COUNT.pack_into(blank, len(blank) - _COUNT.size, count * empty.d)
        return bytes(blank)

    one = faiss.clone_index(empty)
    vector = np.arange(empty.d, dtype=np.float32)
    one.add(vector[None])
    if faiss.serialize_index(one).tobytes() != header(1) + vector.tobytes():
        unknown = f"FAISS {faiss.__version__} writes another file than is known here"
        raise UsageError(f"{unknown}; install requirements-export.lock")
    return header(rows)
