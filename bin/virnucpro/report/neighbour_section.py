"""How near the nearest neighbours are, as a section of the page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from virnucpro.output.damage import REMEDY_OF_RESULTS, reading
from virnucpro.output.schema import read_metadata
from virnucpro.report.sections import Section, line_plot

#: Bins of cosines, from the least that occurs to 1.
_BINS: Final = 100
_LEAST_SPAN: Final = 1e-3
_BATCH_ROWS: Final = 131_072


def neighbour_section(path: Path) -> Section | None:
    """Records by the cosine of their nearest neighbour; None where nobody asked for neighbours, or none is there."""
    if not path.is_file():
        return None
    asked = read_metadata(path)
    with reading(path, REMEDY_OF_RESULTS), pq.ParquetFile(path) as file:
        batches = file.iter_batches(_BATCH_ROWS, columns=["rank", "cosine"])
        first = [batch["cosine"].to_numpy()[batch["rank"].to_numpy() == 1] for batch in batches]
    nearest = np.concatenate([np.empty(0, np.float32), *first])
    if not len(nearest):
        return None
    # Of vectors that are alike to the last bit of a float the bins would have no width.
    least = min(float(nearest.min()), 1.0 - _LEAST_SPAN)
    counts, edges = np.histogram(np.clip(nearest.astype(np.float64), least, 1.0), _BINS, (least, 1.0))
    middles = (edges[:-1] + edges[1:]) / 2
    among = "the run itself" if asked["reference"] is None else html.escape(str(asked["reference"]))
    kept = f"the {asked['neighbours']:,} nearest of each are in <code>neighbours.parquet</code>."
    text = f"Records by the cosine of their nearest neighbour in {among}; {kept}"
    line = list(zip(middles.tolist(), counts.tolist(), strict=True))
    return line_plot("neighbours", "Nearest neighbours", text, "Cosine", "Records", {"records": line})
