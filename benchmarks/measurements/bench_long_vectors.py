"""What ``--long_sequences`` does to the vectors of long proteins: cosines between truncate, full and window.

Proteins longer than a window are taken evenly over their lengths. Cosines are taken as the vectors stand, and after the
mean over the proteins' whole vectors is taken off, since all vectors of a model share a large part. ``found`` is how
often the protein itself is the nearest of all to its vector in the other mode. Writes
``benchmarks/results/long-vectors.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from benchmarks.environment import RESULTS, conditions, write_csv
from benchmarks.inputs import read_sequences

from virnucpro import Embedder

LIMIT: Final = 1022
MODES: Final = {
    "truncate": ("truncate", None),
    "full": ("full", None),
    "window, overlap 0": ("window", 0),
    "window, overlap 255": ("window", 255),
    "window, overlap 511": ("window", 511),
}
PAIRS: Final = (
    ("truncate", "full"),
    ("truncate", "window, overlap 255"),
    ("window, overlap 0", "full"),
    ("window, overlap 255", "full"),
    ("window, overlap 511", "full"),
    ("window, overlap 0", "window, overlap 255"),
    ("window, overlap 511", "window, overlap 255"),
)
Vectors = npt.NDArray[np.float64]


def chosen(fasta: Path, count: int) -> list[str]:
    """So many of the proteins longer than a window, evenly over their lengths, shortest and longest included."""
    long = [sequence for sequence in read_sequences(fasta, 1 << 30) if len(sequence) > LIMIT]
    return [long[place] for place in np.linspace(0, len(long) - 1, min(count, len(long))).round().astype(int)]


def embedded(sequences: Sequence[str], checkpoint: Path, mode: str, overlap: int | None) -> Vectors:
    """(S, D) means of the last layer."""
    embedder = Embedder(
        model=str(checkpoint), max_length=LIMIT, long_sequences=mode, window_overlap=overlap, deduplicate=False
    )
    with embedder:
        table = embedder.embed(list(sequences))
    return np.array(table["embedding"].to_pylist(), np.float64)


def cosines(first: Vectors, second: Vectors) -> Vectors:
    """Of all pairs, (S, S)."""
    return (first / np.linalg.norm(first, axis=1)[:, None]) @ (second / np.linalg.norm(second, axis=1)[:, None]).T


def compared(first: Vectors, second: Vectors, centre: Vectors) -> dict[str, object]:
    """One row of figures of two modes."""
    plain, centred = cosines(first, second), cosines(first - centre, second - centre)
    own, others = np.diag(plain), plain[~np.eye(len(plain), dtype=bool)]
    return {
        "cosine_min": own.min(),
        "cosine_median": np.median(own),
        "cosine_of_others_median": np.median(others),
        "centred_min": np.diag(centred).min(),
        "centred_median": np.median(np.diag(centred)),
        "found": int((centred.argmax(axis=1) == np.arange(len(centred))).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--proteins", type=int, default=24)
    options = parser.parse_args()
    sequences = chosen(options.fasta, options.proteins)
    lengths = sorted(map(len, sequences))
    vectors = {name: embedded(sequences, options.checkpoint, *mode) for name, mode in MODES.items()}
    about = {
        "model": options.checkpoint.stem,
        "data": options.fasta.name,
        "proteins": len(sequences),
        "residues_min": lengths[0],
        "residues_median": int(np.median(lengths)),
        "residues_max": lengths[-1],
        **conditions(),
    }
    centre = vectors["full"].mean(axis=0)
    rows = [
        {"first": first, "second": second, **compared(vectors[first], vectors[second], centre), **about}
        for first, second in PAIRS
    ]
    write_csv(RESULTS / "long-vectors.csv", rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
