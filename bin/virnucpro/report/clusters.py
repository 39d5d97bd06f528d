"""Clusters of the sampled vectors: what links between near neighbours hold together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

#: Links of a vector that are tried: it and its so many nearest, where each is among the other's.
FEWEST_LINKS, MOST_LINKS = 2, 10
#: A cluster has at least so many distinct sequences, and so great a part of the sample's.
FEWEST_MEMBERS: Final = 5
LEAST_PART: Final = 0.005
#: Mean silhouette of the sample below which nothing stands apart enough to be called a cluster.
LEAST_SILHOUETTE: Final = 0.05
#: Part of the highest silhouette that is as good as it: more links hold more of the members.
NEARLY: Final = 0.9
_BLOCK_ROWS: Final = 512


@dataclass(frozen=True)
class Clusters:
    """Clusters of the rows of a sample, the largest first.

    Attributes:
        of_row: number of each row's cluster, -1 for one that is in none.
        central: row of each cluster's member nearest to its mean.
        links: nearest neighbours by which vectors were linked.
    """

    of_row: np.ndarray
    central: tuple[int, ...]
    links: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows in each cluster."""
        held = self.of_row[self.of_row >= 0]
        return tuple(np.bincount(held, minlength=len(self.central)).tolist())


def find_clusters(points: np.ndarray, keys: tuple[str, ...]) -> Clusters | None:
    """Link each vector with those of its k nearest whose k nearest it is among; what links hold together is a cluster.

    k is the greatest of 2 to 10 whose clusters stand apart as far as any's, or nearly: see ``_standing_apart``.
    Records of one sequence, which have one key, count once.

    Args:
        points: (rows, components), finite.
        keys: of the rows' sequences.

    Returns:
        None where nothing stands apart.
    """
    first, row_of_key = distinct(keys)
    vectors = points[first].astype(np.float64)
    fewest = max(FEWEST_MEMBERS, int(LEAST_PART * len(first)))
    if len(first) < 2 * fewest:
        return None
    near = nearest(vectors, min(MOST_LINKS, len(first) - 1))
    found = {
        links: _largest_first(connected(near[:, :links]), fewest) for links in range(FEWEST_LINKS, near.shape[1] + 1)
    }
    scores = {links: _standing_apart(vectors, clusters) for links, clusters in found.items()}
    highest = max(scores.values())
    if highest < LEAST_SILHOUETTE:
        return None
    links = max(links for links, score in scores.items() if score >= NEARLY * highest)
    best = found[links]
    of_row = best[row_of_key]
    central = [_central(vectors, best == number, first) for number in range(int(best.max()) + 1)]
    order = np.argsort([-int((of_row == number).sum()) for number in range(len(central))], kind="stable")
    place = np.append(np.argsort(order), -1)
    return Clusters(place[of_row], tuple(central[number] for number in order), links)


def distinct(keys: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each key, in their order, and for each row which of these it is."""
    number: dict[str, int] = {}
    row_of_key = np.array([number.setdefault(key, len(number)) for key in keys], np.int64)
    first = np.full(len(number), len(keys), np.int64)
    np.minimum.at(first, row_of_key, np.arange(len(keys)))
    return first, row_of_key


def nearest(points: np.ndarray, count: int) -> np.ndarray:
    """(rows, count): the nearest other rows of each, the nearest first."""
    found = np.empty((len(points), count), np.int64)
    squares = np.square(points).sum(axis=1)
    for begun in range(0, len(points), _BLOCK_ROWS):
        rows = np.arange(begun, min(begun + _BLOCK_ROWS, len(points)))
        distances = squares[rows, None] - 2 * points[rows] @ points.T + squares
        distances[np.arange(len(rows)), rows] = np.inf
        some = np.argpartition(distances, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(distances, some, axis=1), axis=1, kind="stable")
        found[rows] = np.take_along_axis(some, order, axis=1)
    return found


def connected(near: np.ndarray) -> np.ndarray:
    """Number of the part of the graph that each row is in, where rows are linked that are near each other's."""
    rows, links = near.shape
    here, there = np.repeat(np.arange(rows), links), near.ravel()
    mutual = np.intersect1d(here * rows + there, there * rows + here)
    root = list(range(rows))

    def root_of(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for link in mutual.tolist():
        one, other = sorted((root_of(link // rows), root_of(link % rows)))
        root[other] = one
    _, part = np.unique([root_of(row) for row in range(rows)], return_inverse=True)
    return np.asarray(part)


def _largest_first(parts: np.ndarray, fewest: int) -> np.ndarray:
    """Parts of at least so many rows, numbered from the largest; -1 for rows of the others."""
    sizes = np.bincount(parts)
    order = np.argsort(-sizes, kind="stable")
    numbers = np.full(len(sizes), -1)
    kept = order[: int((sizes >= fewest).sum())]
    numbers[kept] = np.arange(len(kept))
    return np.asarray(numbers[parts])


def _standing_apart(points: np.ndarray, clusters: np.ndarray) -> float:
    """Mean silhouette of all rows: none for those in no cluster, and a cluster counts as a quarter of all at most.

    Else a few rows far away would make one cluster of all that is left, and hide what is in it.
    """
    count = int(clusters.max(initial=-1)) + 1
    if count < 2:
        return 0.0
    inside = clusters >= 0
    sizes = np.bincount(clusters[inside], minlength=count)
    sums = np.bincount(clusters[inside], _silhouettes(points, clusters, sizes)[inside], count)
    return float((sums / sizes * np.minimum(sizes, len(points) / 4)).sum() / len(points))


def _silhouettes(points: np.ndarray, clusters: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """How much nearer each row is to the mean of its cluster's others than to that of the next cluster, -1 to 1."""
    means = np.stack([points[clusters == number].mean(axis=0) for number in range(len(sizes))])
    squares = np.square(points).sum(axis=1)[:, None] - 2 * points @ means.T + np.square(means).sum(axis=1)
    distances = np.sqrt(np.maximum(squares, 0))
    rows, inside = np.arange(len(points)), np.maximum(clusters, 0)
    own = distances[rows, inside] * (sizes / np.maximum(sizes - 1, 1))[inside]
    distances[rows, inside] = np.inf
    other = distances.min(axis=1)
    return np.where(clusters < 0, 0.0, (other - own) / np.maximum(np.maximum(own, other), 1e-30))


def _central(points: np.ndarray, members: np.ndarray, rows: np.ndarray) -> int:
    inside = points[members]
    middle = np.square(inside - inside.mean(axis=0)).sum(axis=1).argmin()
    return int(rows[members][middle])
