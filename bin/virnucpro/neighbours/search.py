"""Exact nearest neighbours by cosine: candidates by one fp32 product, their order in fp64, and a proof of both.

A product in fp32 is off by no more than ``product_error``. Where the least candidate lies further below the k-th than
that, no vector left out can belong to the first k; where it does not, more candidates are taken.

Shape letters: Q queries, R references, D dimensions, C candidates.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

#: References whose greatest cosine is looked at first, so that few of all cosines have to be sorted.
GROUP: Final = 64
#: Cosines held at a time, by device: a CPU's stay in its cache.
TILE_COSINES: Final = {"cpu": 1 << 21, "cuda": 1 << 28}
#: fp64 numbers of candidates' vectors held at a time, by device.
EXACT_NUMBERS: Final = {"cpu": 1 << 21, "cuda": 1 << 27}
#: Queries of one product.
QUERIES: Final = {"cpu": 512, "cuda": 4096}
#: Candidates beyond the k that are asked for.
SPARE: Final = 14


def product_error(dim: int) -> float:
    """How far a cosine from an fp32 product of vectors of ``dim`` numbers can be off, whatever its order of sums."""
    return (dim + 4) * 2.0**-24


def inverse_norms(vectors: Tensor) -> Tensor:
    """1 / length of each vector in fp64; 0 for a vector of zeros, whose cosines are then 0. (N, D) -> (N,)."""
    norms = torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64)
    return torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))


def nearest(queries: Tensor, references: Tensor, inverse: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The references nearest to each query.

    Args:
        queries: (Q, D) fp32, of any lengths.
        references: (R, D) fp32 on the same device.
        inverse: (R,) fp64, ``inverse_norms`` of the references.
        count: how many for each, at most R.

    Returns:
        (Q, count) cosines in fp64, falling, and (Q, count) int64 rows of references; of equal cosines the lower row
        comes first.
    """
    cosines = torch.empty(len(queries), count, dtype=torch.float64, device=queries.device)
    rows = torch.empty(len(queries), count, dtype=torch.int64, device=queries.device)
    unproved = torch.arange(len(queries), device=queries.device)
    candidates = min(count + SPARE, len(references))
    while len(unproved):
        for part in unproved.split(QUERIES[queries.device.type]):
            found = _nearest_of(queries[part], references, inverse, count, candidates)
            cosines[part], rows[part] = found[:2]
            unproved = unproved[~torch.isin(unproved, part[found[2]])]
        candidates = min(4 * candidates, len(references))
    return cosines, rows


def _nearest_of(
    queries: Tensor, references: Tensor, inverse: Tensor, count: int, candidates: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines, rows, and for which queries (Q,) they are proved, from so many candidates."""
    inverse_of_queries = inverse_norms(queries)
    least, rows = _candidates(queries * inverse_of_queries[:, None].float(), references, inverse.float(), candidates)
    exact = torch.empty(rows.shape, dtype=torch.float64, device=rows.device)
    step = max(1, EXACT_NUMBERS[rows.device.type] // (rows.shape[1] * queries.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        # A product of matrices sums in an order that depends on where a row stands: equal vectors would not tie.
        exact[part] = (references[rows[part]].double() * queries[part, None].double()).sum(dim=2)
    exact *= inverse[rows] * inverse_of_queries[:, None]
    by_row = rows.argsort(dim=1)
    rows, exact = rows.gather(1, by_row), exact.gather(1, by_row)
    order = exact.argsort(dim=1, descending=True, stable=True)[:, :count]
    rows, exact = rows.gather(1, order), exact.gather(1, order)
    proved = exact[:, -1] > least + product_error(queries.shape[1])
    return exact, rows, proved | (candidates == len(references))


def _candidates(queries: Tensor, references: Tensor, inverse: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The least fp32 cosine (Q,) of the candidates of each unit query, and their rows (Q, count)."""
    width = max(TILE_COSINES[queries.device.type] // len(queries) // GROUP, 1) * GROUP
    best: Tensor | None = None
    rows: Tensor | None = None
    for start in range(0, len(references), width):
        part = slice(start, start + width)
        cosines = torch.mm(queries, references[part].T).mul_(inverse[part])
        values, places = _greatest(cosines, min(count, cosines.shape[1]))
        places += start
        if best is not None and rows is not None:
            values, places = torch.cat((best, values), dim=1), torch.cat((rows, places), dim=1)
            values, order = values.topk(min(count, values.shape[1]), dim=1)
            places = places.gather(1, order)
        best, rows = values, places
    if best is None or rows is None:
        raise ValueError("no references")
    return best.amin(dim=1).double(), rows


def _greatest(cosines: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` greatest of each row (Q, R) and where they stand, by way of the greatest of each group."""
    groups = cosines.shape[1] // GROUP
    if groups < 2 * count or cosines.shape[1] % GROUP:
        return cosines.topk(count, dim=1, sorted=False)
    grouped = cosines.view(len(cosines), groups, GROUP)
    chosen = grouped.amax(dim=2).topk(count, dim=1, sorted=False).indices
    few = grouped.gather(1, chosen[:, :, None].expand(-1, -1, GROUP)).flatten(1)
    values, places = few.topk(count, dim=1, sorted=False)
    return values, chosen.gather(1, places // GROUP) * GROUP + places % GROUP
