"""Vectors of earlier results on their way to the windows of the output that want them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.merge.buckets import SpillBuckets
from virnucpro.merge.layout import REQUEST
from virnucpro.merge.vectors import ReuseReader, record_type
from virnucpro.output.digests import file_digest
from virnucpro.output.schema import embedding_type
from virnucpro.output.writer import vector_array

ROWS, WINDOWS, COLUMNS = 2048, 60, {"embedding": 320}


def test_memory_does_not_grow_with_the_windows_that_want_a_sequence(tmp_path: Path) -> None:
    part = tmp_path / "part-00000.parquet"
    vectors = np.random.default_rng(0).standard_normal((ROWS, 320), np.float32)
    keys = [f"{row:032x}" for row in range(ROWS)]
    pq.write_table(
        pa.table({"sequence_key": keys, "embedding": vector_array(vectors, embedding_type("float32", 320))}), part
    )
    record = record_type(COLUMNS, "float32")
    requests = SpillBuckets(tmp_path / "requests", REQUEST, 1 << 20)
    wanted = SpillBuckets(tmp_path / "wanted", record, 1 << 20)
    ids = -1 - np.arange(ROWS)[::-1]
    asked = (np.repeat(ids, WINDOWS) << 22) | np.tile(np.arange(WINDOWS), ROWS)
    requests.append(np.zeros(len(asked), np.int64), asked)
    reader = ReuseReader([{part: file_digest(part)}], COLUMNS, "float32")
    tracemalloc.start()
    reader.distribute([0], requests, wanted)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Of all that is wanted, 160 MB, a piece of 16 MiB at once, copied once as it is sorted by window.
    assert most < 64 << 20 < len(asked) * record.itemsize / 2
    for window in range(WINDOWS):
        records = wanted.take(window)
        assert (records["id"] == -1 - np.arange(ROWS)).all()
        assert (records["embedding"] == vectors).all()
