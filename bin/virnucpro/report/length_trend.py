"""Whether the map shows more than how long the proteins are."""

from __future__ import annotations

import numpy as np


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Spearman's: the correlation of the ranks, equal values sharing their mean rank; None where one is constant."""
    if len(one) < 3:
        return None
    first, second = (_ranks(values) - (len(values) + 1) / 2 for values in (one, other))
    norm = float(np.sqrt(np.square(first).sum() * np.square(second).sum()))
    return float(np.clip(first @ second / norm, -1, 1)) if norm else None


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def trend_in_words(points: np.ndarray, lengths: np.ndarray) -> list[str]:
    """A sentence each on the first two components, where they can be compared with the lengths."""
    told = []
    for name, axis in (("first", 0), ("second", 1)):
        rho = rank_correlation(points[:, axis], lengths)
        if rho is not None:
            strength = "follows" if abs(rho) >= 0.7 else ("partly follows" if abs(rho) >= 0.4 else "does not follow")
            told.append(f"The {name} component {strength} length: rho {rho:.2f}")
    return told
