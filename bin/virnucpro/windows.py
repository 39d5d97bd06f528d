"""How long the pieces are that sequences are computed in, where windows lie, and what is computed for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from virnucpro.config import TRAINED_RESIDUES, Windows
from virnucpro.shards import SPECIAL_TOKENS, Int64Array


def trained_limit(max_length: int, long_sequences: str) -> int | None:
    """Residues above which a sequence is computed in longer pieces than models are trained on; None where none is."""
    return TRAINED_RESIDUES if long_sequences == "full" or max_length > TRAINED_RESIDUES else None


def window_counts(residues: npt.NDArray[np.integer], windows: Windows | None) -> Int64Array:
    """Pieces that sequences of so many residues are computed in: 1 where they are no longer than a window."""
    lengths = residues.astype(np.int64)
    if windows is None:
        return np.ones_like(lengths)
    step = windows.residues - windows.overlap
    return np.where(lengths > windows.residues, -((windows.overlap - lengths) // step), 1)


def window_starts(residues: int, windows: Windows) -> list[int]:
    """First residue of each window of a sequence, spread evenly from its start to its end.

    Every window is whole, and neighbours share ``windows.overlap`` residues or more.
    """
    count = int(window_counts(np.array([residues]), windows)[0])
    last = residues - windows.residues
    return [number * last // (count - 1) for number in range(count)] if count > 1 else [0]


def computed_tokens(residues: npt.NDArray[np.integer], windows: Windows | None) -> Int64Array:
    """Tokens computed for each sequence of so many residues, <cls> and <eos> of each window counted.

    A window that is there twice counts twice, though a batch computes it once.
    """
    counts = window_counts(residues, windows)
    whole = residues.astype(np.int64) + SPECIAL_TOKENS
    return whole if windows is None else np.where(counts > 1, counts * (windows.residues + SPECIAL_TOKENS), whole)
