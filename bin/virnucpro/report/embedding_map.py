"""A flat map of a sample of the embeddings: the two directions along which they vary most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from virnucpro.output.damage import REMEDY_OF_RESULTS, reading
from virnucpro.output.schema import required_vector_columns

MOST_POINTS: Final = 5_000
#: Row groups the sample is drawn from: reading more costs time and adds little.
_MOST_ROW_GROUPS: Final = 16
#: Rows of vectors held in memory at a time: 20 MB of the widest model's.
_BATCH_ROWS: Final = 1_024
_SEED: Final = 20_240


@dataclass(frozen=True)
class SampledRows:
    """Sampled rows: ids, lengths and shards (-1 where reused), and their vectors as float32 (rows, dim)."""

    column: str
    ids: tuple[str, ...]
    lengths: np.ndarray
    shards: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class EmbeddingMap:
    """Where the sampled vectors lie.

    Attributes:
        sample: the rows with finite vectors.
        points: (rows, 2), float32.
        explained: share of the whole variance along each of the two directions.
        not_finite: sampled vectors with a NaN or an infinity; they are not on the map.
        equal: whether all vectors are the same, as no sound model makes them.
        reference: sampled rows of the results in which neighbours were looked for, or None.
        reference_points: where these lie, on the same directions.
    """

    sample: SampledRows
    points: np.ndarray
    explained: tuple[float, float]
    not_finite: int
    equal: bool
    reference: SampledRows | None = None
    reference_points: np.ndarray | None = None


def sample_rows(parts: Sequence[Path], most: int = MOST_POINTS, seed: int = _SEED) -> SampledRows | None:
    """Draw up to ``most`` rows of the first embedding column, the same ones each time.

    Rows come from at most 16 row groups, drawn at random over all parts, each giving in proportion to its rows; memory
    holds the sample and a thousand rows more. None where the parts hold no row.
    """
    generator = np.random.default_rng(seed)
    groups: list[tuple[Path, int, int]] = []
    for part in sorted(parts):
        with reading(part, REMEDY_OF_RESULTS), pq.ParquetFile(part) as opened:
            sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
        groups += [(part, group, rows) for group, rows in enumerate(sizes) if rows]
    if not groups:
        return None
    chosen = [groups[index] for index in _choose(generator, len(groups), _MOST_ROW_GROUPS)]
    ends = np.cumsum([rows for _, _, rows in chosen])
    places = _choose(generator, int(ends[-1]), most)
    with reading(chosen[0][0], REMEDY_OF_RESULTS):
        column = next(iter(required_vector_columns(pq.read_schema(chosen[0][0]), chosen[0][0])))
    tables = []
    for (part, group, rows), end in zip(chosen, ends, strict=True):
        wanted = places[(places >= end - rows) & (places < end)] - (end - rows)
        tables += _rows_of_group(part, group, wanted, column)
    table = pa.concat_tables(tables)
    vectors = table[column].combine_chunks()
    return SampledRows(
        column=column,
        ids=tuple(table["id"].to_pylist()),
        lengths=table["length"].to_numpy(),
        shards=pc.fill_null(table["shard"], -1).to_numpy(),
        vectors=vectors.flatten().to_numpy().reshape(len(vectors), -1).astype(np.float32),
    )


def _choose(generator: np.random.Generator, available: int, most: int) -> np.ndarray:
    if available <= most:
        return np.arange(available)
    return np.sort(generator.choice(available, most, replace=False))


def _rows_of_group(part: Path, group: int, wanted: np.ndarray, column: str) -> list[pa.Table]:
    tables = []
    begun = 0
    with reading(part, REMEDY_OF_RESULTS), pq.ParquetFile(part) as opened:
        columns = ["id", "length", "shard", column]
        for batch in opened.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
            here = wanted[(wanted >= begun) & (wanted < begun + batch.num_rows)] - begun
            if here.size:
                # take copies: a slice would keep the whole batch alive
                tables.append(pa.Table.from_batches([batch]).take(pa.array(here)))
            begun += batch.num_rows
    return tables


def map_embeddings(sample: SampledRows, reference: SampledRows | None = None) -> EmbeddingMap:
    """Project the finite vectors of a sample, and of a reference's beside it, on their first principal components."""
    kept = _finite(sample)
    equal = len(kept.vectors) > 1 and bool((kept.vectors == kept.vectors[0]).all())
    not_finite = len(sample.vectors) - len(kept.vectors)
    if reference is None:
        points, explained = principal_components(kept.vectors)
        return EmbeddingMap(kept, points, explained, not_finite, equal)
    beside = _finite(reference)
    points, explained = principal_components(np.concatenate((kept.vectors, beside.vectors)))
    here, there = points[: len(kept.vectors)], points[len(kept.vectors) :]
    return EmbeddingMap(kept, here, explained, not_finite, equal, beside, there)


def _finite(sample: SampledRows) -> SampledRows:
    """The rows whose vectors hold neither NaN nor infinity."""
    finite = np.isfinite(sample.vectors).all(axis=1)
    ids = tuple(name for name, good in zip(sample.ids, finite, strict=True) if good)
    return SampledRows(sample.column, ids, sample.lengths[finite], sample.shards[finite], sample.vectors[finite])


def principal_components(vectors: np.ndarray, seed: int = _SEED) -> tuple[np.ndarray, tuple[float, float]]:
    """First two principal components by a randomised SVD (Halko, Martinsson and Tropp, 2011, algorithm 4.4 and 5.1).

    Args:
        vectors: (rows, dim), finite.

    Returns:
        Points (rows, 2), each component signed so that its largest loading is positive, and the share of the variance
        of each. Zeros where there is nothing to tell apart.
    """
    rows, dim = vectors.shape
    if rows == 0:
        return np.zeros((0, 2), np.float32), (0.0, 0.0)
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    variance = float(np.square(centred, dtype=np.float64).sum())
    rank = min(12, rows, dim)
    basis = centred @ np.random.default_rng(seed).standard_normal((dim, rank), np.float32)
    for _ in range(6):
        basis = np.linalg.qr(basis)[0]
        basis = centred @ np.linalg.qr(centred.T @ basis)[0]
    basis = np.linalg.qr(basis)[0]
    left, singular, right = np.linalg.svd(basis.T @ centred, full_matrices=False)
    count = min(2, rank)
    signs = np.sign(right[np.arange(count), np.abs(right[:count]).argmax(axis=1)])
    points = np.zeros((rows, 2), np.float32)
    points[:, :count] = (basis @ left[:, :count]) * singular[:count] * signs
    if variance <= 0:
        return np.zeros((rows, 2), np.float32), (0.0, 0.0)
    shares = [float(value) ** 2 / variance for value in singular[:count]] + [0.0, 0.0]
    return points, (shares[0], shares[1])
