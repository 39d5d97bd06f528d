"""What is done next with a table of vectors: look for neighbours, and draw a map."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from virnucpro.api.forked import refuse_forked
from virnucpro.api.options import as_typed
from virnucpro.neighbours.config import NeighboursConfig
from virnucpro.neighbours.neighbours import nearest_pairs
from virnucpro.neighbours.results import Results
from virnucpro.pipeline.device import select_device
from virnucpro.report.embedding_map import principal_components


def nearest(table: pa.Table, count: int = 10, *, reference: pa.Table | None = None, device: str = "auto") -> pa.Table:
    """The exact nearest neighbours of each row by cosine, nearest first.

    Args:
        table: as ``embed`` returns it; of several columns of vectors the first counts.
        count: how many for each.
        reference: the table in which they are looked for, the same one unless given. No row is its own neighbour.
        device: ``auto``, ``cuda`` or ``cpu``.

    Returns:
        ``ordinal``, ``id``, ``rank`` from 1, ``neighbour_ordinal``, ``neighbour_id`` and ``cosine``, a row for each
        pair, as in neighbours.parquet of the pipeline.

    Raises:
        UsageError: a count below 1, no such device, or a process that was forked from one that has computed.
        DataError: tables of different models, layers or poolings, or no table of vectors.
    """
    refuse_forked()
    asked = NeighboursConfig(Path(), cast(int, as_typed("count", count, int)), device=device)
    run = Results.of(table)
    other = run if reference is None else Results.of(reference)
    return pa.concat_tables(nearest_pairs(run, other, asked.neighbours, select_device(asked.device, "fp32"), None))


def flat_map(table: pa.Table) -> pa.Table:
    """Where the vectors of each row lie in the two directions along which they vary most: ``id``, ``x`` and ``y``.

    Raises:
        DataError: no table of vectors.
    """
    run = Results.of(table)
    vectors = [batch.column(0).flatten().to_numpy().reshape(-1, run.dim) for batch in run.batches()]
    together = np.concatenate([np.empty((0, run.dim), np.float32), *vectors])
    points, _ = principal_components(together)
    return pa.table({"id": table["id"], "x": points[:, 0], "y": points[:, 1]})
