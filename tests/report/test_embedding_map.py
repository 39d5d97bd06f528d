"""The map of the embeddings: which rows it shows, and where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from samples import sample_of
from synthetic_results import Run, make_results

from virnucpro.report.embedding_map import map_embeddings, principal_components
from virnucpro.report.sampling import sample_rows


def parts_of(folder: Path, **run: object) -> list[Path]:
    return list((make_results(folder, Run(**run)) / "embeddings").glob("part-*.parquet"))  # type: ignore[arg-type]


def test_the_components_are_those_of_a_full_svd() -> None:
    generator = np.random.default_rng(3)
    vectors = generator.normal(size=(400, 48)) @ np.diag(np.geomspace(10, 0.1, 48)) + 5
    points, explained = principal_components(vectors.astype(np.float32))
    centred = vectors - vectors.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * singular[:2]
    for axis in range(2):
        assert abs(np.corrcoef(points[:, axis], expected[:, axis])[0, 1]) > 0.99999
        assert np.std(points[:, axis]) == pytest.approx(np.std(expected[:, axis]), rel=1e-4)
    assert explained == pytest.approx(tuple((singular[:2] ** 2 / (singular**2).sum()).tolist()), rel=1e-4)
    more, shares = principal_components(vectors.astype(np.float32), 32)
    assert np.allclose(more[:, :2], points, atol=1e-3) and shares[:2] == pytest.approx(explained, rel=1e-4)
    assert np.std(more, axis=0) == pytest.approx(np.std(left * singular, axis=0)[:32], rel=0.02)


@pytest.mark.parametrize("shape", [(1, 8), (2, 8), (5, 1), (3, 2)])
def test_few_rows_or_dimensions_still_give_two_coordinates(shape: tuple[int, int]) -> None:
    points, explained = principal_components(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()
    assert sum(explained) <= 1.0001


def test_vectors_that_are_not_finite_are_counted_and_left_out() -> None:
    vectors = np.random.default_rng(0).normal(size=(10, 4))
    vectors[3, 1] = np.nan
    vectors[7, 0] = np.inf
    found = map_embeddings(sample_of(vectors))
    assert found.not_finite == 2
    assert len(found.points) == len(found.sample.ids) == 8
    assert "seq_3" not in found.sample.ids
    assert not found.equal


def test_equal_vectors_are_noticed() -> None:
    found = map_embeddings(sample_of(np.ones((10, 4))))
    assert found.equal
    assert not found.points.any()


def test_the_sample_is_bounded_and_the_same_each_time(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "results", records=2000, rows_per_group=50)
    first, again = sample_rows(parts, most=300), sample_rows(list(reversed(parts)), most=300)
    assert first is not None and again is not None
    assert len(set(first.ids)) == 300
    assert first.ids == again.ids
    assert np.array_equal(first.vectors, again.vectors)
    assert sample_rows(parts, most=300, seed=1).ids != first.ids  # type: ignore[union-attr]


def test_a_small_run_is_shown_whole_with_each_name_on_its_own_vector(tmp_path: Path) -> None:
    results = make_results(tmp_path / "results", Run(records=400, rows_per_group=64))
    sample = sample_rows(list((results / "embeddings").glob("part-*.parquet")))
    assert sample is not None
    assert len(sample.ids) == 400 - 400 // 50  # all but the rejected
    assert (sample.shards == -1).sum() == 400 // 50  # the reused
    import pyarrow.parquet as pq

    table = pq.read_table(results / "embeddings")
    expected = dict(zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    assert all(np.allclose(expected[name], vector) for name, vector in zip(sample.ids, sample.vectors, strict=True))


def test_half_precision_vectors_are_read(tmp_path: Path) -> None:
    sample = sample_rows(parts_of(tmp_path / "results", dtype="float16"))
    assert sample is not None
    assert sample.vectors.dtype == np.float32
    assert np.isfinite(sample.vectors).all()


def test_no_rows_give_no_sample(tmp_path: Path) -> None:
    assert sample_rows([]) is None
    assert sample_rows(parts_of(tmp_path / "results", records=0, shards=0)) is None
