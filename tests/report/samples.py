"""Sampled rows without results to draw them from."""

from __future__ import annotations

import numpy as np

from virnucpro.report.sampling import SampledRows


def sample_of(vectors: np.ndarray, lengths: np.ndarray | None = None, **facts: object) -> SampledRows:
    """Rows of distinct sequences in one shard; ``facts`` go before these."""
    rows = len(vectors)
    given = {
        "ids": tuple(f"seq_{row}" for row in range(rows)),
        "lengths": np.full(rows, 100) if lengths is None else lengths,
        "shards": np.zeros(rows, np.int64),
        "ordinals": np.arange(rows),
        "keys": tuple(f"{row:032x}" for row in range(rows)),
        "of": rows,
        **facts,
    }
    return SampledRows("embedding", vectors=vectors.astype(np.float32), **given)  # type: ignore[arg-type]
