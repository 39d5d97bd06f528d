"""Clusters of the sampled vectors: near neighbours that have neighbours in common (Jarvis and Patrick, 1973)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

#: Neighbours of a vector that are compared, and how many in common are tried.
NEAREST: Final = 10
MOST_SHARED: Final = 7
#: A cluster has at least so many distinct sequences, and so great a part of the sample's.
FEWEST_MEMBERS: Final = 5
LEAST_PART: Final = 0.005
#: Mean silhouette of a cluster, and of the sample, below which nothing stands apart.
LEAST_SILHOUETTE: Final = 0.05
#: Part of the highest silhouette that is as good as it: fewer in common hold more of the members.
NEARLY: Final = 0.95
_BLOCK_ROWS: Final = 512


@dataclass(frozen=True)
class Clusters:
    """Clusters of the rows of a sample, the largest first.

    Attributes:
        of_row: number of each row's cluster, -1 for one that is in none.
        central: row of each cluster's member nearest to its mean.
        shared: neighbours in common by which vectors were linked.
    """

    of_row: np.ndarray
    central: tuple[int, ...]
    shared: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows in each cluster."""
        held = self.of_row[self.of_row >= 0]
        return tuple(np.bincount(held, minlength=len(self.central)).tolist())


def find_clusters(points: np.ndarray, keys: tuple[str, ...]) -> Clusters | None:
    """Link vectors that are among each other's ten nearest and share so many of these; what links hold is a cluster.

    How many is the least of 0 to 7 whose clusters stand apart as far as any's, or nearly: see ``_standing_apart``.
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
    pairs, shared = neighbourly(nearest(vectors, min(NEAREST, len(first) - 1)))
    found = {}
    for least in range(MOST_SHARED + 1):
        parts = _largest_first(connected(pairs[shared >= least], len(first)), fewest)
        found[least] = _standing_apart(vectors, parts)
    highest = max(score for score, _ in found.values())
    if highest < LEAST_SILHOUETTE:
        return None
    least = min(least for least, (score, _) in found.items() if score >= NEARLY * highest)
    best = found[least][1]
    of_row = best[row_of_key]
    central = [_central(vectors, best == number, first) for number in range(int(best.max()) + 1)]
    order = np.argsort([-int((of_row == number).sum()) for number in range(len(central))], kind="stable")
    place = np.append(np.argsort(order), -1)
    return Clusters(place[of_row], tuple(central[number] for number in order), least)


def distinct(keys: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each key, in their order, and for each row which of these it is."""
    number: dict[str, int] = {}
    row_of_key = np.array([number.setdefault(key, len(number)) for key in keys], np.int64)
    first = np.full(len(number), len(keys), np.int64)
    np.minimum.at(first, row_of_key, np.arange(len(keys)))
    return first, row_of_key


def row_blocks(rows: int) -> Iterator[np.ndarray]:
    """Numbers of all rows, as many at a time as may be compared with all of a sample at once."""
    for begun in range(0, rows, _BLOCK_ROWS):
        yield np.arange(begun, min(begun + _BLOCK_ROWS, rows))


def nearest(points: np.ndarray, count: int) -> np.ndarray:
    """(rows, count): the nearest other rows of each, the nearest first."""
    found = np.empty((len(points), count), np.int64)
    squares = np.square(points).sum(axis=1)
    for rows in row_blocks(len(points)):
        distances = squares[rows, None] - 2 * points[rows] @ points.T + squares
        distances[np.arange(len(rows)), rows] = np.inf
        some = np.argpartition(distances, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(distances, some, axis=1), axis=1, kind="stable")
        found[rows] = np.take_along_axis(some, order, axis=1)
    return found


def neighbourly(near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows, (pairs, 2), each among the other's nearest, and how many of these they have in common."""
    rows, count = near.shape
    here, there = np.repeat(np.arange(rows), count), near.ravel()
    mutual = np.intersect1d(here * rows + there, there * rows + here)
    pairs = np.stack([mutual // rows, mutual % rows], axis=1)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    one, other = near[pairs[:, 0]], near[pairs[:, 1]]
    return pairs, (one[:, :, None] == other[:, None, :]).sum(axis=(1, 2))


def connected(pairs: np.ndarray, rows: int) -> np.ndarray:
    """Number of the part of the graph that each row is in, where pairs are linked."""
    root = list(range(rows))

    def root_of(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for here, there in pairs.tolist():
        one, other = sorted((root_of(here), root_of(there)))
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


def _standing_apart(points: np.ndarray, parts: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean silhouette of all rows, and the parts without those that stand apart too little.

    Rows in no part count nothing, and neither do those of a part that holds more than half of all: a few rows far away
    would make one cluster of all that is left, and hide what is in it.
    """
    count = int(parts.max(initial=-1)) + 1
    if count < 2:
        return 0.0, np.full(len(parts), -1)
    inside = parts >= 0
    sizes = np.bincount(parts[inside], minlength=count)
    means = np.bincount(parts[inside], _silhouettes(points, parts, sizes)[inside], count) / sizes
    apart = means >= LEAST_SILHOUETTE
    numbers = np.append(np.where(apart, np.cumsum(apart) - 1, -1), -1)
    told = apart & (sizes <= len(points) / 2)
    return float((means * sizes)[told].sum() / len(points)), np.asarray(numbers[parts])


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
