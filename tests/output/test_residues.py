"""Residues on disk: bytes that numpy takes as they lie there, in row groups and files of bounded size."""

from __future__ import annotations

import gc
import resource
import signal
import threading
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from virnucpro.errors import DataError
from virnucpro.output import following
from virnucpro.output import residues as module
from virnucpro.output.digests import file_digest
from virnucpro.output.following import Following
from virnucpro.output.residue_reader import read_residues, residue_dims
from virnucpro.output.residues import ResidueWriter
from virnucpro.output.schema import residues_schema

COLUMNS = {"residues_layer0": 4, "residues_layer6": 4}
LENGTHS = (30, 7, 7, 1, 12)


def key(row: int) -> str:
    return f"{row:032x}"


def matrices(row: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(row)
    return {name: rng.standard_normal((length, dim)).astype(np.float16) for name, dim in COLUMNS.items()}


def written(folder: Path, lengths: tuple[int, ...] = LENGTHS, part_bytes: int = 1 << 30) -> ResidueWriter:
    writer = ResidueWriter(folder, COLUMNS, {"model": "tiny"}, part_bytes=part_bytes)
    writer.write([key(row) for row in range(3)], [matrices(row, lengths[row]) for row in range(3)])
    writer.write([key(row) for row in range(3, 5)], [matrices(row, lengths[row]) for row in range(3, 5)])
    writer.close()
    return writer


@pytest.mark.parametrize(("group", "part"), [(1 << 20, 1 << 30), (100, 1 << 30), (100, 400), (1, 1)])
def test_every_matrix_comes_back_whatever_the_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, part: int
) -> None:
    monkeypatch.setattr(module, "ROW_GROUP_BYTES", group)
    writer = written(tmp_path / "residues", part_bytes=part)
    files = sorted((tmp_path / "residues").iterdir())
    assert list(writer.digests) == files
    assert {path: file_digest(path) for path in files} == writer.digests
    assert len(files) == {1 << 30: 1, 400: 3, 1: 5}[part]
    rows = [row for path in files for row in read_residues(path, list(COLUMNS))]
    assert [each for each, _ in rows] == [key(row) for row in range(5)]
    for row, (_, found) in enumerate(rows):
        for name, expected in matrices(row, LENGTHS[row]).items():
            np.testing.assert_array_equal(found[name], expected)


def test_a_matrix_is_the_files_bytes_and_no_copy(tmp_path: Path) -> None:
    written(tmp_path)
    (_, first), *_ = read_residues(tmp_path / "part-00000.parquet", ["residues_layer6"])
    matrix = first["residues_layer6"]
    assert matrix.shape == (30, 4) and matrix.dtype == np.float16
    base = matrix
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(memoryview(base.base).obj, pa.Buffer)


def test_the_file_says_what_its_bytes_are(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "part-00000.parquet"
    schema = pq.read_schema(path)
    assert schema.equals(residues_schema(COLUMNS, {}))
    assert residue_dims(schema, path) == COLUMNS
    assert b'"residues": {"byte_order": "little", "dim": 4, "type": "float16"}' in schema.metadata[b"virnucpro"]
    with pq.ParquetFile(path) as file:
        columns = [file.metadata.row_group(0).column(index) for index in range(5)]
    assert {column.compression for column in columns} == {"UNCOMPRESSED"}
    assert [column.is_stats_set for column in columns] == [True, True, False, False, False]
    assert all(column.dictionary_page_offset is None for column in columns)


def test_memory_is_free_once_it_is_taken(tmp_path: Path) -> None:
    writer = ResidueWriter(tmp_path, {"residues": 4}, {})
    batch = np.ones((9, 4), np.float16)
    gone = weakref.ref(batch)
    writer.write([key(0), key(1)], [{"residues": batch[:4]}, {"residues": batch[4:]}])
    del batch
    gc.collect()
    assert gone() is None
    writer.close()
    assert [len(found["residues"]) for _, found in read_residues(tmp_path / "part-00000.parquet", ["residues"])] == [
        4,
        5,
    ]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan, 7e4, -7e4])
def test_values_beyond_halves_are_an_error_with_the_remedy(tmp_path: Path, value: float) -> None:
    states = np.zeros((3, 4), np.float32)
    states[1, 2] = value
    writer = ResidueWriter(tmp_path, {"residues": 4}, {})
    with pytest.raises(DataError, match=rf"sequence {key(5)} do not fit float16; leave out --per_residue"):
        writer.write([key(5)], [{"residues": states}])
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_all_finite_halves_are_taken(tmp_path: Path) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    halves = bits.view(np.float16)
    finite = halves[np.isfinite(halves)].reshape(-1, 4)
    writer = ResidueWriter(tmp_path, {"residues": 4}, {})
    writer.write([key(0)], [{"residues": finite}])
    writer.close()
    (_, found), *_ = read_residues(tmp_path / "part-00000.parquet", ["residues"])
    np.testing.assert_array_equal(found["residues"].view(np.uint16), finite.view(np.uint16))


def test_every_half_that_is_not_finite_is_seen(tmp_path: Path) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    writer = ResidueWriter(tmp_path, {"residues": 1}, {})
    refused = 0
    for half in halves[~np.isfinite(halves)]:
        with pytest.raises(DataError):
            writer.write([key(0)], [{"residues": np.full((1, 1), half)}])
        refused += 1
    assert refused == 2 * 1024


def test_a_sequence_beyond_a_value_of_parquet_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_VALUE_BYTES", 79)
    writer = ResidueWriter(tmp_path, {"residues": 4}, {})
    with pytest.raises(DataError, match=r"10 of them, do not fit a value of Parquet \(2 GiB\)"):
        writer.write([key(5)], [{"residues": np.zeros((10, 4), np.float16)}])


def test_a_file_of_neither_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    pq.write_table(pa.table({"sequence_key": [key(0)], "length": [1], "residues": ["text"]}), path)
    with pytest.raises(DataError, match="neither bytes nor lists of float16 vectors"):
        next(read_residues(path, ["residues"]))


def test_a_row_whose_bytes_are_short_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    schema = residues_schema({"residues": 4}, {})
    columns = [[key(0)], [2], [4], [bytes(15)]]
    pq.write_table(
        pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema), path
    )
    with pytest.raises(DataError, match=r"part-00000.parquet: unreadable"):
        next(read_residues(path, ["residues"]))


@pytest.mark.parametrize("size", [0, 1, 1000])
@pytest.mark.parametrize("step", [1, 33, 400, 10**6])
def test_following_a_file_tells_the_digest_of_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, step: int
) -> None:
    monkeypatch.setattr(following, "_CHUNK_BYTES", 7)
    monkeypatch.setattr(following, "_STEP_BYTES", step)
    monkeypatch.setattr(following, "_FLUSH_BYTES", 100)
    content = np.random.default_rng(size).bytes(size)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        follower = Following(tmp_path / "file")
        for start in range(0, size, 33):
            file.write(content[start : start + 33])
            follower.advance(file.tell())
    assert follower.finish() == xxhash.xxh3_128_hexdigest(content)
    follower.close()
    follower.close()


def test_what_the_disk_says_behind_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(following, "_STEP_BYTES", 1)
    monkeypatch.setattr(following, "_FLUSH_BYTES", 100)
    monkeypatch.setattr(following.os, "fsync", fail)
    (tmp_path / "file").write_bytes(bytes(1000))
    follower = Following(tmp_path / "file")
    follower.advance(500)
    with pytest.raises(OSError, match="Input/output error"):
        follower.finish()
    follower.close()


def test_a_full_disk_ends_writing_and_leaves_nothing(tmp_path: Path) -> None:
    """The writer's own error comes out, and neither its thread nor its file stays."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    threads = threading.active_count()
    writer = ResidueWriter(tmp_path, {"residues": 1024}, {})
    batch = [{"residues": np.zeros((1024, 1024), np.float16)}] * 8
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30 << 20, limit[1]))
        with pytest.raises(OSError, match="File too large"):
            for first in range(0, 80, 8):
                writer.write(map(key, range(first, first + 8)), batch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    writer.abort()
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == threads
