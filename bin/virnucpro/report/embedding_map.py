"""A flat map of a sample of the embeddings: the two directions along which they vary most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from virnucpro.report.sampling import SEED, SampledRows, finite

#: Principal components that clusters are looked for in; the map draws the first two.
COMPONENTS: Final = 32
#: Directions of the randomised SVD beyond those asked for, which make these exact.
_OVERSAMPLING: Final = 10


@dataclass(frozen=True)
class EmbeddingMap:
    """Where the sampled vectors lie.

    Attributes:
        sample: the rows with finite vectors.
        points: (rows, up to ``COMPONENTS``), float32.
        explained: share of the whole variance along each direction.
        not_finite: sampled vectors with a NaN or an infinity; they are not on the map.
        equal: whether all vectors are the same, as no sound model makes them.
        reference: sampled rows of the results in which neighbours were looked for, or None.
        reference_points: where these lie, on the same directions.
    """

    sample: SampledRows
    points: np.ndarray
    explained: tuple[float, ...]
    not_finite: int
    equal: bool
    reference: SampledRows | None = None
    reference_points: np.ndarray | None = None


def map_embeddings(sample: SampledRows, reference: SampledRows | None = None) -> EmbeddingMap:
    """Project the finite vectors of a sample, and of a reference's beside it, on their first principal components."""
    kept = finite(sample)
    equal = len(kept.vectors) > 1 and bool((kept.vectors == kept.vectors[0]).all())
    not_finite = len(sample.vectors) - len(kept.vectors)
    if reference is None:
        points, explained = principal_components(kept.vectors, COMPONENTS)
        return EmbeddingMap(kept, points, explained, not_finite, equal)
    beside = finite(reference)
    points, explained = principal_components(np.concatenate((kept.vectors, beside.vectors)), COMPONENTS)
    here, there = points[: len(kept.vectors)], points[len(kept.vectors) :]
    return EmbeddingMap(kept, here, explained, not_finite, equal, beside, there)


def principal_components(vectors: np.ndarray, count: int = 2, seed: int = SEED) -> tuple[np.ndarray, tuple[float, ...]]:
    """First principal components by a randomised SVD (Halko, Martinsson and Tropp, 2011, algorithm 4.4 and 5.1).

    Args:
        vectors: (rows, dim), finite.
        count: components asked for.

    Returns:
        Points (rows, count), each component signed so that its largest loading is positive, and the share of the
        variance of each. Zeros where there is nothing to tell apart.
    """
    rows, dim = vectors.shape
    points, shares = np.zeros((rows, count), np.float32), np.zeros(count)
    if rows == 0:
        return points, tuple(shares.tolist())
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    variance = float(np.square(centred, dtype=np.float64).sum())
    if variance <= 0:
        return points, tuple(shares.tolist())
    rank = min(count + _OVERSAMPLING, rows, dim)
    basis = centred @ np.random.default_rng(seed).standard_normal((dim, rank), np.float32)
    for _ in range(6):
        basis = np.linalg.qr(basis)[0]
        basis = centred @ np.linalg.qr(centred.T @ basis)[0]
    basis = np.linalg.qr(basis)[0]
    left, singular, right = np.linalg.svd(basis.T @ centred, full_matrices=False)
    known = min(count, rank)
    signs = np.sign(right[np.arange(known), np.abs(right[:known]).argmax(axis=1)])
    points[:, :known] = (basis @ left[:, :known]) * singular[:known] * signs
    shares[:known] = singular[:known].astype(np.float64) ** 2 / variance
    return points, tuple(shares.tolist())
