"""Neighbours against a brute-force search in numpy: equal ids and cosines, on real vectors, ties and odd sizes."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from e2e.launch import MODEL, PROJECT

from virnucpro import embed
from virnucpro.errors import DataError, InputMissingError
from virnucpro.neighbours import neighbours as module
from virnucpro.neighbours import search
from virnucpro.neighbours.config import NeighboursConfig
from virnucpro.neighbours.neighbours import neighbours
from virnucpro.output.schema import NEIGHBOURS_SCHEMA, decode_metadata, encode_metadata, results_schema
from virnucpro.output.writer import vector_array
from virnucpro.report.neighbour_section import neighbour_section

METADATA = {"weights_sha256": "a", "layers": [6], "pooling": ["mean"]}


def write_results(
    folder: Path, vectors: np.ndarray, keys: Iterable[int] | None = None, parts: int = 2, **changes: object
) -> Path:
    """Results with these vectors, in parts; equal keys are one sequence, and ordinals have gaps."""
    rows, dim = vectors.shape
    schema = results_schema({"embedding": dim}, str(vectors.dtype), {**METADATA, **changes})
    ordinals = [row + row // 2 for row in range(rows)]
    named = range(rows) if keys is None else list(keys)
    columns = {
        "ordinal": ordinals,
        "id": [f"p{each}" for each in ordinals],
        "length": [9] * rows,
        "truncated": [False] * rows,
        "beyond_trained_length": [False] * rows,
        "sequence_key": [f"{key:032x}" for key in named],
        "embedding": vector_array(vectors, schema.field("embedding").type),
    }
    arrays = [
        columns["embedding"]
        if field.name == "embedding"
        else pa.array(columns.get(field.name, [None] * rows), field.type)
        for field in schema
    ]
    table = pa.Table.from_arrays(arrays, schema=schema)
    (folder / "embeddings").mkdir(parents=True)
    for part in range(parts):
        piece = table.slice(part * rows // parts, (part + 1) * rows // parts - part * rows // parts)
        pq.write_table(piece, folder / "embeddings" / f"part-{part:05d}.parquet")
    return folder


def brute_force(run: Path, reference: Path | None, count: int) -> list[tuple[int, int, int, float]]:
    """(ordinal, rank, neighbour's ordinal, cosine) by one comparison after the other, in fp64."""
    tables = [pq.read_table(each / "embeddings") for each in (run, reference or run)]
    ordinals = [table["ordinal"].to_numpy() for table in tables]
    vectors = [np.stack(table["embedding"].to_numpy(zero_copy_only=False)).astype(np.float64) for table in tables]
    inverse = [1 / np.sqrt((each * each).sum(axis=1)) for each in vectors]
    pairs = []
    for row, vector in enumerate(vectors[0]):
        cosines = (vectors[1] * vector).sum(axis=1) * inverse[1] * inverse[0][row]
        order = [int(each) for each in np.lexsort((ordinals[1], -cosines)) if reference or each != row][:count]
        pairs += [
            (int(ordinals[0][row]), rank, int(ordinals[1][each]), cosines[each]) for rank, each in enumerate(order, 1)
        ]
    return pairs


def check(found: Path, expected: list[tuple[int, int, int, float]]) -> pa.Table:
    table = pq.read_table(found)
    assert table.schema.equals(NEIGHBOURS_SCHEMA)
    pairs = zip(*(table[name].to_pylist() for name in ("ordinal", "rank", "neighbour_ordinal")), strict=True)
    assert list(pairs) == [each[:3] for each in expected]
    assert [f"p{each}" for each in table["neighbour_ordinal"].to_pylist()] == table["neighbour_id"].to_pylist()
    np.testing.assert_allclose(table["cosine"].to_numpy(), [each[3] for each in expected], atol=1e-6, rtol=0)
    return table


def like_proteins(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    """Vectors that crowd about one direction, as pooled ones do."""
    generator = np.random.default_rng(seed)
    spread = generator.standard_normal((rows, 8)) @ generator.standard_normal((8, dim)) * 0.2
    crowded = np.random.default_rng(7).standard_normal(dim) + spread + 0.02 * generator.standard_normal((rows, dim))
    return crowded.astype(np.float32)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All the demo's proteins by their first 40 residues, some of which are equal."""
    table = embed(PROJECT / "assets" / "proteins.fasta", model=MODEL, device="cpu", max_length=40, progress=False)
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    keys = [int(key, 16) for key in table["sequence_key"].to_pylist()]
    assert len(set(keys)) < len(keys) == 351
    return write_results(tmp_path_factory.mktemp("real") / "results", vectors, keys)


@pytest.mark.parametrize("count", [1, 10])
def test_real_vectors_against_themselves(real: Path, tmp_path: Path, count: int) -> None:
    path = neighbours(NeighboursConfig(real, count, tmp_path, device="cpu"))
    table = check(path, brute_force(real, None, count))
    assert table.num_rows == 351 * count
    facts = decode_metadata(pq.read_schema(path), path)
    assert (facts["neighbours"], facts["reference"], facts["column"]) == (count, None, "embedding")


def test_a_reference_and_float16(real: Path, tmp_path: Path) -> None:
    vectors = np.stack(pq.read_table(real / "embeddings")["embedding"].to_numpy(zero_copy_only=False))
    run = write_results(tmp_path / "run", vectors[::7].astype(np.float16), parts=1)
    path = neighbours(NeighboursConfig(run, 5, tmp_path, reference=real, reference_name="ours/old", device="cpu"))
    check(path, brute_force(run, real, 5))
    assert decode_metadata(pq.read_schema(path), path)["reference"] == "ours/old"


@pytest.mark.parametrize("rows", [1, 2, 3, 64, 65, 700])
def test_any_number_of_records_in_blocks_of_any_size(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFERENCE_BYTES", 130 * 4 * 20)
    monkeypatch.setattr(module, "QUERY_BYTES", 33 * 4 * 20)
    monkeypatch.setattr(search, "QUERIES", {"cpu": 16})
    monkeypatch.setattr(search, "TILE_COSINES", {"cpu": 64 * 16})
    monkeypatch.setattr(search, "EXACT_NUMBERS", {"cpu": 1000})
    run = write_results(tmp_path / "run", like_proteins(rows, 20))
    table = check(neighbours(NeighboursConfig(run, 9, tmp_path, device="cpu")), brute_force(run, None, 9))
    assert table.num_rows == rows * min(9, rows - 1)


@pytest.mark.parametrize("one_sequence", [True, False], ids=["one sequence", "many sequences"])
def test_ties_go_to_the_lower_ordinal(one_sequence: bool, tmp_path: Path) -> None:
    """Half of all vectors are equal, far more than there are candidates at first; others come in pairs."""
    vectors = like_proteins(600, 24)
    vectors[::2] = vectors[0]
    vectors[1:300:4] = vectors[3:300:4]
    keys = [0 if row % 2 == 0 else row for row in range(600)] if one_sequence else None
    run = write_results(tmp_path / "run", vectors, keys)
    check(neighbours(NeighboursConfig(run, 6, tmp_path, device="cpu")), brute_force(run, None, 6))


def test_sequences_that_repeat_are_neighbours_as_often(tmp_path: Path) -> None:
    numbers = np.random.default_rng(3).integers(0, 60, 700)
    run = write_results(tmp_path / "run", like_proteins(60, 24)[numbers], numbers)
    check(neighbours(NeighboursConfig(run, 30, tmp_path, device="cpu")), brute_force(run, None, 30))


def test_memory_does_not_grow_with_how_often_they_repeat(tmp_path: Path) -> None:
    """Of each of 3,000 records 100 are looked for, where the nearest 100 sequences have 11,000."""
    run = write_results(tmp_path / "run", like_proteins(3000, 8))
    numbers = np.repeat(range(150), 110)
    reference = write_results(tmp_path / "reference", like_proteins(150, 8, seed=1)[numbers], numbers)
    tracemalloc.start()
    found = neighbours(NeighboursConfig(run, 100, tmp_path, reference=reference, device="cpu"))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pq.read_metadata(found).num_rows == 300_000
    # 30 million candidates, of which an array of 8 bytes each is 240 MB.
    assert most < 200 << 20, most


def test_nearly_equal_cosines_are_told_apart(tmp_path: Path) -> None:
    """Neighbours whose cosines differ by less than a product in fp32 can tell."""
    vector = like_proteins(1, 32)
    vectors = np.tile(vector, (400, 1))
    vectors[:, 0] += np.random.default_rng(1).permutation(400) * np.float32(2e-4)
    run, among = write_results(tmp_path / "run", vector, parts=1), write_results(tmp_path / "among", vectors)
    expected = brute_force(run, among, 20)
    assert max(-np.diff([cosine for *_, cosine in expected])) < 2.0**-24
    check(neighbours(NeighboursConfig(run, 20, tmp_path, reference=among, device="cpu")), expected)


def test_the_bound_of_a_product_holds() -> None:
    vectors = torch.from_numpy(like_proteins(300, 1280))
    unit = vectors * search.inverse_norms(vectors)[:, None].float()
    fast = (unit @ vectors.T) * search.inverse_norms(vectors).float()
    exact = (
        (vectors.double() @ vectors.double().T) * search.inverse_norms(vectors) * search.inverse_norms(vectors)[:, None]
    )
    assert 0 < (fast.double() - exact).abs().max() < search.product_error(1280)


def test_a_vector_of_zeros_is_near_to_nothing(tmp_path: Path) -> None:
    vectors = like_proteins(5, 8)
    vectors[2] = 0
    path = neighbours(NeighboursConfig(write_results(tmp_path / "run", vectors), 4, tmp_path, device="cpu"))
    rows = pq.read_table(path, filters=[("neighbour_id", "=", "p3")]).to_pylist()
    assert [(row["rank"], row["cosine"]) for row in rows] == [(4, 0.0)] * 4


@pytest.mark.parametrize("change", [{"weights_sha256": "b"}, {"layers": [5]}, {"pooling": ["max"]}], ids=str)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    run = write_results(tmp_path / "run", like_proteins(4, 8))
    other = write_results(tmp_path / "other", like_proteins(4, 8), **change)
    with pytest.raises(DataError, match=rf"other: {next(iter(change))} is .* in this run; embed both with the same"):
        neighbours(NeighboursConfig(run, 2, tmp_path, reference=other, device="cpu"))


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"no embeddings/part-\*\.parquet in it; give the folder of a finished"):
        neighbours(NeighboursConfig(tmp_path, 2, tmp_path, device="cpu"))


def test_the_command(real: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "virnucpro",
        "neighbours",
        "--results",
        real,
        "--neighbours",
        "3",
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env={"PYTHONPATH": str(PROJECT / "bin")}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 nearest of 351 records among one another: ")
    assert pq.read_metadata(tmp_path / "neighbours.parquet").num_rows == 3 * 351
    assert encode_metadata({}) != pq.read_schema(tmp_path / "neighbours.parquet").metadata


@pytest.mark.gpu
def test_on_a_gpu_as_on_a_cpu(real: Path, tmp_path: Path) -> None:
    path = neighbours(NeighboursConfig(real, 10, tmp_path, device="cuda"))
    check(path, brute_force(real, None, 10))


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-4, 1.0])
def test_the_report_draws_neighbours_however_near_they_are(spread: float, tmp_path: Path) -> None:
    """Cosines that differ in the last bits of a float32, as of untrained models or copies, have bins too."""
    random = np.random.default_rng(5)
    vectors = (random.standard_normal(16) + spread * random.standard_normal((40, 16))).astype(np.float32)
    path = neighbours(NeighboursConfig(write_results(tmp_path / "run", vectors), 2, tmp_path, device="cpu"))
    section = neighbour_section(path)
    assert section is not None
    points = section["data"]["records"]
    assert sum(count for _, count in points) == 40
    assert all(-1 <= middle <= 1 for middle, _ in points)
