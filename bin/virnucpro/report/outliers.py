"""Sampled records that are far from all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from virnucpro.report.clusters import distinct, row_blocks

MOST_OUTLIERS: Final = 20
#: Standard deviations of a normal distribution, as the median absolute deviation tells it, beyond which one is far.
DEVIATIONS: Final = 5.0
_MAD_TO_DEVIATION: Final = 1.4826
#: Of fewer distinct sequences nobody can say what is far.
FEWEST_ROWS: Final = 20


@dataclass(frozen=True)
class Outliers:
    """Records whose nearest neighbour in the sample is farther than that of nearly all others.

    Attributes:
        rows: of the sample, the farthest first; at most ``MOST_OUTLIERS``.
        nearest: row of the nearest other sequence of each.
        cosines: with that one.
        beyond: how many are as far as that.
        cut: cosine below which they are.
        median: of all.
    """

    rows: tuple[int, ...]
    nearest: tuple[int, ...]
    cosines: tuple[float, ...]
    beyond: int
    cut: float
    median: float


def find_outliers(vectors: np.ndarray, keys: tuple[str, ...]) -> Outliers | None:
    """Rows whose cosine with the nearest is below the median by more than five robust standard deviations.

    Records of one sequence, which have one key, count once. None where there are too few to tell, or all are alike.
    """
    first, _ = distinct(keys)
    if len(first) < FEWEST_ROWS:
        return None
    cosines, places = nearest_cosines(vectors[first])
    median = float(np.median(cosines))
    spread = _MAD_TO_DEVIATION * float(np.median(np.abs(cosines - median)))
    if spread == 0:
        return None
    cut = median - DEVIATIONS * spread
    order = np.argsort(cosines, kind="stable")
    beyond = int((cosines < cut).sum())
    kept = order[: min(beyond, MOST_OUTLIERS)]
    return Outliers(
        rows=tuple(first[kept].tolist()),
        nearest=tuple(first[places[kept]].tolist()),
        cosines=tuple(cosines[kept].tolist()),
        beyond=beyond,
        cut=cut,
        median=median,
    )


def nearest_cosines(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Greatest cosine of each row with another, and which row that is; 0 with a vector of zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    cosines, places = np.empty(len(units)), np.empty(len(units), np.int64)
    for rows in row_blocks(len(units)):
        block = units[rows] @ units.T
        block[np.arange(len(rows)), rows] = -np.inf
        places[rows] = block.argmax(axis=1)
        cosines[rows] = block[np.arange(len(rows)), places[rows]]
    return np.clip(cosines, -1.0, 1.0), places
