"""Clusters and outliers of a sample: found where they are, and not where none is."""

from __future__ import annotations

import numpy as np
import pytest
from samples import sample_of

from virnucpro.report.clusters import connected, distinct, find_clusters, nearest, neighbourly
from virnucpro.report.embedding_map import EmbeddingMap, map_embeddings
from virnucpro.report.group_sections import MOST_CLUSTERS, cluster_section, outlier_section
from virnucpro.report.outliers import MOST_OUTLIERS, find_outliers, nearest_cosines


def families(sizes: list[int], spread: float, dim: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors about one centre per family, and the family of each, in no order."""
    generator = np.random.default_rng(seed)
    family = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = generator.normal(0, spread, (len(sizes), dim))[family] + generator.standard_normal((len(family), dim))
    return vectors.astype(np.float32), family


def keys_of(rows: int) -> tuple[str, ...]:
    return tuple(str(row) for row in range(rows))


def mapped(vectors: np.ndarray, **facts: object) -> EmbeddingMap:
    return map_embeddings(sample_of(vectors, **facts))  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [[50] * 6, [200, 200], [150, 40, 30, 20]])
def test_families_that_stand_apart_are_found_whole(sizes: list[int]) -> None:
    vectors, family = families(sizes, 4)
    found = find_clusters(map_embeddings(sample_of(vectors)).points, keys_of(len(vectors)))
    assert found is not None
    assert len(found.sizes) == len(sizes) and list(found.sizes) == sorted(found.sizes, reverse=True)
    for number, size in enumerate(found.sizes):
        inside = family[found.of_row == number]
        assert len(set(inside.tolist())) == 1 and size == len(inside)
        assert found.of_row[found.central[number]] == number
    assert (found.of_row >= 0).mean() > 0.8


def test_the_central_member_is_the_one_nearest_to_the_mean() -> None:
    vectors, _ = families([40, 60], 5)
    points = map_embeddings(sample_of(vectors)).points
    found = find_clusters(points, keys_of(100))
    assert found is not None
    for number, central in enumerate(found.central):
        rows = np.flatnonzero(found.of_row == number)
        away = np.linalg.norm(points[rows] - points[rows].mean(axis=0), axis=1)
        assert central == rows[away.argmin()]


@pytest.mark.parametrize("rows", [0, 1, 9, 400])
def test_one_cloud_or_next_to_nothing_has_no_clusters(rows: int) -> None:
    vectors, _ = families([rows], 0)
    found = mapped(vectors)
    assert find_clusters(found.points, found.sample.keys) is None
    assert "no groups stand apart" in cluster_section(found, None)["description"]


def test_equal_vectors_have_neither_clusters_nor_outliers() -> None:
    found = mapped(np.ones((40, 8)))
    assert find_clusters(found.points, found.sample.keys) is None
    assert find_outliers(found.sample.vectors, found.sample.keys) is None


def test_records_of_one_sequence_count_once_and_stay_together() -> None:
    """A hundred copies of one protein are no cluster; copies of a cluster's member are of its size."""
    vectors, family = families([30, 30, 1], 5)
    alone, member = (int(np.flatnonzero(family == number)[0]) for number in (2, 0))
    rows = np.concatenate((np.arange(61), np.repeat([alone, member], 100)))
    points, keys = map_embeddings(sample_of(vectors[rows])).points, tuple(str(row) for row in rows)
    found = find_clusters(points, keys)
    assert found is not None
    assert len(found.sizes) == 2 and found.sizes[0] > 120 and found.sizes[1] <= 30
    assert set(found.of_row[rows == alone].tolist()) == {-1}
    first, place = distinct(("b", "a", "b", "c", "a"))
    assert first.tolist() == [0, 1, 3] and place.tolist() == [0, 1, 0, 2, 1]


def test_links_are_mutual_and_the_nearest_come_first() -> None:
    points = np.array([[0.0], [1.0], [3.0], [3.5], [10.0]])
    assert nearest(points, 2).tolist() == [[1, 2], [0, 2], [3, 1], [2, 1], [3, 2]]
    assert neighbourly(nearest(points, 1))[0].tolist() == [[0, 1], [2, 3]]
    assert connected(neighbourly(nearest(points, 1))[0], 5).tolist() == [0, 0, 1, 1, 2]
    pairs, shared = neighbourly(nearest(points, 2))
    assert list(zip(pairs.tolist(), shared.tolist(), strict=True)) == [([0, 1], 1), ([1, 2], 0), ([2, 3], 1)]


def test_the_blocks_of_a_large_sample_are_all_compared() -> None:
    points = np.random.default_rng(1).normal(size=(1_100, 3))
    apart = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(1_100, np.inf))
    assert np.array_equal(nearest(points, 3), np.argsort(apart, axis=1)[:, :3])
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    cosines, places = nearest_cosines(points)
    alike = units @ units.T - np.diag(np.full(1_100, np.inf))
    assert np.allclose(cosines, alike.max(axis=1)) and np.array_equal(places, alike.argmax(axis=1))


def test_what_is_far_from_all_others_is_named_the_farthest_first() -> None:
    generator = np.random.default_rng(2)
    vectors = np.tile(generator.normal(size=16), (60, 1)) * 3 + generator.normal(0, 0.3, (60, 16))
    vectors[7], vectors[20] = -vectors[0], vectors[0] + generator.normal(0, 2, 16)
    found = find_outliers(vectors, keys_of(60))
    assert found is not None
    assert found.rows == (7, 20) and found.beyond == 2
    assert found.cosines[0] < found.cosines[1] < found.cut < found.median
    section = outlier_section(mapped(vectors), found)
    assert section is not None
    assert section["data"].index("seq_7<") < section["data"].index("seq_20<")


def test_few_are_named_of_many_outliers_and_none_of_too_few_records() -> None:
    generator = np.random.default_rng(3)
    vectors = np.concatenate(
        (np.ones((200, 64)) + generator.normal(0, 0.1, (200, 64)), generator.normal(size=(30, 64)))
    )
    found = find_outliers(vectors, keys_of(230))
    assert found is not None
    assert found.beyond == 30 and len(found.rows) == MOST_OUTLIERS
    section = outlier_section(mapped(vectors), found)
    assert section is not None and "The 20 farthest are listed" in section["description"]
    assert find_outliers(vectors[:19], keys_of(19)) is None
    assert outlier_section(mapped(vectors[:19]), None) is None


def test_a_vector_of_zeros_is_far_from_all() -> None:
    vectors = np.ones((40, 4)) + np.random.default_rng(0).normal(0, 0.01, (40, 4))
    vectors[11] = 0
    found = find_outliers(vectors, keys_of(40))
    assert found is not None and found.rows[0] == 11 and found.cosines[0] == 0


def test_a_cluster_is_named_by_a_member_whose_name_is_no_markup() -> None:
    vectors, _ = families([30] * (MOST_CLUSTERS + 2), 6)
    count = len(vectors)
    found = mapped(vectors, ids=tuple(f"<b>{row}" for row in range(count)), lengths=np.arange(count), of=90_000)
    clusters = find_clusters(found.points, found.sample.keys)
    assert clusters is not None
    section = cluster_section(found, clusters)
    assert section["data"].count("<tr>") == MOST_CLUSTERS + 1
    assert f"&lt;b&gt;{clusters.central[0]}<" in section["data"] and "<b>" not in section["data"]
    assert "2 smaller ones are not listed" in section["data"]
    assert f"{count} records drawn of 90,000" in section["description"]
