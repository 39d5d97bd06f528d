"""NEIGHBOURS: the nearest neighbours of every record of finished results, in them or in a reference's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from virnucpro.errors import TryAgainError
from virnucpro.neighbours.config import NeighboursConfig
from virnucpro.neighbours.pairs import pair_tables
from virnucpro.neighbours.results import Results
from virnucpro.neighbours.search import inverse_norms, nearest
from virnucpro.output.atomic import PartialParquet
from virnucpro.output.damage import calling
from virnucpro.output.files import NEIGHBOURS_FILE
from virnucpro.output.schema import NEIGHBOURS_SCHEMA, encode_metadata
from virnucpro.pipeline.device import select_device
from virnucpro.plain_text import visible

Array = npt.NDArray[Any]

#: Bytes of a block of references on a CPU; on a GPU a share of what is free, the rest being for the products.
REFERENCE_BYTES: Final = 2 << 30
REFERENCE_SHARE: Final = 0.6
#: Bytes of a block of queries.
QUERY_BYTES: Final = 128 << 20


def neighbours(config: NeighboursConfig) -> Path:
    """Write ``neighbours.parquet`` into ``config.outdir`` and return its path.

    Raises:
        InputMissingError: no results, or no reference.
        DataError: their vectors cannot be compared.
        TryAgainError: no GPU where one was promised, or no memory on it.
    """
    begun = time.perf_counter()
    device = select_device(config.device, "fp32")
    among = None if config.reference is None else config.reference_name or str(config.reference)
    path = config.outdir / NEIGHBOURS_FILE
    with calling({} if config.reference is None or among is None else {config.reference: among}):
        run = Results.open(config.results)
        reference = run if config.reference is None else Results.open(config.reference)
        tables = nearest_pairs(run, reference, config.neighbours, device, among)
        first = next(tables)
        config.outdir.mkdir(parents=True, exist_ok=True)
        with PartialParquet(path, first.schema, compression="zstd") as file:
            for table in chain((first,), tables):
                file.write(table)
    where = "one another" if among is None else visible(f"{len(reference.groups):,} of {among}")
    seconds = time.perf_counter() - begun
    print(f"{config.neighbours} nearest of {len(run.groups):,} records among {where}: {seconds:.1f} s on {device.type}")
    return path


def nearest_pairs(
    run: Results, reference: Results, count: int, device: torch.device, among: str | None
) -> Iterator[pa.Table]:
    """Yield tables of pairs, at least one; ``among`` is what the user calls the reference.

    Raises:
        DataError: the vectors cannot be compared.
        TryAgainError: no memory on the GPU.
    """
    run.check_comparable(reference)
    try:
        cosines, groups = search(run, reference, count + 1, device)
    except torch.OutOfMemoryError as error:
        raise TryAgainError(f"no memory for neighbours on {device}; free it, or look for them on the CPU") from error
    facts = {**run.metadata, "neighbours": count, "reference": among, "column": run.column}
    schema = NEIGHBOURS_SCHEMA.with_metadata(encode_metadata(facts))
    yield from pair_tables(run, reference, cosines, groups, count, schema)


def search(run: Results, reference: Results, count: int, device: torch.device) -> tuple[Array, Array]:
    """The nearest distinct sequences of the reference for each of the run.

    Returns:
        (G, C) cosines in fp64, falling, and which sequences these are, C being ``count`` or all there are. In a run
        against itself, each sequence is its own nearest.
    """
    # Products in fewer bits would be further off than ``search.product_error`` says.
    torch.set_float32_matmul_precision("highest")
    width = 4 * run.dim
    room = REFERENCE_BYTES if device.type == "cpu" else int(torch.cuda.mem_get_info(device)[0] * REFERENCE_SHARE)
    count = min(count, reference.distinct)
    cosines = np.full((run.distinct, count), -np.inf)
    groups = np.full((run.distinct, count), -1, np.int64)
    for first, references in reference.blocks(max(1, room // width), device):
        inverse = inverse_norms(references)
        for start, queries in run.blocks(QUERY_BYTES // width, device):
            found, rows = nearest(queries, references, inverse, min(count, len(references)))
            part = slice(start, start + len(queries))
            both = np.concatenate((cosines[part], found.cpu().numpy()), axis=1)
            of = np.concatenate((groups[part], rows.cpu().numpy() + first), axis=1)
            if run is reference:
                both[of == np.arange(start, start + len(queries))[:, None]] = 1.0
            # Stable: of equal cosines those of earlier blocks come first.
            order = np.argsort(-both, axis=1, kind="stable")[:, :count]
            cosines[part] = np.take_along_axis(both, order, axis=1)
            groups[part] = np.take_along_axis(of, order, axis=1)
    return cosines, groups
